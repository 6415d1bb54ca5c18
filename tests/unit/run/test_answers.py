# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host answers reaches another host only where it can be right: no path, no other host, no other volume."""

from __future__ import annotations

import base64
import json
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.control import answers
from ansible_collections.openisb.backup.plugins.module_utils.control.answers import AnswerError
from ansible_collections.openisb.backup.plugins.module_utils.control.catalog import choose_savesets
from ansible_collections.openisb.backup.plugins.module_utils.control.controller import dead_runs
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.life import open_drills
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.volumes import (
    saveset_points,
    snapshot_points,
)
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import address_of, check_of_host
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.storage.clones import CloneError, Clones
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import MOST_EXTENTS, pack, unpack
from ansible_collections.openisb.backup.plugins.modules import block_backup, block_restore

ROOT = Path(__file__).parents[3]
RUN = "isb-20261123T021500Z-4f1c2a"
HOST = {"address": "storage1", "tls": True}
KEY = "0123456789abcdef" * 4
GOOD = {"export": {"port": 40001, "name": f"{RUN}.600a098000000011", "uri": "file:///etc/shadow"}, "psk": KEY}


def test_an_address_is_made_of_the_inventory() -> None:
    """The answer's own address is not even looked at."""
    assert answers.nbd_address(GOOD, HOST) == f"nbds://openisb@storage1:40001/{RUN}.600a098000000011"
    plain = answers.nbd_address(GOOD, {"address": "127.0.0.1", "tls": False})
    assert plain == f"nbd://127.0.0.1:40001/{RUN}.600a098000000011"
    six = answers.nbd_address(GOOD, {"address": "2001:db8::7", "tls": True})
    assert six == f"nbds://openisb@[2001:db8::7]:40001/{RUN}.600a098000000011"


@pytest.mark.parametrize("port", [0, -1, 65536, "40001", 1.0, True, None, "22/x?tls-psk-file=/etc/shadow", [1]])
def test_a_port_is_a_number(port: Any) -> None:
    with pytest.raises(AnswerError, match="the port of the export is .*, and must be a number from 1 to 65535"):
        answers.nbd_address({"export": {"port": port, "name": "x"}}, HOST)


@pytest.mark.parametrize("name", ["", "../x", "x?socket=/run/x", "x#y", "x/y", "x y", "x\n", None, 7, "x" * 129])
def test_a_name_is_that_of_an_export(name: Any) -> None:
    with pytest.raises(AnswerError, match="the name of the export"):
        answers.nbd_address({"export": {"port": 1, "name": name}}, HOST)


@pytest.mark.parametrize("answer", [{}, {"export": "nbd://x"}, {"export": None}, None, "/etc/shadow", []])
def test_an_answer_without_an_export(answer: Any) -> None:
    with pytest.raises(AnswerError, match="no export"):
        answers.nbd_address(answer, HOST)


def test_a_key_is_one() -> None:
    assert answers.nbd_key(GOOD, HOST) == KEY
    assert answers.nbd_key({"psk": ""}, {"address": "127.0.0.1", "tls": False}) == ""
    for bad in ("", KEY + "\nroot:" + KEY, KEY[1:], KEY.upper(), "secret"):
        with pytest.raises(AnswerError) as caught:
            answers.nbd_key({"psk": bad}, HOST)
        assert not bad or bad not in str(caught.value)
    with pytest.raises(AnswerError, match="without TLS"):
        answers.nbd_key(GOOD, {"address": "127.0.0.1", "tls": False})


ADDRESSES = [
    *("/etc/shadow", "etc/shadow", "", "file:///etc/shadow", "nbd+unix:///x?socket=/run/x.sock", "nbd+vsock://2:1/x"),
    *("nbd://other:10809/x", "nbds://openisb@other:10809/x", "nbd://storage1@other:10809/x", "nbd://storage1.evil:1/x"),
    *("nbds://openisb@storage1:1/x?tls-psk-file=/etc/shadow", "nbds://openisb@storage1:1/x#y", "nbd://storage1/x"),
    *("nbds://openisb:secret@storage1:1/x", "nbds://root@storage1:1/x", "nbd://storage1:99999/x"),
    *(
        " nbd://storage1:1/x",
        "nbd://storage1:1/x\n",
        "NBD://storage1:1/x",
        "nbd://[storage1:1/x",
        "nbd://storage1:1/../x",
    ),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_but_an_export_of_the_known_host_is_opened(address: str, tmp_path: Path, capsys: Any) -> None:
    """Modules are told which host the address is to be of, and open neither paths nor exports of others."""
    with pytest.raises(ValueError, match="is not the address of an NBD export of storage1"):
        check_of_host(address, "storage1")
    common = {"repository": str(tmp_path), "run_id": RUN, "job": "j", "run_dir": str(tmp_path)}
    moment = {"consistency_point": "2026-03-01T12:00:00+00:00", "verdict": "crash-consistent"}
    sources = {"fs1/sound": "nbd://storage1:40001/x", "fs1/m": address}
    volumes = [{"volume": name, "source": source, "host": "storage1"} for name, source in sources.items()]
    backup, restore = {"volumes": volumes, **moment}, {"volume": "fs1/m", "target": address, "host": "storage1"}
    for module, more in [(block_backup, backup), (block_restore, restore)]:
        with patch_module_args({**common, **more}), pytest.raises(SystemExit):
            module.main()
        told = json.loads(capsys.readouterr().out)["msg"]
        assert "is not the address of an NBD export of storage1" in told
        assert told.startswith("volume fs1/m: source: " if module is block_backup else "target: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["storage1", "192.0.2.7", "2001:db8::7", "fe80::1%eth0"])
@pytest.mark.parametrize("tls", [True, False])
def test_the_address_that_was_made_is_one(host: str, tls: bool) -> None:
    check_of_host(address_of(host, 40001, "x.y-z", tls), host)


def test_a_key_that_would_be_two_lines_of_its_file(tmp_path: Path, capsys: Any) -> None:
    given = {"repository": str(tmp_path), "volume": "fs1/m", "job": "j", "run_dir": str(tmp_path)}
    for psk, target in [("x\nroot:y", "nbds://openisb@h:1/x"), (KEY, "/dev/sdz")]:
        with patch_module_args({**given, "psk": psk, "target": target}), pytest.raises(SystemExit):
            block_restore.main()
        assert json.loads(capsys.readouterr().out)["msg"].startswith("psk: it is not 64 hex digits, or target has no")
    assert list(tmp_path.iterdir()) == []


def test_an_export_over_ipv6(tmp_path: Path) -> None:
    exports = Exports(str(tmp_path))
    path = tmp_path / "lun"
    path.write_bytes(bytes(4096))
    record = exports.start("e", str(path), "::1", False, True, RUN)
    try:
        assert record["uri"] == f"nbd://[::1]:{record['port']}/e"
        assert answers.nbd_address({"export": record}, {"address": "::1", "tls": False}) == record["uri"]
        told = subprocess.run(["nbdinfo", "--size", record["uri"]], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == "4096"
    finally:
        exports.stop("e")


def test_what_a_standby_held() -> None:
    assert answers.held_saveset({"held": {"saveset": "0" * 32}}) == "0" * 32
    for nothing in ({}, {"held": None}, {"held": {}}, {"held": {"saveset": ""}}, {"held": "x"}):
        assert answers.held_saveset(nothing) == ""
    for bad in ("0", "../" + "0" * 29, "0" * 33, 7, ["0" * 32]):
        with pytest.raises(AnswerError, match="the saveset that the target holds"):
            answers.held_saveset({"held": {"saveset": bad}})


TOLD = {"id": f"{RUN}/600a/x", "since": f"{RUN}/600a/w", "reason": "", "size": 4096, "extents": pack([(0, 4096)])}


def test_changes_are_passed_on_or_a_reason() -> None:
    assert answers.lun_changes({**TOLD, "count": 1, "bytes": 4096, "more": "of no use"}) == TOLD
    assert answers.lun_changes({"reason": "no base\x1b[2J"}) == {
        **dict.fromkeys(("id", "since", "extents"), ""),
        "reason": "no base?[2J",
        "size": 0,
    }
    for wrong in ({"id": 7}, {"since": "x\ny"}, {"size": -1}, {"size": "1"}, {"size": 2**64}, {"extents": ["x"]}):
        assert list(answers.lun_changes({**TOLD, **wrong})) == ["reason"]
    assert list(answers.lun_changes("nonsense")) == ["reason"]
    assert list(answers.lun_changes({**TOLD, "extents": "A" * (answers.LONGEST_EXTENTS + 1)})) == ["reason"]


@pytest.mark.slow
def test_changes_cannot_fill_the_memory() -> None:
    """A few megabytes of text that would be gigabytes of extents."""
    bomb = base64.b64encode(zlib.compress(bytes(1 << 30), 9)).decode()
    assert len(bomb) < 2 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"more than {MOST_EXTENTS} changed extents"):
            unpack(bomb)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert len(unpack(pack((number * 8192, 4096) for number in range(MOST_EXTENTS)))) == MOST_EXTENTS


WANTED = [
    {"name": "m", "serial": "600a098000000011", "mount": "/srv/m", "idr_target": "/dev/x"},
    {"name": "f", "serial": "600a098000000012", "path": "/srv/f.img"},
]
BLOCKS, NONE = {"sector_size": 512, "block_size": 4096}, {"sector_size": None, "block_size": None}
FOUND = [
    {
        "name": "m",
        "serial": "600a098000000011",
        "device": "/dev/sdb",
        "size": 1,
        "mount": "/x",
        "filesystem": "ext4",
        **BLOCKS,
    },
    {
        "name": "f",
        "serial": "600a098000000012",
        "device": "/etc/x",
        "size": 2,
        "mount": None,
        "filesystem": None,
        **NONE,
    },
]


def test_a_server_does_not_choose_its_volumes() -> None:
    told = answers.volumes(FOUND, WANTED)
    assert told == [{**FOUND[0], "mount": "/srv/m"}, {**FOUND[1], "device": "/srv/f.img"}]


WRONG: list[Callable[[list[dict[str, Any]]], Any]] = [
    lambda found: found.pop(),
    lambda found: found.append(found[0]),
    lambda found: found.reverse(),
    lambda found: found[0].update(serial="../../../etc"),
    lambda found: found[0].update(name="x"),
    lambda found: found[0].update(size="1"),
    lambda found: found[0].update(size=-1),
    lambda found: found[0].update(device="{{ lookup('pipe', 'id') }}"),
    lambda found: found[0].update(filesystem="ext4; reboot"),
    lambda found: found[0].update(sector_size="512; reboot"),
    lambda found: found[0].update(block_size=513),
]


@pytest.mark.parametrize("change", WRONG)
def test_a_server_that_tells_of_something_else(change: Callable[[list[dict[str, Any]]], Any]) -> None:
    found = [dict(each) for each in FOUND]
    change(found)
    with pytest.raises(AnswerError):
        answers.volumes(found, WANTED)


SAVESET = {
    "volume": "fs1/m",
    "server": "fs1",
    "id": "0" * 32,
    "run_id": RUN,
    "size": 4096,
    "sequence": 1,
    "time": "2026-11-28T21:00:00+00:00",
    "aside": "",
    "unknown": False,
}


def test_names_of_a_catalog_that_go_to_other_hosts() -> None:
    hostvars = {"fs1": {"isb_backup_server": "b", "isb_storage_host": "s", "isb_volumes": WANTED}}
    assert choose_savesets([SAVESET], "fs1", "")["savesets"] == [SAVESET]
    assert saveset_points(["fs1"], hostvars, {"b": [SAVESET]}) == [SAVESET]
    for wrong in (
        {"id": "../x"},
        {"run_id": "../../x"},
        {"size": "9"},
        {"size": -1},
        {"volume": "fs1/m\n"},
        {"sequence": 0},
    ):
        with pytest.raises(AnswerError):
            choose_savesets([{**SAVESET, **wrong}], "fs1", "")
        with pytest.raises(AnswerError):
            saveset_points(["fs1"], hostvars, {"b": [{**SAVESET, **wrong}]})
    with pytest.raises(AnswerError, match="the id of a run"):
        snapshot_points(["fs1"], hostvars, {"s": [{"run_id": "../x", "luns_bytes": {}}]}, [])
    with pytest.raises(AnswerError, match="size"):
        snapshot_points(["fs1"], hostvars, {"s": [{"run_id": RUN, "luns_bytes": {"600a098000000011": "1"}}]}, [])


@pytest.mark.parametrize("name", ["*", "../x", "idr-20261128T210000Z-4f1c2a/..", RUN + "x", "", None])
def test_names_of_journals_that_go_to_other_hosts(name: Any) -> None:
    """Files are deleted, and snapshots swept, by what they say."""
    run = {"run_id": name, "opened": "2026-11-23T02:15:03+00:00", "last_event": "opened", "data": {}}
    with pytest.raises(AnswerError, match="the id of a drill"):
        open_drills([run], 0.0)
    with pytest.raises(AnswerError, match="the id of a run"):
        dead_runs([run], "")


def test_a_clone_is_of_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(CloneError, match="is not a run id"):
        Clones("file", str(tmp_path), "idr-20261128T210000Z-4f1c2a").make("../../etc", ["600a098000000011"])


def test_no_role_takes_an_address_or_key_as_a_host_has_told_it() -> None:
    """In all roles and playbooks what nbd_export returns goes through the filters, or a function of module_utils."""
    files = [*ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("roles/*/vars/*.yml"), *ROOT.glob("playbooks/*.yml")]
    texts = {str(path): json.dumps(yaml.safe_load(path.read_text())) for path in files}
    assert sum("nbd_address(" in text for text in texts.values()) == 2
    for path, text in texts.items():
        assert "export.uri" not in text and "export.psk" not in text, path


@pytest.mark.parametrize("wrong", [None, "text", 7, ["list"]])
@pytest.mark.parametrize(
    "validate",
    [
        lambda value: answers.nbd_key(value, HOST),
        answers.held_saveset,
        answers.saveset,
        answers.snapshot,
        lambda value: answers.snapshot({"run_id": RUN, "luns_bytes": value}),
    ],
    ids=["key", "held", "saveset", "snapshot", "luns"],
)
def test_what_is_no_dictionary_is_named(validate: Callable[[Any], Any], wrong: Any) -> None:
    with pytest.raises(answers.AnswerError, match="must be a dictionary"):
        validate(wrong)

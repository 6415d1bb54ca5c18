# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module saveset_export: a saveset served by an nbdkit that outlives the module, until it is ended."""

from __future__ import annotations

import filecmp
import json
import os
import re
import signal
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports
from ansible_collections.openisb.backup.plugins.module_utils.host import processes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import tls
from ansible_collections.openisb.backup.plugins.modules import nbd_export, nbd_export_info, saveset_export
from marks import slow

from .conftest import KIB, MIB, Lab, MakeImage, noise, served, serving, text
from .test_serve import content, needs_nbdkit, wait_until

DRILL = "idr-20261128T210000Z-4f1c2a"
NAME = f"{DRILL}.fs1.m"
SIZE = 8 * MIB + 512
Result = dict[str, t.Any]
Call = t.Callable[..., Result]


@pytest.fixture
def volume(lab: Lab, make_image: MakeImage) -> Path:
    """A volume of which there are two savesets."""
    image = make_image("volume", SIZE, [(0, noise(3 * MIB)), (5 * MIB, text(2 * MIB)), (SIZE - 5, b"ended")])
    lab.backup(image, run_id="older")
    with open(image, "r+b") as stream:
        stream.seek(MIB + 77)
        stream.write(b"changed since")
    lab.backup(image, run_id="newer")
    return image


@pytest.fixture
def exports(tmp_path: Path) -> t.Iterator[SavesetExports]:
    """The exports of this machine's run folder; all of them are ended with the test."""
    found = SavesetExports(str(tmp_path / "run"))
    yield found
    for record in found.list():
        found.end(record["name"])


@pytest.fixture
def options(lab: Lab, exports: SavesetExports) -> Result:
    """What serves the latest saveset."""
    return {
        "repository": str(lab.path),
        "passphrase": "correct horse",
        "volume": "fs1/m",
        "name": NAME,
        "drill": DRILL,
        "address": "127.0.0.1",
        "run_dir": os.path.dirname(exports.folder),
    }


@pytest.fixture
def call(options: Result, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a module, by default saveset_export with its options, and returns its result."""

    def run(module: t.Any = saveset_export, check_mode: bool = False, **given: t.Any) -> Result:
        known = options if module is saveset_export else {"run_dir": options["run_dir"]}
        arguments = {key: value for key, value in {**known, **given}.items() if value is not None}
        if module is saveset_export:
            arguments = serving(arguments)
        with patch_module_args({**arguments, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            module.main()
        return served(json.loads(capsys.readouterr().out))

    return run


def uri_of(result: Result, exports: SavesetExports) -> str:
    """What a client that has the key connects to."""
    if not result["psk"]:
        return str(result["export"]["uri"])
    key = Path(exports.folder).parent / "client.psk"
    key.write_text(f"openisb:{result['psk']}\n")
    return f"{result['export']['uri']}?tls-psk-file={key}"


def connect(uri: str) -> t.Any:
    """A connection by libnbd."""
    handle = deps.nbd.NBD()
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)
    return handle


@pytest.mark.slow
@needs_nbdkit
def test_as_ansible_calls_it(
    play: t.Any, options: Result, exports: SavesetExports, lab: Lab, volume: Path, tmp_path: Path
) -> None:
    """What Ansible sent for the module is gone by then; nbdkit goes on."""
    task = {"openisb.backup.saveset_export": serving(options)}
    absent = {"openisb.backup.saveset_export": {key: options[key] for key in ("name", "run_dir")} | {"state": "absent"}}
    planned, first, second = map(served, play([{**task, "check_mode": True}, task, task]))
    assert planned["changed"] and planned["export"]["saveset"]["run_id"] == "newer" and not planned["psk"]
    assert first["changed"] and not second["changed"]
    assert (first["export"], first["psk"]) == (second["export"], second["psk"]) and first["export"]["running"]
    copy = tmp_path / "copy"
    subprocess.run(["nbdcopy", uri_of(first, exports), copy], check=True)
    assert filecmp.cmp(volume, copy, shallow=False)
    planned, first, second = play([{**absent, "check_mode": True}, absent, absent])
    assert (planned["changed"], first["changed"], second["changed"]) == (True, True, False)
    assert os.listdir(exports.folder) == [] and lab.files("gc/leases") == []


@needs_nbdkit
def test_several_at_once(call: Call, exports: SavesetExports, lab: Lab, volume: Path, options: Result) -> None:
    """Each has a key of its own, and one that cannot be served does not keep the others from it."""
    names = [f"{NAME}{number}" for number in range(4)]
    wanted: list[Result] = [{"name": name, "volume": "fs1/m"} for name in names]
    wanted[1]["volume"], wanted[2]["run_id"] = "fs1/none", "older"
    result = call(savesets=wanted)
    assert result["changed"] and not result.get("failed")
    told = [result["exports"][name] for name in names]
    assert [bool(each["export"]) for each in told] == [True, False, True, True]
    assert "has no such saveset" in told[1]["problem"] and {told[n]["problem"] for n in (0, 2, 3)} == {""}
    assert told[2]["export"]["saveset"]["run_id"] == "older"
    assert len(set(result["psks"].values())) == len(result["psks"]) == 3
    for number in (0, 2, 3):
        one = {"export": told[number]["export"], "psk": result["psks"][names[number]]}
        assert connect(uri_of(one, exports)).get_size() == SIZE
    assert [record["name"] for record in exports.list()] == [names[0], names[2], names[3]]
    assert not call(savesets=[wanted[0], wanted[2]])["changed"]
    twice = call(savesets=[wanted[0], wanted[0]])
    assert twice["failed"] and "give each its own" in twice["msg"]
    assert call(name=None, state="absent")["changed"] and lab.files("gc/leases") == []


@needs_nbdkit
def test_what_is_recorded(call: Call, exports: SavesetExports, lab: Lab, volume: Path) -> None:
    info = lab.open().find("fs1/m").info
    export = call(expires=1790000000)["export"]
    assert {key: export[key] for key in ("name", "run_id", "path", "readonly", "expires")} == {
        "name": NAME,
        "run_id": DRILL,
        "path": str(lab.path),
        "readonly": True,
        "expires": 1790000000,
    }
    assert export["uri"].startswith("nbds://openisb@127.0.0.1:") and export["uri"].endswith("/" + NAME)
    saveset = export["saveset"]
    assert saveset["time"] == info.time.isoformat() and (saveset["id"], saveset["size"]) == (info.id, SIZE)
    assert (saveset["digest"], saveset["verdict"]) == (info.digest, info.verdict)
    assert call(nbd_export_info)["exports"] == [export]
    changed = call(expires=1790000001)
    assert changed["changed"] and changed["export"]["pid"] == export["pid"]
    (record,) = exports.list()
    assert record["expires"] == 1790000001 and record["running"]


@needs_nbdkit
@pytest.mark.parametrize("which", [{"run_id": "older"}, {"saveset": ""}], ids=["by run", "by id"])
def test_an_older_saveset(call: Call, exports: SavesetExports, lab: Lab, volume: Path, which: Result) -> None:
    older = lab.open().find("fs1/m", run_id="older")
    if "saveset" in which:
        which = {"saveset": older.id[:12]}
    result = call(**which)
    assert result["export"]["saveset"]["id"] == older.id
    assert bytes(connect(uri_of(result, exports)).pread(13, MIB + 77)) == noise(3 * MIB)[MIB + 77 :][:13]
    assert not call(**which)["changed"] and not call()["changed"]
    refused = call(run_id="newer")
    assert refused["failed"] and f"Export {NAME}: it already serves something else" in refused["msg"]
    assert call(volume="fs1/other")["failed"]


@needs_nbdkit
def test_the_key_and_nothing_else_opens_it(call: Call, exports: SavesetExports, volume: Path) -> None:
    result = call()
    assert connect(uri_of(result, exports)).pread(70_000, 5) == volume.read_bytes()[5 : 5 + 70_000]
    plain = result["export"]["uri"].replace("nbds://openisb@", "nbd://")
    for uri in (plain, uri_of({**result, "psk": "0" * 64}, exports)):
        with pytest.raises(deps.nbd.Error):
            connect(uri)


@needs_nbdkit
def test_the_cipher_is_one_that_the_processor_helps_with(
    call: Call, exports: SavesetExports, volume: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "LIBNBD_DEBUG": "1"}
    command = ["nbdinfo", "--size", uri_of(call(), exports)]
    told = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    (cipher,) = set(re.findall(r"using TLS: cipher (\S+)", told))
    assert not tls.prefer_aes(str(tmp_path / "tls")) or cipher.startswith("AES-")


@needs_nbdkit
def test_the_secret_is_seen_nowhere(
    call: Call, exports: SavesetExports, volume: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENISB_PASSPHRASE", "correct horse")
    pid = call(passphrase=None)["export"]["pid"]
    master = lab.open().reading_secret().master
    assert master
    for kind in ("cmdline", "environ"):
        seen = Path(f"/proc/{pid}/{kind}").read_bytes()
        assert b"horse" not in seen and master.hex().encode() not in seen
    files = sorted(Path(exports.folder).iterdir())
    assert {path.name.removeprefix(NAME) for path in files} - {".tls"} == {
        ".json",
        ".log",
        ".pid",
        ".psk",
        ".py",
        ".pyz",
    }
    for path in files:
        data = path.read_bytes()
        assert b"correct horse" not in data and master not in data
        assert path.suffix != ".psk" or path.stat().st_mode & 0o077 == 0
    assert Path(exports.folder).stat().st_mode & 0o077 == 0


@needs_nbdkit
def test_nothing_is_pruned_below_it(call: Call, exports: SavesetExports, volume: Path, lab: Lab) -> None:
    handle = connect(uri_of(call(run_id="older"), exports))
    report = lab.open().prune(Policy(last=1))
    assert len(report.forgotten) == 1 and report.bytes_freed == 0
    assert [text.startswith("serve by process") for item in report.waiting for text in item.leases] == [True]
    assert bytes(handle.pread(13, MIB + 77)) == noise(3 * MIB)[MIB + 77 :][:13]
    assert call(state="absent")["changed"]  # with the client still connected
    assert lab.files("gc/leases") == [] and os.listdir(exports.folder) == []
    assert lab.open().prune(Policy(last=1)).bytes_freed > 0


@needs_nbdkit
def test_nothing_can_be_written(call: Call, exports: SavesetExports, volume: Path, lab: Lab) -> None:
    handle = connect(uri_of(call(), exports))
    before = content(lab)
    assert handle.is_read_only()
    for write in (lambda: handle.pwrite(b"x" * 512, 0), lambda: handle.zero(512, 0), lambda: handle.trim(512, 0)):
        with pytest.raises(deps.nbd.Error):
            write()
    assert content(lab) == before


@needs_nbdkit
def test_one_that_was_killed_is_started_again_and_ended(
    call: Call, exports: SavesetExports, volume: Path, lab: Lab
) -> None:
    first = call()["export"]
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: not processes.is_running(first))
    assert not call(nbd_export_info)["exports"][0]["running"] and len(lab.files("gc/leases")) == 1
    second = call()
    assert second["changed"] and second["export"]["pid"] != first["pid"]
    assert connect(uri_of(second, exports)).get_size() == SIZE
    os.kill(second["export"]["pid"], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{second['export']['pid']}").exists())  # its last thread holds the lease
    assert call(state="absent")["changed"]
    assert lab.files("gc/leases") == [] and os.listdir(exports.folder) == []


@needs_nbdkit
def test_a_maker_that_was_killed_in_the_middle(call: Call, exports: SavesetExports, volume: Path) -> None:
    """Its record was there before nbdkit was, so that nbdkit is found by what only its command line can hold."""
    export = call()["export"]
    path = Path(exports.folder, f"{NAME}.json")
    path.write_text(json.dumps({**export, "pid": 0, "ticks": None}))
    (record,) = exports.list()
    assert (record["pid"], record["ticks"], record["running"]) == (export["pid"], export["ticks"], True)
    assert call(state="absent")["changed"]
    assert not processes.is_running(export) and os.listdir(exports.folder) == []


@needs_nbdkit
def test_it_is_ended_by_name_as_any_export(call: Call, exports: SavesetExports, volume: Path) -> None:
    """Who sweeps exports need not know what they serve."""
    export = call()["export"]
    assert call(nbd_export, name=NAME, run_id=DRILL, state="absent")["changed"]
    assert not processes.is_running(export) and os.listdir(exports.folder) == []


@needs_nbdkit
@pytest.mark.parametrize("module", [saveset_export, slow(nbd_export)])
def test_all_of_a_drill_are_ended_at_once(
    call: Call, exports: SavesetExports, volume: Path, module: t.Any, options: Result
) -> None:
    """And nobody else's. Leases go with them."""
    other = DRILL[:-1] + "b"
    for name, drill in [(NAME, DRILL), (NAME + "2", DRILL), ("other", other)]:
        call(name=name, drill=drill)
    # saveset_export is told of no repository here: it finds by the records which one it was.
    words: Result = {"run_id": DRILL} if module is nbd_export else {"drill": DRILL, "name": None}
    planned = call(module, state="absent", check_mode=True, **words)
    assert planned["changed"] and len(exports.list()) == 3
    assert call(module, state="absent", **words)["changed"]
    assert [record["name"] for record in exports.list()] == ["other"]
    assert not call(module, state="absent", **words)["changed"]
    leases = os.listdir(Path(options["repository"]) / "gc/leases")
    assert len(leases) == 1 or module is nbd_export


@needs_nbdkit
def test_without_tls_on_this_machine_alone(call: Call, exports: SavesetExports, volume: Path) -> None:
    refused = call(tls=False, address="0.0.0.0")
    assert refused["failed"] and "without TLS anyone who can reach 0.0.0.0 could read the export" in refused["msg"]
    result = call(tls=False)
    assert result["psk"] == "" and connect(result["export"]["uri"]).get_size() == SIZE


@needs_nbdkit
def test_an_unencrypted_repository(call: Call, exports: SavesetExports, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    plain_lab = Lab(tmp_path / "plain", encryption="none")
    plain_lab.backup(mixed)
    result = call(repository=str(plain_lab.path), passphrase=None, encryption="none")
    assert connect(uri_of(result, exports)).pread(64 * KIB, 4 * MIB) == mixed.read_bytes()[4 * MIB :][: 64 * KIB]


@needs_nbdkit
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"passphrase": "wrong"}, "passphrase"),
        ({"volume": "fs9/m"}, "volume fs9/m: .* has no such saveset"),
        ({"run_id": "never"}, "saveset run id never of volume fs1/m: .* has no such saveset"),
        ({"repository": "/nowhere"}, "/nowhere: it holds no repo.json"),
        ({"address": "192.0.2.1"}, "cannot listen at 192.0.2.1"),
        ({"cache": "much"}, "the size 'much': it is not a size. Write it like 4G or 512M"),
        ({"name": "../up"}, "cannot name an export"),
        ({"address": None}, "state is present but all of the following are missing: address"),
    ],
)
def test_refusals(call: Call, exports: SavesetExports, volume: Path, lab: Lab, given: Result, message: str) -> None:
    result = call(**given)
    assert result["failed"]
    assert re.search(message, result["msg"]), result["msg"]
    assert exports.list() == [] and lab.files("gc/leases") == []
    assert not os.path.isdir(exports.folder) or os.listdir(exports.folder) == []


@needs_nbdkit
def test_a_key_that_only_writes_cannot_serve(call: Call, lab: Lab, volume: Path) -> None:
    lab.open().key_files.add_writer(b"writes only", cost=lab.secret.cost)
    assert "write-only" in call(passphrase="writes only")["msg"]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning and pinning as Ansible does it: the modules, what they say, and the role."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.control import text
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.modules import saveset_pin, saveset_prune
from local_site import ansible_environment

from .conftest import KIB, MIB, Lab, MakeImage, noise

Result = dict[str, t.Any]
Call = t.Callable[..., Result]


@pytest.fixture
def call(lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a module with the repository and its passphrase, and returns its result."""

    def run(module: t.Any, check: bool = False, **options: t.Any) -> Result:
        arguments = {
            "repository": str(lab.path),
            "passphrase": "correct horse",
            **options,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
        }
        if module is saveset_prune:
            arguments.update(job="prune", run_dir=str(tmp_path / "run"))
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: Result = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def ids(lab: Lab, make_image: MakeImage) -> list[str]:
    """Three savesets of fs1, one of fs2; each has data of its own."""
    images = [make_image(f"i{number}", MIB, [(0, noise(300 * KIB, number))]) for number in range(4)]
    savesets = [lab.backup(path, run_id=f"run-{number}") for number, path in enumerate(images[:3])]
    return [saveset.id for saveset in [*savesets, lab.backup(images[3], volume="fs2/m", run_id="run-2")]]


def test_check_mode_tells_what_pruning_then_does(call: Call, lab: Lab, ids: list[str]) -> None:
    told = call(saveset_prune, check=True, keep_last=1)
    assert len(lab.open().savesets()) == 4
    done = call(saveset_prune, keep_last=1)
    for result in (told, done):
        result.pop("seconds")
        result.pop("invocation")
    assert told == done and done["changed"]
    assert done["forgotten"] == ids[:2] and done["packs_deleted"] == 2 and done["bytes_freed"] > 600 * KIB
    assert [(item["id"], item["keep"]) for item in done["savesets"]] == [
        (ids[0], False),
        (ids[1], False),
        (ids[2], True),
        (ids[3], True),
    ]
    assert done["savesets"][2]["reasons"] == ["last 1 of 1", "latest application-consistent"]
    assert [line.split()[2] for line in done["diff"]["before"].splitlines()] == ids
    assert [line.split()[2] for line in done["diff"]["after"].splitlines()] == ids[2:]
    again = call(saveset_prune, keep_last=1)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert {info.id for info in lab.open().savesets()} == set(ids[2:])


def test_only_the_servers_that_are_named(call: Call, lab: Lab, ids: list[str]) -> None:
    assert not call(saveset_prune, keep_last=1, servers=["fs2"])["changed"]
    assert call(saveset_prune, keep_daily=1, servers=["fs1"])["forgotten"] == ids[:2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "it keeps nothing"),
        ({"keep_last": 1, "keep_within": "soon"}, "cannot be read"),
        ({"keep_last": 1, "punch_percent": 101}, "it is not from 0 to"),
        ({"keep_last": -1}, "not a valid number of savesets"),
    ],
)
def test_what_is_refused(call: Call, lab: Lab, ids: list[str], options: dict[str, t.Any], says: str) -> None:
    for check in (True, False):
        result = call(saveset_prune, check=check, **options)
        assert result["failed"] and says in result["msg"]
    assert len(lab.open().savesets()) == len(ids)


def test_what_waits_is_told(call: Call, lab: Lab, ids: list[str]) -> None:
    with lab.open().reading(lease.SERVE):
        result = call(saveset_prune, keep_last=1)
    assert result["changed"] and result["forgotten"] == ids[:2] and result["bytes_freed"] == 0
    (waiting,) = result["waiting"]
    assert waiting["bytes"] > 600 * KIB and waiting["leases"][0].startswith("serve by process")
    shown = text.prune_summary(result)
    assert "2 of 4 savesets were forgotten" in shown and "wait for: serve by process" in shown
    assert call(saveset_prune, keep_last=1)["bytes_freed"] > 600 * KIB


def test_the_summary_names_every_reason() -> None:
    common = {"volume": "fs1/m", "verdict": "crash-consistent", "time": "2026-03-01T12:00:00+00:00", "run_id": "r"}
    result = {
        "savesets": [dict(common, reasons=["last 1 of 3", "pinned by ada"]), dict(common, reasons=[])],
        "forgotten": ["1"],
        "bytes_freed": 3 * MIB,
        "packs_deleted": 1,
        "maps_deleted": 2,
        "packs_punched": 0,
        "waiting": [],
    }
    assert text.prune_summary(result, True).splitlines()[2:] == [
        "fs1/m   2026-03-01 12:00:00 UTC  crash-consistent  r       last 1 of 3, pinned by ada",
        "fs1/m   2026-03-01 12:00:00 UTC  crash-consistent  r       nothing: would be forgotten",
        "",
        "1 of 2 savesets would be forgotten",
        "Space that this would free: 3.0 MiB; 1 packs and 2 maps removed, 0 packs punched",
    ]
    assert "nothing: forgotten" in text.prune_summary(result)
    empty = dict(result, savesets=[], forgotten=[], bytes_freed=0)
    assert text.prune_summary(empty).startswith("There is no saveset.")


def test_a_run_is_pinned_and_unpinned(call: Call, lab: Lab, ids: list[str]) -> None:
    pin = {"run_id": "run-2", "who": "ada", "why": "the move"}
    planned = call(saveset_pin, check=True, **pin)
    assert planned["changed"] and lab.open().pins() == {}
    done = call(saveset_pin, **pin)
    assert done["changed"] and set(lab.open().pins()) == set(ids[2:])
    assert done["diff"] == planned["diff"] and "ada, the move" in done["diff"]["after"]
    assert [item["pin"]["who"] for item in done["savesets"]] == ["ada", "ada"]
    assert not call(saveset_pin, **pin)["changed"]
    other = call(saveset_pin, **dict(pin, why="another", servers=["fs2"]))
    assert other["changed"] and [item["pin"]["why"] for item in other["savesets"]] == ["another"]
    assert call(saveset_pin, check=True, state="absent", run_id="run-2")["changed"] and len(lab.open().pins()) == 2
    gone = call(saveset_pin, state="absent", run_id="run-2")
    assert gone["changed"] and lab.open().pins() == {} and gone["diff"]["after"] == ""
    assert not call(saveset_pin, state="absent", run_id="run-2")["changed"]


def test_one_saveset_is_pinned_by_its_first_digits(call: Call, lab: Lab, ids: list[str]) -> None:
    result = call(saveset_pin, saveset_id=ids[0][:12], who="ada", why="x")
    assert [item["id"] for item in result["savesets"]] == [ids[0]]
    assert call(saveset_prune, keep_last=1)["forgotten"] == [ids[1]]
    assert "No savesets match" in call(saveset_pin, run_id="none", who="ada", why="x")["msg"]
    assert "3 savesets match" in call(saveset_pin, saveset_id="", who="ada", why="x")["msg"]


@pytest.mark.slow
def test_the_role(lab: Lab, ids: list[str], tmp_path: Path) -> None:
    """In check mode and for real, with its own defaults but for one; where the journal was lost."""
    place = {"repository": str(lab.path), "python": sys.executable, "run_dir": str(tmp_path / "run")}
    host = {"ansible_connection": "local", "openisb_host": place, "repository_passphrase": "correct horse"}
    host.update(isb_listener="backup1", isb_without_journal=True)
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"backup1": host}}}))
    play = {"hosts": "all", "gather_facts": False, "roles": ["openisb.backup.prune"]}
    (tmp_path / "play.json").write_text(json.dumps([play]))
    environment = ansible_environment(tmp_path)

    def run(*options: str) -> str:
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", *options]
        arguments = [*command, "-e", "prune_keep_last=1", tmp_path / "play.json"]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "2 of 4 savesets would be forgotten" in run("--check", "--diff")
    assert len(lab.open().savesets()) == 4
    assert "2 of 4 savesets were forgotten" in run()
    assert {info.id for info in lab.open().savesets()} == set(ids[2:])

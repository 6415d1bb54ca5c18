# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of storage hosts as Ansible runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import processes
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import unpack

Play = Callable[..., list[dict[str, Any]]]
RUNS = [f"isb-2026112{number}T021500Z-4f1c2a" for number in range(4)]
LUN, OTHER = "6000000000000001", "6000000000000002"
BLOCK = 4096


class Storage:
    """A storage host with the driver `file` and two LUNs, on a filesystem whose copies share blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for serial in (LUN, OTHER):
            (folder / serial).write_bytes(b"x" * 10 * BLOCK)

    def write(self, serial: str, block: int) -> None:
        """Change a block of a LUN."""
        with (self.folder / serial).open("r+b") as stream:
            stream.seek(block * BLOCK)
            stream.write(b"y" * BLOCK)

    def snapshot(self, run_id: str, reflink: str = "always") -> None:
        """Copy both LUNs."""
        (self.folder / run_id).mkdir()
        for serial in (LUN, OTHER):
            target = self.folder / run_id / f"{serial}.lun"
            subprocess.run(["cp", f"--reflink={reflink}", self.folder / serial, target], check=True)

    def luns(self) -> dict[str, list[str]]:
        """What each snapshot holds."""
        return {
            folder.name: sorted(path.stem for path in folder.iterdir())
            for folder in sorted(self.folder.glob("isb-*"))
            if folder.is_dir()
        }

    def task(self, module: str, run_id: str, **options: Any) -> dict[str, Any]:
        """A task with one of the modules."""
        common = {
            "driver": "file",
            "directory": str(self.folder),
            "run_id": run_id,
            "run_dir": str(self.folder / "run"),
        }
        return {f"openisb.backup.{module}": {**common, **options}}

    def mapped(self, run_id: str, luns: list[str], **options: Any) -> dict[str, Any]:
        """A task that maps LUNs."""
        return self.task("lun_map", run_id, luns=luns, address="127.0.0.1", tls=False, **options)


@pytest.fixture
def storage(mounted: Callable[..., Path]) -> Storage:
    return Storage(mounted("mkfs.xfs", "-q", "-m", "reflink=1"))


@pytest.mark.slow
@pytest.mark.root
def test_changes_since_a_base(play: Play, storage: Storage) -> None:
    storage.snapshot(RUNS[0])
    luns = [LUN, OTHER]
    (planned, named, again) = play(
        [
            {**storage.mapped(RUNS[0], luns), "check_mode": True},
            storage.mapped(RUNS[0], luns),
            storage.mapped(RUNS[0], luns, bases={LUN: ""}),
        ]
    )
    assert (planned["changed"], named["changed"], again["changed"]) == (True, True, False)
    assert planned["luns"][LUN]["id"] == ""
    assert named["luns"] == again["luns"] and named["luns"][LUN]["problem"] == ""
    assert named["luns"][LUN]["reason"] == "no earlier saveset"
    after = {serial: lun["id"] for serial, lun in named["diff"]["after"].items()}
    assert after == {serial: named["luns"][serial]["id"] for serial in (LUN, OTHER)}

    storage.write(LUN, 3)
    storage.snapshot(RUNS[1])
    (told, missing) = play(
        [
            storage.mapped(RUNS[1], luns, bases={LUN: RUNS[0]}),
            storage.mapped(RUNS[1], [LUN, "nothing"], bases={LUN: RUNS[3], "nothing": RUNS[0]}),
        ]
    )
    lun = told["luns"][LUN]
    assert lun["since"] == named["luns"][LUN]["id"] != lun["id"]
    assert (lun["size"], lun["count"], lun["bytes"], lun["reason"]) == (10 * BLOCK, 1, BLOCK, "")
    assert unpack(lun["extents"]) == [(3 * BLOCK, BLOCK)]
    assert told["luns"][OTHER]["since"] == ""
    assert missing["luns"][LUN]["reason"] == f"there is no base snapshot of run {RUNS[3]}"
    assert missing["luns"]["nothing"]["id"] == ""
    assert "does not exist, so it cannot be exported" in missing["luns"]["nothing"]["problem"]
    assert missing["luns"][LUN]["problem"] == "" and not missing.get("failed")

    exports = Exports(str(storage.folder / "run"))
    assert len([export for export in exports.list() if export["running"]]) == 4
    (_all, released) = play(
        [
            storage.task("lun_snapshot", RUNS[1]),
            storage.task("lun_snapshot", RUNS[0], luns=[OTHER], bases=[LUN]),
        ]
    )
    assert (released["ended"], released["luns"]) == ([OTHER, LUN], [LUN])
    assert exports.list() == []
    assert storage.luns() == {RUNS[0]: [LUN]}


@pytest.mark.slow
@pytest.mark.root
def test_another_reader_gets_another_export(play: Play, storage: Storage) -> None:
    """The first reader, which does not answer any more, cannot read on."""
    storage.snapshot(RUNS[0])
    first, planned, again, second, gone = play(
        [
            storage.mapped(RUNS[0], [LUN]),
            {**storage.mapped(RUNS[0], [LUN], renew=True), "check_mode": True},
            storage.mapped(RUNS[0], [LUN]),
            storage.mapped(RUNS[0], [LUN], renew=True),
            storage.task("lun_snapshot", RUNS[0]),
        ]
    )
    one, same, other = (told["luns"][LUN]["export"] for told in (first, again, second))
    assert (planned["changed"], again["changed"], second["changed"]) == (True, False, True)
    assert one["pid"] == same["pid"] != other["pid"]
    assert first["luns"][LUN]["id"] == second["luns"][LUN]["id"]
    assert not processes.is_running(one) and gone["ended"] == [LUN]


@pytest.mark.slow
@pytest.mark.root
def test_a_lun_without_changes_asked_gets_no_identity(play: Play, storage: Storage) -> None:
    storage.snapshot(RUNS[0])
    (told, gone) = play([storage.mapped(RUNS[0], [LUN], changes=False), storage.task("lun_snapshot", RUNS[0])])
    lun = told["luns"][LUN]
    assert (lun["id"], lun["since"], lun["reason"], lun["problem"]) == ("", "", "", "")
    assert lun["export"]["path"] == str(storage.folder / RUNS[0] / f"{LUN}.lun")
    assert gone["ended"] == [LUN] and storage.luns() == {}


@pytest.mark.slow
@pytest.mark.root
def test_one_base_of_each_lun_stays(play: Play, storage: Storage) -> None:
    for run_id in RUNS[:3]:
        storage.snapshot(run_id)
    base = storage.task("lun_snapshot", RUNS[2], bases=[LUN])
    (kept, planned) = play(
        [
            storage.task("lun_snapshot", RUNS[0], bases=[], kept=True),
            {**base, "check_mode": True},
        ]
    )
    assert storage.luns() == dict.fromkeys(RUNS[:3], [LUN, OTHER])
    (done, again) = play([base, base])
    assert (kept["changed"], planned["changed"], done["changed"], again["changed"]) == (True, True, True, False)
    assert done["luns"] == planned["luns"] == [LUN, OTHER]
    assert done["diff"] == planned["diff"]
    assert storage.luns() == {RUNS[0]: [LUN, OTHER], RUNS[1]: [OTHER], RUNS[2]: [LUN, OTHER]}

    play([storage.task("lun_snapshot", RUNS[2], luns=[OTHER], every_run=True)])
    assert storage.luns() == {RUNS[0]: [LUN, OTHER], RUNS[2]: [LUN]}
    play([storage.task("lun_snapshot", RUNS[0])])
    assert storage.luns() == {RUNS[2]: [LUN]}
    assert not (storage.folder / f"{RUNS[0]}.kept").exists()


@pytest.mark.slow
@pytest.mark.root
def test_what_is_of_no_use_does_not_stay(play: Play, storage: Storage) -> None:
    storage.snapshot(RUNS[0])
    play([storage.task("lun_snapshot", RUNS[0], bases=[LUN], members=[LUN])])
    assert storage.luns() == {RUNS[0]: [LUN]}
    # Full copies tell nothing, and cost as much as the LUN.
    storage.snapshot(RUNS[1], reflink="never")
    play([storage.task("lun_snapshot", RUNS[1], bases=[LUN, OTHER])])
    assert storage.luns() == {}


@pytest.mark.slow
@pytest.mark.root
def test_clones_of_a_drill(play: Play, storage: Storage) -> None:
    """All in one task, each with an export of its own; one that cannot be cloned does not keep the others from it."""
    storage.snapshot(RUNS[0])
    drill = "idr-20261128T210000Z-4f1c2a"
    wanted = {"drill": drill, "luns": [LUN, "nothing", OTHER], "address": "127.0.0.1", "tls": False}
    planned, first, again = play(
        [
            {**storage.task("lun_clone", RUNS[0], **wanted), "check_mode": True},
            storage.task("lun_clone", RUNS[0], **wanted),
            storage.task("lun_clone", RUNS[0], **{**wanted, "luns": [LUN, OTHER]}),
        ]
    )
    assert (planned["changed"], first["changed"], again["changed"]) == (True, True, False)
    assert planned["luns"][LUN] == {"export": {}, "problem": ""}
    assert "has no LUN with serial nothing: name another run" in first["luns"]["nothing"]["problem"]
    export = first["luns"][OTHER]["export"]
    assert (export["name"], export["run_id"], export["readonly"]) == (f"{drill}.{OTHER}", drill, False)
    assert export["path"] == str(storage.folder / drill / f"{OTHER}.lun") and first["psks"] == {}
    assert first["diff"]["after"] == {"luns": sorted([LUN, OTHER])}
    assert {serial: lun for serial, lun in first["luns"].items() if serial != "nothing"} == again["luns"]

    exports = Exports(str(storage.folder / "run"))
    assert len([each for each in exports.list() if each["running"]]) == 2
    run = {"run_id": drill, "run_dir": str(storage.folder / "run")}
    where = {"driver": "file", "directory": str(storage.folder), "drill": drill, "state": "absent"}
    ended, planned, deleted, none = play(
        [
            {"openisb.backup.nbd_export": {**run, "state": "absent"}},
            {"openisb.backup.lun_clone": where, "check_mode": True},
            {"openisb.backup.lun_clone": where},
            {"openisb.backup.lun_clone": where},
        ]
    )
    assert sorted(ended["ended"]) == sorted(f"{drill}.{serial}" for serial in (LUN, OTHER))
    assert (planned["changed"], deleted["changed"], none["changed"]) == (True, True, False)
    assert not (storage.folder / drill).exists()

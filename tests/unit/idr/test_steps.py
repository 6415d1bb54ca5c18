# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bringing up all volumes of a server in steps: what its hosts are asked, and what their answers come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.control.drill import steps

DRILL = "idr-20261128T210000Z-4f1c2a"
HOST = {"address": "backup1", "tls": True}
KEY = "0" * 64
NAMES = {volume: f"{DRILL}.fs1.{volume}" for volume in ("m", "files", "raw")}


def volume(name: str, **changes: Any) -> dict[str, Any]:
    """A volume of the plan."""
    return {
        "volume": f"fs1/{name}",
        "name": name,
        "serial": f"60000000000000{'mfr'.index(name[0]):02d}",
        "saveset": "5" * 32,
        "run_id": "isb-20261123T021500Z-4f1c2a",
        "mount": f"/srv/{name}",
        "dr_mount": f"/srv/idr/fs1/srv/{name}",
        "sector_size": 512,
        "target": "",
        "part": "",
        **changes,
    }


VOLUMES = [volume("m"), volume("files"), volume("raw", mount="", dr_mount="")]


def asked(source: str = "instant", mode: str = "test") -> dict[str, Any]:
    return {"source": source, "mode": mode, "scratch": "/var/lib/openisb/idr"}


def answered(what: str = "exports", keys: dict[str, str] | None = None) -> dict[str, Any]:
    """What saveset_export answers, or lun_clone."""
    keys = keys or NAMES
    exports = {key: {"export": {"port": 45000 + n, "name": key}, "problem": ""} for n, key in enumerate(keys.values())}
    return {what: exports, "psks": dict.fromkeys(keys.values(), KEY)}


def attached(**problems: str) -> dict[str, Any]:
    """What idr_lun answers; ``problems``: by volume."""
    luns = {
        name: {"lun": {"parts": [{"number": 0, "device": f"/dev/loop{n}", "type": "ext4", "name": ""}]}, "problem": ""}
        for n, name in enumerate(NAMES.values())
    }
    luns.update({NAMES[name]: {"lun": {}, "problem": problem} for name, problem in problems.items()})
    return {"luns": luns}


def found(problems: dict[str, str] | None = None, **of_luns: str) -> dict[str, Any]:
    return steps.parts(VOLUMES, DRILL, "test", problems or {}, attached(**of_luns))


def test_a_lun_has_one_name_on_all_hosts() -> None:
    assert steps.lun_name(DRILL, "fs1/m") == f"{DRILL}.fs1.m"
    (first, *_others) = steps.savesets(VOLUMES, DRILL)
    assert first == {
        "name": NAMES["m"],
        "volume": "fs1/m",
        "run_id": "isb-20261123T021500Z-4f1c2a",
        "saveset": "5" * 32,
    }


def test_savesets_are_read_where_they_are_served_and_written_to_an_overlay() -> None:
    reached = steps.reached(VOLUMES, DRILL, asked(), answered(), HOST)
    assert reached["problems"] == {}
    assert reached["luns"][1] == {
        "name": NAMES["files"],
        "source": f"nbds://openisb@backup1:45001/{NAMES['files']}",
        "overlay": True,
        "sector_size": 512,
    }
    assert reached["psks"] == dict.fromkeys(NAMES.values(), KEY)


def test_clones_are_found_by_serial_and_written_directly() -> None:
    serials = {each["name"]: each["serial"] for each in VOLUMES}
    reached = steps.reached(VOLUMES, DRILL, asked("storage"), answered("luns", serials), HOST)
    assert reached["problems"] == {}
    assert [lun["overlay"] for lun in reached["luns"]] == [False] * 3
    assert [lun["source"].rpartition("/")[2] for lun in reached["luns"]] == list(serials.values())
    assert list(reached["psks"]) == list(NAMES.values())


@pytest.mark.parametrize(
    ("mode", "target", "source", "overlay"),
    [
        ("test", "", f"/var/lib/openisb/idr/{NAMES['m']}.img", False),
        ("test", "/dev/standby", "/dev/standby", True),
        ("failover", "/dev/standby", "/dev/standby", False),
    ],
    ids=["a file of the drill", "a standby stays one", "the disk of a failover"],
)
def test_what_was_restored_is_used_where_it_is(mode: str, target: str, source: str, overlay: bool) -> None:
    reached = steps.reached([volume("m", target=target)], DRILL, asked("restore", mode), {}, HOST)
    assert (reached["problems"], reached["psks"]) == ({}, {})
    assert reached["luns"] == [{"name": NAMES["m"], "source": source, "overlay": overlay, "sector_size": 512}]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"export": {}, "problem": "there is\nno such saveset"}, "there is\\nno such saveset"),
        ({"export": {"port": 22, "name": "../up"}, "problem": ""}, "the name of the export is '../up'"),
        ({"problem": ""}, "the answer contains no export"),
        ("text", "the host's answer does not contain it"),
        (None, "the host's answer does not contain it"),
    ],
)
def test_a_volume_that_is_not_served_does_not_hide_the_others(told: Any, problem: str) -> None:
    answer = answered()
    answer["exports"][NAMES["files"]] = told
    reached = steps.reached(VOLUMES, DRILL, asked(), answer, HOST)
    assert [lun["name"] for lun in reached["luns"]] == [NAMES["m"], NAMES["raw"]]
    assert list(reached["problems"]) == ["fs1/files"] and reached["problems"]["fs1/files"].startswith(problem)
    restored = steps.reached(VOLUMES, DRILL, asked("restore"), {"fs1/files": "no disk space"}, HOST)
    assert restored["problems"] == {"fs1/files": "no disk space"} and len(restored["luns"]) == 2


def test_an_answer_that_is_none_is_a_problem_of_each_volume() -> None:
    names = [each["volume"] for each in VOLUMES]
    for answer in ({}, {"exports": None, "psks": []}, {"msg": "it crashed", "failed": True}):
        assert list(steps.reached(VOLUMES, DRILL, asked(), answer, HOST)["problems"]) == names
        assert list(steps.parts(VOLUMES, DRILL, "test", {}, answer)["problems"]) == names


def test_filesystems_are_found_checked_and_mounted_for_all_volumes() -> None:
    all_of_them = found()
    assert all_of_them["problems"] == {}
    checks = steps.filesystem_checks(all_of_them, 60)
    assert checks[0] == {"name": "filesystem", "volume": "fs1/m", "type": "ext4", "timeout": 60}
    assert [check["volume"] for check in checks] == ["fs1/m", "fs1/files", "fs1/raw"]
    assert steps.devices(all_of_them) == {"fs1/m": "/dev/loop0", "fs1/files": "/dev/loop1", "fs1/raw": "/dev/loop2"}
    mounts = steps.mounts(VOLUMES, all_of_them)
    assert [mount["path"] for mount in mounts] == ["/srv/idr/fs1/srv/m", "/srv/idr/fs1/srv/files"]
    assert mounts[0]["device"] == "/dev/loop0" and mounts[0]["fstype"] == "ext4"
    assert set(mounts[0]["opts"].split(",")) >= {"rw", "nosuid", "nodev", "noexec"}
    in_use = steps.parts(VOLUMES, DRILL, "failover", {}, attached())
    assert steps.mounts(VOLUMES, in_use)[0]["opts"] == "rw"


def test_what_did_not_come_up_is_named_with_its_own_reason() -> None:
    """Each of a step of its own: no export, no LUN, no mount."""
    part = found({"fs1/m": "no such saveset"}, files="its source hangs")
    assert list(part["parts"]) == ["fs1/raw"]
    outcome = steps.outcome(VOLUMES, part, {}, "fs1", "instant", 1.23456)
    assert outcome["problem"] == "fs1/m: no such saveset; fs1/files: its source hangs"
    assert outcome["up"] == {"mounts": {}, "devices": {"raw": "/dev/loop2"}}
    told = {"mounts": {"/srv/idr/fs1/srv/m": {"problem": ""}, "/srv/idr/fs1/srv/files": {"problem": "it is in use"}}}
    outcome = steps.outcome(VOLUMES, found(), told, "fs1", "instant", 1.23456)
    assert outcome["problem"] == "fs1/files: it is in use"
    assert outcome["up"] == {
        "mounts": {"/srv/m": "/srv/idr/fs1/srv/m"},
        "devices": {"m": "/dev/loop0", "raw": "/dev/loop2"},
    }
    assert [record["volume"] for record in outcome["records"]] == ["fs1/m", "fs1/raw"]
    assert outcome["records"][0] == {
        "server": "fs1",
        "volume": "fs1/m",
        "device": "/dev/loop0",
        "type": "ext4",
        "dr_mount": "/srv/idr/fs1/srv/m",
        "method": "instant",
        "seconds": 1.235,
    }


def test_a_lun_without_its_filesystem_is_a_problem_of_that_volume() -> None:
    answer = attached()
    answer["luns"][NAMES["m"]]["lun"]["parts"] = []
    answer["luns"][NAMES["files"]]["lun"]["parts"][0]["type"] = "swap"
    answer["luns"][NAMES["raw"]]["lun"] = {"parts": "none"}
    wanted = [VOLUMES[0], volume("files", part="0"), VOLUMES[2]]
    problems = steps.parts(wanted, DRILL, "test", {}, answer)["problems"]
    assert problems["fs1/m"] == "there is no filesystem on it (it is empty)"
    assert problems["fs1/files"] == "'swap' cannot be mounted: it is swap space"
    assert problems["fs1/raw"] == "the host's answer does not say what is on it"


def test_each_check_has_a_record_also_if_its_host_is_gone() -> None:
    checks = [{"name": "filesystem", "volume": "fs1/m"}, {"name": "gtm", "what": "the database"}, {"name": "command"}]
    results = [{"check": {"kind": check["name"], "ok": True}, "ago": 2.0 - n} for n, check in enumerate(checks)]
    records = steps.check_records(checks, {"checks": results}, "fs1", "dr1")
    assert records[0] == {"server": "fs1", "volume": "fs1/m", "check": {"kind": "filesystem", "ok": True}, "ago": 2.0}
    assert [record["volume"] for record in records] == ["fs1/m", "", ""]
    gone = steps.check_records(checks, {"unreachable": True, "msg": "no route to host"}, "fs1", "dr1")
    assert {record["check"]["detail"] for record in gone} == {"dr1 is no longer reachable: no route to host"}
    assert [record["check"]["what"] for record in gone] == ["fs1/m", "the database", "what was brought up"]
    assert not any(record["check"]["ok"] for record in gone)


TASKS = Path(__file__).parents[3] / "roles"
OF_A_SERVER = [
    "idr/tasks/main.yml",
    "idr/tasks/check.yml",
    "idr/tasks/source/instant.yml",
    "idr/tasks/source/storage.yml",
    "snapshot/tasks/clone.yml",
    "snapshot/tasks/btrfs/clone.yml",
    "snapshot/tasks/file/clone.yml",
    "snapshot/tasks/folder/clone.yml",
]


@pytest.mark.parametrize("name", OF_A_SERVER)
def test_no_step_of_a_server_is_repeated_for_each_volume(name: str) -> None:
    """A task costs far more than what it does for a small volume."""
    tasks = yaml.safe_load((TASKS / name).read_text())
    flat = [task for entry in tasks for key in ("block", "rescue") for task in entry.get(key, [])] or tasks
    assert flat and not any(key.startswith(("loop", "with_")) for task in flat for key in task)

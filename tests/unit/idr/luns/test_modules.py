# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as Ansible runs them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = pytest.mark.root
Play = Callable[..., list[dict[str, Any]]]
DRILL = "idr-20261128T210000Z-4f1c2a"
LUN, INFO = "openisb.backup.idr_lun", "openisb.backup.idr_lun_info"


@pytest.mark.slow
def test_present_and_absent(play: Play, disks: Disks, served: Served, made: Made, tmp_path: Path) -> None:
    uri, psk = served.start(disks.filesystem("xfs"))
    name = made.name()
    where = {"run_dir": str(made.run_dir)}
    present = {
        LUN: {
            "name": name,
            "drill": DRILL,
            "source": uri,
            "psk": psk,
            "scratch": str(made.scratch),
            "expires": 1795900000,
            **where,
        }
    }
    point = tmp_path / "point"
    mount = {
        "openisb.backup.idr_mount": {
            "device": "{{ made.lun.parts[0].device }}",
            "path": str(point),
            "fstype": "{{ made.lun.parts[0].type | openisb.backup.idr_mount_type }}",
            "opts": "{{ made.lun.parts[0].type | openisb.backup.idr_mount_options(made.lun.writable) }}",
        }
    }
    planned, first, again, other, mounted, info, none = play(
        [
            {**present, "check_mode": True},
            {**present, "register": "made"},
            present,
            {LUN: {**present[LUN], "overlay": False}},
            mount,
            {INFO: where},
            {INFO: {**where, "drill": "idr-another"}},
        ],
        "--diff",
    )
    assert (planned["changed"], first["changed"], again["changed"]) == (True, True, False)
    assert planned["lun"] == {"name": name, "drill": DRILL, "source": uri, "overlay": True, "expires": 1795900000}
    assert first["lun"] == again["lun"]
    assert first["diff"]["before"] == {}
    assert first["diff"]["after"]["device"] == first["lun"]["device"]
    assert "already exists with another overlay: True" in other["msg"]
    assert not mounted.get("failed"), mounted
    assert psk not in repr((planned, first, again))
    (lun,) = info["luns"]
    assert none["luns"] == []
    assert (lun["running"], lun["expires"]) == (True, 1795900000)
    assert [(each["path"], each["type"]) for each in lun["mounts"]] == [(str(point), "xfs")]
    assert lun["parts"] == first["lun"]["parts"]

    absent = {LUN: {"drill": DRILL, "state": "absent", **where}}
    with subprocess.Popen(["sleep", "600"], cwd=point) as user:
        (busy,) = play([absent])
        user.kill()
    assert busy["failed"]
    assert "Something is left of" in busy["msg"]
    assert f"used by process {user.pid} (sleep)" in busy["left"][0]
    planned, first, again, named, info = play(
        [
            {**absent, "check_mode": True},
            absent,
            absent,
            {LUN: {"name": name, "state": "absent", **where}},
            {INFO: where},
        ],
        "--diff",
    )
    assert [each["changed"] for each in (planned, first, again, named)] == [True, True, False, False]
    assert (first["left"], first["lun"], info["luns"]) == ([], {}, [])
    assert list(first["diff"]["before"]) == [name]
    assert made.traces() == []


def test_what_a_killed_module_left_is_made_anew(play: Play, disks: Disks, made: Made) -> None:
    disk = disks.filesystem("ext4")
    made.start(disk)
    record = made.luns.records.get(made.name())
    made.luns.records.write(record, step="parts")
    task = {
        LUN: {
            "name": made.name(),
            "drill": DRILL,
            "source": str(disk),
            "scratch": str(made.scratch),
            "run_dir": str(made.run_dir),
        }
    }
    (done,) = play([task])
    assert (done["changed"], done["lun"]["parts"][0]["type"]) == (True, "ext4")
    assert made.luns.get(made.name())["running"]


@pytest.mark.slow
def test_wrong_options(play: Play, made: Made) -> None:
    where = {"run_dir": str(made.run_dir)}
    lacking, neither, name, source = play(
        [
            {LUN: {"name": "m", **where}},
            {LUN: {"state": "absent", **where}},
            {LUN: {"name": "../m", "drill": DRILL, "source": "/x", **where}},
            {LUN: {"name": "m", "drill": DRILL, "source": "/nowhere/x", **where}},
        ]
    )
    assert "drill, source" in lacking["msg"]
    assert "name, drill" in neither["msg"]
    assert "'../m' cannot name a LUN" in name["msg"]
    assert "LUN m: the source /nowhere/x cannot be used" in source["msg"]


@pytest.mark.slow
def test_filters(play: Play) -> None:
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'ntfs' | openisb.backup.idr_mount_options(true) }}"}}])
    assert told["msg"] == "ro,nosuid,nodev,noexec"
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'ntfs' | openisb.backup.idr_mount_options(true, true) }}"}}])
    assert told["msg"] == "ro"
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'swap' | openisb.backup.idr_mount_type }}"}}])
    assert "'swap' cannot be mounted: it is swap space" in told["msg"]

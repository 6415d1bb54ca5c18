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
    common = {"drill": DRILL, "scratch": str(made.scratch), "expires": 1795900000, **where}
    present = {LUN: {"luns": [{"name": name, "source": uri}], "psks": {name: psk}, **common}}
    different = {LUN: {"luns": [{"name": name, "source": uri, "overlay": False}], **common}}
    point = tmp_path / "point"
    mount = {
        "openisb.backup.idr_mount": {
            "mounts": [
                {
                    "device": "{{ lun.parts[0].device }}",
                    "path": str(point),
                    "fstype": "{{ lun.parts[0].type | openisb.backup.idr_mount_type }}",
                    "opts": "{{ lun.parts[0].type | openisb.backup.idr_mount_options(lun.writable) }}",
                }
            ]
        },
        "vars": {"lun": f"{{{{ made.luns['{name}'].lun }}}}"},
    }
    planned, first, again, other, mounted, info, none = play(
        [
            {**present, "check_mode": True},
            {**present, "register": "made"},
            present,
            different,
            mount,
            {INFO: where},
            {INFO: {**where, "drill": "idr-another"}},
        ],
        "--diff",
    )
    assert (planned["changed"], first["changed"], again["changed"]) == (True, True, False)
    assert planned["luns"][name]["lun"] == {
        "name": name,
        "drill": DRILL,
        "source": uri,
        "overlay": True,
        "expires": 1795900000,
    }
    lun = first["luns"][name]["lun"]
    assert again["luns"] == first["luns"] == {name: {"lun": lun, "problem": ""}}
    assert first["diff"]["before"] == {}
    assert first["diff"]["after"][name]["device"] == lun["device"]
    assert "already exists with another overlay: True" in other["luns"][name]["problem"]
    assert mounted["mounts"] == {str(point): {"problem": ""}}
    assert psk not in repr((planned, first, again))
    (there,) = info["luns"]
    assert none["luns"] == []
    assert (there["running"], there["expires"]) == (True, 1795900000)
    assert [(each["path"], each["type"]) for each in there["mounts"]] == [(str(point), "xfs")]
    assert there["parts"] == lun["parts"]

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
    assert (first["left"], first["luns"], info["luns"]) == ([], {}, [])
    assert list(first["diff"]["before"]) == [name]
    assert made.traces() == []


def test_what_a_killed_module_left_is_made_anew(play: Play, disks: Disks, made: Made) -> None:
    disk = disks.filesystem("ext4")
    made.start(disk)
    record = made.luns.records.get(made.name())
    made.luns.records.write(record, step="parts")
    task = {
        LUN: {
            "luns": [{"name": made.name(), "source": str(disk)}],
            "drill": DRILL,
            "scratch": str(made.scratch),
            "run_dir": str(made.run_dir),
        }
    }
    (done,) = play([task])
    assert (done["changed"], done["luns"][made.name()]["lun"]["parts"][0]["type"]) == (True, "ext4")
    assert made.luns.get(made.name())["running"]


def test_one_that_cannot_be_made_does_not_keep_the_others_from_it(
    play: Play, disks: Disks, made: Made, tmp_path: Path
) -> None:
    """They are made at the same time, and ended together, the lower mount first, whatever their names."""
    names = [made.name("a"), made.name("b"), made.name("c")]
    sources = [disks.filesystem("ext4", "a"), tmp_path / "none", disks.filesystem("ext4", "c")]
    where = {"drill": DRILL, "run_dir": str(made.run_dir)}
    wanted = [{"name": name, "source": str(source)} for name, source in zip(names, sources, strict=True)]
    (done,) = play([{LUN: {"luns": wanted, "scratch": str(made.scratch), **where}}])
    told = [done["luns"][name] for name in names]
    assert [bool(each["lun"]) for each in told] == [True, False, True]
    assert [each["problem"] for each in told][::2] == ["", ""]
    assert told[1]["problem"].startswith(f"the source {tmp_path}/none cannot be used")
    assert not made.luns.traces(names[1])

    devices = {name: each["lun"]["parts"][0]["device"] for name, each in zip(names, told, strict=True) if each["lun"]}
    points = [tmp_path / "point", tmp_path / "point/below"]
    mounts = [
        {"device": device, "path": str(point), "fstype": "ext4", "opts": "rw"}
        for device, point in zip(devices.values(), points, strict=True)
    ]
    mount = {"openisb.backup.idr_mount": {"mounts": mounts[::-1]}}
    mounted, absent = play([mount, {LUN: {"state": "absent", **where}}])
    assert {each["problem"] for each in mounted["mounts"].values()} == {""}
    assert absent["left"] == [] and made.traces("a") == made.traces("c") == []


@pytest.mark.slow
def test_wrong_options(play: Play, made: Made) -> None:
    where = {"run_dir": str(made.run_dir)}
    lacking, neither, name, source = play(
        [
            {LUN: {"name": "m", **where}},
            {LUN: {"state": "absent", **where}},
            {LUN: {"drill": DRILL, "luns": [{"name": "../m", "source": "/x"}], **where}},
            {LUN: {"drill": DRILL, "luns": [{"name": "m", "source": "/nowhere/x"}], **where}},
        ]
    )
    assert "luns, drill" in lacking["msg"]
    assert "name, drill" in neither["msg"]
    assert "'../m' cannot name a LUN" in name["luns"]["../m"]["problem"]
    assert "the source /nowhere/x cannot be used" in source["luns"]["m"]["problem"]


@pytest.mark.slow
def test_filters(play: Play) -> None:
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'ntfs' | openisb.backup.idr_mount_options(true) }}"}}])
    assert told["msg"] == "ro,nosuid,nodev,noexec"
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'ntfs' | openisb.backup.idr_mount_options(true, true) }}"}}])
    assert told["msg"] == "ro"
    (told,) = play([{"ansible.builtin.debug": {"msg": "{{ 'swap' | openisb.backup.idr_mount_type }}"}}])
    assert "'swap' cannot be mounted: it is swap space" in told["msg"]

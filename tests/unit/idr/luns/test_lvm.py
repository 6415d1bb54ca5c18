# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume groups on LUNs, beside their active originals. On a kernel without device-mapper: make test-vm."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns import lvm as luns_lvm

from .conftest import share_group

if TYPE_CHECKING:
    from .conftest import Disks, Made

HAS_LVM = "device-mapper" in Path("/proc/misc").read_text() and Path("/sbin/vgimportclone").exists()
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not HAS_LVM, reason="no device-mapper or no lvm2 here: run make test-vm"),
]
Mount = Callable[..., Path]
MIB = 1024**2
GPT = "label: gpt\nstart=2048, size=8192\nstart=10240, size=417792, type=E6D6D379-F507-44C2-A23C-238F2A3DF928\n"


class Original:
    """A volume group with two logical volumes on a disk, active on this host."""

    def __init__(self, disk: Path, offset: int, owner: str = "") -> None:
        self.disk, self.offset, self.owner = disk, offset, owner
        losetup = ["losetup", "--find", "--show", "--offset", str(offset), str(disk)]
        self.loop = self.run(*losetup).strip()
        self.run("pvcreate", *self.settings(), self.loop)
        self.run("vgcreate", *self.settings(), "vg-prod", self.loop)
        for name, size in (("m", "100M"), ("log", "60M")):
            self.run("lvcreate", *self.settings(), "-n", name, "-L", size, "-Wn", "-Zn", "--yes", "vg-prod")
        self.run("mkfs.ext4", "-q", "/dev/vg-prod/m")
        self.run("mkfs.ext4", "-q", "-L", "log", "/dev/vg-prod/log")

    def settings(self) -> list[str]:
        """LVM's settings, for a host without udev."""
        return luns_lvm._settings([self.loop], owner=self.owner)

    def share(self) -> None:
        """Have it say that several hosts use it."""
        self.run("vgchange", *self.settings(), "-an", "vg-prod")
        share_group(self.settings(), "vg-prod", self.disk.parent)

    def description(self) -> bytes:
        """What LVM has written of the group: the filesystems in it change by themselves while they are mounted."""
        with self.disk.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(MIB)

    def end(self) -> None:
        """Let go of it."""
        if luns_lvm.mapped("vg--prod"):
            self.run("vgchange", *self.settings(), "-an", "vg-prod")
        self.run("losetup", "--detach", self.loop)

    @staticmethod
    def run(*command: str) -> str:
        """A command that has to succeed."""
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=[0, 10240 * 512], ids=["whole", "partition"])
def original(request: Any, disks: Disks) -> Iterator[Original]:
    script = GPT if request.param else ""
    disk = disks.table(script, 220 * MIB, {}, {}) if script else disks.empty("table.img", 220 * MIB)
    original = Original(disk, request.param)
    yield original
    original.end()


def test_a_volume_group_beside_its_original(original: Original, made: Made, mount: Mount, disks: Disks) -> None:
    point = disks.folder / "original"
    point.mkdir()
    original.run("mount", "/dev/vg-prod/m", str(point))
    try:
        (point / "proof").write_text("what was there")
        original.run("sync")
        before = original.description()
        lun = made.start(original.disk)
        number = 2 if lun["table"] else 0
        group, log, m = lun["parts"][-3:]
        assert (group["type"], group["number"]) == ("LVM2_member", number)
        assert [(each["name"], each["type"], each["number"]) for each in (m, log)] == [
            ("vg-prod/m", "ext4", number),
            ("vg-prod/log", "ext4", number),
        ]
        assert log["label"] == "log"
        assert m["size"] == 100 * MIB
        copy = mount(m)
        assert (copy / "proof").read_text() == "what was there"
        (copy / "proof").write_text("changed in the copy")
        original.run("sync")
        assert (point / "proof").read_text() == "what was there"
        assert made.luns.get(lun["name"])["running"]
        assert made.luns.get(lun["name"])["mounts"][0]["path"] == str(copy)
        assert made.luns.stop(lun["name"]) == []
        assert not os.path.ismount(copy)
        assert made.traces() == [str(point)]  # the original, which is ours
        assert luns_lvm.mapped("idr_") == []
        assert len(luns_lvm.mapped("vg--prod")) == 2
        assert original.description() == before
    finally:
        original.run("umount", str(point))


def test_two_copies_at_once(original: Original, made: Made) -> None:
    first, second = made.start(original.disk, "first"), made.start(original.disk, "second")
    devices = [part["device"] for lun in (first, second) for part in lun["parts"] if "/" in part["name"]]
    assert len(set(devices)) == 4
    assert made.luns.stop(first["name"]) == []
    assert all(Path(device).exists() for device in devices[2:])
    assert made.luns.stop(second["name"]) == []
    assert luns_lvm.mapped("idr_") == []


@pytest.mark.parametrize(
    ("owner", "shared"), [("", False), ("prod-host_1.example", False), ("", True)], ids=["plain", "owned", "shared"]
)
def test_a_group_of_another_host_on_a_host_with_a_lock_manager(
    owner: str, shared: bool, made: Made, mount: Mount, disks: Disks, strict_host: Path
) -> None:
    original = Original(disks.empty("table.img", 220 * MIB), 0, owner)
    try:
        if shared:
            original.share()
        before, settings = original.description(), [each.read_bytes() for each in sorted(strict_host.glob("*.conf"))]
        lun = made.start(original.disk)
        group, log, m = lun["parts"]
        assert (group["type"], m["name"], log["name"]) == ("LVM2_member", "vg-prod/m", "vg-prod/log")
        (mount(m) / "new").write_text("written on the DR host")
        assert made.luns.stop(lun["name"]) == []
        assert luns_lvm.mapped("idr_") == []
        assert original.description() == before
        assert [each.read_bytes() for each in sorted(strict_host.glob("*.conf"))] == settings
    finally:
        original.end()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With which options filesystems are mounted."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.mounting import (
    is_writable,
    mount_options,
    mount_type,
)

Play = Callable[..., list[dict[str, Any]]]
HARMLESS = "nosuid,nodev,noexec"


@pytest.mark.parametrize(
    ("kind", "read_only", "written", "also"),
    [
        ("ext4", "ro,noload", "rw", ",errors=remount-ro"),
        ("ext3", "ro,noload", "rw", ",errors=remount-ro"),
        ("ext2", "ro", "rw", ",errors=remount-ro"),
        ("xfs", "ro,norecovery,nouuid", "rw,nouuid", ""),
        ("btrfs", "ro,rescue=nologreplay", "rw", ""),
        ("ntfs", "ro", "ro", ""),
        ("vfat", "ro", "rw", ""),
    ],
)
def test_options(kind: str, read_only: str, written: str, also: str) -> None:
    assert (mount_options(kind, False, True), mount_options(kind, True, True)) == (read_only, written)
    assert mount_options(kind, False) == f"{read_only},{HARMLESS}{also}"
    assert mount_options(kind, True) == f"{written},{HARMLESS}{also}"


@pytest.mark.root
def test_nothing_in_a_copy_makes_anybody_root(mounted: Callable[..., Path]) -> None:
    """A program of the copy that is root's and says so, and a device node."""
    folder = mounted("mkfs.ext4", "-q", options=f"loop,{mount_options('ext4', True)}")
    shutil.copy("/usr/bin/id", folder / "id")
    (folder / "id").chmod(0o4755)
    os.mknod(folder / "disk", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    with pytest.raises(PermissionError):
        subprocess.run([folder / "id"], check=False)
    with pytest.raises(PermissionError):
        (folder / "disk").read_bytes()
    told = Path("/proc/self/mountinfo").read_text().splitlines()
    (line,) = [line for line in told if line.split()[4] == str(folder)]
    assert {"nosuid", "nodev", "noexec"} <= set(line.split()[5].split(","))


def test_a_failover_is_mounted_as_production_is(play: Play) -> None:
    lun = {"parts": [{"number": 0, "device": "/dev/loop1", "type": "xfs", "name": ""}]}
    told = {"luns": {"drill.fs1.m": {"lun": lun, "problem": ""}}}
    task = {
        "ansible.builtin.debug": {
            "msg": "{{ [{'volume': 'fs1/m'}] | openisb.backup.facts('idr_parts', 'drill', mode, {}, told) }}"
        }
    }
    found = [play([task], "-e", json.dumps({"told": told, "mode": mode}))[0]["msg"] for mode in ("failover", "test")]
    assert [each["parts"]["fs1/m"]["options"] for each in found] == ["rw,nouuid", f"rw,nouuid,{HARMLESS}"]


def test_ntfs_is_never_written() -> None:
    assert (mount_type("ntfs"), mount_type("xfs")) == ("ntfs-3g", "xfs")
    assert not is_writable("ntfs", True)
    assert is_writable("ext4", True)
    assert not is_writable("ext4", False)


@pytest.mark.parametrize("kind", ["", "swap", "LVM2_member", "crypto_LUKS", "linux_raid_member"])
def test_what_is_no_filesystem_says_so(kind: str) -> None:
    for function in (lambda: mount_options(kind, True), lambda: mount_type(kind)):
        with pytest.raises(ValueError, match=f"'{kind}' cannot be mounted: "):
            function()

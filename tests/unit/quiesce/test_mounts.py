# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts as the kernel tells them."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.openisb.backup.plugins.module_utils.host import mounts
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import mountinfo
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.mountinfo import Mount

TABLE = b"""\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
42 27 7:0 / /srv/a\\040b rw,relatime shared:1 master:2 - xfs /dev/loop0 rw
43 27 0:39 /vol /srv/v rw - btrfs /dev/loop2 rw,subvol=/vol
"""


def test_lines_are_read() -> None:
    assert mountinfo.parse(TABLE) == [
        Mount(27, "254:0", "/", "ext4", "/", "rw,discard", "/dev/vda"),
        Mount(42, "7:0", "/srv/a b", "xfs", "/", "rw", "/dev/loop0"),
        Mount(43, "0:39", "/srv/v", "btrfs", "/vol", "rw,subvol=/vol", "/dev/loop2"),
    ]


def test_the_mount_of_a_path(tmp_path: Path) -> None:
    current = mounts.current()
    assert mounts.mount_of("/proc/self/status", current).point == "/proc"
    here = mounts.mount_of(str(tmp_path / "not" / "there"), current)
    major, minor = here.device.split(":")
    assert here.type == "btrfs" or os.makedev(int(major), int(minor)) == tmp_path.stat().st_dev

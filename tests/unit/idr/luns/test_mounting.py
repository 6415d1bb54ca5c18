# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With which options filesystems are mounted."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.idr.mounting import (
    is_writable,
    mount_options,
    mount_type,
)


@pytest.mark.parametrize(
    ("kind", "read_only", "written"),
    [
        ("ext4", "ro,noload", "rw"),
        ("ext3", "ro,noload", "rw"),
        ("ext2", "ro", "rw"),
        ("xfs", "ro,norecovery,nouuid", "rw,nouuid"),
        ("btrfs", "ro,rescue=nologreplay", "rw"),
        ("ntfs", "ro", "ro"),
        ("vfat", "ro", "rw"),
    ],
)
def test_options(kind: str, read_only: str, written: str) -> None:
    assert (mount_options(kind, False), mount_options(kind, True)) == (read_only, written)


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

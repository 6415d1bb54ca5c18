# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the filesystems of a LUN are mounted: pure functions, used as filters."""

from __future__ import annotations

# NTFS, as blkid names it, is mounted with ntfs-3g, which works with every kernel.
MOUNT_TYPES = {"ntfs": "ntfs-3g"}
# Mounted read-only even if write access is requested.
NEVER_WRITTEN = ("ntfs",)
# A copy has the identity of its original, which may be mounted here too.
ALWAYS = {"xfs": ["nouuid"]}
# Read-only means that nothing is written: not even a journal or log is replayed.
READ_ONLY = {
    "ext3": ["noload"],
    "ext4": ["noload"],
    "xfs": ["norecovery"],
    "btrfs": ["rescue=nologreplay"],
}
# A copy is untrusted: its device nodes, programs and setuid bits must have no effect.
HARMLESS = ["nosuid", "nodev", "noexec"]
# Nor may a damaged copy make this host panic.
HARMLESS_ALSO = {"ext2": ["errors=remount-ro"], "ext3": ["errors=remount-ro"], "ext4": ["errors=remount-ro"]}
NO_FILESYSTEM = {
    "": "it has no known content",
    "LVM2_member": "it is part of a volume group: mount a logical volume",
    "crypto_LUKS": "it is encrypted: open it first",
    "linux_raid_member": "it is part of a RAID: assemble it first",
    "swap": "it is swap space",
}


def mount_options(kind: str, writable: bool, in_use: bool = False) -> str:
    """The options with which a filesystem of this type (as blkid names it) is mounted.

    ``in_use``: whether production continues on it, as after a failover; else its devices and programs have no effect.
    """
    _check(kind)
    options = [] if in_use else [*HARMLESS, *HARMLESS_ALSO.get(kind, [])]
    if is_writable(kind, writable):
        return ",".join(["rw", *ALWAYS.get(kind, []), *options])
    return ",".join(["ro", *READ_ONLY.get(kind, []), *ALWAYS.get(kind, []), *options])


def mount_type(kind: str) -> str:
    """The type with which it is mounted."""
    _check(kind)
    return MOUNT_TYPES.get(kind, kind)


def is_writable(kind: str, writable: bool) -> bool:
    """Whether a filesystem of this type is mounted writable, if that is requested."""
    return writable and kind not in NEVER_WRITTEN


def _check(kind: str) -> None:
    if kind in NO_FILESYSTEM:
        raise ValueError(f"'{kind}' cannot be mounted: {NO_FILESYSTEM[kind]}")

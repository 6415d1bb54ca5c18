# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the filesystems of a LUN are mounted: pure functions, used as filters."""

from __future__ import annotations

# What blkid calls NTFS is mounted with ntfs-3g: it is there on every kernel.
MOUNT_TYPES = {"ntfs": "ntfs-3g"}
# Whatever is asked for: Windows' filesystem is read here, and never written.
NEVER_WRITTEN = ("ntfs",)
# A copy has the identity of its original, which may be mounted here too.
ALWAYS = {"xfs": ["nouuid"]}
# Read-only means not a byte: also what a journal or log still holds is not written to its place.
READ_ONLY = {
    "ext3": ["noload"],
    "ext4": ["noload"],
    "xfs": ["norecovery"],
    "btrfs": ["rescue=nologreplay"],
}
# What is in a copy is hostile: nothing of it is a device, is run, or makes anybody root.
HARMLESS = ["nosuid", "nodev", "noexec"]
# Nor does it say that this host has to panic where it is damaged.
HARMLESS_ALSO = {"ext2": ["errors=remount-ro"], "ext3": ["errors=remount-ro"], "ext4": ["errors=remount-ro"]}
NO_FILESYSTEM = {
    "": "nothing that is known is on it",
    "LVM2_member": "it is part of a volume group: mount a logical volume",
    "crypto_LUKS": "it is encrypted: open it first",
    "linux_raid_member": "it is part of a RAID: assemble it first",
    "swap": "it is swap space",
}


def mount_options(kind: str, writable: bool, in_use: bool = False) -> str:
    """The options with which a filesystem of this type (blkid's word) is mounted, for ``ansible.posix.mount``.

    ``in_use``: whether production goes on with it, as after a failover; else nothing in it is a device, or is run.
    """
    _check(kind)
    options = [] if in_use else [*HARMLESS, *HARMLESS_ALSO.get(kind, [])]
    if is_writable(kind, writable):
        return ",".join(["rw", *ALWAYS.get(kind, []), *options])
    return ",".join(["ro", *READ_ONLY.get(kind, []), *ALWAYS.get(kind, []), *options])


def mount_type(kind: str) -> str:
    """The type under which it is mounted."""
    _check(kind)
    return MOUNT_TYPES.get(kind, kind)


def is_writable(kind: str, writable: bool) -> bool:
    """Whether a filesystem of this type is mounted to be written to, where that is asked for."""
    return writable and kind not in NEVER_WRITTEN


def _check(kind: str) -> None:
    if kind in NO_FILESYSTEM:
        raise ValueError(f"'{kind}' cannot be mounted: {NO_FILESYSTEM[kind]}")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a DR host is ready for a drill, before anything is started: its places, its programs, its room.

Nothing is changed here, and every problem is told at once, each with its way out.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from ..volumes import VolumeError, device_of
from . import luns_commands, luns_mounts, luns_nbd

Volume = dict[str, Any]

PROGRAMS = ("nbdkit", "mount", "umount", "losetup", "blkid")
# What a filesystem is checked with, and NTFS mounted. Keys: as blkid, or as the kernel of a file server names it.
NTFS = ("ntfsfix", "ntfs-3g")
BY_TYPE = {
    "ext2": ("e2fsck",),
    "ext3": ("e2fsck",),
    "ext4": ("e2fsck",),
    "xfs": ("xfs_repair",),
    "btrfs": ("btrfs",),
    "ntfs": NTFS,
    "ntfs3": NTFS,
    "fuseblk": NTFS,
}
PACKAGES = {
    **luns_commands.PACKAGES,
    "mount": "mount or util-linux",
    "losetup": "mount or util-linux",
    "e2fsck": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "btrfs": "btrfs-progs",
    "ntfsfix": "ntfs-3g",
}
OVERLAY_ROOM = 256 * 1024**2
"""Bytes that there must be for what checks write on the LUNs of one drill."""


def problems(volumes: list[Volume], source: str, mode: str, scratch: str, luns: list[dict[str, Any]]) -> list[str]:
    """What keeps this host from the drill, as texts.

    ``volumes``: of the plan; ``luns``: those that are there, as Luns.of_drill() tells of them.
    """
    found = missing_programs(volumes, source, mode)
    for volume in volumes:
        found += production_problems(volume) + place_problems(volume, luns)
        if source == "restore" and volume["target"]:
            found += target_problems(volume, luns)
    return found + room_problems(volumes, source, scratch)


def missing_programs(volumes: list[Volume], source: str, mode: str) -> list[str]:
    """Programs that the drill needs and this host has not."""
    wanted = [*PROGRAMS]
    for volume in volumes:
        wanted += BY_TYPE.get(volume.get("filesystem") or "", ())
    if is_served(volumes, source, mode) and not luns_nbd.usable():
        wanted.append("nbdfuse")
    lacking = [name for name in dict.fromkeys(wanted) if shutil.which(name, path=luns_commands.PATH) is None]
    texts = [f"{name} is not installed: install the package {PACKAGES.get(name, name)}" for name in lacking]
    if "nbdfuse" in wanted and not os.path.exists("/dev/fuse"):
        texts.append(
            "there is neither an NBD device nor /dev/fuse: load the kernel module nbd (and install nbd-client) or fuse"
        )
    return texts


def is_served(volumes: list[Volume], source: str, mode: str) -> bool:
    """Whether any LUN is served by nbdkit, not by a loop device alone."""
    return source != "restore" or (mode == "test" and any(volume["target"] for volume in volumes))


def production_problems(volume: Volume) -> list[str]:
    """A host that has the volume's own LUN is a host of production, whatever the inventory says."""
    try:
        device = device_of(volume["name"], volume.get("serial") or "")
    except VolumeError:
        return []
    text = (
        f"{volume['volume']}: production's own LUN {volume['serial']} is attached to this host ({device}), so nothing "
        "is mounted here: name a DR host that has no LUNs of production, or unmap it"
    )
    return [text]


def place_problems(volume: Volume, luns: list[dict[str, Any]]) -> list[str]:
    """What is in the way where the volume is to be mounted."""
    place = volume["dr_mount"]
    if not place:
        return []
    name, real = volume["volume"], os.path.realpath(place)
    mounted = [mount for mount in luns_mounts.current() if mount.point == real]
    if mounted:
        return [f"{name}: {place} is in use: {by_whom(mounted[-1], luns)}"]
    if not os.path.lexists(real):
        return []
    if not os.path.isdir(real):
        return [f"{name}: {place} is no folder: remove it, or name another place with idr_mount"]
    if os.listdir(real):
        return [
            f"{name}: {place} has files in it, which the mount would hide: move them away, or name another idr_mount"
        ]
    return []


def by_whom(mount: luns_mounts.Mount, luns: list[dict[str, Any]]) -> str:
    """Whose mount it is, and the way out."""
    for lun in luns:
        if any(each["path"] == mount.point for each in lun["mounts"]):
            return f"drill {lun['drill']} keeps it up: {end_of(lun)}"
    return f"{mount.source} is mounted there: unmount it, or name another place with idr_mount"


def end_of(lun: dict[str, Any]) -> str:
    """How the drill of a LUN is ended."""
    return f"end that with 'ansible-playbook idr.yml --tags teardown -e idr_end={lun['drill']}', or wait for its end"


def target_problems(volume: Volume, luns: list[dict[str, Any]]) -> list[str]:
    """A target that is in use by a drill must not change under it. What else must not be, restore_target tells."""
    name, real = volume["volume"], os.path.realpath(volume["target"])
    for lun in luns:
        if real == os.path.realpath(lun["source"]) or real == lun.get("device"):
            return [f"{name}: its idr_target {volume['target']} is in use by drill {lun['drill']}: {end_of(lun)}"]
    return []


def room_problems(volumes: list[Volume], source: str, scratch: str) -> list[str]:
    """Whether there is room for what is restored to files, and for what is written on the LUNs."""
    restored = sum(volume["size"] for volume in volumes if source == "restore" and not volume["target"])
    wanted = restored or OVERLAY_ROOM
    free = free_bytes(scratch)
    if free >= wanted:
        return []
    way_out = ", give the volumes an idr_target, or use idr_source=instant" if restored else ""
    return [f"{scratch} has {mib(free)} MiB free, and {mib(wanted)} MiB may be needed there: make room{way_out}"]


def free_bytes(path: str) -> int:
    """What root may still write where a folder is, or will be."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def mib(count: int) -> int:
    """Bytes as MiB."""
    return count // 1024**2

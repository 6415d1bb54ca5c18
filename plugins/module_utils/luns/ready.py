# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests whether a DR host is ready for a drill, before anything is started: mount points, programs, disk space.

Nothing is changed, and all problems are reported at once, each with its remedy.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict

from ..host.plain import plain
from ..host.volumes import VolumeError, device_of
from ..saveset.base.errors import TargetError
from ..saveset.base.mountinfo import Mount
from . import commands, mounts, nbd
from .targets import Target

Volume = Dict[str, Any]

PROGRAMS = ("nbdkit", "mount", "umount", "losetup", "blkid")
# Programs to check a filesystem, and to mount NTFS. Keys: names by blkid, or by the kernel of a file server.
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
    **commands.PACKAGES,
    "mount": "mount or util-linux",
    "losetup": "mount or util-linux",
    "e2fsck": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "btrfs": "btrfs-progs",
    "ntfsfix": "ntfs-3g",
}
OVERLAY_ROOM = 256 * 1024**2
"""Bytes that must be free for the checks' writes to the LUNs of one drill."""


def problems(
    volumes: list[Volume],
    source: str,
    mode: str,
    scratch: str,
    luns: list[dict[str, Any]],
    options: dict[str, Any],
) -> list[str]:
    """The obstacles to the drill on this host.

    ``volumes``: of the plan; ``luns``: the existing ones, as Luns.of_drill() returns them. ``options``: of restores, as
    Target takes them: overwrite, state_dir and run_dir.
    """
    found = missing_programs(volumes, source, mode)
    for volume in volumes:
        found += production_problems(volume) + place_problems(volume, luns)
        if source == "restore" and volume["target"]:
            found += target_problems(volume, luns) or refusals(volume, options)
    return found + room_problems(volumes, source, scratch)


def missing_programs(volumes: list[Volume], source: str, mode: str) -> list[str]:
    """The programs that the drill needs and this host lacks."""
    wanted = [*PROGRAMS]
    for volume in volumes:
        wanted += BY_TYPE.get(volume.get("filesystem") or "", ())
    if is_served(volumes, source, mode) and not nbd.usable():
        wanted.append("nbdfuse")
    lacking = [name for name in dict.fromkeys(wanted) if shutil.which(name, path=commands.PATH) is None]
    texts = [f"{name} is not installed: install the package {PACKAGES.get(name, name)}" for name in lacking]
    if "nbdfuse" in wanted and not os.path.exists("/dev/fuse"):
        texts.append(
            "there are neither NBD devices nor /dev/fuse: load the kernel module nbd (and install nbd-client) or fuse"
        )
    return texts


def is_served(volumes: list[Volume], source: str, mode: str) -> bool:
    """Whether any LUN needs nbdkit, not only a loop device."""
    return source != "restore" or (mode == "test" and any(volume["target"] for volume in volumes))


def production_problems(volume: Volume) -> list[str]:
    """Report a host that has the volume's own LUN: it is a production host, whatever the inventory says."""
    try:
        device = device_of(volume["name"], volume.get("serial") or "")
    except VolumeError:
        return []
    text = (
        f"{volume['volume']}: production's own LUN {volume['serial']} is attached to this host ({device}), so nothing "
        "is mounted here: choose a DR host without production LUNs, or unmap it"
    )
    return [text]


def place_problems(volume: Volume, luns: list[dict[str, Any]]) -> list[str]:
    """The obstacles at the volume's mount point."""
    place = volume["dr_mount"]
    if not place:
        return []
    name, real = volume["volume"], os.path.realpath(place)
    mounted = [mount for mount in mounts.current() if mount.point == real]
    if mounted:
        return [f"{name}: {place} is in use: {by_whom(mounted[-1], luns)}"]
    if not os.path.lexists(real):
        return []
    if not os.path.isdir(real):
        return [f"{name}: {place} is not a directory: remove it, or choose another path with idr_mount"]
    if os.listdir(real):
        return [
            f"{name}: {place} is not empty, and the mount would hide its files: move them, or choose another idr_mount"
        ]
    return []


def by_whom(mount: Mount, luns: list[dict[str, Any]]) -> str:
    """Who mounted it, and the remedy."""
    for lun in luns:
        if any(each["path"] == mount.point for each in lun["mounts"]):
            return f"drill {lun['drill']} keeps it up: {end_of(lun)}"
    return f"{plain(mount.source)} is mounted there: unmount it, or choose another path with idr_mount"


def end_of(lun: dict[str, Any]) -> str:
    """How to end the drill of a LUN."""
    return f"end that with 'ansible-playbook idr.yml --tags teardown -e idr_end={lun['drill']}', or wait for its end"


def target_problems(volume: Volume, luns: list[dict[str, Any]]) -> list[str]:
    """Report a target that a drill uses: it must not change."""
    name, real = volume["volume"], os.path.realpath(volume["target"])
    for lun in luns:
        if real == os.path.realpath(lun["source"]) or real == lun.get("device"):
            return [f"{name}: its idr_target {volume['target']} is in use by drill {lun['drill']}: {end_of(lun)}"]
    return []


def refusals(volume: Volume, options: dict[str, Any]) -> list[str]:
    """Why nothing can be restored to the volume's target, as the restore itself would say."""
    try:
        block_size = volume.get("block_size") or 0
        Target(volume["target"], volume["volume"], volume["size"], block_size=block_size, **options).check()
    except (TargetError, OSError) as error:
        return [f"{volume['volume']}: Cannot restore: {error}"]
    return []


def room_problems(volumes: list[Volume], source: str, scratch: str) -> list[str]:
    """Report a lack of disk space for files to restore to, and for writes to the LUNs."""
    restored = sum(volume["size"] for volume in volumes if source == "restore" and not volume["target"])
    wanted = restored or OVERLAY_ROOM
    free = free_bytes(scratch)
    if free >= wanted:
        return []
    way_out = ", give the volumes an idr_target, or use idr_source=instant" if restored else ""
    return [f"{scratch} has {mib(free)} MiB free, and {mib(wanted)} MiB may be needed there: free disk space{way_out}"]


def free_bytes(path: str) -> int:
    """The bytes that root can still write at the place of an existing or future directory."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def mib(count: int) -> int:
    """Bytes as MiB."""
    return count // 1024**2

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who uses a block device or file: mounts, swap, devices built on it, programs that have it open, kernel exports.

Users of a disk's partitions and of the file behind a loop device count too, and a device is identified by its number,
not by the name used for it. Standard library only, Python 3.8: this also runs on hosts without the engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import stat
import struct
import typing as t

from ..base import kerneltables, mountinfo
from .disk_identity import device_folder, printable

_LOOP_GET_STATUS64 = 0x4C05
_LOOP_INFO64 = struct.Struct("QQQ208x")  # device and inode of the file below, and its number if it is a device
_LOOP_MAJOR = 7
_DEEPEST = 8
# The devices and files that the kernel itself has open to export them over iSCSI, Fibre Channel and NVMe.
_EXPORTS = (
    "/sys/kernel/config/target/core/*/*/udev_path",
    "/sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path",
)
_TOLD = 5  # users that a text names


class Place(t.NamedTuple):
    """Where content is: the number of a block device, or the device and inode of a file."""

    device: int
    inode: int  # 0: a block device


def users_of(fd: int) -> list[str]:
    """Who uses what ``fd`` has open, apart from this process, as texts; empty if nobody does."""
    own = place_of(os.fstat(fd))
    if own is None:
        return []
    wholes, below = _disk_of(own), _below(fd)
    parts = {own, *_partitions(own)}
    found = _mounts(parts | wholes) + _swaps(parts | wholes | below) + _holders(parts | wholes)
    found += _loops(parts | wholes | below) + _exports(parts | wholes | below) + _openers(parts | wholes | below)
    return list(dict.fromkeys(found))


def in_words(users: t.Sequence[str]) -> str:
    """Users as one text."""
    more = f", and {len(users) - _TOLD} more" if users[_TOLD:] else ""
    return ", ".join(users[:_TOLD]) + more


def place_of(status: os.stat_result) -> Place | None:
    """Where the content of a file or block device is; None for anything else."""
    if stat.S_ISBLK(status.st_mode):
        return Place(status.st_rdev, 0)
    return Place(status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _number(place: Place) -> str:
    return f"{os.major(place.device)}:{os.minor(place.device)}"


def _numbered(path: str) -> Place:
    """The device that a sysfs file ``dev`` names."""
    major, minor = _read(path).split(":")
    return Place(os.makedev(int(major), int(minor)), 0)


def _partitions(place: Place) -> set[Place]:
    if place.inode:
        return set()
    found = glob.glob(glob.escape(device_folder(_number(place))) + "/*/partition")
    return {_numbered(os.path.dirname(file) + "/dev") for file in found}


def _disk_of(place: Place) -> set[Place]:
    """The whole disk of a partition."""
    if place.inode or not os.path.exists(device_folder(_number(place)) + "/partition"):
        return set()
    return {_numbered(os.path.dirname(device_folder(_number(place))) + "/dev")}


def _below(fd: int) -> set[Place]:
    """What is behind a loop device, and behind that."""
    found: set[Place] = set()
    opened: list[int] = []
    try:
        for _depth in range(_DEEPEST):
            place = _behind(opened[-1] if opened else fd)
            if place is None or place in found:
                break
            found.add(place)
            if place.inode or os.major(place.device) != _LOOP_MAJOR:
                break
            opened.append(os.open(f"/dev/loop{os.minor(place.device)}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        pass  # detached meanwhile
    finally:
        for each in opened:
            os.close(each)
    return found


def _behind(fd: int) -> Place | None:
    """The file or device behind an open loop device; None for anything else, or if nothing is attached."""
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode) or os.major(status.st_rdev) != _LOOP_MAJOR:
        return None
    try:
        answer = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64.size))
    except OSError:
        return None
    device, inode, number = _LOOP_INFO64.unpack(answer)
    return Place(number, 0) if number else Place(device, inode)


def _loops(places: set[Place]) -> list[str]:
    """Other loop devices that show any of these places."""
    found = []
    for entry in sorted(glob.glob("/sys/block/loop*/loop")):
        name = os.path.basename(os.path.dirname(entry))
        try:
            fd = os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if place_of(os.fstat(fd)) not in places and _behind(fd) in places:
                found.append(f"attached as /dev/{name}")
        finally:
            os.close(fd)
    return found


def _mounts(places: set[Place]) -> list[str]:
    """Mounts of devices, in every accessible mount namespace."""
    numbers = {_number(place) for place in places if not place.inode}
    found, seen = [], set()
    for process in ["/proc/self", *sorted(glob.glob("/proc/[0-9]*"))] if numbers else []:
        with contextlib.suppress(OSError):
            namespace = os.readlink(process + "/ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            found += [f"mounted at {point}" for point in _mounted(process, numbers)]
    return found


def _mounted(process: str, numbers: set[str]) -> list[str]:
    points = []
    for mount in mountinfo.mounts(process + "/mountinfo"):
        # A btrfs filesystem has its own device number, so its source must be compared.
        if mount.device in numbers or _number_of_node(mount.source) in numbers:
            points.append(printable(mount.point))
    return points


def _number_of_node(path: str) -> str:
    try:
        status = os.stat(path) if path.startswith("/") else None
    except OSError:
        return ""
    return _number(Place(status.st_rdev, 0)) if status and stat.S_ISBLK(status.st_mode) else ""


def _swaps(places: set[Place]) -> list[str]:
    try:
        paths = kerneltables.swaps()
    except OSError:
        return []
    return [f"swap space ({printable(path)})" for path in paths if _leads_to(path, places)]


def _holders(places: set[Place]) -> list[str]:
    """Devices that are built on a device: LVM, RAID, multipath, encryption."""
    found = []
    for place in places:
        if not place.inode:
            for holder in sorted(glob.glob(glob.escape(device_folder(_number(place))) + "/holders/*")):
                name = _read(holder + "/dm/name")
                found.append(f"held by {printable(name or os.path.basename(holder))}")
    return found


def _exports(places: set[Place]) -> list[str]:
    files = [file for pattern in _EXPORTS for file in glob.glob(pattern)]
    return [f"exported by the kernel ({os.path.dirname(file)})" for file in files if _leads_to(_read(file), places)]


def _openers(places: set[Place]) -> list[str]:
    """Programs that have any of these places open or mapped into their memory."""
    found, inodes = [], {place.inode for place in places if place.inode}
    for process in sorted(glob.glob("/proc/[0-9]*"), key=lambda path: int(os.path.basename(path))):
        if os.path.basename(process) == str(os.getpid()):
            continue
        links = (f"{process}/fd/{name}" for name in _listed(process + "/fd"))
        if any(_leads_to(link, places) for link in links) or _maps(process, places, inodes):
            name = printable(_read(process + "/comm")) or "ended"
            found.append(f"open by process {os.path.basename(process)} ({name})")
    return found


def _maps(process: str, places: set[Place], inodes: set[int]) -> bool:
    """Whether a process has a file mapped. The device in maps is not always right, so the link in map_files decides."""
    for line in _lines(process + "/maps") if inodes else []:
        words = line.split(b" ", 5)
        if int(words[4]) in inodes and _leads_to(f"{process}/map_files/{words[0].decode()}", places):
            return True
    return False


def _lines(path: str) -> list[bytes]:
    try:
        return kerneltables.lines(path)
    except OSError:  # ended meanwhile, or not permitted
        return []


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # ended meanwhile, or not permitted
        return []


def _leads_to(path: str, places: set[Place]) -> bool:
    try:
        return path.startswith("/") and place_of(os.stat(path)) in places
    except (OSError, ValueError):
        return False


def _read(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return os.fsdecode(stream.read().rstrip(b"\n"))
    except OSError:
        return ""

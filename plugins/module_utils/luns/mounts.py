# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the mounts of a LUN's devices, and unmounts them even if the source hangs."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import subprocess
import time
from typing import Any, Callable, Iterable, Mapping

from ..host.plain import plain
from ..saveset.base import mountinfo
from ..saveset.base.mountinfo import Mount
from . import commands
from .errors import LunError

# Seconds that a mount may be busy with processes that are just ending.
BUSY = 3.0
POLL = 0.05
TOLD = 3  # number of processes that an error names


def current() -> list[Mount]:
    """The mounts that this process sees, later ones last."""
    return mountinfo.mounts()


def of_devices(devices: list[str], mounts: list[Mount] | None = None) -> list[Mount]:
    """The mounts of these devices: by the filesystem's device number, else by the mount's source.

    A btrfs has a device number of its own, so only its source identifies it.
    """
    numbers = {number for number in map(device_number, devices) if number}
    found = current() if mounts is None else mounts
    return [mount for mount in found if mount.device in numbers or _source_number(mount) in numbers]


def device_number(path: str) -> str:
    """The number of a block device as in mountinfo; empty for anything else."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISBLK(status.st_mode):
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def is_there(device: str, point: str) -> bool:
    """Whether a device is mounted at ``point``. Raises LunError if something else is."""
    found = [mount for mount in current() if mount.point == os.path.realpath(point)]
    if not found:
        return False
    if not of_devices([device], found[-1:]):
        raise LunError(
            f"{plain(found[-1].source)} is already mounted at {point}: unmount it, or mount {device} elsewhere"
        )
    return True


def generations(points: Mapping[str, str]) -> list[list[str]]:
    """Names in the order in which what they stand for is mounted: those of one list at once, each list after the last.

    ``points``: by name, where it is mounted; empty: nowhere. A mount comes after all those that it is below.
    """
    found: dict[int, list[str]] = {}
    for name, point in points.items():
        found.setdefault(len(parents(point, points.values())), []).append(name)
    return [found[depth] for depth in sorted(found)]


def parents(point: str, points: Iterable[str]) -> list[str]:
    """Those of these mount points that ``point`` is below."""
    place = os.path.normpath(point)
    return [each for each in points if point and each and _is_below(place, os.path.normpath(each))]


def mount(device: str, point: str, kind: str, options: str, timeout: float) -> None:
    """Mount a device where nothing is mounted; creates a missing directory. Raises LunError, OSError."""
    os.makedirs(point, exist_ok=True)
    done = commands.run(["mount", "-t", kind, "-o", options, device, point], timeout)
    if done.status:
        raise LunError(f"{device} cannot be mounted at {point}: {commands.told(done)}")


def unmount(point: str, timeout: float, cut: Callable[[], Any]) -> str:
    """Unmount the topmost mount at ``point``. Returns why that failed, or empty.

    If it takes longer than ``timeout``, ``cut`` is called to cut off the source, so that waiting processes fail.
    """
    deadline = time.monotonic() + min(BUSY, timeout)
    while True:
        status, errors = _umount(point, timeout, cut)
        if status == 0 or not _is_mounted(point):
            return ""
        if time.monotonic() > deadline:
            return (
                f"{plain(point)} cannot be unmounted ({plain(errors)}){users(point)}: end what uses it, and try again"
            )
        time.sleep(POLL)


def users(point: str) -> str:
    """The processes with open files or a working directory below a path, for the end of an error text."""
    found = []
    for entry in glob.glob("/proc/[0-9]*"):
        links = [entry + "/cwd", entry + "/root", *glob.glob(entry + "/fd/*")]
        if any(_leads_below(link, point) for link in links):
            found.append(f"{os.path.basename(entry)} ({_name(entry)})")
    if not found:
        return ""
    more = f" and {len(found) - TOLD} more" if found[TOLD:] else ""
    return ", used by process " + ", ".join(found[:TOLD]) + more


def elsewhere(devices: list[str]) -> list[str]:
    """Descriptions of mounts of a device in other processes' mount namespaces."""
    numbers = {number for number in map(device_number, devices) if number}
    ours, found, seen = _namespace("/proc/self"), [], set()
    for entry in sorted(glob.glob("/proc/[0-9]*"), key=lambda path: int(os.path.basename(path))):
        namespace = _namespace(entry)
        if not namespace or namespace == ours or namespace in seen:
            continue
        seen.add(namespace)
        with contextlib.suppress(OSError):
            mounts = mountinfo.mounts(entry + "/mountinfo")
            points = [mount.point for mount in mounts if mount.device in numbers]
            found += [f"{plain(point)} of process {os.path.basename(entry)} ({_name(entry)})" for point in points[:1]]
    return found


def _umount(point: str, timeout: float, cut: Callable[[], Any]) -> tuple[int, str]:
    process = subprocess.Popen(
        [commands.program("umount"), point],
        env=commands.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        errors = process.communicate(timeout=timeout)[1]
    except subprocess.TimeoutExpired:
        cut()
        try:
            errors = process.communicate(timeout=timeout)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            return 1, "umount hangs"
    return process.returncode, " ".join(errors.decode("utf-8", "replace").split())


def _is_mounted(point: str) -> bool:
    return any(mount.point == point for mount in current())


def _source_number(mount: Mount) -> str:
    return device_number(mount.source) if mount.source.startswith("/") else ""


def _is_below(place: str, folder: str) -> bool:
    return place != folder and place.startswith(os.path.join(folder, ""))


def _leads_below(link: str, point: str) -> bool:
    try:
        target = os.readlink(link)
    except OSError:
        return False
    return target == point or target.startswith(point.rstrip("/") + "/")


def _namespace(entry: str) -> str:
    try:
        return os.readlink(entry + "/ns/mnt")
    except OSError:
        return ""


def _name(entry: str) -> str:
    try:
        with open(entry + "/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "ended"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is mounted from the devices of a LUN, and how it is unmounted when its source may hang."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import stat
import subprocess
import time
from typing import Any, Callable, NamedTuple

from . import luns_commands

MOUNTINFO = "/proc/self/mountinfo"
# Seconds that a mount may be busy with what is just ending.
BUSY = 3.0
POLL = 0.05
TOLD = 3  # how many processes an error names
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount, as mountinfo tells it. ``number`` is the filesystem's (major:minor): not always the device's."""

    number: str
    point: str
    type: str
    source: str


def current(path: str = MOUNTINFO) -> list[Mount]:
    """The mounts that this process sees, later ones last."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return [_parse(line) for line in stream if line.strip()]


def of_devices(devices: list[str], mounts: list[Mount] | None = None) -> list[Mount]:
    """What is mounted from these devices: by the number of the filesystem, else by what it says it was mounted from.

    A btrfs has a number of its own, so only its source tells.
    """
    numbers = {number for number in map(device_number, devices) if number}
    found = current() if mounts is None else mounts
    return [mount for mount in found if mount.number in numbers or _source_number(mount) in numbers]


def device_number(path: str) -> str:
    """The number of a block device as mountinfo writes it; empty for what is none."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISBLK(status.st_mode):
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def unmount(point: str, timeout: float, cut: Callable[[], Any]) -> str:
    """Unmount what is mounted last at ``point``; returns why it is not, or nothing.

    Where it takes longer than ``timeout``, ``cut`` is called: it cuts off the source, and what waited for it fails.
    """
    deadline = time.monotonic() + min(BUSY, timeout)
    while True:
        status, errors = _umount(point, timeout, cut)
        if status == 0 or not _is_mounted(point):
            return ""
        if time.monotonic() > deadline:
            return f"{point} cannot be unmounted ({errors}){users(point)}: end what uses it, and try again"
        time.sleep(POLL)


def users(point: str) -> str:
    """Who has files below a path open or works there, for the end of an error text."""
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
    """Processes in whose mount namespace a device is mounted, where it is not in ours: texts."""
    numbers = {number for number in map(device_number, devices) if number}
    ours, found, seen = _namespace("/proc/self"), [], set()
    for entry in sorted(glob.glob("/proc/[0-9]*"), key=lambda path: int(os.path.basename(path))):
        namespace = _namespace(entry)
        if not namespace or namespace == ours or namespace in seen:
            continue
        seen.add(namespace)
        with contextlib.suppress(OSError):
            points = [mount.point for mount in current(entry + "/mountinfo") if mount.number in numbers]
            found += [f"{point} of process {os.path.basename(entry)} ({_name(entry)})" for point in points[:1]]
    return found


def _umount(point: str, timeout: float, cut: Callable[[], Any]) -> tuple[int, str]:
    process = subprocess.Popen(
        [luns_commands.program("umount"), point],
        env=luns_commands.environment(),
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


def _parse(line: str) -> Mount:
    fields, _separator, rest = line.partition(" - ")
    words, (kind, source) = fields.split(), rest.split(" ")[:2]
    return Mount(words[2], _unescape(words[4]), kind, _unescape(source))


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _source_number(mount: Mount) -> str:
    return device_number(mount.source) if mount.source.startswith("/") else ""


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

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps decrypted and secret data in memory only: folders that are not on disk, their free space, and no core dumps.

Standard library only, Python 3.8: this also runs on storage hosts.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import typing as t

from . import kerneltables, mountinfo
from .errors import InvalidValue

_PR_SET_DUMPABLE = 4
_IN_MEMORY = ("tmpfs", "ramfs")
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([BKMGT]?)(?:I?B)?\Z", re.IGNORECASE)
_CGROUPS = "/sys/fs/cgroup"


def keep_private() -> None:
    """Prevent core dumps of this process, which holds keys and decrypted data.

    A limit on the dump's size alone would not be enough where the kernel pipes dumps to a program.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def parse_size(text: str) -> int:
    """Bytes, from ``4G``, ``512M``, ``64KiB`` or a plain number.  Raises InvalidValue."""
    found = _SIZE.match(text.strip())
    if not found:
        raise InvalidValue(f"the size '{text}'", "it is not a size", "Write it like 4G or 512M")
    return int(found[1]) * _UNITS[found[2].upper()]


def is_in_memory(path: str) -> bool:
    """Whether what is written below ``path`` stays in memory; False if that is not known."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    return next((mount.type in _IN_MEMORY for mount in mountinfo.mounts() if mount.device == wanted), False)


def folder() -> str:
    """The usual in-memory folder with the most free space; empty if there is none."""
    there = [path for path in ("/dev/shm", f"/run/user/{os.geteuid()}", "/run") if _is_usable(path)]
    return max(there, key=_free_below, default="")


def room(path: str) -> int:
    """How many bytes may be written below ``path``, an in-memory folder, without depriving anything else of memory."""
    return max(0, min(_free_below(path), _available(), *_free_of_groups()))


def clear_swap(listing: str = "/proc/swaps") -> list[str]:
    """The swap areas that would store memory in plain text: those that are neither in memory nor encrypted."""
    return [area for area in kerneltables.swaps(listing) if not _keeps_secrets(area)]


def _keeps_secrets(area: str) -> bool:
    name = os.path.basename(os.path.realpath(area))
    if name.startswith("zram"):
        return True
    try:
        with open(f"/sys/block/{name}/dm/uuid", encoding="ascii", errors="replace") as stream:
            return stream.read().startswith("CRYPT-")
    except OSError:
        return False


def _is_usable(path: str) -> bool:
    return os.access(path, os.W_OK | os.X_OK) and is_in_memory(path)


def _free_below(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _available() -> int:
    """The memory that the machine can provide without swapping."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream)
    return int(fields["MemAvailable"].split()[0]) << 10


def _free_of_groups() -> t.Iterator[int]:
    """What is left of the memory limit of each control group of this process."""
    try:
        lines = kerneltables.lines("/proc/self/cgroup")
    except OSError:
        return
    for path in (os.fsdecode(line[3:]) for line in lines if line.startswith(b"0::")):
        group = os.path.normpath(f"{_CGROUPS}/{path}")
        while group.startswith(f"{_CGROUPS}/"):
            limit, used = _number(f"{group}/memory.max"), _number(f"{group}/memory.current")
            if limit is not None and used is not None:
                yield limit - used
            group = os.path.dirname(group)


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (OSError, ValueError):  # "max": no limit
        return None

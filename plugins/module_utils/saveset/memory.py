# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decrypted or secret stays in memory: where files are on no disk, how much there is room for, and no dumps.

Runs on storage hosts too, so: the standard library alone, Python 3.8.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import typing as t

from .errors import InvalidValue

_PR_SET_DUMPABLE = 4
_IN_MEMORY = ("tmpfs", "ramfs")
_UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([BKMGT]?)(?:I?B)?\Z", re.IGNORECASE)
_CGROUPS = "/sys/fs/cgroup"


def keep_private() -> None:
    """Let no core dump of this process, which holds keys and decrypted data, come to a disk.

    A limit of the dump's size would not do where the kernel hands dumps to a program.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def parse_size(text: str) -> int:
    """Bytes, from ``4G``, ``512M``, ``64KiB`` or a plain number.  Raises InvalidValue."""
    found = _SIZE.match(text.strip())
    if not found:
        raise InvalidValue(f"the size '{text}'", "it is no size", "Write it like 4G or 512M")
    return int(found[1]) * _UNITS[found[2].upper()]


def is_in_memory(path: str) -> bool:
    """Whether what is written below ``path`` is in memory; False where that is not known."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for fields in map(str.split, stream):
            if fields[2] == wanted:
                return fields[fields.index("-") + 1] in _IN_MEMORY
    return False


def folder() -> str:
    """The folder in memory, of those that every system has, with the most room; empty where there is none."""
    there = [path for path in ("/dev/shm", f"/run/user/{os.geteuid()}", "/run") if _is_usable(path)]
    return max(there, key=_free_below, default="")


def room(path: str) -> int:
    """How many bytes may be written below ``path``, a folder in memory, before something else lacks them."""
    return max(0, min(_free_below(path), _available(), *_free_of_groups()))


def clear_swap(listing: str = "/proc/swaps") -> list[str]:
    """The swap areas that would keep what was in memory in clear: those that neither are in memory nor encrypted."""
    with open(listing, encoding="utf-8", errors="surrogateescape") as stream:
        areas = [line.split()[0] for line in stream.readlines()[1:]]
    return [area for area in areas if not _keeps_secrets(area)]


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
    """What the machine can give without swapping."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream)
    return int(fields["MemAvailable"].split()[0]) << 10


def _free_of_groups() -> t.Iterator[int]:
    """What the control groups that this process is in leave of their limits."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
            paths = [line.rstrip("\n").partition("::")[2] for line in stream if line.startswith("0::")]
    except OSError:
        return
    for path in paths:
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

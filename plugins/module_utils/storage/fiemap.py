# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a filesystem has put a file: the kernel's FIEMAP, for storage hosts, which have no extra packages."""

from __future__ import annotations

import fcntl
import struct
from typing import Iterator, NamedTuple

LAST = 0x1
UNWRITTEN = 0x800
MERGED = 0x1000
SHARED = 0x2000


class MappedExtent(NamedTuple):
    """``length`` bytes of the file from ``logical`` on are at ``physical``; ``flags`` are the kernel's."""

    logical: int
    physical: int
    length: int
    flags: int


_FIEMAP = 0xC020660B
_SYNC = 0x1
_HEAD = struct.Struct("=QQLLLL")
_EXTENT = struct.Struct("=QQQ16xL12x")
_BATCH = 8192
_EVERYTHING = (1 << 64) - 1


def extents(fd: int) -> Iterator[MappedExtent]:
    """Yield the mapped extents of an open file in order; the kernel first writes out what is in the page cache.

    Raises OSError where the filesystem does not support it.
    """
    buffer = bytearray(_HEAD.size + _BATCH * _EXTENT.size)
    start, last = 0, False
    while not last:
        _HEAD.pack_into(buffer, 0, start, _EVERYTHING - start, _SYNC, 0, _BATCH, 0)
        fcntl.ioctl(fd, _FIEMAP, buffer)
        count = _HEAD.unpack_from(buffer)[3]
        last = count == 0
        for fields in _EXTENT.iter_unpack(memoryview(buffer)[_HEAD.size : _HEAD.size + count * _EXTENT.size]):
            extent = MappedExtent(*fields)
            yield extent
            start, last = extent.logical + extent.length, bool(extent.flags & LAST)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Page-aligned buffers: reading into others can be ten times slower, and direct I/O refuses them."""

from __future__ import annotations

import ctypes
import functools

_PAGE = 4096

#: Zero bytes, cached by length, because making them costs more than comparing them.
_zeros = functools.lru_cache(maxsize=16)(bytes)


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero."""
    # Comparing bytes is a memcmp, comparing memoryviews is not; most data has a non-zero byte at its beginning.
    return not any(data[:16]) and bytes(data) == _zeros(len(data))


class AlignedBuffer:
    """``length`` reusable bytes; ``view`` gives access to them."""

    def __init__(self, length: int) -> None:
        # Not mmap: only bytes and bytearray can be compared in place.
        self._data = bytearray(length + _PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._skip = -address % _PAGE
        self.view = memoryview(self._data)[self._skip : self._skip + length]

    def __len__(self) -> int:
        return len(self.view)

    def is_zero(self, begin: int, end: int) -> bool:
        """Whether the bytes from ``begin`` to ``end`` are all zero."""
        return self._data.startswith(_zeros(end - begin), self._skip + begin, self._skip + end)

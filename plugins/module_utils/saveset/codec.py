# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression of frames: zstd, or raw where zstd gains nothing."""

from __future__ import annotations

import threading
import typing as t

from .deps import zstandard

RAW = 0
ZSTD = 1

_WORTH = 0.98  # a frame that stays larger than this part of its plain size is kept raw: cheaper to read

Buffer = t.Union[bytes, bytearray, memoryview]


class Compressor:
    """Compresses for one thread; contexts are reused, and may not be shared."""

    def __init__(self, level: int) -> None:
        self._context = zstandard.ZstdCompressor(level=level, write_checksum=False)

    def compress(self, data: Buffer) -> tuple[int, Buffer]:
        """``(codec, bytes)``: compressed, or ``data`` itself where that is not worth it."""
        packed = self._context.compress(data)
        if len(packed) > len(data) * _WORTH:
            return RAW, data
        return ZSTD, packed


_local = threading.local()


def decompress(codec: int, data: Buffer, length: int) -> bytes | None:
    """The plain bytes, or None when they do not come out as ``length`` bytes."""
    if codec == RAW:
        plain = bytes(data)
    elif codec == ZSTD:
        if not hasattr(_local, "context"):
            _local.context = zstandard.ZstdDecompressor()
        try:
            plain = _local.context.decompress(data, max_output_size=length)
        except zstandard.ZstdError:
            return None
    else:
        return None
    return plain if len(plain) == length else None

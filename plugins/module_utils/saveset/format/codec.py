# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression of frames: zstd, or raw if zstd gains nothing."""

from __future__ import annotations

import contextlib
import typing as t

from ..base.deps import zstandard

#: zstd's value for data that do not state their plain length; it allocates as much memory as they state.
_UNKNOWN = -1
_WINDOW_MAX = 1 << 24  # more than any zstd level uses with which this version writes

RAW = 0
ZSTD = 1

#: Level 1 for frames of one chunk: about the speed and the size that zstd's own settings have with frames of four.
#: The table of 2^16 positions fits into a processor's second cache.
_FASTEST = {"min_match": 7, "hash_log": 16}

_WORTH = 0.98  # a frame that stays larger than this fraction of its plain size is stored raw: cheaper to read

Buffer: t.TypeAlias = "bytes | bytearray | memoryview"


class Compressor:
    """Compresses for one thread; its context is reused and must not be shared."""

    def __init__(self, level: int) -> None:
        settings = zstandard.ZstdCompressionParameters(
            compression_level=level, write_content_size=True, **(_FASTEST if level == 1 else {})
        )
        self._context = zstandard.ZstdCompressor(compression_params=settings)

    def compress(self, data: Buffer) -> tuple[int, Buffer]:
        """``(codec, bytes)``: compressed, or ``data`` itself if compression gains too little."""
        packed = self._context.compress(data)
        if len(packed) > len(data) * _WORTH:
            return RAW, data
        return ZSTD, packed


_contexts: list[t.Any] = []


def decompress(codec: int, data: Buffer, length: int, room: memoryview | None = None) -> Buffer | None:
    """The plain bytes, or None unless they are exactly ``length`` bytes.

    :param room: a buffer to fill and return, if it is ``length`` bytes long: faster than new memory.
    """
    fits = room is not None and len(room) == length
    try:
        if codec == RAW:
            plain = _copy_into(data, room) if room is not None and fits else bytes(data)
        elif _is_zstd(codec, data, length):
            plain = _unpack_into(data, room) if room is not None and fits else _unpack(data, length)
        else:
            return None
    except zstandard.ZstdError:
        return None
    return plain if len(plain) == length else None


def decompress_first(codec: int, data: Buffer, length: int, end: int) -> Buffer | None:
    """The first ``end`` of ``length`` plain bytes, decompressed no further; None if there are fewer, or it is damaged.

    What follows in ``data`` is not looked at.
    """
    if end >= length:
        return decompress(codec, data, length)
    if codec == RAW:
        return memoryview(data)[:end] if len(data) == length else None
    try:
        plain = _unpack_first(data, end) if _is_zstd(codec, data, length) else b""
    except zstandard.ZstdError:
        return None
    return plain if len(plain) == end else None


def _is_zstd(codec: int, data: Buffer, length: int) -> bool:
    return codec == ZSTD and zstandard.frame_content_size(data) in (length, _UNKNOWN)


def _copy_into(data: Buffer, room: memoryview) -> Buffer:
    if len(data) != len(room):
        return b""
    room[:] = data
    return room


def _unpack(data: Buffer, length: int) -> bytes:
    with _context() as context:
        return bytes(context.decompress(data, max_output_size=length))


def _unpack_first(data: Buffer, end: int) -> bytes:
    with _context() as context, context.stream_reader(data) as reader:
        return bytes(reader.read(end))


def _unpack_into(data: Buffer, room: memoryview) -> Buffer:
    """``room``, filled; an empty result if the data do not fill it exactly."""
    done = 0
    with _context() as context, context.stream_reader(data) as reader:
        while done < len(room):
            got = reader.readinto(room[done:])
            if not got:
                return b""
            done += got
        return b"" if reader.read(1) else room


@contextlib.contextmanager
def _context() -> t.Iterator[t.Any]:
    """A decompressor that no other thread uses meanwhile; not one per thread, as nbdkit's threads live for one call."""
    try:
        context = _contexts.pop()
    except IndexError:
        context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    try:
        yield context
    finally:
        _contexts.append(context)

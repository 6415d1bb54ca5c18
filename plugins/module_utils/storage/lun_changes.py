# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the changed extents of a LUN between two snapshots, by comparing where the filesystem has put them.

Both snapshots exist during the comparison and hold their blocks, so no address can have been reused in between: the
same part of the file at the same address is unchanged, which needs no reading. In case of doubt it counts as changed.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import struct
import zlib
from array import array
from typing import Iterable, Iterator, Tuple, Union

from . import fiemap

#: Where a piece of a file is: the distance of its address from its offset, or _ZEROS or _DOUBT.
Place = Union[int, str]
#: Offset and length of an extent, in bytes.
Pair = Tuple[int, int]
Extents = Iterable[fiemap.MappedExtent]

#: Changed extents begin and end at multiples of this many bytes, except at the end of the LUN.
GRANULE = 4096
#: At most so many extents are transferred: beyond that, those with the smallest gaps between them are merged.
MOST_EXTENTS = 1000000

# Flags with which an address can be relied on. With any other (not allocated yet, compressed, encrypted, inline,
# unknown) it cannot: the address of a compressed extent, for example, does not say which part of it is meant.
_PLAIN = fiemap.LAST | fiemap.MERGED | fiemap.SHARED
_ZEROS, _DOUBT = "zeros", "doubt"

_BTRFS_FS_INFO = 0x8400941F
_PAIR = struct.Struct("<QQ")


class NoChanges(Exception):
    """The storage cannot determine what changed; the text says why."""


class ChangedExtents:
    """Collects changed extents in order of their offsets, in bounded memory."""

    def __init__(self, size: int, most: int = MOST_EXTENTS) -> None:
        self.size = size
        self.most = most
        self._gap = 0
        self._starts: array[int] = array("Q")
        self._ends: array[int] = array("Q")

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Pair]:
        """Pairs of offset and length, in bytes."""
        return ((start, end - start) for start, end in zip(self._starts, self._ends))

    @property
    def bytes(self) -> int:
        """The number of bytes that they cover."""
        return sum(self._ends) - sum(self._starts)

    def add(self, offset: int, length: int) -> None:
        """Add an extent that begins after the beginning of the last one."""
        start = offset - offset % GRANULE
        end = min(offset + length + -(offset + length) % GRANULE, self.size)
        self._append(start, end)
        if len(self) >= 2 * self.most:
            self.finish()

    def finish(self) -> None:
        """Merge extents across ever wider gaps, until there are no more than wanted."""
        while len(self) > self.most:
            self._gap = max(GRANULE, 2 * self._gap)
            starts, ends = self._starts, self._ends
            self._starts, self._ends = array("Q"), array("Q")
            for start, end in zip(starts, ends):
                self._append(start, end)

    def _append(self, start: int, end: int) -> None:
        if self._ends and start <= self._ends[-1] + self._gap:
            self._ends[-1] = max(self._ends[-1], end)
        else:
            self._starts.append(start)
            self._ends.append(end)


def compare(base: Extents, new: Extents, found: ChangedExtents) -> None:
    """Add to ``found`` every range in which two maps of a file, each of MappedExtents, may differ in content.

    Raises NoChanges where a map contradicts itself.
    """
    position, size = 0, found.size
    olds, news = _pieces(base, size), _pieces(new, size)
    old_end = new_end = 0
    old: Place | None = None
    now: Place | None = None
    while position < size:
        if old_end == position:
            old_end, old = next(olds)
        if new_end == position:
            new_end, now = next(news)
        end = min(old_end, new_end)
        if old != now or now == _DOUBT:
            found.add(position, end - position)
        position = end


def _pieces(extents: Extents, size: int) -> Iterator[tuple[int, Place]]:
    """Cover 0..size without gaps: pairs of a piece's end and its place (the address's distance from the offset)."""
    position = 0
    for extent in extents:
        if extent.logical < position or extent.length == 0:
            raise NoChanges("the filesystem's map of the LUN contradicts itself")
        if extent.logical >= size:
            break
        if extent.logical > position:
            yield extent.logical, _ZEROS
        position = min(extent.logical + extent.length, size)
        yield position, _place(extent)
    if position < size:
        yield size, _ZEROS


def _place(extent: fiemap.MappedExtent) -> Place:
    if extent.flags & ~(_PLAIN | fiemap.UNWRITTEN):
        return _DOUBT
    if extent.flags & fiemap.UNWRITTEN:
        return _ZEROS
    # A block that both snapshots hold is shared, and the filesystem knows that. One that is not shared cannot be such a
    # block, whatever its address refers to.
    if not extent.flags & fiemap.SHARED or not extent.physical:
        return _DOUBT
    return extent.physical - extent.logical


def changes_between(base_path: str, new_path: str) -> ChangedExtents:
    """The ChangedExtents of the file ``new_path`` since ``base_path``, a snapshot of the same file.

    Raises NoChanges where the storage cannot determine them, and OSError.
    """
    with open(base_path, "rb") as base, open(new_path, "rb") as new:
        size, base_size = os.fstat(new.fileno()).st_size, os.fstat(base.fileno()).st_size
        if size != base_size:
            raise NoChanges(f"the base has {base_size} bytes and the LUN {size}")
        if filesystem_id(base.fileno()) != filesystem_id(new.fileno()):
            raise NoChanges("the base is on another filesystem")
        found = ChangedExtents(size)
        try:
            _compare_files(base.fileno(), new.fileno(), found)
        except OSError as error:
            raise NoChanges(f"the filesystem does not report where its files are ({error.strerror})") from error
    found.finish()
    return found


def _compare_files(base: int, new: int, found: ChangedExtents) -> None:
    # Blocks may be moved even below snapshots (by a balance or deduplication). An address that another block has taken
    # in the meantime could look unchanged, but then the base's map differs afterwards.
    before, after = hashlib.sha256(), hashlib.sha256()
    olds = _watched(fiemap.extents(base), before)
    compare(olds, fiemap.extents(new), found)
    _exhaust(olds)
    _exhaust(_watched(fiemap.extents(base), after))
    if before.digest() != after.digest():
        raise NoChanges("the filesystem was moving blocks during the comparison")


def _watched(extents: Extents, digest: hashlib._Hash) -> Iterator[fiemap.MappedExtent]:
    """Pass the extents through; ``digest`` covers where each byte is, however the file is divided into extents."""
    place, end = None, 0
    for extent in extents:
        here = (extent.physical - extent.logical, extent.flags & ~_PLAIN)
        if here != place or extent.logical != end:
            digest.update(b"%d %d %d %d;" % (end, extent.logical, *here))
        place, end = here, extent.logical + extent.length
        yield extent
    digest.update(b"%d" % end)


def _exhaust(extents: Extents) -> None:
    for _extent in extents:
        pass


def shares_blocks(path: str) -> bool:
    """Whether a copy shares blocks with its original (True if it is empty). Raises OSError where that is unknown."""
    with open(path, "rb") as stream:
        flags = [extent.flags for extent in fiemap.extents(stream.fileno())]
    return not flags or any(flag & fiemap.SHARED for flag in flags)


def filesystem_id(fd: int) -> str:
    """Identify the filesystem of an open file; not by device number on btrfs, where each subvolume has its own."""
    buffer = bytearray(1024)
    try:
        fcntl.ioctl(fd, _BTRFS_FS_INFO, buffer)
    except OSError:
        return str(os.fstat(fd).st_dev)
    return buffer[16:32].hex()


def pack(extents: Iterable[Pair]) -> str:
    """Extents (pairs of offset and length, in order) as text: pairs of gap and length, deflated, in base64."""
    pairs = bytearray()
    position = 0
    for offset, length in extents:
        pairs += _PAIR.pack(offset - position, length)
        position = offset + length
    return base64.b64encode(zlib.compress(bytes(pairs), 6)).decode("ascii")


def unpack(text: str) -> list[Pair]:
    """The reverse of pack(): the extents as a list of pairs. Raises ValueError where the text is not of that form.

    Never takes more memory than MOST_EXTENTS need, however small the text is.
    """
    try:
        inflating = zlib.decompressobj()
        pairs = inflating.decompress(base64.b64decode(text, validate=True), MOST_EXTENTS * _PAIR.size + 1)
        if len(pairs) > MOST_EXTENTS * _PAIR.size:
            raise ValueError(f"there are more than {MOST_EXTENTS} changed extents")
        if not inflating.eof:
            raise ValueError("changed extents cannot be unpacked: their end is missing")
        found, position = [], 0
        for gap, length in _PAIR.iter_unpack(pairs):
            found.append((position + gap, length))
            position += gap + length
    except (zlib.error, struct.error) as error:
        raise ValueError(f"changed extents cannot be unpacked: {error}") from error
    return found

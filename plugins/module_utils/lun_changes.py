# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changed extents of a LUN between two snapshots of it, found by comparing where the filesystem has put them.

Both snapshots exist meanwhile and hold their blocks, so no address can have been used again in between: the same part
of the file at the same address is unchanged, and nothing has to be read to know. Whatever leaves a doubt is changed.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import struct
import zlib
from array import array

from ansible_collections.openisb.backup.plugins.module_utils import fiemap

#: Changed extents begin and end at multiples of it, in bytes, but for the end of the LUN.
GRANULE = 4096
#: More extents than that are not transported: those with the smallest gaps between them are joined.
MOST_EXTENTS = 1000000

# Flags with which an address means what it says. Any other (not allocated yet, compressed, encrypted, inline, unknown)
# makes it worth nothing: the address of a compressed extent, for one, does not tell which part of it is meant.
_PLAIN = fiemap.LAST | fiemap.MERGED | fiemap.SHARED
_ZEROS, _DOUBT = "zeros", "doubt"

_BTRFS_FS_INFO = 0x8400941F
_PAIR = struct.Struct("<QQ")


class NoChanges(Exception):
    """The storage cannot tell what changed; the text says why."""


class ChangedExtents:
    """Collects changed extents in order of their offsets, in bounded memory."""

    def __init__(self, size, most=MOST_EXTENTS):
        self.size = size
        self.most = most
        self._gap = 0
        self._starts, self._ends = array("Q"), array("Q")

    def __len__(self):
        return len(self._starts)

    def __iter__(self):
        """Pairs of offset and length, in bytes."""
        return ((start, end - start) for start, end in zip(self._starts, self._ends))

    @property
    def bytes(self):
        """Bytes that they cover."""
        return sum(self._ends) - sum(self._starts)

    def add(self, offset, length):
        """Add an extent that begins behind the begin of the last one."""
        start = offset - offset % GRANULE
        end = min(offset + length + -(offset + length) % GRANULE, self.size)
        self._append(start, end)
        if len(self) >= 2 * self.most:
            self.finish()

    def finish(self):
        """Join extents over ever wider gaps, until there are no more than wanted."""
        while len(self) > self.most:
            self._gap = max(GRANULE, 2 * self._gap)
            starts, ends = self._starts, self._ends
            self._starts, self._ends = array("Q"), array("Q")
            for start, end in zip(starts, ends):
                self._append(start, end)

    def _append(self, start, end):
        if self._ends and start <= self._ends[-1] + self._gap:
            self._ends[-1] = max(self._ends[-1], end)
        else:
            self._starts.append(start)
            self._ends.append(end)


def compare(base, new, found):
    """Add to ``found`` every range in which two maps of a file, each of MappedExtents, may differ in content.

    Raises NoChanges where a map contradicts itself.
    """
    position, size = 0, found.size
    olds, news = _pieces(base, size), _pieces(new, size)
    old_end = new_end = 0
    old = now = None
    while position < size:
        if old_end == position:
            old_end, old = next(olds)
        if new_end == position:
            new_end, now = next(news)
        end = min(old_end, new_end)
        if old != now or now == _DOUBT:
            found.add(position, end - position)
        position = end


def _pieces(extents, size):
    """Cover 0..size without gap: pairs of a piece's end and its place (how far the address is from the offset)."""
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


def _place(extent):
    if extent.flags & ~(_PLAIN | fiemap.UNWRITTEN):
        return _DOUBT
    if extent.flags & fiemap.UNWRITTEN:
        return _ZEROS
    # A block that both snapshots hold is shared, and the filesystem knows it. One that is not is no such block,
    # whatever its address is an address of.
    if not extent.flags & fiemap.SHARED or not extent.physical:
        return _DOUBT
    return extent.physical - extent.logical


def changes_between(base_path, new_path):
    """The ChangedExtents of the file ``new_path`` since ``base_path``, a snapshot of the same file.

    Raises NoChanges where the storage cannot tell, and OSError.
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
            raise NoChanges(f"the filesystem does not tell where its files are ({error.strerror})") from error
    found.finish()
    return found


def _compare_files(base, new, found):
    # Blocks may be moved even below snapshots (by a balance, a deduplication). An address that another block has taken
    # meanwhile could look unchanged, but then the base's map is another one afterwards.
    before, after = hashlib.sha256(), hashlib.sha256()
    olds = _watched(fiemap.extents(base), before)
    compare(olds, fiemap.extents(new), found)
    _exhaust(olds)
    _exhaust(_watched(fiemap.extents(base), after))
    if before.digest() != after.digest():
        raise NoChanges("the filesystem was moving blocks while it was asked")


def _watched(extents, digest):
    """The same extents; ``digest`` learns where each byte is, however the file is cut into extents."""
    place, end = None, 0
    for extent in extents:
        here = (extent.physical - extent.logical, extent.flags & ~_PLAIN)
        if here != place or extent.logical != end:
            digest.update(b"%d %d %d %d;" % (end, extent.logical, *here))
        place, end = here, extent.logical + extent.length
        yield extent
    digest.update(b"%d" % end)


def _exhaust(extents):
    for _extent in extents:
        pass


def shares_blocks(path):
    """Whether a copy shares blocks with its original; OSError where the filesystem does not tell. An empty one does."""
    with open(path, "rb") as stream:
        flags = [extent.flags for extent in fiemap.extents(stream.fileno())]
    return not flags or any(flag & fiemap.SHARED for flag in flags)


def filesystem_id(fd):
    """What tells the filesystem of an open file from others: each subvolume of btrfs has a device number of its own."""
    buffer = bytearray(1024)
    try:
        fcntl.ioctl(fd, _BTRFS_FS_INFO, buffer)
    except OSError:
        return str(os.fstat(fd).st_dev)
    return buffer[16:32].hex()


def pack(extents):
    """Extents (pairs of offset and length, in order) as text: pairs of gap and length, deflated, in base64."""
    pairs = bytearray()
    position = 0
    for offset, length in extents:
        pairs += _PAIR.pack(offset - position, length)
        position = offset + length
    return base64.b64encode(zlib.compress(bytes(pairs), 6)).decode("ascii")


def unpack(text):
    """The extents that pack() made text of, as a list of pairs. Raises ValueError where it is no such text.

    However small the text is, no more memory is taken than MOST_EXTENTS need.
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

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages: where each chunk of a leaf is.

A page holds 64 bytes per chunk, the *entries*, followed by 72 bytes for each *piece* of the split chunks.
A chunk is split if only some of its grains changed since the parent: its pieces say which grains come from the
chunk as it was, which from small frames stored since, and which are zero.
"""

from __future__ import annotations

import struct
import typing as t

from ..base.extent import DATA, GRAINS, HOLE, SPLIT, ZERO
from ..keys.keys import KeyRing

#: An entry: identity, pack id, frame offset, frame length, place in the frame (in chunks), kind.
ENTRY = struct.Struct("<32s16sQIHH")
ENTRY_BYTES = ENTRY.size
#: Offset of its kind: the first byte distinguishes all kinds.
_KIND = ENTRY_BYTES - 2
LEAF_ENTRIES = 1024

HOLE_ENTRY = ENTRY.pack(bytes(32), bytes(16), 0, 0, 0, HOLE)
ZERO_ENTRY = ENTRY.pack(bytes(32), bytes(16), 0, 0, 0, ZERO)

#: A piece: like an entry (with the place in grains if the kind is GRAINS), then stored and mask.
PIECE = struct.Struct("<32s16sQIHHII")
#: The pack field of a split chunk's entry: number of its first piece in the page, number of pieces.
_PIECES = struct.Struct("<IH10x")
#: The part of a piece on which its chunk's identity depends: not where it is stored.
_CONTENT = struct.Struct("<32sHII")

_ENTRY_KINDS = bytes((HOLE, ZERO, DATA, SPLIT))
_PIECE_KINDS = bytes((HOLE, ZERO, DATA, GRAINS))

GRAINS_PER_CHUNK = 32
ALL_GRAINS = (1 << GRAINS_PER_CHUNK) - 1


class Entry(t.NamedTuple):
    """Where one chunk is."""

    identity: bytes
    pack: bytes
    offset: int
    length: int
    place: int
    kind: int


class Piece(t.NamedTuple):
    """Where some grains of a chunk are.

    ``stored`` has a bit for each grain that the stored piece holds, one after the other; ``mask`` has a bit for those
    that are still in use, because later pieces replaced the others.
    """

    identity: bytes
    pack: bytes
    offset: int
    length: int
    place: int
    kind: int
    stored: int
    mask: int

    @classmethod
    def stored_at(cls, identity: bytes, place: bytes, mask: int) -> Piece:
        """New grains; ``place`` is packed by index.PLACE."""
        return cls(*Entry(*ENTRY.unpack(identity + place)), mask, mask)

    @property
    def has_data(self) -> bool:
        """Whether it is in a pack."""
        return self.kind in (DATA, GRAINS)


class Page:
    """The entries of one leaf, as stored.  Raises ValueError if ``data`` is not a page of ``entries`` entries."""

    def __init__(self, data: bytes, entries: int, name: str = "a page of a map") -> None:
        """:param name: name of the object that contains it."""
        self.data = data
        self.name = name
        self.count = entries
        self._tail = entries * ENTRY_BYTES
        if len(data) < self._tail or (len(data) - self._tail) % PIECE.size:
            raise ValueError(f"{len(data)} bytes are not a page of {entries} entries")
        if not self._kinds_are_known():
            raise ValueError("it has entries or pieces of an unknown kind")

    def _kinds_are_known(self) -> bool:
        """Whether all entries and pieces have a known kind: others would be taken for empty."""
        for size, begin, end, known in (
            (ENTRY_BYTES, 0, self._tail, _ENTRY_KINDS),
            (PIECE.size, self._tail, len(self.data), _PIECE_KINDS),
        ):
            low, high = self.data[begin + _KIND : end : size], self.data[begin + _KIND + 1 : end : size]
            if low.strip(known) or high.strip(b"\0"):  # any rest contains an unknown kind
                return False
        return True

    @classmethod
    def of_kind(cls, kind: int, entries: int) -> Page:
        """A page of only holes or only zeros."""
        return cls((ZERO_ENTRY if kind == ZERO else HOLE_ENTRY) * entries, entries)

    @classmethod
    def build(cls, entries: bytes, splits: t.Mapping[int, bytes]) -> Page:
        """A page from its entries and the packed pieces of the split ones, by position."""
        if not splits:
            return cls(entries, len(entries) // ENTRY_BYTES)
        head = bytearray(entries)
        tail = bytearray()
        for position in sorted(splits):
            pieces = splits[position]
            place = _PIECES.pack(len(tail) // PIECE.size, len(pieces) // PIECE.size)
            begin = position * ENTRY_BYTES
            head[begin + 32 : begin + 48] = place
            tail += pieces
        return cls(bytes(head + tail), len(entries) // ENTRY_BYTES)

    def raw(self, position: int) -> bytes:
        """The entry at ``position`` as stored."""
        return self.data[position * ENTRY_BYTES : (position + 1) * ENTRY_BYTES]

    def entry(self, position: int) -> Entry:
        """The entry at ``position``."""
        return Entry(*ENTRY.unpack_from(self.data, position * ENTRY_BYTES))

    def kind(self, position: int) -> int:
        """The kind of the entry at ``position``."""
        return self.data[position * ENTRY_BYTES + _KIND]

    def kinds(self, begin: int, end: int) -> bytes:
        """The kinds of the entries from ``begin`` to ``end``, one byte each."""
        return self.data[begin * ENTRY_BYTES + _KIND : min(end * ENTRY_BYTES, self._tail) : ENTRY_BYTES]

    def entries(self) -> list[Entry]:
        """All entries in order."""
        return [Entry(*fields) for fields in ENTRY.iter_unpack(memoryview(self.data)[: self._tail])]

    def pieces(self, position: int) -> list[Piece]:
        """The pieces of the chunk at ``position``: one unless it is split.

        Raises ValueError if its pieces are not in the page or do not cover the chunk exactly once.
        """
        entry = self.entry(position)
        if entry.kind != SPLIT:
            return [Piece(*entry, ALL_GRAINS, ALL_GRAINS)]
        pieces = list(self._split(entry))
        _check_cover(pieces)
        return pieces

    def _split(self, entry: Entry) -> t.Iterator[Piece]:
        first, count = _PIECES.unpack(entry.pack)
        begin = self._tail + first * PIECE.size
        end = begin + count * PIECE.size
        if not 0 < count <= GRAINS_PER_CHUNK or end > len(self.data):
            raise ValueError("its pieces are not in the page")
        return (Piece(*fields) for fields in PIECE.iter_unpack(self.data[begin:end]))

    def identities(self) -> bytes:
        """The identities of all entries, one after the other; zeros for holes and zeros."""
        data, size = self.data, ENTRY_BYTES
        return b"".join([data[at : at + 32] for at in range(0, self._tail, size)])

    def same_as(self, other: Page) -> list[bool]:
        """For each entry, whether its content equals that of the other page's entry; holes and zeros are equal.

        Equal content that is stored in different pieces may count as different.
        """
        one, two = self.identities(), other.identities()
        return [one[at : at + 32] == two[at : at + 32] for at in range(0, len(one), 32)]

    def empty_kind(self) -> int | None:
        """HOLE or ZERO if all entries are of that kind, else None."""
        for kind, entry in ((HOLE, HOLE_ENTRY), (ZERO, ZERO_ENTRY)):
            if self.data.startswith(entry) and self.data == entry * self.count:
                return kind
        return None

    def packs(self) -> set[bytes]:
        """The packs that the page names."""
        return {place[32:48] for place in self.places()}

    def places(self) -> t.Iterator[bytes]:
        """Entries and pieces that are in a pack, as stored: identity, pack id, and the place as in its footer."""
        for size, begin, end in (
            (ENTRY_BYTES, 0, self._tail),
            (PIECE.size, self._tail, len(self.data)),
        ):
            kinds = self.data[begin + _KIND : end : size]
            for at, kind in zip(range(begin, end, size), kinds, strict=True):
                if kind in (DATA, GRAINS):
                    yield self.data[at : at + ENTRY_BYTES]


def split_entry(ring: KeyRing, pieces: t.Sequence[Piece]) -> tuple[bytes, bytes]:
    """The entry of a split chunk, and its packed pieces; build() fills in where they are."""
    entry = ENTRY.pack(split_identity(ring, pieces), bytes(16), 0, 0, 0, SPLIT)
    return entry, b"".join(PIECE.pack(*piece) for piece in pieces)


def split_identity(ring: KeyRing, pieces: t.Iterable[Piece]) -> bytes:
    """The identity of a split chunk, computed from the content of its pieces, not from their places."""
    return ring.mac(
        "split", b"".join(_CONTENT.pack(piece.identity, piece.kind, piece.stored, piece.mask) for piece in pieces)
    )


def grain_runs(mask: int) -> t.Iterator[tuple[int, int]]:
    """The runs of set bits: (first grain, number of grains), in order."""
    grain = 0
    while mask >> grain:
        if mask >> grain & 1:
            first = grain
            while mask >> grain & 1:
                grain += 1
            yield first, grain - first
        else:
            grain += 1


def _check_cover(pieces: t.Iterable[Piece]) -> None:
    covered = 0
    for piece in pieces:
        if piece.mask & ~piece.stored or piece.mask & covered or piece.kind not in (HOLE, ZERO, DATA, GRAINS):
            raise ValueError("its pieces contradict each other")
        covered |= piece.mask
    if covered != ALL_GRAINS:
        raise ValueError("its pieces do not cover it")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of all chunks in the repository's packs, for deduplication and for resuming an interrupted backup.

What packs already hold takes 54 bytes of memory per chunk; it is found by 40 bits of the identity and confirmed with
all of it.  What the running backup adds is first kept in a dictionary.  The footers are read when the first new chunk
is met, so a backup with few changes does not pay for them.
"""

from __future__ import annotations

import array
import bisect
import struct
import threading
import typing as t

from ..base.errors import SavesetError
from ..base.extent import DATA
from ..collect.punched import PunchedPacks
from ..collect.tombstone import Withheld
from ..format.container import PACK_KIND, Container, object_name
from ..format.footer import ROW, PackFooter, Row
from ..keys.keys import KeyRing
from ..store.store import Store

#: A chunk's place, as maps keep it after the identity: pack id, frame offset, frame length, place in the frame, kind.
PLACE = struct.Struct("<16sQIHH")
NOTHING_WITHHELD = Withheld()
_YOUNG_MAX = 1 << 17  # the most chunks of the running backup in the dictionary

Claim: t.TypeAlias = "bytes | int"


class _Known:
    """Chunks in packs, found by their identity; what was added is found only after settle().

    Rows stay in the order in which they were added, 46 bytes each in one block per pack, so nothing is copied or freed
    later.  Their positions are sorted by identity, 8 bytes each, in buckets by the first byte of the identity, so that
    sorting needs little extra memory.
    """

    _BUCKETS = 256
    #: Identity, frame offset, frame length, place in the frame.
    _KEPT = struct.Struct("<32sQIH")
    #: A key is the 32 bits after an identity's first byte, followed by a row's number, also 32 bits.
    _ROW_BITS = 32
    _ROW_MASK = (1 << _ROW_BITS) - 1

    def __init__(self) -> None:
        self._packs: list[tuple[bytes, bytes]] = []  # pack id, rows
        self._starts = array.array("I")  # the number of each pack's first row
        self._count = 0
        self._pending = [array.array("Q") for _bucket in range(self._BUCKETS)]
        self._sorted = [array.array("Q") for _bucket in range(self._BUCKETS)]

    def __len__(self) -> int:
        return sum(len(keys) for keys in self._sorted)

    def add(self, pack: bytes, rows: bytes) -> None:
        """Add the chunks of a pack's footer."""
        kept = []
        number = self._count
        for identity, offset, length, place, kind, _chunk, _mask in ROW.iter_unpack(rows):
            if kind == DATA:
                kept.append(self._KEPT.pack(identity, offset, length, place))
                self._pending[identity[0]].append(self._first_key(identity) | number)
                number += 1
        if kept:
            self._packs.append((pack, b"".join(kept)))
            self._starts.append(self._count)
            self._count = number

    def settle(self) -> None:
        """Sort in what was added."""
        for bucket, pending in enumerate(self._pending):
            if pending:
                self._sorted[bucket] = array.array("Q", sorted([*self._sorted[bucket], *pending]))
                self._pending[bucket] = array.array("Q")

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk."""
        keys = self._sorted[identity[0]]
        first = self._first_key(identity)
        at = bisect.bisect_left(keys, first)
        while at < len(keys) and keys[at] - first <= self._ROW_MASK:
            number = keys[at] & self._ROW_MASK
            pack = bisect.bisect_right(self._starts, number) - 1
            pack_id, rows = self._packs[pack]
            row = self._KEPT.unpack_from(rows, (number - self._starts[pack]) * self._KEPT.size)
            if row[0] == identity:
                return PLACE.pack(pack_id, *row[1:], DATA)
            at += 1
        return None

    def _first_key(self, identity: bytes) -> int:
        """The smallest key that a chunk with this identity can have."""
        return int.from_bytes(identity[1:5], "big") << self._ROW_BITS


class _Adopted:
    """What an interrupted backup of the same source had stored, found by the chunk's number and the grains."""

    def __init__(self, packs: t.Sequence[tuple[bytes, bytes]]) -> None:
        rows = [
            (chunk, mask, number, at)
            for number, (_pack, raw) in enumerate(packs)
            for at, (_identity, _offset, _length, _place, kind, chunk, mask) in enumerate(ROW.iter_unpack(raw))
            if (kind == DATA) == (mask == 0)
        ]
        rows.sort()
        self._packs = packs
        self._chunks = array.array("Q", (row[0] for row in rows))
        self._masks = array.array("I", (row[1] for row in rows))
        self._numbers = array.array("I", (row[2] for row in rows))
        self._places = array.array("I", (row[3] for row in rows))

    def find(self, chunk: int, mask: int) -> tuple[bytes, bytes] | None:
        at = bisect.bisect_left(self._chunks, chunk)
        while at < len(self._chunks) and self._chunks[at] == chunk:
            if self._masks[at] == mask:
                pack, raw = self._packs[self._numbers[at]]
                row = Row(*ROW.unpack_from(raw, self._places[at] * ROW.size))
                return row.identity, PLACE.pack(pack, row.offset, row.length, row.place, row.kind)
            at += 1
        return None


class ChunkIndex:
    """Where chunks are, for one backup; its threads share it."""

    def __init__(
        self, store: Store, ring: KeyRing, session: bytes = b"", withheld: Withheld = NOTHING_WITHHELD
    ) -> None:
        """:param session: session of an interrupted backup whose chunks to take over; empty if there is none.
        :param withheld: what is treated as missing because it is about to be removed.
        """
        self._store = store
        self._ring = ring
        self._session = session
        self._withheld = withheld
        self._lock = threading.Lock()
        self._known = _Known()
        self._recent: dict[bytes, Claim] = {}
        self._young: list[tuple[bytes, bytes]] = []
        self._loaded = threading.Event()
        self._adopted: _Adopted | None = None
        self._trusted: dict[bytes, bool] = {}
        #: Packs that could not be read, as (name, text): nothing is deduplicated against them.
        self.damaged: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """How many chunks are known, without those in the dictionary."""
        return len(self._known)

    def load(self) -> None:
        """Read the footers of all packs, once.

        A pack whose footer cannot be read is left out, so its chunks are stored again when they are next met.
        """
        if self._loaded.is_set():
            return
        with self._lock:
            if self._loaded.is_set():
                return
            adopted: list[tuple[bytes, bytes]] = []
            punched = PunchedPacks(self._store, self._ring)
            for name in self._store.list("packs"):
                pack, footer = self._read_footer(name)
                rows = self._usable_rows(pack, footer, punched) if footer else b""
                if footer is None or not rows:
                    continue
                if self._session and footer.session == self._session:
                    adopted.append((pack, rows))
                self._known.add(pack, rows)
            self._known.settle()
            self._adopted = _Adopted(adopted) if adopted else None
            self._loaded.set()

    def _usable_rows(self, pack: bytes, footer: PackFooter, punched: PunchedPacks) -> bytes:
        """The rows of a footer without those of frames that are removed or about to be removed."""
        if pack in self._withheld.packs:
            return b""
        try:
            gone = [ranges for ranges in (self._withheld.frames(pack), punched.ranges(pack)) if ranges]
        except SavesetError:
            return b""  # what is left of the pack is not known
        if not gone:
            return footer.raw_rows
        rows = (footer.raw_rows[at : at + ROW.size] for at in range(0, len(footer.raw_rows), ROW.size))
        return b"".join(row for row in rows if not any(Row(*ROW.unpack(row)).offset in ranges for ranges in gone))

    def trusts(self, pack: bytes, offset: int | None = None) -> bool:
        """Whether new maps may name a pack, or its frame at ``offset``.

        This is so if the pack exists, its footer authenticates, and it is not about to be removed.
        """
        if pack in self._withheld.packs or (offset is not None and offset in self._withheld.frames(pack)):
            return False
        known = self._trusted.get(pack)
        if known is None:
            known = self._read_footer(object_name(PACK_KIND, pack))[1] is not None
        return known

    def is_whole(self, pack: bytes) -> bool:
        """Whether new maps may name every frame of a pack."""
        return self.trusts(pack) and not self._withheld.frames(pack)

    def _read_footer(self, name: str) -> tuple[bytes, PackFooter | None]:
        try:
            container = Container(self._store, name, PACK_KIND, self._ring)
            footer = PackFooter(container.footer())
        except (SavesetError, ValueError) as error:
            self.damaged.append((name, error.cause if isinstance(error, SavesetError) else str(error)))
            self._trusted[_pack_of(name)] = False
            return b"", None
        self._trusted[container.layout.container_id] = True
        return container.layout.container_id, footer

    def adopt(self, chunk: int, mask: int = 0) -> tuple[bytes, bytes] | None:
        """Identity and place of a chunk, or of these grains of it, that the interrupted backup had stored."""
        return self._adopted.find(chunk, mask) if self._adopted else None

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk, as packed by PLACE; None if it is not stored, or not placed yet."""
        place = self._recent.get(identity)
        if place is not None:
            return place if isinstance(place, bytes) else None
        self.load()
        return self._known.find(identity)

    def claim(self, identity: bytes, claimant: int) -> bool:
        """Claim a chunk that find() did not know; True if the caller must now store it.

        :param claimant: a number that no other claim uses, such as the chunk's number in the volume.
        """
        return self._recent.setdefault(identity, claimant) == claimant

    def placed(self, identity: bytes, place: bytes) -> None:
        """Record the place of a claimed chunk."""
        self._recent[identity] = place

    def pack_finished(self, pack: bytes, rows: bytes) -> None:
        """Move the rows of a finished pack of this backup out of the dictionary, so that it stays bounded."""
        self._trusted[pack] = True
        with self._lock:
            self._young.append((pack, rows))
            if sum(len(some) for _pack, some in self._young) < _YOUNG_MAX * ROW.size:
                return
            young, self._young = self._young, []
            for young_pack, some in young:
                self._known.add(young_pack, some)
            self._known.settle()
        for _pack, some in young:
            for begin in range(0, len(some), ROW.size):
                self._recent.pop(some[begin : begin + 32], None)


def _pack_of(name: str) -> bytes:
    try:
        return bytes.fromhex(name.rsplit("/", 1)[-1])
    except ValueError:
        return b""

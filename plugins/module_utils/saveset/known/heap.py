# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chunks in memory: those that the running backup adds, and all of them where no cache folder can be used.

A chunk takes 54 bytes; it is found by 40 bits of the identity and confirmed with all of it.
"""

from __future__ import annotations

import array
import bisect
import struct

from ..base.extent import DATA
from ..format.footer import PLACE, ROW


class Heap:
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

    def packs(self) -> list[bytes]:
        """The packs that have chunks here."""
        return [pack for pack, _rows in self._packs]

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

    def find(self, identity: bytes) -> list[bytes]:
        """The places of a chunk, as packed by PLACE."""
        found: list[bytes] = []
        if not self._count:
            return found
        keys = self._sorted[identity[0]]
        first = self._first_key(identity)
        at = bisect.bisect_left(keys, first)
        while at < len(keys) and keys[at] - first <= self._ROW_MASK:
            number = keys[at] & self._ROW_MASK
            pack = bisect.bisect_right(self._starts, number) - 1
            pack_id, rows = self._packs[pack]
            row = self._KEPT.unpack_from(rows, (number - self._starts[pack]) * self._KEPT.size)
            if row[0] == identity:
                found.append(PLACE.pack(pack_id, *row[1:], DATA))
            at += 1
        return found

    def _first_key(self, identity: bytes) -> int:
        """The smallest key that a chunk with this identity can have."""
        return int.from_bytes(identity[1:5], "big") << self._ROW_BITS

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of all chunks in the repository's packs: for deduplication.

What packs already hold is kept as sorted 64-bit prefixes over the packs' own footer rows (about 60 bytes a chunk),
confirmed with all 32 bytes.  What the running backup adds is kept in a dictionary until enough has gathered.
"""

from __future__ import annotations

import array
import bisect
import struct
import threading
import typing as t

from .container import PACK_KIND, Container
from .errors import SavesetError
from .keys import KeyRing
from .store import Store

#: A row of a pack's footer: identity, frame offset, frame length, chunk's place in the frame, flags.
ROW = struct.Struct("<32sQIHH")
#: A chunk's place: pack id, then the tail of the row.
PLACE_BYTES = 16 + ROW.size - 32
_PREFIX = struct.Struct(f">Q{ROW.size - 8}x")
_YOUNG_MAX = 1 << 18  # chunks of the running backup kept in the dictionary

Claim = t.Union[bytes, int]


class _SortedRun:
    """Footer rows of several packs, found by the prefix of their identity."""

    def __init__(self, packs: t.Sequence[tuple[bytes, bytes]]) -> None:
        self._rows = b"".join(rows for _pack, rows in packs)
        self._packs = [pack for pack, _rows in packs]
        self._starts = []
        start = 0
        for _pack, rows in packs:
            self._starts.append(start)
            start += len(rows) // ROW.size
        order = sorted(prefix << 32 | number for number, (prefix,) in enumerate(_PREFIX.iter_unpack(self._rows)))
        self._prefixes = array.array("Q", (key >> 32 for key in order))
        self._numbers = array.array("I", (key & 0xFFFFFFFF for key in order))

    def find(self, identity: bytes) -> bytes | None:
        prefix = int.from_bytes(identity[:8], "big")
        at = bisect.bisect_left(self._prefixes, prefix)
        while at < len(self._prefixes) and self._prefixes[at] == prefix:
            number = self._numbers[at]
            begin = number * ROW.size
            if self._rows[begin : begin + 32] == identity:
                pack = self._packs[bisect.bisect_right(self._starts, number) - 1]
                return pack + self._rows[begin + 32 : begin + ROW.size]
            at += 1
        return None


class ChunkIndex:
    """Where chunks are, for one backup; its threads share it."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._lock = threading.Lock()
        self._runs: list[_SortedRun] = []
        self._recent: dict[bytes, Claim] = {}
        self._young: list[tuple[bytes, bytes]] = []
        self.packs: set[bytes] = set()
        #: Packs that could not be read, as (name, text): nothing is deduplicated against them.
        self.damaged: list[tuple[str, str]] = []

    def load(self) -> None:
        """Read the footers of all packs.

        A pack whose footer cannot be read is left out, so that its chunks are stored again when met again.
        """
        found: list[tuple[bytes, bytes]] = []
        for name in self._store.list("packs"):
            try:
                container = Container(self._store, name, PACK_KIND, self._ring)
                found.append((container.layout.container_id, container.footer()))
            except SavesetError as error:
                self.damaged.append((name, error.cause))
        self._runs = [_SortedRun(found)]
        self.packs = {pack for pack, _rows in found}

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk (``PLACE_BYTES`` long), or None when it is not stored, or not placed yet."""
        place = self._recent.get(identity)
        if place is not None:
            return place if isinstance(place, bytes) else None
        for run in self._runs:
            found = run.find(identity)
            if found is not None:
                return found
        return None

    def claim(self, identity: bytes, claimant: int) -> bool:
        """Claim a chunk that find() did not know; True when the caller is now the one to store it.

        :param claimant: a number that no other claim uses, such as the chunk's number in the volume.
        """
        return self._recent.setdefault(identity, claimant) == claimant

    def placed(self, identity: bytes, place: bytes) -> None:
        """Tell where a claimed chunk went."""
        self._recent[identity] = place

    def pack_finished(self, pack: bytes, rows: bytes) -> None:
        """Take in the rows of a pack of this backup, so that the dictionary stays bounded."""
        with self._lock:
            self._young.append((pack, rows))
            if sum(len(some) for _pack, some in self._young) < _YOUNG_MAX * ROW.size:
                return
            young, self._young = self._young, []
        self._runs = [*self._runs, _SortedRun(young)]
        for _pack, some in young:
            for begin in range(0, len(some), ROW.size):
                self._recent.pop(some[begin : begin + 32], None)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of all chunks in the repository's packs: for deduplication, and for taking up an interrupted backup.

What packs already hold is kept in sorted runs: 58 bytes a chunk, found by a 64-bit prefix of the identity and confirmed
with all 32 bytes.  What the running backup adds is kept in a dictionary until enough has gathered.  The footers are
read when the first new chunk is met, so that a backup of which little changed does not pay for them.
"""

from __future__ import annotations

import array
import bisect
import struct
import threading
import typing as t

from .container import PACK_KIND, Container, object_name
from .errors import SavesetError
from .extent import DATA
from .footer import ROW, PackFooter, Row
from .keys import KeyRing
from .store import Store

#: A chunk's place, as maps keep it after the identity: pack id, frame offset, frame length, place in the frame, kind.
PLACE = struct.Struct("<16sQIHH")
_RUN_ROWS = 1 << 19  # chunks in a sorted run: bounds what sorting needs
_YOUNG_MAX = 1 << 18  # chunks of the running backup kept in the dictionary

Claim = t.Union[bytes, int]


class _SortedRun:
    """Chunks of several packs, found by their identity."""

    #: Identity, frame offset, frame length, place in the frame, number of the pack.
    _KEPT = struct.Struct("<32sQIHI")
    _PREFIX = struct.Struct(f">Q{_KEPT.size - 8}x")

    def __init__(self, packs: t.Sequence[tuple[bytes, bytes]]) -> None:
        """:param packs: pack ids, and the rows of their footers."""
        self._packs = [pack for pack, _rows in packs]
        kept = [
            self._KEPT.pack(identity, offset, length, place, number)
            for number, (_pack, rows) in enumerate(packs)
            for identity, offset, length, place, kind, _chunk, _mask in ROW.iter_unpack(rows)
            if kind == DATA
        ]
        kept.sort()
        self._rows = b"".join(kept)
        self._prefixes = array.array("Q", (prefix for (prefix,) in self._PREFIX.iter_unpack(self._rows)))

    def __len__(self) -> int:
        return len(self._prefixes)

    def find(self, identity: bytes) -> bytes | None:
        prefix = int.from_bytes(identity[:8], "big")
        at = bisect.bisect_left(self._prefixes, prefix)
        while at < len(self._prefixes) and self._prefixes[at] == prefix:
            found, offset, length, place, number = self._KEPT.unpack_from(self._rows, at * self._KEPT.size)
            if found == identity:
                return PLACE.pack(self._packs[number], offset, length, place, DATA)
            at += 1
        return None


class _Adopted:
    """What an interrupted backup of the same source has stored, found by the chunk's number and the grains."""

    def __init__(self, packs: t.Sequence[tuple[bytes, bytes]]) -> None:
        rows = [
            (chunk, mask, number, at)
            for number, (_pack, raw) in enumerate(packs)
            for at, (_identity, _offset, _length, _place, _kind, chunk, mask) in enumerate(ROW.iter_unpack(raw))
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

    def __init__(self, store: Store, ring: KeyRing, session: bytes = b"") -> None:
        """:param session: of an earlier, interrupted backup whose chunks to take over; empty when there is none."""
        self._store = store
        self._ring = ring
        self._session = session
        self._lock = threading.Lock()
        self._runs: list[_SortedRun] = []
        self._recent: dict[bytes, Claim] = {}
        self._young: list[tuple[bytes, bytes]] = []
        self._loaded = threading.Event()
        self._adopted: _Adopted | None = None
        self._trusted: dict[bytes, bool] = {}
        #: Packs that could not be read, as (name, text): nothing is deduplicated against them.
        self.damaged: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """How many chunks the sorted runs hold."""
        return sum(map(len, self._runs))

    def load(self) -> None:
        """Read the footers of all packs, once.

        A pack whose footer cannot be read is left out, so that its chunks are stored again when met again.
        """
        if self._loaded.is_set():
            return
        with self._lock:
            if self._loaded.is_set():
                return
            runs: list[_SortedRun] = []
            found: list[tuple[bytes, bytes]] = []
            adopted: list[tuple[bytes, bytes]] = []
            rows = 0
            for name in self._store.list("packs"):
                pack, footer = self._read_footer(name)
                if footer is None:
                    continue
                if self._session and footer.session == self._session:
                    adopted.append((pack, footer.raw_rows))
                found.append((pack, footer.raw_rows))
                rows += len(footer.raw_rows) // ROW.size
                if rows >= _RUN_ROWS:
                    runs.append(_SortedRun(found))
                    found, rows = [], 0
            if found:
                runs.append(_SortedRun(found))
            self._runs = [*runs, *self._runs]
            self._adopted = _Adopted(adopted) if adopted else None
            self._loaded.set()

    def trusts(self, pack: bytes) -> bool:
        """Whether a pack is there and its footer authenticates, so that new maps may name it."""
        known = self._trusted.get(pack)
        if known is None:
            known = self._read_footer(object_name(PACK_KIND, pack))[1] is not None
        return known

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
        """Identity and place of a chunk (or of these grains of it) that the interrupted backup has stored."""
        return self._adopted.find(chunk, mask) if self._adopted else None

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk, as PLACE packs it, or None when it is not stored, or not placed yet."""
        place = self._recent.get(identity)
        if place is not None:
            return place if isinstance(place, bytes) else None
        self.load()
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
        self._trusted[pack] = True
        with self._lock:
            self._young.append((pack, rows))
            if sum(len(some) for _pack, some in self._young) < _YOUNG_MAX * ROW.size:
                return
            young, self._young = self._young, []
            self._runs = [*self._runs, _SortedRun(young)]
        for _pack, some in young:
            for begin in range(0, len(some), ROW.size):
                self._recent.pop(some[begin : begin + 32], None)


def _pack_of(name: str) -> bytes:
    try:
        return bytes.fromhex(name.rsplit("/", 1)[-1])
    except ValueError:
        return b""

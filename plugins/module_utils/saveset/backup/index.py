# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of all chunks in the repository's packs, for deduplication and for resuming an interrupted backup.

What packs already hold is in the tables of :mod:`..known`, which are opened when the first new chunk is met, so a
backup with few changes does not pay for them.  What the running job adds is first kept in a dictionary.  All volumes of
a job share one index, which knows nothing but published packs; what is not published yet is in volume_index.py, for
each volume alone.

A table tells what was in a pack once.  Before a pack is named for the first time, its footer is read and authenticated,
and what was punched out of it or is withheld is not named.
"""

from __future__ import annotations

import array
import bisect
import threading
import typing as t

from ..base.errors import SavesetError
from ..base.extent import DATA
from ..collect.punched import PunchedPacks, Ranges
from ..collect.tombstone import Withheld
from ..format.container import PACK_KIND, Container, object_name
from ..format.footer import PLACE, ROW, PackFooter, Row
from ..keys.keys import KeyRing
from ..known.cache import CacheFolder
from ..known.chunks import KnownChunks
from ..store.store import Store

NOTHING_WITHHELD = Withheld()
_YOUNG_MAX = 1 << 17  # the most chunks of the running job in the dictionary


class Adopted:
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
        """Identity and place of a chunk, or of these grains of it."""
        at = bisect.bisect_left(self._chunks, chunk)
        while at < len(self._chunks) and self._chunks[at] == chunk:
            if self._masks[at] == mask:
                pack, raw = self._packs[self._numbers[at]]
                row = Row(*ROW.unpack_from(raw, self._places[at] * ROW.size))
                return row.identity, PLACE.pack(pack, row.offset, row.length, row.place, row.kind)
            at += 1
        return None


class ChunkIndex:
    """Where chunks are in published packs, for all volumes of a job; their threads share it."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        withheld: Withheld = NOTHING_WITHHELD,
        cache_dir: str | None = None,
        warn: t.Callable[[str], object] = lambda text: None,
    ) -> None:
        """:param withheld: what is treated as missing because it is about to be removed.
        :param cache_dir: where what is known is kept between backups; None keeps it in memory.
        :param warn: is called with what prevents the use of the cache.
        """
        self._store = store
        self._ring = ring
        self._withheld = withheld
        self._lock = threading.Lock()
        folder = CacheFolder(cache_dir, ring) if cache_dir else None
        self._known = KnownChunks(folder, lambda: store.list("packs"), self._read_known, warn)
        self._recent: dict[bytes, bytes] = {}  # the places of chunks in young packs, by identity
        self._young: list[tuple[bytes, bytes]] = []
        self._loaded = threading.Event()
        self._resumed: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self._adopted: dict[bytes, Adopted] = {}
        self._trusted: dict[bytes, bool] = {}
        self._punched: PunchedPacks | None = None
        self._lost: dict[bytes, Ranges | None] = {}
        #: Packs that could not be read, as (name, text): nothing is deduplicated against them.
        self.damaged: list[tuple[str, str]] = []

    def __len__(self) -> int:
        """How many chunks are known, without those in the dictionary."""
        return len(self._known)

    def resume(self, session: bytes) -> None:
        """Have load() set apart what an interrupted backup with this session had stored; call it before load()."""
        self._resumed[session] = []

    def adopted(self, session: bytes) -> Adopted | None:
        """What load() found of an interrupted backup; None if there is nothing, or nothing was loaded."""
        return self._adopted.get(session)

    def load(self) -> None:
        """Learn what all packs hold, once.

        A pack whose footer cannot be read is left out, so its chunks are stored again when they are next met.
        """
        if self._loaded.is_set():
            return
        with self._lock:
            if self._loaded.is_set():
                return
            self._punched = PunchedPacks(self._store, self._ring)
            self._known.load()
            for session in self._resumed:
                self._adopt(session)
            self._loaded.set()

    def _adopt(self, session: bytes) -> None:
        """Take over what an interrupted backup had stored; its packs that are in tables have not been read yet."""
        read = {pack for pack, _rows in self._resumed[session]}
        for name in self._known.of_session(session):
            if _pack_of(name) not in read:
                self._read_known(name)
        usable = [(pack, self._usable_rows(pack, rows)) for pack, rows in self._resumed[session]]
        packs = [item for item in usable if item[1]]
        if packs:
            self._adopted[session] = Adopted(packs)
        self._resumed[session] = []

    def _read_known(self, name: str) -> PackFooter | None:
        pack, footer = self._read_footer(name)
        if footer is not None and footer.session in self._resumed and not self._loaded.is_set():
            self._resumed[footer.session].append((pack, footer.raw_rows))
        return footer

    def _usable_rows(self, pack: bytes, rows: bytes) -> bytes:
        """The rows of a footer without those of frames that are removed or about to be removed."""
        lost = self._lost_frames(pack)
        if lost is None:
            return b""
        if not lost:
            return rows
        each = (rows[at : at + ROW.size] for at in range(0, len(rows), ROW.size))
        return b"".join(row for row in each if Row(*ROW.unpack(row)).offset not in lost)

    def _lost_frames(self, pack: bytes) -> Ranges | None:
        """Which frames of a pack new maps must not name; None if they must name none of them."""
        if pack not in self._lost:
            self._lost[pack] = self._find_lost_frames(pack)
        return self._lost[pack]

    def _find_lost_frames(self, pack: bytes) -> Ranges | None:
        if pack in self._known.gone or self._punched is None or not self.trusts(pack):
            return None
        try:
            return Ranges([*self._withheld.frames(pack), *self._punched.ranges(pack)])
        except SavesetError:
            return None  # what is left of the pack is not known

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

    def close(self) -> None:
        """Close what it has open in the cache folder."""
        self._known.close()

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk in a published pack, as packed by PLACE; None if there is none."""
        place = self._recent.get(identity)
        if place is not None:
            return place
        self.load()
        return next(filter(self._is_usable, self._known.find(identity)), None)

    def _is_usable(self, place: bytes) -> bool:
        lost = self._lost_frames(place[:16])
        return lost is not None and (not lost or int.from_bytes(place[16:24], "little") not in lost)

    def pack_finished(self, pack: bytes, rows: bytes) -> None:
        """Add the chunks of a pack of this job that is published and durable, for every volume of the job to find."""
        self._trusted[pack] = True
        with self._lock:
            self._recent.update(places_in(pack, rows))
            self._young.append((pack, rows))
            if sum(len(some) for _pack, some in self._young) < _YOUNG_MAX * ROW.size:
                return
            young, self._young = self._young, []
            self._known.add(young)
        for _pack, some in young:
            for begin in range(0, len(some), ROW.size):
                self._recent.pop(some[begin : begin + 32], None)


def places_in(pack: bytes, rows: bytes) -> t.Iterator[tuple[bytes, bytes]]:
    """Identity and place of each chunk in the rows of a pack's footer, without pieces."""
    for identity, offset, length, place, kind, _chunk, _mask in ROW.iter_unpack(rows):
        if kind == DATA:
            yield identity, PLACE.pack(pack, offset, length, place, kind)


def _pack_of(name: str) -> bytes:
    try:
        return bytes.fromhex(name.rsplit("/", 1)[-1])
    except ValueError:
        return b""

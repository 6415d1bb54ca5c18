# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One volume from its source to its published map: which parent to use, what to read, what to resume."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import typing as t

from ..base.errors import SavesetError
from ..base.progress import BackupStats, Counters, Progress
from ..base.volume import volume_folder
from ..collect.tombstone import Withheld
from ..format.commit import SavesetInfo
from ..format.directory import Geometry
from ..format.footer import SESSION_BYTES
from ..format.leafmap import LeafMap, MapWriter
from ..io.source import Source
from ..io.throttle import PacedSource, RateLimit
from ..keys.keys import KeyRing
from ..restore.compare import Comparer
from ..restore.reader import ChunkReader
from ..store.store import Store
from .assembler import LeafAssembler
from .backup import Hand, Pipeline
from .changes import ChangedChunks, Changes
from .index import ChunkIndex
from .packs import PackSink, PackWriter
from .plan import Part, changed_plan, full_plan, resumed
from .proof import Proof, spot_checks
from .request import BackupRequest
from .volume_index import VolumeIndex


class Parent(t.NamedTuple):
    """The saveset on which a backup is based."""

    info: SavesetInfo
    map: LeafMap


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all volumes of a job share."""

    index: ChunkIndex
    writer: PackWriter
    rate: RateLimit
    threads: int
    #: What must not be used because it is about to be removed.
    withheld: Withheld


class Written(t.NamedTuple):
    """What the commit needs."""

    map_id: bytes
    root: bytes
    digest: bytes
    origin: dict[str, t.Any]
    stats: BackupStats
    #: The packs that the map names and the parent's commit does not yet vouch for.
    new_packs: set[bytes]


class BackupRun:
    """Writes packs and map of one saveset; the caller commits them.

    begin(), step() and finish() raise SourceError, StoreFull, StoreError; abort() must follow in any case.
    """

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        request: BackupRequest,
        source: Source,
        *,
        geometry: Geometry,
        parent: Parent | None,
        shared: Shared,
    ) -> None:
        """Reads nothing of the source.  Raises StoreError."""
        self._store = store
        self._ring = ring
        self._request = request
        self._source = source
        self._geometry = geometry
        self._parent = parent
        self._shared = shared
        self._folder = volume_folder(request.volume)
        self._session = session_of(ring, request)
        self._marker = f"sessions/{self._folder}/{self._session.hex()}"
        self._interrupted = bool(request.source_id) and self._marker in store.list(f"sessions/{self._folder}")
        self._index = VolumeIndex(shared.index, self._session if self._interrupted else b"")
        self._stop = threading.Event()
        self._paced = PacedSource(source, self._stop, shared.rate, request.read_latency)
        self._uploads = contextlib.ExitStack()
        self._counters = Counters()
        self.origin: dict[str, t.Any] = {
            "source": source.spec,
            "source_id": request.source_id,
            "resumed": self._interrupted,
        }

    def begin(self) -> None:
        """Find out what to read, and open what is written."""
        self._counters = Counters()  # their time begins now
        self._extents = self._usable(self._request.changes)
        self._proof = self._prove()
        self._mark()
        self._map_id = secrets.token_bytes(16)
        self._map = MapWriter(self._store, self._ring, self._geometry, self._folder, self._map_id)
        self._uploads.callback(self._map.abort)
        self._sink = PackSink(
            self._shared.writer,
            self._store,
            self._ring,
            self._index,
            self._geometry.chunk_size,
            self._request.pack_bytes,
            self._session,
        )
        self._uploads.callback(self._sink.abort)
        parent = self._parent.map if self._parent else None
        assembler = LeafAssembler(self._map, parent, self._shared.withheld.maps)
        self._pipeline = Pipeline(
            self._paced,
            self._plan(assembler),
            level=self._request.level,
            geometry=self._geometry,
            ring=self._ring,
            index=self._index,
            sink=self._sink,
            assembler=assembler,
            proof=self._proof,
            counters=self._counters,
            stop=self._stop,
        )

    def step(self, hand: Hand) -> bool:
        """Do the next part; False if there is none."""
        return self._pipeline.step(hand)

    def finish(self, hand: Hand, then: t.Callable[[], object]) -> None:
        """Have all packs made durable, once no worker is in step(); ``then`` is called when they are, or failed."""
        self._pipeline.finish(hand)
        self._sink.finish(then)

    def publish(self) -> Written:
        """Publish the map.  Raises the error of the packs, StoreFull, StoreError."""
        self._sink.check()
        root, digest = self._map.publish()
        self._conclude()
        vouched = self._parent.map.packs() if self._parent else set()
        return Written(self._map_id, root, digest, self.origin, self._stats(), self._map.packs() - vouched)

    def stop(self) -> None:
        """Have step() end as soon as it can."""
        self._stop.set()

    def abort(self) -> None:
        """Remove what is not published."""
        self._uploads.close()

    @property
    def progress(self) -> Progress:
        """The current state."""
        return self._counters.progress(self._geometry.size)

    @property
    def parent_id(self) -> str | None:
        """The id of the saveset on which this one is based."""
        return self._parent.info.id if self._parent else None

    def committed(self) -> None:
        """The commit exists: there is nothing to resume."""
        if self._request.source_id:
            with contextlib.suppress(SavesetError):  # a leftover marker only costs reading the packs' footers
                self._store.delete(self._marker)

    # -- what to read

    def _usable(self, changes: Changes | None) -> list[tuple[int, int]] | None:
        """The changed extents, merged; if everything must be read, None, and the reason is kept."""
        reason = self._why_not(changes)
        extents = None if reason or changes is None else changes.merged()
        if extents is not None and self._parent is not None:
            reason = self._spot_check(extents, self._parent)
        if reason or changes is None:
            self.origin.update(method="full", reason=reason)
            return None
        self.origin.update(method="changed", since=changes.since)
        return extents

    def _why_not(self, changes: Changes | None) -> str:
        if changes is None:
            return "no changed extents were given"
        if self._parent is None:
            return "the volume has no readable saveset yet"
        since = self._parent.info.origin.get("source_id")
        if not since or since != changes.since:
            return (
                f"the changed extents are since {changes.since or 'an unknown snapshot'}, the latest saveset is of "
                f"{since or 'a source without an id'}"
            )
        if not changes.size == self._geometry.size == self._parent.info.size:
            return (
                f"the volume had {self._parent.info.size} bytes and has {self._geometry.size}; the changed extents "
                f"are for {changes.size}"
            )
        return ""

    def _spot_check(self, extents: list[tuple[int, int]], parent: Parent) -> str:
        count = spot_checks(sum(length for _offset, length in extents), self._geometry)
        proof = self._proof_of(extents, parent)
        proof.spot_check(self._source, count)
        self.origin.update(spot_checks=proof.compared, missed=len(proof.missed))
        return proof.problem

    def _proof_of(self, extents: list[tuple[int, int]], parent: Parent) -> Proof:
        comparer = Comparer(self._ring, ChunkReader(self._store, self._ring))
        return Proof(parent.map, comparer, ChangedChunks(extents, self._geometry.chunk_size))

    def _prove(self) -> Proof | None:
        if not self._request.paranoid or self._extents is None or self._parent is None:
            return None
        return self._proof_of(self._extents, self._parent)

    def _plan(self, assembler: LeafAssembler) -> t.Iterator[Part]:
        if self._extents is None or self._parent is None or self._proof:
            plan = full_plan(self._source, self._geometry)
        else:
            plan = changed_plan(self._extents, self._source, self._geometry, self._parent.map, self._index, assembler)
        return resumed(plan, self._geometry, self._index) if self._interrupted else plan

    # -- resuming, and concluding

    def _mark(self) -> None:
        """Mark that this backup began, so that what it stored is taken over if it is interrupted."""
        if self._request.source_id and not self._interrupted:
            self._store.put(self._marker, b"", exclusive=False)

    def _conclude(self) -> None:
        if self._proof:
            self.origin.update(
                method="full",
                reason=self._proof.problem or "asked to read everything and compare",
                compared=self._proof.compared,
                unproven=self._proof.unproven,
                missed=len(self._proof.missed),
            )

    def _stats(self) -> BackupStats:
        sums = self._counters
        return BackupStats(
            bytes_size=self._geometry.size,
            bytes_read=sums["read"],
            bytes_zero=sums["zero"],
            bytes_unchanged=sums["unchanged"],
            bytes_known=sums["known"],
            bytes_new=sums["new"],
            bytes_stored=sums["stored"],
            seconds=round(sums.seconds, 3),
            slow_reads=self._paced.slow_reads,
            seconds_paused=round(self._paced.paused / self._shared.threads, 3),
        )


def session_of(ring: KeyRing, request: BackupRequest) -> bytes:
    """Identifies the packs of a backup of this source when it is resumed; zeros if it cannot be resumed."""
    if not request.source_id:
        return bytes(SESSION_BYTES)
    return ring.mac("session", f"{request.volume}\0{request.source_id}".encode())


def readable(info: SavesetInfo, open_map: t.Callable[[SavesetInfo], LeafMap]) -> Parent | None:
    """The saveset as a parent; None if its map cannot be read: a parent only saves work."""
    try:
        return Parent(info, open_map(info))
    except SavesetError:
        return None

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One backup from its source to its published map: which parent, what to read, what to take up again."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import typing as t

from .assembler import LeafAssembler
from .backup import BackupJob, ProgressCallback, aborting, default_workers
from .changes import ChangedChunks, Changes
from .commit import SavesetInfo
from .compare import Comparer
from .directory import Geometry
from .errors import SavesetError, StoreError
from .footer import SESSION_BYTES
from .index import ChunkIndex
from .keys import KeyRing
from .leafmap import LeafMap, MapWriter
from .packs import PACK_BYTES, PackSink
from .plan import Part, changed_plan, full_plan, resumed
from .progress import BackupStats
from .proof import Proof, spot_checks
from .reader import ChunkReader
from .source import Source
from .store import Store
from .throttle import PacedSource
from .tombstone import Withheld
from .volume import volume_folder


@dataclasses.dataclass(frozen=True)
class BackupOptions:
    """How to back up.

    ``level`` is zstd's; ``rate_limit`` in bytes a second and ``read_latency`` in seconds a read of at most 1 MiB hold
    reading back; ``paranoid`` reads everything and compares it with what the changed extents tell.
    """

    level: int = 1
    workers: int | None = None
    rate_limit: int | None = None
    read_latency: float | None = None
    paranoid: bool = False
    pack_bytes: int = PACK_BYTES


class Parent(t.NamedTuple):
    """The saveset that a backup builds upon."""

    info: SavesetInfo
    map: LeafMap


class Written(t.NamedTuple):
    """What a commit has to name."""

    map_id: bytes
    root: bytes
    digest: bytes
    origin: dict[str, t.Any]
    stats: BackupStats
    #: The packs that the map names and for which no commit, that of the parent, vouches yet.
    new_packs: set[bytes]


class BackupRun:
    """Writes packs and map of one saveset; the caller commits them."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        chunk_size: int,
        *,
        source: Source,
        volume: str,
        parent: Parent | None,
        source_id: str,
        changes: Changes | None,
        options: BackupOptions,
        withheld: Withheld,
    ) -> None:
        """:param source_id: names the point in time that the source shows, for good; empty when nothing does.
        :param withheld: what must not be built upon, as it is about to be removed.
        """
        self._store = store
        self._ring = ring
        self._source = source
        self._folder = volume_folder(volume)
        self._parent = parent
        self._source_id = source_id
        self._options = options
        self._geometry = Geometry(source.size, chunk_size)
        self._session = session_of(ring, volume, source_id)
        self._withheld = withheld
        self._marker = f"sessions/{self._folder}/{self._session.hex()}"
        interrupted = bool(source_id) and self._marker in set(store.list(f"sessions/{self._folder}"))
        self._index = ChunkIndex(store, ring, self._session if interrupted else b"", withheld)
        self._interrupted = interrupted
        self.origin: dict[str, t.Any] = {"source": source.spec, "source_id": source_id, "resumed": interrupted}
        self._extents = self._usable(changes)
        self._proof = self._prove()

    def run(self, progress: ProgressCallback | None) -> Written:
        """Write everything but the commit.  Raises SourceError, StoreFull, StoreError, and what progress raises."""
        self._store.sweep()
        self._mark()
        map_id = secrets.token_bytes(16)
        writer = MapWriter(self._store, self._ring, self._geometry, self._folder, map_id)
        with aborting(writer):
            chunk_size = self._geometry.chunk_size
            options = self._options
            sink = PackSink(self._store, self._ring, self._index, chunk_size, options.pack_bytes, self._session)
            with aborting(sink):
                stop, workers = threading.Event(), options.workers or default_workers()
                assembler = LeafAssembler(writer, self._parent.map if self._parent else None, self._withheld.maps)
                paced = PacedSource(self._source, stop, options.rate_limit, options.read_latency)
                job = BackupJob(
                    source=paced,
                    plan=self._plan(assembler),
                    stop=stop,
                    geometry=self._geometry,
                    ring=self._ring,
                    index=self._index,
                    sink=sink,
                    assembler=assembler,
                    level=options.level,
                    workers=workers,
                    proof=self._proof,
                )
                job.run(progress)
                root, digest = writer.publish()
        if progress:
            progress(job.counters.progress(self._geometry.size))
        self._conclude()
        vouched = self._parent.map.packs() if self._parent else set()
        stats = self._stats(job, paced, workers)
        return Written(map_id, root, digest, self.origin, stats, writer.packs() - vouched)

    @property
    def parent_id(self) -> str | None:
        """The id of the saveset that this one builds upon."""
        return self._parent.info.id if self._parent else None

    def committed(self) -> None:
        """The commit is there: there is nothing to take up again."""
        if self._source_id:
            with contextlib.suppress(StoreError):  # a marker that is left costs a look at the packs, nothing else
                self._store.delete(self._marker)

    # -- what to read

    def _usable(self, changes: Changes | None) -> list[tuple[int, int]] | None:
        """The changed extents, merged; None, and the reason kept, when everything has to be read."""
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
            return "the volume has no saveset yet that can be read"
        since = self._parent.info.origin.get("source_id")
        if not since or since != changes.since:
            return (
                f"the changed extents are since {changes.since or 'an unknown snapshot'}, the latest saveset is of "
                f"{since or 'a source without an id'}"
            )
        if not changes.size == self._geometry.size == self._parent.info.size:
            return (
                f"the volume had {self._parent.info.size} bytes and has {self._geometry.size}, the changed extents are "
                f"of {changes.size}"
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
        if not self._options.paranoid or self._extents is None or self._parent is None:
            return None
        return self._proof_of(self._extents, self._parent)

    def _plan(self, assembler: LeafAssembler) -> t.Iterator[Part]:
        if self._extents is None or self._parent is None or self._proof:
            plan = full_plan(self._source, self._geometry)
        else:
            plan = changed_plan(self._extents, self._source, self._geometry, self._parent.map, self._index, assembler)
        return resumed(plan, self._geometry, self._index) if self._interrupted else plan

    # -- taking up again, and concluding

    def _mark(self) -> None:
        """Leave word that this backup began: what it stored is taken over should it not end."""
        if self._source_id and not self._interrupted:
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

    def _stats(self, job: BackupJob, paced: PacedSource, workers: int) -> BackupStats:
        sums = job.counters
        return BackupStats(
            bytes_size=self._geometry.size,
            bytes_read=sums["read"],
            bytes_zero=sums["zero"],
            bytes_unchanged=sums["unchanged"],
            bytes_known=sums["known"],
            bytes_new=sums["new"],
            bytes_stored=sums["stored"],
            seconds=round(sums.seconds, 3),
            slow_reads=paced.slow_reads,
            seconds_paused=round(paced.paused / workers, 3),
        )


def session_of(ring: KeyRing, volume: str, source_id: str) -> bytes:
    """By which a backup of the same source, taken up again, knows its packs; zeros when it cannot be taken up."""
    return ring.mac("session", f"{volume}\0{source_id}".encode()) if source_id else bytes(SESSION_BYTES)


def readable(info: SavesetInfo, open_map: t.Callable[[SavesetInfo], LeafMap]) -> Parent | None:
    """The saveset as a parent; None when its map cannot be read: a parent only saves work."""
    try:
        return Parent(info, open_map(info))
    except SavesetError:
        return None

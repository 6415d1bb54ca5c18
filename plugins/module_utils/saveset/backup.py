# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup pipeline: equal workers read, test, hash, look up, compress and encrypt; one writer appends.

Each worker takes the next range of the volume, so that ranges are stored about in order and a slow range holds up
nobody else.  All heavy calls release Python's global lock.
"""

from __future__ import annotations

import contextlib
import os
import threading
import typing as t

from .codec import Compressor
from .deps import blake3
from .errors import Cancelled, SavesetError
from .extent import DATA, ZERO, ChunkRun, chunk_runs, split_runs
from .index import ChunkIndex
from .keys import KeyRing
from .leafmap import ENTRY_BYTES, HOLE_ENTRY, LEAF_ENTRIES, ZERO_ENTRY, Geometry, LeafMap, MapWriter
from .packs import PackSink
from .progress import Counters, Progress, RateLimit
from .source import Source

RANGE_BYTES = 4 << 20
FRAME_BYTES = 1 << 20
_PROGRESS_S = 0.5

ProgressCallback = t.Callable[[Progress], None]


def default_workers() -> int:
    """How many workers a backup or a restore uses by default: two or three."""
    return min(3, max(2, len(os.sched_getaffinity(0))))


class LeafAssembler:
    """Gathers entries into leaf pages and hands each complete page to the map, unless the parent has the same."""

    def __init__(self, writer: MapWriter, parent: LeafMap | None) -> None:
        self._writer = writer
        self._parent = parent
        self._lock = threading.Lock()
        self._pages: dict[int, tuple[bytearray, list[int]]] = {}

    def parent_page(self, leaf: int) -> bytes:
        """The parent's page for a leaf; empty when there is none, or when it cannot be read: it is only a help."""
        if self._parent is None or leaf >= self._parent.geometry.leaves:
            return b""
        try:
            return self._parent.page(leaf)
        except SavesetError:
            return b""

    def fill(self, first: int, entries: bytes, missing: int = 0) -> None:
        """Put entries from chunk ``first`` on, all in one leaf; ``missing`` of them are told later, one by one."""
        leaf, position = divmod(first, LEAF_ENTRIES)
        with self._lock:
            if leaf not in self._pages:
                count = self._writer.geometry.leaf_entries(leaf)
                self._pages[leaf] = (bytearray(count * ENTRY_BYTES), [count])
            page, remaining = self._pages[leaf]
            begin = position * ENTRY_BYTES
            page[begin : begin + len(entries)] = entries
            remaining[0] -= len(entries) // ENTRY_BYTES - missing
            if remaining[0]:
                return
            del self._pages[leaf]
        self._complete(leaf, bytes(page))

    def fill_empty(self, run: ChunkRun) -> None:
        """Put a run of holes or zeros inside one leaf."""
        leaf = run.first // LEAF_ENTRIES
        if run.chunks == self._writer.geometry.leaf_entries(leaf):
            self._writer.add_empty(leaf, run.kind)
            return
        self.fill(run.first, (ZERO_ENTRY if run.kind == ZERO else HOLE_ENTRY) * run.chunks)

    def _complete(self, leaf: int, page: bytes) -> None:
        if self._parent is not None and page == self.parent_page(leaf):
            self._writer.add_known(leaf, self._parent.leaf(leaf))
        elif page == page[:ENTRY_BYTES] * (len(page) // ENTRY_BYTES) and page[:ENTRY_BYTES] in (HOLE_ENTRY, ZERO_ENTRY):
            self._writer.add_empty(leaf, page[ENTRY_BYTES - 2])
        else:
            self._writer.add_page(leaf, page)


class _Worker:
    """What one thread keeps for itself."""

    def __init__(self, level: int) -> None:
        self.buffer = bytearray(RANGE_BYTES)
        self.view = memoryview(self.buffer)
        self.compressor = Compressor(level)
        #: Chunks that some worker is about to store: (chunk, identity), their places not known yet.
        self.deferred: list[tuple[int, bytes]] = []


class BackupJob:
    """One backup from source to published packs; the caller publishes the map and the commit after run()."""

    def __init__(
        self,
        *,
        source: Source,
        geometry: Geometry,
        ring: KeyRing,
        index: ChunkIndex,
        sink: PackSink,
        map_writer: MapWriter,
        parent: LeafMap | None,
        level: int,
        workers: int,
        rate_limit: int | None,
    ) -> None:
        self._source = source
        self._geometry = geometry
        self._index = index
        self._sink = sink
        self._assembler = LeafAssembler(map_writer, parent)
        self._level = level
        self._workers = workers
        self._rate = RateLimit(rate_limit)
        self._key = ring.identity_key
        self._zeros = bytes(geometry.chunk_size)
        self._frame_chunks = max(1, FRAME_BYTES // geometry.chunk_size)
        range_chunks = max(1, RANGE_BYTES // geometry.chunk_size)
        runs = chunk_runs(source.extents(), geometry.size, geometry.chunk_size)
        self._plan = split_runs(runs, range_chunks, LEAF_ENTRIES)
        self._plan_lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.counters = Counters()

    def run(self, progress: ProgressCallback | None) -> None:
        """Read the whole source and store what is new; returns when all packs are durable.

        ``progress`` is called in this thread; what it raises stops the backup.
        """
        threads = [
            threading.Thread(target=self._work, name=f"saveset-worker-{number}", daemon=True)
            for number in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(_PROGRESS_S if progress else None)
                    if progress:
                        progress(self.counters.progress(self._geometry.size))
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._errors:
            raise self._errors[0]
        self._sink.finish()

    def _work(self) -> None:
        worker = _Worker(self._level)
        try:
            while not self._stop.is_set():
                run = self._next_run()
                if run is None:
                    break
                if run.kind == DATA:
                    self._store_run(worker, run)
                else:
                    self._skip_run(run)
                if worker.deferred:
                    self._settle(worker)
            while worker.deferred and not self._stop.wait(0.001):
                self._settle(worker)
        except BaseException as error:  # told by run() in the caller's thread
            self._errors.append(error)
            self._stop.set()

    def _next_run(self) -> ChunkRun | None:
        with self._plan_lock:
            return next(self._plan, None)

    def _skip_run(self, run: ChunkRun) -> None:
        self._assembler.fill_empty(run)
        begin = run.first * self._geometry.chunk_size
        length = min(run.chunks * self._geometry.chunk_size, self._geometry.size - begin)
        self.counters.add(done=length, zero=length if run.kind == ZERO else 0)

    def _store_run(self, worker: _Worker, run: ChunkRun) -> None:
        """Read a run of chunks, store what is new, and put all entries into the map."""
        chunk_size = self._geometry.chunk_size
        offset = run.first * chunk_size
        length = min(run.chunks * chunk_size, self._geometry.size - offset)
        self._rate.wait(length, self._stop)
        if self._stop.is_set():
            raise Cancelled("the backup", "it was stopped", "Run it again")
        self._source.read(offset, worker.view[:length])

        leaf, position = divmod(run.first, LEAF_ENTRIES)
        parent = self._assembler.parent_page(leaf)
        entries: list[bytes] = [HOLE_ENTRY] * run.chunks
        fresh: list[bytes] = []  # identities of neighbouring new chunks, the next frame
        known = zero = new = missing = 0
        for number in range(run.chunks):
            begin = number * chunk_size
            end = min(begin + chunk_size, length)
            if worker.buffer.startswith(self._zeros[: end - begin], begin, end):
                entries[number] = ZERO_ENTRY
                zero += end - begin
            else:
                identity = blake3(worker.view[begin:end], key=self._key).digest()
                place = self._known_place(identity, parent, (position + number) * ENTRY_BYTES)
                if place is not None:
                    entries[number] = identity + place
                    known += end - begin
                elif self._index.claim(identity, run.first + number):
                    fresh.append(identity)
                    new += end - begin
                    if len(fresh) == self._frame_chunks:
                        self._store_frame(worker, entries, number + 1, fresh, end)
                        fresh = []
                    continue
                else:
                    worker.deferred.append((run.first + number, identity))
                    missing += 1
                    known += end - begin
            if fresh:
                self._store_frame(worker, entries, number, fresh, begin)
                fresh = []
        if fresh:
            self._store_frame(worker, entries, run.chunks, fresh, length)
        self._assembler.fill(run.first, b"".join(entries), missing)
        self.counters.add(done=length, read=length, zero=zero, known=known, new=new)

    def _known_place(self, identity: bytes, parent: bytes, at: int) -> bytes | None:
        """Where a chunk is: the parent's entry at the same place first, then the index."""
        if parent[at : at + 32] == identity and parent[at + 32 : at + 48] in self._index.packs:
            return parent[at + 32 : at + ENTRY_BYTES]
        return self._index.find(identity)

    def _store_frame(
        self, worker: _Worker, entries: list[bytes], end_number: int, fresh: list[bytes], end: int
    ) -> None:
        """Store the new chunks before chunk ``end_number`` of the run, which end at byte ``end`` of the buffer."""
        first = end_number - len(fresh)
        data = worker.view[first * self._geometry.chunk_size : end]
        identities = b"".join(fresh)
        codec, packed = worker.compressor.compress(data)
        slot = self._sink.reserve(identities, len(packed))
        head, body = slot.seal(codec, identities, len(data), packed)
        self._sink.submit(slot, head, body)
        for number, identity in enumerate(fresh):
            place = slot.place(number)
            entries[first + number] = identity + place
            self._index.placed(identity, place)
        self.counters.add(stored=slot.length)

    def _settle(self, worker: _Worker) -> None:
        """Fill in the entries of chunks that another worker, or this one, was about to store."""
        unsettled = []
        for chunk, identity in worker.deferred:
            place = self._index.find(identity)
            if place is None:
                unsettled.append((chunk, identity))
            else:
                self._assembler.fill(chunk, identity + place)
        worker.deferred = unsettled


@contextlib.contextmanager
def aborting(*uploads: PackSink | MapWriter) -> t.Iterator[None]:
    """Remove what is not published when the block is left, however it is left."""
    try:
        yield
    finally:
        for upload in uploads:
            upload.abort()

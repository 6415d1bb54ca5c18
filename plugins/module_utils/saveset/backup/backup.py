# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup pipeline: identical workers read, test, hash, look up, compress and encrypt; one writer appends.

Each worker takes the next part of the plan, so parts are stored roughly in order and a slow one does not delay the
others.  All expensive calls release the GIL.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ..base.deps import blake3
from ..base.errors import Cancelled
from ..base.extent import DATA, GRAINS, ZERO, ChunkRun
from ..base.parallel import run_parallel
from ..base.progress import Counters, ProgressCallback
from ..format.codec import Compressor
from ..format.directory import Geometry
from ..format.leafmap import MapWriter
from ..format.page import GRAINS_PER_CHUNK, HOLE_ENTRY, LEAF_ENTRIES, ZERO_ENTRY, Page, Piece, grain_runs, split_entry
from ..io.buffers import AlignedBuffer
from ..io.source import Source
from ..io.throttle import PacedSource
from ..keys.keys import KeyRing
from .assembler import LeafAssembler
from .index import ChunkIndex
from .packs import PackSink, Stored
from .patch import is_zero, patch
from .plan import RANGE_BYTES, AdoptedRun, ChunkPatch, KnownRun, Part, PatchRun
from .proof import Proof
from .request import BackupRequest

#: Plain bytes in a frame: larger frames compress better, smaller ones are faster to read in part.
FRAME_BYTES = 1 << 20
FRAME_BYTES_COMPACT = 4 << 20
#: From this zstd level on, size matters more than the time to read a part.
LEVEL_COMPACT = 3


class _Patched(t.NamedTuple):
    """A chunk whose new grains wait in a worker's buffer: their place there, and which of its grains became zero."""

    patch: ChunkPatch
    stored: Stored
    zeros: int


class _Worker:
    """The state of one thread."""

    def __init__(self, level: int, chunk_size: int) -> None:
        self.buffer = AlignedBuffer(max(RANGE_BYTES, chunk_size))
        self.compressor = Compressor(level)
        #: Chunks that some worker is about to store, as (chunk, identity): their places are not known yet.
        self.deferred: list[tuple[int, bytes]] = []
        #: New grains of several chunks, one after the other: the next frame of grains.
        self.grains = AlignedBuffer(max(FRAME_BYTES, chunk_size))
        self.grains_end = 0
        self.patched: list[_Patched] = []


class BackupJob:
    """One backup from source to published packs; the caller publishes the map and the commit after run()."""

    def __init__(
        self,
        request: BackupRequest,
        source: Source,
        plan: t.Iterator[Part],
        *,
        geometry: Geometry,
        ring: KeyRing,
        index: ChunkIndex,
        sink: PackSink,
        assembler: LeafAssembler,
        proof: Proof | None,
    ) -> None:
        self._request = request
        self._stop = threading.Event()
        #: The source as the workers read it.
        self.source = PacedSource(source, self._stop, request.rate_limit, request.read_latency)
        self._plan = plan
        self._geometry = geometry
        self._ring = ring
        self._index = index
        self._sink = sink
        self._assembler = assembler
        self._proof = proof
        self._key = ring.identity_key
        frame_bytes = FRAME_BYTES_COMPACT if request.level >= LEVEL_COMPACT else FRAME_BYTES
        self._frame_chunks = max(1, frame_bytes // geometry.chunk_size)
        self._grain = geometry.chunk_size // GRAINS_PER_CHUNK
        self._plan_lock = threading.Lock()
        self.counters = Counters()

    def run(self, progress: ProgressCallback | None) -> None:
        """Carry out the whole plan; returns when all packs are durable.

        ``progress`` is called in this thread; an exception from it stops the backup.
        """
        threads = self._request.threads

        def tell() -> None:
            if progress:
                progress(self.counters.progress(self._geometry.size))

        run_parallel(range(threads), self._work, threads, tell, self._stop)
        self._sink.finish()

    def _work(self, _number: int) -> None:
        worker = _Worker(self._request.level, self._geometry.chunk_size)
        while not self._stop.is_set():
            part = self._next_part()
            if part is None:
                break
            self._do(worker, part)
            if worker.deferred:
                self._settle(worker)
        if worker.patched:
            self._store_grains(worker)
        while worker.deferred and not self._stop.wait(0.001):
            self._settle(worker)

    def _next_part(self) -> Part | None:
        with self._plan_lock:
            return next(self._plan, None)

    def _do(self, worker: _Worker, part: Part) -> None:
        if isinstance(part, PatchRun):
            for item in part.patches:
                self._patch(worker, item)
        elif isinstance(part, KnownRun):
            self.counters.add(done=part.length, unchanged=part.length)
        elif isinstance(part, AdoptedRun):
            self._assembler.fill(part.first, part.entries)
            self.counters.add(done=part.length, known=part.length)
        elif part.kind == DATA:
            self._store_run(worker, part)
        else:
            self._skip_run(part)

    def _skip_run(self, run: ChunkRun) -> None:
        self._assembler.fill_empty(run)
        begin = run.first * self._geometry.chunk_size
        length = min(run.chunks * self._geometry.chunk_size, self._geometry.size - begin)
        self.counters.add(done=length, zero=length if run.kind == ZERO else 0)

    def _read(self, offset: int, buffer: memoryview) -> None:
        self.source.read(offset, buffer)
        if self._stop.is_set():
            raise Cancelled("the backup", "it was stopped", "Run it again")

    # -- whole chunks

    def _store_run(self, worker: _Worker, run: ChunkRun) -> None:
        """Read a run of chunks, store the new ones, and put all entries into the map."""
        chunk_size = self._geometry.chunk_size
        offset = run.first * chunk_size
        length = min(run.chunks * chunk_size, self._geometry.size - offset)
        self._read(offset, worker.buffer.view[:length])

        leaf, position = divmod(run.first, LEAF_ENTRIES)
        parent = self._assembler.parent_page(leaf)
        entries: list[bytes] = [HOLE_ENTRY] * run.chunks
        fresh: list[bytes] = []  # identities of neighbouring new chunks, the next frame
        known = zero = new = missing = 0
        for number in range(run.chunks):
            begin = number * chunk_size
            end = min(begin + chunk_size, length)
            if self._proof:
                self._proof.check(run.first + number, worker.buffer.view[begin:end])
            if worker.buffer.is_zero(begin, end):
                entries[number] = ZERO_ENTRY
                zero += end - begin
            else:
                identity = blake3(worker.buffer.view[begin:end], key=self._key).digest()
                place = self._known_place(identity, parent, position + number)
                if place is not None:
                    entries[number] = identity + place
                    known += end - begin
                elif self._index.claim(identity, run.first + number):
                    fresh.append(identity)
                    new += end - begin
                    if len(fresh) == self._frame_chunks:
                        self._store_frame(worker, run.first, entries, number + 1, fresh, end)
                        fresh = []
                    continue
                else:
                    worker.deferred.append((run.first + number, identity))
                    missing += 1
                    known += end - begin
            if fresh:
                self._store_frame(worker, run.first, entries, number, fresh, begin)
                fresh = []
        if fresh:
            self._store_frame(worker, run.first, entries, run.chunks, fresh, length)
        self._assembler.fill(run.first, b"".join(entries), missing)
        self.counters.add(done=length, read=length, zero=zero, known=known, new=new)

    def _known_place(self, identity: bytes, parent: Page | None, position: int) -> bytes | None:
        """The place of a chunk: looks at the parent's entry at the same position first, then in the index."""
        if parent is not None and position < parent.count:
            entry = parent.raw(position)
            if entry[:32] == identity and self._index.trusts(entry[32:48], int.from_bytes(entry[48:56], "little")):
                return entry[32:]
        return self._index.find(identity)

    def _store_frame(
        self, worker: _Worker, run_first: int, entries: list[bytes], end_number: int, fresh: list[bytes], end: int
    ) -> None:
        """Store the new chunks before chunk ``end_number`` of the run, which end at byte ``end`` of the buffer."""
        first = end_number - len(fresh)
        data = worker.buffer.view[first * self._geometry.chunk_size : end]
        stored = [Stored(identity, number, DATA, run_first + first + number) for number, identity in enumerate(fresh)]
        places = self._write_frame(worker, stored, data)
        for number, (identity, place) in enumerate(zip(fresh, places, strict=True)):
            entries[first + number] = identity + place
            self._index.placed(identity, place)

    def _write_frame(self, worker: _Worker, stored: list[Stored], data: memoryview) -> list[bytes]:
        """Compress, encrypt and submit one frame; returns the place of each item in it."""
        codec, packed = worker.compressor.compress(data)
        slot = self._sink.reserve(stored, len(packed))
        self._sink.submit(slot, *slot.seal(codec, len(data), packed))
        self.counters.add(stored=slot.length)
        return [slot.place(number) for number in range(len(stored))]

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

    # -- grains

    def _patch(self, worker: _Worker, item: ChunkPatch) -> None:
        """Read the changed grains of a chunk into the next frame of grains."""
        adopted = self._index.adopt(item.chunk, item.mask)
        if adopted:
            identity, place = adopted
            self._fill_patched(item, 0, Piece.stored_at(identity, place, item.mask))
            known = item.mask.bit_count() * self._grain
            chunk_size = self._geometry.chunk_size
            self.counters.add(done=chunk_size, known=known, unchanged=chunk_size - known)
            return
        if worker.grains_end + self._geometry.chunk_size > len(worker.grains):
            self._store_grains(worker)
        begin = end = worker.grains_end
        zeros = 0
        for first, count in grain_runs(item.mask):
            offset = item.chunk * self._geometry.chunk_size + first * self._grain
            length = count * self._grain
            self._read(offset, worker.grains.view[end : end + length])
            zeros |= self._zero_grains(worker, first, count, end)
            end += length
        read = end - begin
        stored = item.mask & ~zeros
        if zeros:
            end = self._close_up(worker, begin, item.mask, zeros)
        zero_bytes = zeros.bit_count() * self._grain
        untouched = self._geometry.chunk_size - read
        self.counters.add(
            done=self._geometry.chunk_size, read=read, zero=zero_bytes, new=end - begin, unchanged=untouched
        )
        if not stored:
            self._fill_patched(item, zeros, None)
            return
        identity = blake3(worker.grains.view[begin:end], key=self._key).digest()
        row = Stored(identity, begin // self._grain, GRAINS, item.chunk, stored)
        worker.patched.append(_Patched(item, row, zeros))
        worker.grains_end = end

    def _zero_grains(self, worker: _Worker, first: int, count: int, at: int) -> int:
        """Which of the ``count`` grains from ``first``, which are at ``at`` in the buffer, are zero."""
        mask = 0
        for number in range(count):
            begin = at + number * self._grain
            if worker.grains.is_zero(begin, begin + self._grain):
                mask |= 1 << (first + number)
        return mask

    def _close_up(self, worker: _Worker, begin: int, mask: int, zeros: int) -> int:
        """Remove the zero grains from those of ``mask`` at ``begin`` in the buffer; returns where the others end."""
        view = worker.grains.view
        end = at = begin
        for grain in range(GRAINS_PER_CHUNK):
            if not mask >> grain & 1:
                continue
            if not zeros >> grain & 1:
                view[end : end + self._grain] = view[at : at + self._grain]
                end += self._grain
            at += self._grain
        return end

    def _store_grains(self, worker: _Worker) -> None:
        """Store the collected grains in one frame, and fill in their chunks' entries."""
        if not worker.patched:
            return
        patched, worker.patched = worker.patched, []
        data = worker.grains.view[: worker.grains_end]
        places = self._write_frame(worker, [item.stored for item in patched], data)
        worker.grains_end = 0
        for item, place in zip(patched, places, strict=True):
            grains = Piece.stored_at(item.stored.identity, place, item.stored.mask)
            self._fill_patched(item.patch, item.zeros, grains)

    def _fill_patched(self, item: ChunkPatch, zeros: int, grains: Piece | None) -> None:
        pieces = patch(item.pieces, zeros, grains)
        if is_zero(pieces):
            self._assembler.fill(item.chunk, ZERO_ENTRY)
        else:
            self._assembler.fill_split(item.chunk, *split_entry(self._ring, pieces))


@contextlib.contextmanager
def aborting(*uploads: PackSink | MapWriter) -> t.Iterator[None]:
    """Remove what is not published when the block ends, normally or not."""
    try:
        yield
    finally:
        for upload in uploads:
            upload.abort()

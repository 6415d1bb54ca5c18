# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup pipeline of a volume: workers read, test, hash, look up, compress and encrypt; one writer appends.

Each worker takes the next part of the plan, so parts are stored roughly in order and a slow one does not delay the
others.  All expensive calls release the GIL.  Workers come and go: see pool.py.
"""

from __future__ import annotations

import threading
import typing as t

from ..base.deps import blake3
from ..base.errors import Cancelled
from ..base.extent import DATA, GRAINS, ZERO, ChunkRun
from ..base.progress import Counters
from ..format.codec import Compressor
from ..format.directory import Geometry
from ..format.page import GRAINS_PER_CHUNK, HOLE_ENTRY, LEAF_ENTRIES, ZERO_ENTRY, Page, Piece, grain_runs, split_entry
from ..io.buffers import AlignedBuffer
from ..io.throttle import PacedSource
from ..keys.keys import KeyRing
from .assembler import LeafAssembler
from .packs import PackSink, Stored
from .patch import is_zero, patch
from .plan import RANGE_BYTES, AdoptedRun, ChunkPatch, KnownRun, Part, PatchRun
from .proof import Proof
from .volume_index import VolumeIndex

#: Plain bytes in a frame of chunks: larger frames compress better, but a read of a block decompresses what precedes it.
FRAME_BYTES = 256 << 10
FRAME_BYTES_COMPACT = 4 << 20
#: From this zstd level on, size matters more than the time to read a part.
LEVEL_COMPACT = 3
#: Plain bytes of new chunks whose frames are stored one after the other, so that a reader gets them in one go.
_GROUP_BYTES = 1 << 20
#: Plain bytes in a frame of grains: they are few of each chunk, so in small frames there would be too little of them.
_GRAIN_FRAME_BYTES = 1 << 20


class Hand:
    """What a worker needs for itself, whatever volume it works on."""

    def __init__(self, chunk_size: int) -> None:
        self.buffer = AlignedBuffer(max(RANGE_BYTES, chunk_size))
        self._compressors: dict[int, Compressor] = {}

    def compressor(self, level: int) -> Compressor:
        """This worker's compressor of a level."""
        if level not in self._compressors:
            self._compressors[level] = Compressor(level)
        return self._compressors[level]


class _Patched(t.NamedTuple):
    """A chunk whose new grains wait to be stored: their place in the frame, and which of its grains became zero."""

    patch: ChunkPatch
    stored: Stored
    zeros: int


class _Grains:
    """New grains of several chunks, one after the other: the next frame of grains of one worker."""

    def __init__(self, chunk_size: int) -> None:
        self.buffer = AlignedBuffer(max(_GRAIN_FRAME_BYTES, chunk_size))
        self.end = 0
        self.patched: list[_Patched] = []


class Pipeline:
    """One volume from its source to packs."""

    def __init__(
        self,
        source: PacedSource,
        plan: t.Iterator[Part],
        *,
        level: int,
        geometry: Geometry,
        ring: KeyRing,
        index: VolumeIndex,
        sink: PackSink,
        assembler: LeafAssembler,
        proof: Proof | None,
        counters: Counters,
        stop: threading.Event,
    ) -> None:
        """:param stop: when it is set, what is being read is no longer used."""
        self._source = source
        self._plan = plan
        self._level = level
        self._geometry = geometry
        self._ring = ring
        self._index = index
        self._sink = sink
        self._assembler = assembler
        self._proof = proof
        self._counters = counters
        self._stop = stop
        self._key = ring.identity_key
        frame_bytes = FRAME_BYTES_COMPACT if level >= LEVEL_COMPACT else FRAME_BYTES
        self._frame_chunks = max(1, frame_bytes // geometry.chunk_size)
        self._group_chunks = max(self._frame_chunks, _GROUP_BYTES // geometry.chunk_size)
        self._grain = geometry.chunk_size // GRAINS_PER_CHUNK
        self._plan_lock = threading.Lock()
        self._lock = threading.Lock()
        #: Chunks that some worker is about to store, as (chunk, identity): their places are not known yet.
        self._deferred: list[tuple[int, bytes]] = []
        #: Frames of grains that are not full; a worker has one for itself while it fills it.
        self._grains: list[_Grains] = []

    def step(self, hand: Hand) -> bool:
        """Do the next part of the plan; False if there is none."""
        with self._plan_lock:
            part = next(self._plan, None)
        if part is None:
            return False
        self._do(hand, part)
        self._settle()
        return True

    def finish(self, hand: Hand) -> None:
        """Store what was collected, once no worker is in step() any more: so every claimed chunk has its place."""
        for grains in self._grains:
            self._store_grains(hand, grains)
        self._settle()

    def _do(self, hand: Hand, part: Part) -> None:
        if isinstance(part, PatchRun):
            self._patch_run(hand, part)
        elif isinstance(part, KnownRun):
            self._counters.add(done=part.length, unchanged=part.length)
        elif isinstance(part, AdoptedRun):
            self._assembler.fill(part.first, part.entries)
            self._counters.add(done=part.length, known=part.length)
        elif part.kind == DATA:
            self._store_run(hand, part)
        else:
            self._skip_run(part)

    def _skip_run(self, run: ChunkRun) -> None:
        self._assembler.fill_empty(run)
        begin = run.first * self._geometry.chunk_size
        length = min(run.chunks * self._geometry.chunk_size, self._geometry.size - begin)
        self._counters.add(done=length, zero=length if run.kind == ZERO else 0)

    def _read(self, offset: int, buffer: memoryview) -> None:
        self._source.read(offset, buffer)
        if self._stop.is_set():
            raise Cancelled("the backup", "it was stopped", "Run it again")

    # -- whole chunks

    def _store_run(self, hand: Hand, run: ChunkRun) -> None:
        """Read a run of chunks, store the new ones, and put all entries into the map."""
        chunk_size = self._geometry.chunk_size
        offset = run.first * chunk_size
        length = min(run.chunks * chunk_size, self._geometry.size - offset)
        self._read(offset, hand.buffer.view[:length])

        leaf, position = divmod(run.first, LEAF_ENTRIES)
        parent = self._assembler.parent_page(leaf)
        entries: list[bytes] = [HOLE_ENTRY] * run.chunks
        fresh: list[bytes] = []  # identities of neighbouring new chunks, the next group of frames
        deferred: list[tuple[int, bytes]] = []
        known = zero = new = 0
        for number in range(run.chunks):
            begin = number * chunk_size
            end = min(begin + chunk_size, length)
            if self._proof:
                self._proof.check(run.first + number, hand.buffer.view[begin:end])
            if hand.buffer.is_zero(begin, end):
                entries[number] = ZERO_ENTRY
                zero += end - begin
            else:
                identity = blake3(hand.buffer.view[begin:end], key=self._key).digest()
                place = self._known_place(identity, parent, position + number)
                if place is not None:
                    entries[number] = identity + place
                    known += end - begin
                elif self._index.claim(identity, run.first + number):
                    fresh.append(identity)
                    new += end - begin
                    if len(fresh) == self._group_chunks:
                        self._store_group(hand, run.first, entries, number + 1, fresh, end)
                        fresh = []
                    continue
                else:
                    deferred.append((run.first + number, identity))
                    known += end - begin
            if fresh:
                self._store_group(hand, run.first, entries, number, fresh, begin)
                fresh = []
        if fresh:
            self._store_group(hand, run.first, entries, run.chunks, fresh, length)
        self._assembler.fill(run.first, b"".join(entries), len(deferred))
        with self._lock:
            self._deferred += deferred
        self._counters.add(done=length, read=length, zero=zero, known=known, new=new)

    def _known_place(self, identity: bytes, parent: Page | None, position: int) -> bytes | None:
        """The place of a chunk: looks at the parent's entry at the same position first, then in the index."""
        if parent is not None and position < parent.count:
            entry = parent.raw(position)
            if entry[:32] == identity and self._index.trusts(entry[32:48], int.from_bytes(entry[48:56], "little")):
                return entry[32:]
        return self._index.find(identity)

    def _store_group(
        self, hand: Hand, run_first: int, entries: list[bytes], end_number: int, fresh: list[bytes], end: int
    ) -> None:
        """Store the new chunks before chunk ``end_number`` of the run, which end at byte ``end`` of the buffer."""
        first = end_number - len(fresh)
        stored = [
            Stored(identity, number % self._frame_chunks, DATA, run_first + first + number)
            for number, identity in enumerate(fresh)
        ]
        frames = []
        for number in range(0, len(fresh), self._frame_chunks):
            begin = (first + number) * self._geometry.chunk_size
            data = hand.buffer.view[begin : min(begin + self._frame_chunks * self._geometry.chunk_size, end)]
            frames.append((stored[number : number + self._frame_chunks], data))
        places = self._write_frames(hand, frames)
        for number, (identity, place) in enumerate(zip(fresh, places, strict=True)):
            entries[first + number] = identity + place
            self._index.placed(identity, place)

    def _write_frames(self, hand: Hand, frames: t.Iterable[tuple[list[Stored], memoryview]]) -> list[bytes]:
        """Compress, encrypt and submit frames; returns the place of each item in them.

        All are compressed before the first gets its place, so that other workers' frames seldom come between them.
        """
        compressor = hand.compressor(self._level)
        packed = [(stored, len(data), *compressor.compress(data)) for stored, data in frames]
        slots = [self._sink.reserve(stored, len(body)) for stored, _length, _codec, body in packed]
        for slot, (_stored, length, codec, body) in zip(slots, packed, strict=True):
            self._sink.submit(slot, *slot.seal(codec, length, body))
        self._counters.add(stored=sum(slot.length for slot in slots))
        return [slot.place(number) for slot in slots for number in range(len(slot.stored))]

    def _settle(self) -> None:
        """Fill in the entries of chunks that a worker was about to store."""
        with self._lock:
            deferred, self._deferred = self._deferred, []
        unsettled = []
        for chunk, identity in deferred:
            place = self._index.find(identity)
            if place is None:
                unsettled.append((chunk, identity))
            else:
                self._assembler.fill(chunk, identity + place)
        with self._lock:
            self._deferred += unsettled

    # -- grains

    def _patch_run(self, hand: Hand, run: PatchRun) -> None:
        with self._lock:
            grains = self._grains.pop() if self._grains else None
        grains = grains or _Grains(self._geometry.chunk_size)
        for item in run.patches:
            self._patch(hand, grains, item)
        with self._lock:
            self._grains.append(grains)

    def _patch(self, hand: Hand, grains: _Grains, item: ChunkPatch) -> None:
        """Read the changed grains of a chunk into the next frame of grains."""
        adopted = self._index.adopt(item.chunk, item.mask)
        if adopted:
            identity, place = adopted
            self._fill_patched(item, 0, Piece.stored_at(identity, place, item.mask))
            known = item.mask.bit_count() * self._grain
            chunk_size = self._geometry.chunk_size
            self._counters.add(done=chunk_size, known=known, unchanged=chunk_size - known)
            return
        if grains.end + self._geometry.chunk_size > len(grains.buffer):
            self._store_grains(hand, grains)
        begin = end = grains.end
        zeros = 0
        for first, count in grain_runs(item.mask):
            offset = item.chunk * self._geometry.chunk_size + first * self._grain
            length = count * self._grain
            self._read(offset, grains.buffer.view[end : end + length])
            zeros |= self._zero_grains(grains, first, count, end)
            end += length
        read = end - begin
        stored = item.mask & ~zeros
        if zeros:
            end = self._close_up(grains, begin, item.mask, zeros)
        zero_bytes = zeros.bit_count() * self._grain
        untouched = self._geometry.chunk_size - read
        self._counters.add(
            done=self._geometry.chunk_size, read=read, zero=zero_bytes, new=end - begin, unchanged=untouched
        )
        if not stored:
            self._fill_patched(item, zeros, None)
            return
        identity = blake3(grains.buffer.view[begin:end], key=self._key).digest()
        row = Stored(identity, begin // self._grain, GRAINS, item.chunk, stored)
        grains.patched.append(_Patched(item, row, zeros))
        grains.end = end

    def _zero_grains(self, grains: _Grains, first: int, count: int, at: int) -> int:
        """Which of the ``count`` grains from ``first``, which are at ``at`` in the buffer, are zero."""
        mask = 0
        for number in range(count):
            begin = at + number * self._grain
            if grains.buffer.is_zero(begin, begin + self._grain):
                mask |= 1 << (first + number)
        return mask

    def _close_up(self, grains: _Grains, begin: int, mask: int, zeros: int) -> int:
        """Remove the zero grains from those of ``mask`` at ``begin`` in the buffer; returns where the others end."""
        view = grains.buffer.view
        end = at = begin
        for grain in range(GRAINS_PER_CHUNK):
            if not mask >> grain & 1:
                continue
            if not zeros >> grain & 1:
                view[end : end + self._grain] = view[at : at + self._grain]
                end += self._grain
            at += self._grain
        return end

    def _store_grains(self, hand: Hand, grains: _Grains) -> None:
        """Store the collected grains in one frame, and fill in their chunks' entries."""
        if not grains.patched:
            return
        patched, grains.patched = grains.patched, []
        data = grains.buffer.view[: grains.end]
        places = self._write_frames(hand, [([item.stored for item in patched], data)])
        grains.end = 0
        for item, place in zip(patched, places, strict=True):
            piece = Piece.stored_at(item.stored.identity, place, item.stored.mask)
            self._fill_patched(item.patch, item.zeros, piece)

    def _fill_patched(self, item: ChunkPatch, zeros: int, grains: Piece | None) -> None:
        pieces = patch(item.pieces, zeros, grains)
        if is_zero(pieces):
            self._assembler.fill(item.chunk, ZERO_ENTRY)
        else:
            self._assembler.fill_split(item.chunk, *split_entry(self._ring, pieces))

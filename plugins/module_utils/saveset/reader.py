# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading chunks back: every chunk is hashed again before anyone sees it."""

from __future__ import annotations

import collections
import threading
import typing as t

from .container import PACK_KIND, Container, object_name
from .errors import Damaged
from .extent import DATA, GRAINS, SPLIT
from .frame import UNIT_GRAIN
from .keys import KeyRing
from .page import ALL_GRAINS, GRAINS_PER_CHUNK, Entry, Page, Piece, grain_runs
from .recent import Recent
from .store import Buffer, Store

_CONTAINERS = 512
#: Plain bytes kept of frames of whole chunks: neighbours are asked for one by one, deduplicated ones now and then.
_CHUNK_FRAMES_BYTES = 16 << 20
#: And of frames of grains.  Whoever reads a volume in order comes back to one such frame of every generation that
#: still counts, again and again; 64 of them stay, so that none is decompressed for each chunk anew.
_GRAIN_FRAMES_BYTES = 64 << 20


class Frame(t.NamedTuple):
    """A frame's plain bytes, and the size of the units that places in it count."""

    plain: Buffer
    unit: int


def _frame_bytes(frame: Frame) -> int:
    return len(frame.plain)


class Place(t.Protocol):
    """What entries and pieces have in common."""

    @property
    def identity(self) -> bytes: ...
    @property
    def pack(self) -> bytes: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def place(self) -> int: ...
    @property
    def kind(self) -> int: ...


class ChunkReader:
    """Reads chunks of one repository's packs; threads may share it."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._lock = threading.Lock()
        self._containers: collections.OrderedDict[bytes, Container] = collections.OrderedDict()
        self._frames: dict[int, Recent[tuple[bytes, int], Frame]] = {
            DATA: Recent(_CHUNK_FRAMES_BYTES, _frame_bytes),
            GRAINS: Recent(_GRAIN_FRAMES_BYTES, _frame_bytes),
        }
        #: Bytes of packs that were read.
        self.bytes_read = 0

    def frame(self, place: Place) -> Frame:
        """The frame that holds a chunk or piece; it stays in memory for a while.  Raises NotFound, Damaged."""
        return self._frames[place.kind].get((place.pack, place.offset), lambda: self._load(place))

    def _load(self, place: Place, room: memoryview | None = None) -> Frame:
        """Read a frame; into ``room`` where it has just its length, else into new memory."""
        container = self._container(place.pack)
        head, plain = container.frame(place.offset, place.length, room)
        chunk_size = container.layout.chunk_size
        with self._lock:
            self.bytes_read += place.length
        return Frame(plain, chunk_size // GRAINS_PER_CHUNK if head.unit == UNIT_GRAIN else chunk_size)

    def chunk(self, page: Page, position: int, length: int) -> bytes | memoryview | bytearray:
        """The bytes of the chunk at ``position`` of a page; what is stored is hashed and compared.

        :param length: the length that the chunk must have.
        Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == DATA:
            return self.stored(entry, self.frame(entry), length)
        if entry.kind == SPLIT:
            chunk = bytearray(length)
            self._assemble(page, position, memoryview(chunk))
            return chunk
        return bytes(length)

    def fill(self, page: Page, position: int, lengths: t.Sequence[int], buffer: memoryview) -> int:
        """Put the chunk at ``position`` of a page at the start of ``buffer``, and those behind it that its frame holds.

        Much faster than chunk() where chunks lie in frames as they lie in the volume: nothing is copied.

        :param lengths: those of the chunks from ``position`` on that are wanted.
        Returns how many chunks were put.  Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == SPLIT:
            self._assemble(page, position, buffer[: lengths[0]])
            return 1
        run = self._run(page, position, len(lengths)) if entry.kind == DATA and not entry.place else []
        if len(run) > 1:
            room = buffer[: sum(lengths[: len(run)])]
            frame = self._load(entry, room)
            if frame.plain is room:
                for chunk, length in zip(run, lengths):
                    self.stored(chunk, frame, length)
                return len(run)
            self._frames[DATA].keep((entry.pack, entry.offset), frame)
        buffer[: lengths[0]] = self.chunk(page, position, lengths[0])
        return 1

    @staticmethod
    def _run(page: Page, position: int, count: int) -> list[Entry]:
        """The entries from ``position`` on, at most ``count``, that follow each other in one frame as in the volume."""
        first = page.entry(position)
        run = [first]
        while len(run) < count:
            entry = page.entry(position + len(run))
            if entry[1:4] != first[1:4] or (entry.place, entry.kind) != (len(run), DATA):
                break
            run.append(entry)
        return run

    def stored(self, place: Place, frame: Frame, length: int) -> memoryview:
        """The bytes of a chunk or piece out of its frame, hashed and compared.  Raises Damaged.

        :param length: the length that it must have.
        """
        begin = place.place * frame.unit
        view = memoryview(frame.plain)[begin : begin + length]
        if len(view) != length or self._ring.identity(view) != place.identity:
            raise Damaged(
                object_name(PACK_KIND, place.pack),
                f"what is at place {place.place} of its frame at offset {place.offset} is not what the map names",
                "Restore the object from another copy of the repository, or use another saveset of the volume",
            )
        return view

    def _assemble(self, page: Page, position: int, chunk: memoryview) -> None:
        """Put a chunk that is split together in ``chunk``, out of its pieces."""
        grain = len(chunk) // GRAINS_PER_CHUNK
        for piece in split_pieces(page, position):
            if piece.kind == DATA:
                scatter(chunk, self.stored(piece, self.frame(piece), len(chunk)), grain, ALL_GRAINS, piece.mask)
            elif piece.kind == GRAINS:
                data = self.stored(piece, self.frame(piece), piece.stored.bit_count() * grain)
                scatter(chunk, data, grain, piece.stored, piece.mask)
            else:
                scatter(chunk, memoryview(bytes(len(chunk))), grain, ALL_GRAINS, piece.mask)

    def _container(self, pack: bytes) -> Container:
        with self._lock:
            container = self._containers.get(pack)
            if container is not None:
                self._containers.move_to_end(pack)
                return container
        container = Container(self._store, object_name(PACK_KIND, pack), PACK_KIND, self._ring)
        with self._lock:
            self._containers[pack] = container
            while len(self._containers) > _CONTAINERS:
                self._containers.popitem(last=False)
        return container


def split_pieces(page: Page, position: int) -> list[Piece]:
    """The pieces of a chunk that is split.  Raises Damaged when they make no chunk."""
    try:
        return page.pieces(position)
    except ValueError as error:
        raise Damaged(page.name, f"chunk {position} of a page: {error}", "Use another saveset of the volume") from error


def scatter(chunk: memoryview, data: memoryview, grain: int, stored: int, mask: int) -> None:
    """Copy the grains of ``mask`` to their places in a chunk; ``data`` holds those of ``stored``, one by one."""
    for first, count in grain_runs(mask):
        skip = (stored & ((1 << first) - 1)).bit_count() * grain
        chunk[first * grain : (first + count) * grain] = data[skip : skip + count * grain]


def gather(chunk: memoryview, grain: int, mask: int) -> bytes:
    """The grains of ``mask`` out of a chunk, one by one."""
    return b"".join([chunk[first * grain : (first + count) * grain] for first, count in grain_runs(mask)])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading chunks: every chunk is hashed and compared before it is returned."""

from __future__ import annotations

import collections
import threading
import typing as t

from ..base.errors import Damaged
from ..base.extent import DATA, GRAINS, SPLIT
from ..base.recent import Recent
from ..format.container import PACK_KIND, Container, object_name
from ..format.frame import UNIT_GRAIN
from ..format.page import ALL_GRAINS, GRAINS_PER_CHUNK, Entry, Page, Piece, grain_runs
from ..keys.keys import KeyRing
from ..store.store import Buffer, Store

_CONTAINERS = 512
#: Plain bytes to cache of frames of whole chunks: neighbours are read one by one, deduplicated chunks now and then.
_CHUNK_FRAMES_BYTES = 16 << 20
#: The same for frames of grains.  A sequential reader returns repeatedly to one such frame of every generation in use;
#: 64 of them stay cached, so that none is decompressed again for each chunk.
_GRAIN_FRAMES_BYTES = 64 << 20


class Frame(t.NamedTuple):
    """A frame's plain bytes, and the unit of places in it, in bytes."""

    plain: Buffer
    unit: int


def _frame_bytes(frame: Frame) -> int:
    return len(frame.plain)


class Place(t.Protocol):
    """The common fields of entries and pieces."""

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
        #: Bytes read from packs.
        self.bytes_read = 0

    def frame(self, place: Place) -> Frame:
        """The frame that holds a chunk or piece; it is cached.  Raises NotFound, Damaged."""
        return self._frames[place.kind].get((place.pack, place.offset), lambda: self._load(place))

    def _load(self, place: Place, room: memoryview | None = None) -> Frame:
        """Read a frame, into ``room`` if that has exactly its length, else into new memory."""
        container = self._container(place.pack)
        head, plain = container.frame(place.offset, place.length, room)
        chunk_size = container.layout.chunk_size
        with self._lock:
            self.bytes_read += place.length
        return Frame(plain, chunk_size // GRAINS_PER_CHUNK if head.unit == UNIT_GRAIN else chunk_size)

    def chunk(self, page: Page, position: int, length: int) -> bytes | memoryview | bytearray:
        """The bytes of the chunk at ``position`` of a page; stored bytes are hashed and compared.

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
        """Put the chunk at ``position`` of a page, and the following ones in its frame, at the start of ``buffer``.

        Much faster than chunk() if the chunks have the same order in frames as in the volume: nothing is copied.

        :param lengths: the lengths of the wanted chunks from ``position`` on.
        Returns the number of chunks put.  Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == SPLIT:
            self._assemble(page, position, buffer[: lengths[0]])
            return 1
        run = self._run(page, position, len(lengths)) if entry.kind == DATA and not entry.place else []
        if len(run) > 1:
            wanted = lengths[: len(run)]
            room = buffer[: sum(wanted)]
            frame = self._load(entry, room)
            if frame.plain is room:
                for chunk, length in zip(run, wanted, strict=True):
                    self.stored(chunk, frame, length)
                return len(run)
            self._frames[DATA].keep((entry.pack, entry.offset), frame)
        buffer[: lengths[0]] = self.chunk(page, position, lengths[0])
        return 1

    @staticmethod
    def _run(page: Page, position: int, count: int) -> list[Entry]:
        """At most ``count`` entries from ``position`` on that follow each other both in one frame and in the volume."""
        first = page.entry(position)
        run = [first]
        while len(run) < count:
            entry = page.entry(position + len(run))
            if entry[1:4] != first[1:4] or (entry.place, entry.kind) != (len(run), DATA):
                break
            run.append(entry)
        return run

    def stored(self, place: Place, frame: Frame, length: int) -> memoryview:
        """The bytes of a chunk or piece from its frame, hashed and compared.  Raises Damaged.

        :param length: the length that it must have.
        """
        begin = place.place * frame.unit
        view = memoryview(frame.plain)[begin : begin + length]
        if len(view) != length or self._ring.identity(view) != place.identity:
            raise Damaged(
                object_name(PACK_KIND, place.pack),
                f"place {place.place} of its frame at offset {place.offset} does not hold what the map names",
                "Restore the object from another copy of the repository, or use another saveset of the volume",
            )
        return view

    def _assemble(self, page: Page, position: int, chunk: memoryview) -> None:
        """Assemble a split chunk in ``chunk`` from its pieces."""
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
    """The pieces of a split chunk.  Raises Damaged if they do not form a chunk."""
    try:
        return page.pieces(position)
    except ValueError as error:
        raise Damaged(page.name, f"chunk {position} of a page: {error}", "Use another saveset of the volume") from error


def scatter(chunk: memoryview, data: memoryview, grain: int, stored: int, mask: int) -> None:
    """Copy the grains of ``mask`` to their places in a chunk; ``data`` holds those of ``stored``, in order."""
    for first, count in grain_runs(mask):
        skip = (stored & ((1 << first) - 1)).bit_count() * grain
        chunk[first * grain : (first + count) * grain] = data[skip : skip + count * grain]


def gather(chunk: memoryview, grain: int, mask: int) -> bytes:
    """The grains of ``mask`` from a chunk, one after the other."""
    return b"".join([chunk[first * grain : (first + count) * grain] for first, count in grain_runs(mask)])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading chunks: every chunk is hashed and compared before it is returned."""

from __future__ import annotations

import collections
import threading
import typing as t

from ..base.errors import Damaged, SavesetError
from ..base.extent import DATA, GRAINS, SPLIT
from ..base.recent import Recent
from ..format.codec import decompress
from ..format.container import PACK_KIND, Container, object_name
from ..format.page import ALL_GRAINS, GRAINS_PER_CHUNK, Entry, Page, Piece, grain_runs
from ..keys.keys import KeyRing
from ..store.store import Store
from .frames import Frame

_CONTAINERS = 512
#: Bytes to cache of frames of whole chunks: neighbours are read one by one, deduplicated chunks now and then.
_CHUNK_FRAMES_BYTES = 16 << 20
#: The same for frames of grains.  A sequential reader returns repeatedly to one such frame of every generation in use;
#: some 60 of them stay cached, so that none is decompressed again for each chunk.
_GRAIN_FRAMES_BYTES = 80 << 20
#: Plain bytes of frames that follow each other in a pack and are read at once; a larger frame is read alone.
_READ_BYTES = 1 << 20


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
            DATA: Recent(_CHUNK_FRAMES_BYTES, Frame.size),
            GRAINS: Recent(_GRAIN_FRAMES_BYTES, Frame.size),
        }
        #: Bytes read from packs.
        self.bytes_read = 0

    def frame(self, place: Place) -> Frame:
        """The frame that holds a chunk or piece; it is cached.  Raises NotFound, Damaged."""
        return self._frames[place.kind].get((place.pack, place.offset), lambda: self._load(place))

    def _load(self, place: Place) -> Frame:
        container = self._container(place.pack)
        data = self._read(container, place.offset, place.length)
        return Frame(*container.packed_frame(place.offset, data), container.layout.chunk_size)

    def _read(self, container: Container, offset: int, length: int) -> memoryview:
        data = container.read(offset, length)
        with self._lock:
            self.bytes_read += length
        return data

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
        """Put the chunk at ``position`` of a page, and the following ones if they are stored next, into ``buffer``.

        Much faster than chunk() if the chunks have the same order in packs as in the volume: frames that follow each
        other are read at once, and nothing is copied.

        :param lengths: the lengths of the wanted chunks from ``position`` on.
        Returns the number of chunks put.  Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == SPLIT:
            self._assemble(page, position, buffer[: lengths[0]])
            return 1
        if entry.kind != DATA or entry.place or (entry.pack, entry.offset) in self._frames[DATA]:
            buffer[: lengths[0]] = self.chunk(page, position, lengths[0])
            return 1
        at_once = max(1, _READ_BYTES // lengths[0])
        return self._fill_from(_runs(page, position, len(lengths), at_once), lengths, buffer)

    def _fill_from(self, runs: t.Sequence[t.Sequence[Entry]], lengths: t.Sequence[int], buffer: memoryview) -> int:
        """Put the chunks of neighbouring frames into ``buffer``; returns how many, at least one."""
        first, last = runs[0][0], runs[-1][0]
        container = self._container(first.pack)
        try:
            data = self._read(container, first.offset, last.offset + last.length - first.offset)
        except SavesetError:
            if len(runs) == 1:
                raise
            return self._fill_from(runs[:1], lengths, buffer)  # it may be another one that cannot be read
        done = end = 0
        for run in runs:
            wanted = lengths[done : done + len(run)]
            begin, end = end, end + sum(wanted)
            at = run[0].offset - first.offset
            try:
                self._fill_run(container, run, data[at : at + run[0].length], wanted, buffer[begin:end])
            except Damaged:
                if not done:
                    raise
                break  # whoever asks for this one next is told
            done += len(run)
        return done

    def _fill_run(
        self,
        container: Container,
        run: t.Sequence[Entry],
        data: memoryview,
        lengths: t.Sequence[int],
        room: memoryview,
    ) -> None:
        """Put a run of chunks of one frame into ``room``, of their total length; ``data`` is the frame as stored."""
        first = run[0]
        head, packed = container.packed_frame(first.offset, data)
        if head.plain_length == len(room):
            plain = decompress(head.codec, packed, head.plain_length, room)
        else:  # it has other chunks too
            frame = Frame(head, packed, container.layout.chunk_size)
            self._frames[DATA].keep((first.pack, first.offset), frame)
            plain = frame.first(len(room))
            if plain is not None:
                room[:] = memoryview(plain)[: len(room)]
        if plain is None:
            raise container.damaged_frame(first.offset)
        done = 0
        for entry, length in zip(run, lengths, strict=True):
            self._check(entry, room[done : done + length])
            done += length

    def stored(self, place: Place, frame: Frame, length: int) -> memoryview:
        """The bytes of a chunk or piece from its frame, hashed and compared.  Raises Damaged.

        :param length: the length that it must have.
        """
        begin = place.place * frame.unit
        view = memoryview(frame.first(begin + length) or b"")[begin : begin + length]
        if len(view) != length:
            raise _not_as_named(place)
        self._check(place, view)
        return view

    def _check(self, place: Place, view: memoryview) -> None:
        if self._ring.identity(view) != place.identity:
            raise _not_as_named(place)

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


def _not_as_named(place: Place) -> Damaged:
    return Damaged(
        object_name(PACK_KIND, place.pack),
        f"place {place.place} of its frame at offset {place.offset} does not hold what the map names",
        "Restore the object from another copy of the repository, or use another saveset of the volume",
    )


def _runs(page: Page, position: int, count: int, at_once: int) -> list[list[Entry]]:
    """Entries from ``position`` on, at most ``count``, as long as they have the same order in a pack as in the volume.

    The entry at ``position`` begins its frame.  Returns the entries of each frame; none begins behind ``at_once``.
    """
    first = page.entry(position)
    runs = [[first]]
    end = first.offset + first.length
    for number in range(1, count):
        entry, run = page.entry(position + number), runs[-1]
        if entry.kind != DATA or entry.pack != first.pack:
            break
        if (entry.offset, entry.length) == (run[0].offset, run[0].length) and entry.place == len(run):
            run.append(entry)
        elif entry.offset == end and not entry.place and number < at_once:
            runs.append([entry])
            end += entry.length
        else:
            break
    return runs


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

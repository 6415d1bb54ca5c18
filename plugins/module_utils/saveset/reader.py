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
from .page import ALL_GRAINS, GRAINS_PER_CHUNK, Page, grain_runs
from .store import Store

_CONTAINERS = 512
_FRAMES = 16  # decompressed frames kept for readers of small ranges: 16 MiB with the default sizes


class Frame(t.NamedTuple):
    """A frame's plain bytes, and the size of the units that places in it count."""

    plain: bytes
    unit: int


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


class ChunkReader:
    """Reads chunks of one repository's packs; threads may share it."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._lock = threading.Lock()
        self._containers: collections.OrderedDict[bytes, Container] = collections.OrderedDict()
        self._frames: collections.OrderedDict[tuple[bytes, int], Frame] = collections.OrderedDict()
        #: Bytes of packs that were read.
        self.bytes_read = 0

    def frame(self, place: Place) -> Frame:
        """The frame that holds a chunk or piece.  Raises NotFound, Damaged."""
        key = (place.pack, place.offset)
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
                return frame
        container = self._container(place.pack)
        head, plain = container.frame(place.offset, place.length)
        chunk_size = container.layout.chunk_size
        frame = Frame(plain, chunk_size // GRAINS_PER_CHUNK if head.unit == UNIT_GRAIN else chunk_size)
        with self._lock:
            self.bytes_read += place.length
            self._frames[key] = frame
            while len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        return frame

    def chunk(self, page: Page, position: int, length: int) -> bytes | memoryview | bytearray:
        """The bytes of the chunk at ``position`` of a page; what is stored is hashed and compared.

        :param length: the length that the chunk must have.
        Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == DATA:
            return self.stored(entry, self.frame(entry), length)
        if entry.kind == SPLIT:
            return self._assemble(page, position, length)
        return bytes(length)

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

    def _assemble(self, page: Page, position: int, length: int) -> bytearray:
        """A chunk that is split, out of its pieces."""
        try:
            pieces = page.pieces(position)
        except ValueError as error:
            raise Damaged("a page of the map", str(error), "Use another saveset of the volume") from error
        grain = length // GRAINS_PER_CHUNK
        chunk = bytearray(length)
        for piece in pieces:
            if piece.kind == DATA:
                data = self.stored(piece, self.frame(piece), length)
                _scatter(chunk, data, grain, ALL_GRAINS, piece.mask)
            elif piece.kind == GRAINS:
                data = self.stored(piece, self.frame(piece), piece.stored.bit_count() * grain)
                _scatter(chunk, data, grain, piece.stored, piece.mask)
        return chunk

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


def _scatter(chunk: bytearray, data: memoryview, grain: int, stored: int, mask: int) -> None:
    """Copy the grains of ``mask`` to their places in a chunk; ``data`` holds those of ``stored``, one by one."""
    for first, count in grain_runs(mask):
        skip = (stored & ((1 << first) - 1)).bit_count() * grain
        chunk[first * grain : (first + count) * grain] = data[skip : skip + count * grain]

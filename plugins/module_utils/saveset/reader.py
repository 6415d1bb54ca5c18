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
from .keys import KeyRing
from .leafmap import Entry
from .store import Store

_CONTAINERS = 512
_FRAMES = 16  # decompressed frames kept for readers of small ranges: 16 MiB with the default sizes


class Frame(t.NamedTuple):
    """A frame's plain bytes, and the chunk size of the pack that it is in."""

    plain: bytes
    chunk_size: int


class ChunkReader:
    """Reads chunks of one repository's packs; threads may share it."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self._lock = threading.Lock()
        self._containers: collections.OrderedDict[bytes, Container] = collections.OrderedDict()
        self._frames: collections.OrderedDict[tuple[bytes, int], Frame] = collections.OrderedDict()

    def frame(self, entry: Entry) -> Frame:
        """The frame that holds an entry's chunk.  Raises NotFound, Damaged."""
        key = (entry.pack, entry.offset)
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
                return frame
        container = self._container(entry.pack)
        _head, plain = container.frame(entry.offset, entry.length)
        frame = Frame(plain, container.layout.chunk_size)
        with self._lock:
            self._frames[key] = frame
            while len(self._frames) > _FRAMES:
                self._frames.popitem(last=False)
        return frame

    def chunk(self, entry: Entry, frame: Frame, length: int) -> memoryview:
        """The bytes of an entry's chunk out of its frame, hashed and compared.  Raises Damaged.

        :param length: the length that the chunk must have.
        """
        begin = entry.place * frame.chunk_size
        view = memoryview(frame.plain)[begin : begin + length]
        if len(view) != length or self._ring.identity(view) != entry.identity:
            raise Damaged(
                object_name(PACK_KIND, entry.pack),
                f"chunk {entry.place} of its frame at offset {entry.offset} is not the one the map names",
                "Restore the object from another copy of the repository, or use another saveset of the volume",
            )
        return view

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

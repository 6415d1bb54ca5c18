# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A saveset served as a disk: many small reads, anywhere, most of them near each other.

A read of 4 KiB costs reading and decrypting a whole frame, decompressing it up to the end of the chunk, and hashing
the chunk.  So verified chunks are cached in memory, concurrent requests for a chunk load it once, and for sequential
readers a few threads prepare what comes next: decompressing and hashing release the GIL.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import typing as t

from ..base.errors import SavesetError
from ..base.extent import DATA, SPLIT, Extent
from ..base.parallel import default_workers
from ..base.recent import Recent
from ..format.page import LEAF_ENTRIES
from ..repository import Saveset
from ..store.store import Buffer
from .readahead import ReadAhead

#: Plain bytes of cached chunks; this includes what is read ahead, so it must be several times as large.
KEPT_BYTES = 64 << 20
AHEAD_BYTES = 8 << 20
#: Requests of this size come together with others.
_WHOLE_BYTES = 1 << 20
#: The most bytes that are read ahead for one request of a client.
_CACHE_BYTES = 32 << 20


class ServedSaveset:
    """A saveset that any number of threads may read.  Within Repository.reading(), nothing of it is removed."""

    def __init__(self, saveset: Saveset, readahead: bool, workers: int | None = None) -> None:
        self._saveset = saveset
        self._map, self._reader = saveset.map, saveset.reader
        self.size = saveset.size
        self._geometry = self._map.geometry
        self._chunk_size = saveset.info.chunk_size
        self._kept: Recent[int, Buffer] = Recent(KEPT_BYTES, len)
        self._ahead = (
            ReadAhead(-(-self.size // self._chunk_size), AHEAD_BYTES // self._chunk_size) if readahead else None
        )
        self._pool = concurrent.futures.ThreadPoolExecutor(workers or default_workers(), "saveset-ahead")

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)

    def read_into(self, offset: int, buffer: t.Any) -> None:
        """Fill ``buffer`` with the volume's bytes from ``offset``; every chunk is verified first.

        Raises NotFound, Damaged.
        """
        view = memoryview(buffer)
        # A client with large requests reads ahead itself, and a frame is best unpacked directly to its destination.
        read = self._read_whole if len(view) >= _WHOLE_BYTES else self._read_part
        done = 0
        while done < len(view):
            done += read(offset + done, view[done:])

    def _read_part(self, offset: int, view: memoryview) -> int:
        """Fill the beginning of ``view`` from the chunk that contains ``offset``; returns how many bytes."""
        number, skip = divmod(offset, self._chunk_size)
        take = min(self._geometry.chunk_length(number) - skip, len(view))
        self._read_ahead(number)
        stored = self._is_stored(number)
        view[:take] = memoryview(self._chunk(number))[skip : skip + take] if stored else bytes(take)
        return take

    def _read_whole(self, offset: int, view: memoryview) -> int:
        """The same from all chunks in one frame, if they fit completely into ``view`` and are not cached."""
        number, skip = divmod(offset, self._chunk_size)
        leaf, position = divmod(number, LEAF_ENTRIES)
        count = min(len(view) // self._chunk_size, LEAF_ENTRIES - position)
        if skip or not count or number in self._kept or not self._is_stored(number):
            return self._read_part(offset, view)
        lengths = [self._chunk_size] * count
        return self._chunk_size * self._reader.fill(self._map.page(leaf), position, lengths, view)

    def prepare(self, offset: int, length: int) -> None:
        """Begin to read what will be requested soon."""
        end = min(offset + min(length, _CACHE_BYTES), self.size)
        self._load_soon(range(offset // self._chunk_size, -(-end // self._chunk_size)))

    def extents(self, offset: int, length: int) -> t.Iterator[Extent]:
        """See Saveset.extents()."""
        return self._saveset.extents(offset, length)

    def _read_ahead(self, number: int) -> None:
        if self._ahead is not None:
            self._load_soon(self._ahead.touched(number))

    def _load_soon(self, chunks: range) -> None:
        """Let the pool load the chunks, those of one frame in one thread."""
        wanted = [number for number in chunks if number not in self._kept and self._is_stored(number)]
        for _frame, group in itertools.groupby(wanted, self._frame):
            self._pool.submit(self._load, list(group))

    def _load(self, chunks: t.Sequence[int]) -> None:
        # A request for a chunk that cannot be read raises the error itself.
        with contextlib.suppress(SavesetError):
            for number in reversed(chunks):  # the last one first: a frame is decompressed as far as it is asked for
                self._chunk(number)

    def _chunk(self, number: int) -> Buffer:
        """A stored chunk's verified bytes."""
        return self._kept.get(number, lambda: self._make(number))

    def _make(self, number: int) -> Buffer:
        leaf, position = divmod(number, LEAF_ENTRIES)
        return _alone(self._reader.chunk(self._map.page(leaf), position, self._geometry.chunk_length(number)))

    def _is_stored(self, number: int) -> bool:
        leaf, position = divmod(number, LEAF_ENTRIES)
        return self._map.page(leaf).kind(position) in (DATA, SPLIT)

    def _frame(self, number: int) -> tuple[bytes, int]:
        """A key that is equal for chunks in the same frame."""
        leaf, position = divmod(number, LEAF_ENTRIES)
        entry = self._map.page(leaf).entry(position)
        return (entry.pack, entry.offset) if entry.kind == DATA else (b"", number)


def _alone(chunk: Buffer) -> Buffer:
    """A chunk without the rest of its frame, which would stay in memory with it: a copy unless there is no rest."""
    if isinstance(chunk, memoryview) and memoryview(chunk.obj).nbytes > chunk.nbytes:
        return bytes(chunk)
    return chunk

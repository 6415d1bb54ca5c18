# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a saveset: workers take ranges in order, hash every chunk again, and only then write it."""

from __future__ import annotations

import typing as t

from .errors import Damaged, NotFound, SavesetError, TargetTooSmall
from .extent import DATA, SPLIT
from .leafmap import LeafMap
from .page import LEAF_ENTRIES, Page
from .parallel import run_parallel
from .progress import Counters, Progress, RestoreStats
from .reader import ChunkReader
from .target import Target

_RANGE_BYTES = 8 << 20


class _Range(t.NamedTuple):
    """Neighbouring chunks of one leaf, all stored or all empty."""

    page: Page
    leaf: int
    begin: int
    end: int
    stored: bool

    @property
    def first(self) -> int:
        """Its first chunk's number in the volume."""
        return self.leaf * LEAF_ENTRIES + self.begin


class RestoreJob:
    """One restore of one saveset to one target."""

    def __init__(self, leaf_map: LeafMap, reader: ChunkReader, target: Target) -> None:
        self._map = leaf_map
        self._geometry = leaf_map.geometry
        self._reader = reader
        self._target = target
        self._counters = Counters()

    def run(self, workers: int, progress: t.Callable[[Progress], None] | None) -> RestoreStats:
        """Write the whole volume and make it durable.

        Raises TargetTooSmall before anything is written; NotFound or Damaged at the first chunk that is not what was
        backed up: that chunk is not written, and the target is incomplete.
        """
        size = self._geometry.size
        if self._target.size < size:
            raise TargetTooSmall(
                self._target.spec, f"it has {self._target.size} bytes, the volume needs {size}", "Name a larger target"
            )
        tick = (lambda: progress(self._counters.progress(size))) if progress else None
        run_parallel(self._ranges(), self._restore_range, workers, tick)
        self._target.flush()
        sums = self._counters
        return RestoreStats(size, sums["written"], sums["zeroed"], self._reader.bytes_read, sums.seconds)

    def _ranges(self) -> t.Iterator[_Range]:
        """Runs of chunks; those of holes and zeros as long as they are, those of data cut to a range's size."""
        group = max(1, _RANGE_BYTES // self._geometry.chunk_size)
        for leaf in range(self._geometry.leaves):
            page = self._map.page(leaf)
            stored = [entry.kind in (DATA, SPLIT) for entry in page.entries()]
            begin = 0
            while begin < len(stored):
                end = begin + 1
                kind = stored[begin]
                while end < len(stored) and stored[end] == kind and (not kind or end % group):
                    end += 1
                yield _Range(page, leaf, begin, end, kind)
                begin = end

    def _restore_range(self, item: _Range) -> None:
        offset = item.first * self._geometry.chunk_size
        length = min((item.end - item.begin) * self._geometry.chunk_size, self._geometry.size - offset)
        if not item.stored:
            self._target.zero(offset, length)
            self._counters.add(done=length, zeroed=length)
            return
        buffers = [self._chunk(item.page, item.leaf, position) for position in range(item.begin, item.end)]
        self._target.write(offset, buffers)
        self._counters.add(done=length, written=length)

    def _chunk(self, page: Page, leaf: int, position: int) -> bytes | memoryview | bytearray:
        chunk = leaf * LEAF_ENTRIES + position
        try:
            return self._reader.chunk(page, position, self._geometry.chunk_length(chunk))
        except (Damaged, NotFound) as error:
            raise self._at_chunk(error, chunk) from error

    def _at_chunk(self, error: SavesetError, chunk: int) -> SavesetError:
        """The same error, telling also what it means for the restore."""
        offset = chunk * self._geometry.chunk_size
        cause = (
            f"{error.cause}; it holds the volume's bytes from offset {offset}, which were not written, and "
            f"{self._target.spec} is incomplete"
        )
        return type(error)(error.thing, cause, error.way_out)

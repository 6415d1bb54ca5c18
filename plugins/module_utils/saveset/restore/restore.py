# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring a saveset: workers take ranges in order and verify every chunk's hash before they write it.

The target's content can be compared first, so that only what differs is written, and everything can be read back
afterwards. If the target is known to hold another saveset, the two maps show what differs, and nothing is compared.
"""

from __future__ import annotations

import threading
import typing as t

from ..base.errors import Damaged, NotFound, SavesetError, TargetMismatch, TargetTooSmall
from ..base.extent import DATA, SPLIT
from ..base.parallel import run_parallel
from ..base.progress import Counters, ProgressCallback, RestoreStats
from ..format.leafmap import LeafMap
from ..format.page import LEAF_ENTRIES, Page
from ..io.buffers import is_zero
from ..io.target import Target, transfer_buffer
from .compare import Comparer
from .reader import ChunkReader

_RANGE_BYTES = 8 << 20
#: Bytes written at once: what was just unpacked is still in the CPU cache, and no worker waits long for the disk.
_WRITE_BYTES = 2 << 20


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

    def __init__(
        self,
        leaf_map: LeafMap,
        comparer: Comparer,
        reader: ChunkReader,
        target: Target,
        only_changed: bool = False,
        check: bool = False,
        base: LeafMap | None = None,
    ) -> None:
        """Parameters as for Saveset.restore().

        :param base: the map of what the target is known to hold, with the same geometry.
        """
        self._map = leaf_map
        self._base = base
        self._geometry = leaf_map.geometry
        self._comparer = comparer
        self._reader = reader
        self._target = target
        self._compares = only_changed and not target.fresh
        self._check = check
        self._counters = Counters()
        self._local = threading.local()

    def run(self, workers: int, progress: ProgressCallback | None) -> RestoreStats:
        """Make the target hold the whole volume, durably.

        Raises TargetTooSmall before anything is written; NotFound or Damaged at the first chunk that is not what was
        backed up: that chunk is not written, and the target is incomplete; TargetMismatch if the target does not
        return what was written.
        """
        size = self._geometry.size
        if self._target.size < size:
            raise TargetTooSmall(
                self._target.spec,
                f"it has {self._target.size} bytes, but the volume needs {size}",
                "Name a larger target",
            )
        read_before = self._reader.bytes_read
        total = size * (2 if self._check else 1)
        tick = (lambda: progress(self._counters.progress(total))) if progress else None
        if self._base is not None:
            run_parallel(self._differing_ranges(self._base), self._write_range, workers, tick)
        else:
            run_parallel(self._ranges(), self._update_range if self._compares else self._write_range, workers, tick)
        self._target.flush()
        if self._check:
            self._target.forget()
            run_parallel(self._ranges(), self._check_range, workers, tick)
        sums = self._counters
        return RestoreStats(
            bytes_size=size,
            bytes_written=sums["written"],
            bytes_zeroed=sums["zeroed"],
            bytes_compared=sums["compared"],
            bytes_kept=sums["kept"],
            bytes_checked=sums["checked"],
            bytes_stored=self._reader.bytes_read - read_before,
            seconds=sums.seconds,
        )

    def _ranges(self) -> t.Iterator[_Range]:
        """All chunks in runs."""
        for leaf in range(self._geometry.leaves):
            page = self._map.page(leaf)
            yield from self._cut(page, leaf, _stored(page))

    def _differing_ranges(self, base: LeafMap) -> t.Iterator[_Range]:
        """The chunks that differ from ``base``, in runs; the others count as kept."""
        for leaf in range(self._geometry.leaves):
            first = leaf * LEAF_ENTRIES
            if self._map.leaf(leaf).digest == base.leaf(leaf).digest:
                self._keep(first, first + self._geometry.leaf_entries(leaf))
                continue
            page = self._map.page(leaf)
            same = page.same_as(base.page(leaf))
            for begin, end, kept in _runs(same):
                if kept:
                    self._keep(first + begin, first + end)
            yield from self._cut(
                page, leaf, [None if kept else kind for kept, kind in zip(same, _stored(page), strict=True)]
            )

    def _keep(self, begin: int, end: int) -> None:
        """Count chunks that the target already has."""
        chunk_size = self._geometry.chunk_size
        length = min(end * chunk_size, self._geometry.size) - begin * chunk_size
        self._counters.add(kept=length, done=length)

    def _cut(self, page: Page, leaf: int, kinds: t.Sequence[bool | None]) -> t.Iterator[_Range]:
        """Runs of chunks: of holes and zeros at full length, of data cut to the size of a range.

        ``kinds``: for each chunk, whether it is stored; None to leave it out.
        """
        group = max(1, _RANGE_BYTES // self._geometry.chunk_size)
        begin = 0
        while begin < len(kinds):
            end = begin + 1
            kind = kinds[begin]
            while end < len(kinds) and kinds[end] == kind and (not kind or end % group):
                end += 1
            if kind is not None:
                yield _Range(page, leaf, begin, end, kind)
            begin = end

    def _span(self, item: _Range) -> tuple[int, int]:
        """A range's offset and length in bytes."""
        offset = item.first * self._geometry.chunk_size
        return offset, min((item.end - item.begin) * self._geometry.chunk_size, self._geometry.size - offset)

    def _buffer(self, length: int) -> memoryview:
        """This thread's buffer for a range."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = transfer_buffer(max(_RANGE_BYTES, self._geometry.chunk_size))
        buffer: memoryview = self._local.buffer
        return buffer[:length]

    # -- writing

    def _write_range(self, item: _Range) -> None:
        offset, length = self._span(item)
        if item.stored:
            self._write_chunks(item, item.begin, item.end, self._buffer(length))
        else:
            self._target.zero(offset, length)
            self._counters.add(zeroed=length)
        self._counters.add(done=length)

    def _write_chunks(self, item: _Range, begin: int, end: int, buffer: memoryview) -> None:
        """Write the chunks from ``begin`` to ``end`` of the range's page; ``buffer`` has their total length."""
        chunk_size = self._geometry.chunk_size
        lengths = [len(buffer[at : at + chunk_size]) for at in range(0, len(buffer), chunk_size)]
        offset = (item.first + begin - item.begin) * chunk_size
        done = held = 0
        while done < len(lengths):
            count = self._read_chunks(item, begin + done, lengths[done:], buffer[held:])
            held += sum(lengths[done : done + count])
            done += count
            if held >= _WRITE_BYTES or done == len(lengths):
                self._target.write(offset, buffer[:held])
                offset += held
                held = 0
        self._counters.add(written=len(buffer))

    def _read_chunks(self, item: _Range, position: int, lengths: t.Sequence[int], buffer: memoryview) -> int:
        """Read one or more chunks; returns how many."""
        try:
            return self._reader.fill(item.page, position, lengths, buffer)
        except (Damaged, NotFound) as error:
            raise self._at_chunk(error, item.first + position - item.begin) from error

    # -- writing only what differs

    def _update_range(self, item: _Range) -> None:
        offset, length = self._span(item)
        if item.stored:
            self._update_chunks(item, offset, self._buffer(length))
        else:
            self._update_empty(offset, length)
        self._counters.add(done=length)

    def _update_chunks(self, item: _Range, offset: int, buffer: memoryview) -> None:
        self._target.read(offset, buffer)
        chunk_size = self._geometry.chunk_size
        same = [
            self._is_same(item, position, buffer[at : at + chunk_size])
            for position, at in zip(range(item.begin, item.end), range(0, len(buffer), chunk_size), strict=True)
        ]
        kept = 0
        for begin, end, right in _runs(same):
            part = buffer[begin * chunk_size : end * chunk_size]
            if right:
                kept += len(part)
            else:
                self._write_chunks(item, item.begin + begin, item.begin + end, part)
        self._counters.add(compared=len(buffer), kept=kept)

    def _is_same(self, item: _Range, position: int, data: memoryview) -> bool:
        try:
            return self._comparer.same(item.page, position, data)
        except (Damaged, NotFound) as error:
            raise self._at_chunk(error, item.first + position - item.begin) from error

    def _update_empty(self, offset: int, length: int) -> None:
        """Zero what is not zero in a range; holes in the target stay."""
        zeroed = 0
        for begin, end, zero in self._zero_runs(offset, length):
            if not zero:
                self._target.zero(begin, end - begin)
                zeroed += end - begin
        self._counters.add(compared=length, zeroed=zeroed, kept=length - zeroed)

    def _zero_runs(self, offset: int, length: int) -> t.Iterator[tuple[int, int, bool]]:
        """The parts of a range that the target has allocated: (begin, end, whether it is zero), in steps of chunks."""
        chunk_size = self._geometry.chunk_size
        for start, extent in self._target.allocated(offset, length):
            # Start at a chunk boundary, so that whole blocks are zeroed.
            begin = max(offset, start - start % chunk_size)
            end = min(offset + length, -(-(start + extent) // chunk_size) * chunk_size)
            for at in range(begin, end, _RANGE_BYTES):
                buffer = self._buffer(min(_RANGE_BYTES, end - at))
                self._target.read(at, buffer)
                zero = [is_zero(buffer[i : i + chunk_size]) for i in range(0, len(buffer), chunk_size)]
                for first, last, kind in _runs(zero):
                    yield at + first * chunk_size, at + min(last * chunk_size, len(buffer)), kind

    # -- reading back

    def _check_range(self, item: _Range) -> None:
        offset, length = self._span(item)
        if item.stored:
            buffer = self._buffer(length)
            self._target.read(offset, buffer)
            chunk_size = self._geometry.chunk_size
            for position in range(item.begin, item.end):
                at = (position - item.begin) * chunk_size
                if not self._is_same(item, position, buffer[at : at + chunk_size]):
                    raise self._mismatch(offset + at)
        else:
            for begin, _end, zero in self._zero_runs(offset, length):
                if not zero:
                    raise self._mismatch(begin)
        self._counters.add(done=length, checked=length)

    # -- errors

    def _mismatch(self, offset: int) -> TargetMismatch:
        return TargetMismatch(
            self._target.spec,
            f"what is read back from the chunk at offset {offset} is not what was written",
            "Do not use its content: check the disk, its cables and that nothing else writes to it, then restore "
            "again, writing only what differs, or to another target",
        )

    def _at_chunk(self, error: SavesetError, chunk: int) -> SavesetError:
        """The same error, with its consequence for the restore."""
        offset = chunk * self._geometry.chunk_size
        cause = (
            f"{error.cause}; it holds the volume's bytes from offset {offset}, which were not written, and "
            f"{self._target.spec} is incomplete"
        )
        return type(error)(error.thing, cause, error.way_out)


def _stored(page: Page) -> list[bool]:
    """For each chunk of a page, whether it is stored: the others are empty."""
    return [entry.kind in (DATA, SPLIT) for entry in page.entries()]


def _runs(flags: t.Sequence[bool]) -> t.Iterator[tuple[int, int, bool]]:
    """Runs of equal flags, as (begin, end, flag)."""
    begin = 0
    for end in range(1, len(flags) + 1):
        if end == len(flags) or flags[end] != flags[begin]:
            yield begin, end, flags[begin]
            begin = end

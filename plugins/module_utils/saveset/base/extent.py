# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extents: parts of a volume and what is known about them before they are read."""

from __future__ import annotations

import typing as t

#: Kinds of extents; inside one chunk the highest wins.
HOLE = 0
ZERO = 1
DATA = 2
#: Kinds that occur only in maps: a chunk in pieces, and a piece that holds some of a chunk's grains.
SPLIT = 3
GRAINS = 4


class Extent(t.NamedTuple):
    """``length`` bytes from ``offset``, of kind HOLE (not allocated), ZERO (reads as zeros) or DATA."""

    offset: int
    length: int
    kind: int


class ChunkRun(t.NamedTuple):
    """``chunks`` chunks from chunk number ``first``, all of one kind."""

    first: int
    chunks: int
    kind: int


def cover(extents: t.Iterable[Extent], size: int) -> t.Iterator[Extent]:
    """Yield extents that cover 0..size without gaps or overlaps.

    A gap in what the source reported becomes data: what is not known to be empty must be read.
    """
    position = 0
    for offset, length, kind in extents:
        end = min(offset + length, size)
        if end <= position:
            continue
        if offset > position:
            yield Extent(position, offset - position, DATA)
            position = offset
        yield Extent(position, end - position, kind)
        position = end
    if position < size:
        yield Extent(position, size - position, DATA)


def chunk_runs(extents: t.Iterable[Extent], size: int, chunk_size: int) -> t.Iterator[ChunkRun]:
    """Turn extents into runs of whole chunks; a chunk that several extents touch takes the highest kind."""
    edge = -1  # the chunk that earlier extents left incomplete, -1 for none
    edge_kind = HOLE
    for offset, length, kind in cover(extents, size):
        end = offset + length
        first = offset // chunk_size
        if edge >= 0:
            edge_kind = max(edge_kind, kind)
            first = edge + 1
            if end < first * chunk_size:
                continue
            yield ChunkRun(edge, 1, edge_kind)
            edge = -1
        whole = end // chunk_size
        if whole > first:
            yield ChunkRun(first, whole - first, kind)
        if end > max(whole, first) * chunk_size:
            edge, edge_kind = max(whole, first), kind
    if edge >= 0:
        yield ChunkRun(edge, 1, edge_kind)


def split_runs(runs: t.Iterable[ChunkRun], data_group: int, empty_group: int) -> t.Iterator[ChunkRun]:
    """Merge neighbouring runs of one kind, then cut them at multiples of a group's size.

    :param data_group: chunks in a group of data, the unit of reading.
    :param empty_group: chunks in a group of holes or zeros.
    """
    for run in _merge(runs):
        group = data_group if run.kind == DATA else empty_group
        first, end = run.first, run.first + run.chunks
        while first < end:
            stop = min(end, (first // group + 1) * group)
            yield ChunkRun(first, stop - first, run.kind)
            first = stop


def _merge(runs: t.Iterable[ChunkRun]) -> t.Iterator[ChunkRun]:
    held: ChunkRun | None = None
    for run in runs:
        if held is not None and held.kind == run.kind and held.first + held.chunks == run.first:
            held = ChunkRun(held.first, held.chunks + run.chunks, run.kind)
            continue
        if held is not None:
            yield held
        held = run
    if held is not None:
        yield held

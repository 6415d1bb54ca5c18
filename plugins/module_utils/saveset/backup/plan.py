# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a backup, cut into parts that workers take in order: runs of chunks to read, or grains of chunks."""

from __future__ import annotations

import typing as t

from ..base.errors import SavesetError
from ..base.extent import DATA, ChunkRun, chunk_runs, split_runs
from ..format.directory import Geometry
from ..format.leafmap import LeafMap
from ..format.page import ALL_GRAINS, LEAF_ENTRIES, Page, Piece
from ..io.source import Source
from .assembler import LeafAssembler
from .changes import Touched, touched_chunks
from .patch import may_patch
from .volume_index import VolumeIndex

RANGE_BYTES = 4 << 20
_PATCHES = 64


class ChunkPatch(t.NamedTuple):
    """A chunk of which only the grains in ``mask`` are read, and its pieces in the parent."""

    chunk: int
    mask: int
    pieces: t.Sequence[Piece]


class PatchRun(t.NamedTuple):
    """Some chunks of one leaf to patch."""

    patches: t.Sequence[ChunkPatch]


class KnownRun(t.NamedTuple):
    """``length`` bytes taken over from the parent unread."""

    length: int


class AdoptedRun(t.NamedTuple):
    """Chunks that an interrupted backup of the same source had stored, and their entries."""

    first: int
    entries: bytes
    length: int


Part: t.TypeAlias = "ChunkRun | PatchRun | KnownRun | AdoptedRun"


def full_plan(source: Source, geometry: Geometry) -> t.Iterator[Part]:
    """Read all that the source reports as data."""
    runs = chunk_runs(source.extents(), geometry.size, geometry.chunk_size)
    return split_runs(runs, _range_chunks(geometry), LEAF_ENTRIES)


def changed_plan(
    extents: t.Iterable[tuple[int, int]],
    source: Source,
    geometry: Geometry,
    parent: LeafMap,
    index: VolumeIndex,
    assembler: LeafAssembler,
) -> t.Iterator[Part]:
    """Read what changed since the parent, and what the parent has in lost packs; take over the rest.

    :param extents: as returned by Changes.merged().
    """
    touched = _by_leaf(touched_chunks(extents, geometry, source.extents))
    leaf, chunks = next(touched, (-1, []))
    for number in range(geometry.leaves):
        mine: list[Touched] = []
        if number == leaf:
            mine = chunks
            leaf, chunks = next(touched, (-1, []))
        sound = all(map(index.is_whole, parent.leaf_packs(number)))
        if mine or not sound or not assembler.may_take_over(number):
            yield from _leaf_plan(number, mine, None if sound else index, geometry, parent, assembler)
        else:
            assembler.take_over(number)
            yield KnownRun(_leaf_bytes(geometry, number))


def resumed(plan: t.Iterator[Part], geometry: Geometry, index: VolumeIndex) -> t.Iterator[Part]:
    """The plan without the chunks that an interrupted backup of the same source had stored."""
    index.load()
    for part in plan:
        if isinstance(part, ChunkRun) and part.kind == DATA:
            yield from _without_adopted(part, geometry, index)
        else:
            yield part


def _without_adopted(run: ChunkRun, geometry: Geometry, index: VolumeIndex) -> t.Iterator[Part]:
    held = run.first  # the first chunk not yet yielded
    for chunk in range(run.first, run.first + run.chunks):
        adopted = index.adopt(chunk)
        if adopted:
            if chunk > held:
                yield ChunkRun(held, chunk - held, DATA)
            yield AdoptedRun(chunk, b"".join(adopted), geometry.chunk_length(chunk))
            held = chunk + 1
    if held < run.first + run.chunks:
        yield ChunkRun(held, run.first + run.chunks - held, DATA)


def _leaf_plan(
    leaf: int,
    touched: list[Touched],
    index: VolumeIndex | None,
    geometry: Geometry,
    parent: LeafMap,
    assembler: LeafAssembler,
) -> t.Iterator[Part]:
    first = leaf * LEAF_ENTRIES
    try:
        page = parent.page(leaf)
        whole, patches = _sort_out(first, touched, index, page)
        if whole or patches:
            assembler.begin(leaf, page, len(whole) + len(patches))
    except (SavesetError, ValueError):  # the parent cannot be read: read the whole leaf
        whole = [Touched(first + position, ALL_GRAINS, DATA) for position in range(geometry.leaf_entries(leaf))]
        patches = []
    if not whole and not patches:
        assembler.take_over(leaf)
    changed = sum(geometry.chunk_length(chunk) for chunk in [*(w.chunk for w in whole), *(p.chunk for p in patches)])
    yield KnownRun(_leaf_bytes(geometry, leaf) - changed)
    runs = (ChunkRun(item.chunk, 1, item.kind) for item in whole)
    yield from split_runs(runs, _range_chunks(geometry), LEAF_ENTRIES)
    for begin in range(0, len(patches), _PATCHES):
        yield PatchRun(patches[begin : begin + _PATCHES])


def _sort_out(
    first: int, touched: list[Touched], index: VolumeIndex | None, page: Page
) -> tuple[list[Touched], list[ChunkPatch]]:
    """The chunks of a leaf to read whole (or known to be empty), and those to patch.

    :param index: used to find the lost places of the page; None if none is lost.
    """
    masks = {item.chunk: item for item in touched}
    if index is not None:
        for position in range(page.count):
            if not all(index.trusts(piece.pack, piece.offset) for piece in page.pieces(position) if piece.has_data):
                masks[first + position] = Touched(first + position, ALL_GRAINS, DATA)
    whole: list[Touched] = []
    patches: list[ChunkPatch] = []
    for chunk, item in sorted(masks.items()):
        pieces = page.pieces(chunk - first)
        if item.mask == ALL_GRAINS or not may_patch(pieces, item.mask):
            whole.append(item._replace(kind=item.kind if item.mask == ALL_GRAINS else DATA))
        else:
            patches.append(ChunkPatch(chunk, item.mask, pieces))
    return whole, patches


def _by_leaf(touched: t.Iterable[Touched]) -> t.Iterator[tuple[int, list[Touched]]]:
    leaf = -1
    held: list[Touched] = []
    for item in touched:
        number = item.chunk // LEAF_ENTRIES
        if number != leaf and held:
            yield leaf, held
            held = []
        leaf = number
        held.append(item)
    if held:
        yield leaf, held


def _leaf_bytes(geometry: Geometry, leaf: int) -> int:
    begin = leaf * LEAF_ENTRIES * geometry.chunk_size
    return min(LEAF_ENTRIES * geometry.chunk_size, geometry.size - begin)


def _range_chunks(geometry: Geometry) -> int:
    return max(1, RANGE_BYTES // geometry.chunk_size)

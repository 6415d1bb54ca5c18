# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A sample of a saveset's chunks, compared with what a target holds."""

from __future__ import annotations

import random
import typing as t

from ..base.extent import DATA, SPLIT
from ..format.directory import PAGE
from ..format.leafmap import LeafMap
from ..format.page import LEAF_ENTRIES
from ..io.target import Target, transfer_buffer
from .compare import Comparer

CHUNKS = 32


def is_on(leaf_map: LeafMap, comparer: Comparer, target: Target, chunks: int = CHUNKS) -> bool:
    """Whether the first chunk, the last one, and ``chunks`` random stored ones are on the target as in the map.

    A sample detects a different or reformatted disk. It does not prove that nothing was written to it.
    Raises TargetError, NotFound, Damaged.
    """
    geometry = leaf_map.geometry
    if target.size < geometry.size:
        return False
    buffer = transfer_buffer(geometry.chunk_size)
    for number in sorted({0, geometry.chunks - 1, *stored_by_chance(leaf_map, chunks)}):
        part = buffer[: geometry.chunk_length(number)]
        target.read(number * geometry.chunk_size, part)
        leaf, position = divmod(number, LEAF_ENTRIES)
        if not comparer.same(leaf_map.page(leaf), position, part):
            return False
    return True


def stored_by_chance(leaf_map: LeafMap, chunks: int) -> t.Iterator[int]:
    """Numbers of at most ``chunks`` random stored chunks, possibly with repetitions.  Raises NotFound, Damaged."""
    pages = [number for number in range(leaf_map.geometry.leaves) if leaf_map.leaf(number).kind == PAGE]
    for leaf in random.choices(pages, k=chunks if pages else 0):
        kinds = leaf_map.page(leaf).kinds(0, leaf_map.geometry.leaf_entries(leaf))
        stored = [position for position, kind in enumerate(kinds) if kind in (DATA, SPLIT)]
        if stored:
            yield leaf * LEAF_ENTRIES + random.choice(stored)

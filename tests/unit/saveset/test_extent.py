# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extents become runs of chunks that lose nothing."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import (
    DATA,
    HOLE,
    ZERO,
    ChunkRun,
    Extent,
    chunk_runs,
    cover,
    split_runs,
)
from hypothesis import given
from hypothesis import strategies as st

PIECES = st.lists(st.tuples(st.integers(1, 40), st.sampled_from([HOLE, ZERO, DATA, None])), max_size=30)


def lay_out(pieces: list[tuple[int, int | None]]) -> tuple[list[Extent], list[int]]:
    """Extents laid end to end (None: a gap) and the kind that each byte must be treated as."""
    extents: list[Extent] = []
    kinds: list[int] = []
    for length, kind in pieces:
        if kind is not None:
            extents.append(Extent(len(kinds), length, kind))
        kinds += [DATA if kind is None else kind] * length
    return extents, kinds


@given(PIECES, st.integers(1, 16))
def test_each_chunk_gets_the_highest_kind_of_its_bytes(pieces: list[tuple[int, int | None]], chunk_size: int) -> None:
    extents, kinds = lay_out(pieces)
    expected = [max(kinds[at : at + chunk_size]) for at in range(0, len(kinds), chunk_size)]
    found: list[int] = []
    for run in chunk_runs(extents, len(kinds), chunk_size):
        assert run.first == len(found)
        found += [run.kind] * run.chunks
    assert found == expected


@given(PIECES, st.integers(1, 16), st.integers(1, 8), st.integers(1, 8))
def test_split_runs_keep_every_chunk_and_stay_in_their_group(
    pieces: list[tuple[int, int | None]], chunk_size: int, data_group: int, empty_group: int
) -> None:
    extents, kinds = lay_out(pieces)
    whole = list(chunk_runs(extents, len(kinds), chunk_size))
    expected = [run.kind for run in whole for _chunk in range(run.chunks)]
    found: list[int] = []
    for run in split_runs(whole, data_group, empty_group):
        group = data_group if run.kind == DATA else empty_group
        assert run.first == len(found)
        assert run.first // group == (run.first + run.chunks - 1) // group
        found += [run.kind] * run.chunks
    assert found == expected


def test_what_a_source_does_not_tell_is_read() -> None:
    assert list(cover([Extent(10, 5, HOLE)], 20)) == [Extent(0, 10, DATA), Extent(10, 5, HOLE), Extent(15, 5, DATA)]


def test_overlapping_extents_are_cut() -> None:
    found = list(cover([Extent(0, 10, DATA), Extent(5, 10, HOLE), Extent(3, 2, ZERO)], 12))
    assert found == [Extent(0, 10, DATA), Extent(10, 2, HOLE)]


def test_a_hole_that_ends_inside_the_last_chunk() -> None:
    assert list(chunk_runs([Extent(0, 10, HOLE)], 10, 4)) == [ChunkRun(0, 2, HOLE), ChunkRun(2, 1, HOLE)]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes: exactly the blocks that are told, and undone by making them again."""

from __future__ import annotations

import random
from pathlib import Path

from bench import change
from bench.data import STRETCH_BYTES
from bench.mblocks import BLOCK_BYTES

USED = [(0, 1 << 20), (3 << 20, 1 << 20)]


def test_used_extents_leave_zeros_and_holes_out() -> None:
    kinds = ["m", "holes", "files", "zeros", "random"]
    size = 4 * STRETCH_BYTES + BLOCK_BYTES
    assert change.used_extents(kinds, size) == [
        (0, STRETCH_BYTES),
        (2 * STRETCH_BYTES, STRETCH_BYTES),
        (4 * STRETCH_BYTES, BLOCK_BYTES),
    ]


def test_changes_are_of_the_share_asked_for_inside_what_is_used() -> None:
    extents = change.scattered(USED, 0.1, "seed")
    assert len(extents) == round(0.1 * (2 << 20) / BLOCK_BYTES)
    assert extents == sorted(set(extents))
    for offset, length in extents:
        assert length == BLOCK_BYTES
        assert offset % BLOCK_BYTES == 0
        assert any(begin <= offset < begin + extent for begin, extent in USED)


def test_changes_are_the_same_for_the_same_seed() -> None:
    assert change.scattered(USED, 0.1, "one") == change.scattered(USED, 0.1, "one")
    assert change.scattered(USED, 0.1, "one") != change.scattered(USED, 0.1, "two")


def test_there_is_always_a_change() -> None:
    assert len(change.scattered(USED, 0.000001, "seed")) == 1


def test_every_extent_changes_and_nothing_else_does(tmp_path: Path) -> None:
    image = tmp_path / "image"
    before = random.Random(1).randbytes(4 << 20)
    image.write_bytes(before)
    extents = change.scattered(USED, 0.05, "seed")
    change.apply(image, extents, "seed")
    after = image.read_bytes()
    changed = [
        (at, BLOCK_BYTES)
        for at in range(0, len(before), BLOCK_BYTES)
        if before[at : at + BLOCK_BYTES] != after[at : at + BLOCK_BYTES]
    ]
    assert changed == extents


def test_changes_are_undone_in_any_order(tmp_path: Path) -> None:
    image = tmp_path / "image"
    before = random.Random(2).randbytes(4 << 20)
    image.write_bytes(before)
    one, two = change.scattered(USED, 0.5, "one"), change.scattered(USED, 0.5, "two")
    assert set(one) & set(two)
    change.apply(image, one, "one")
    change.apply(image, two, "two")
    assert image.read_bytes() != before
    change.apply(image, one, "one")
    change.apply(image, two, "two")
    assert image.read_bytes() == before

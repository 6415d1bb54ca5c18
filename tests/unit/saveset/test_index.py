# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index of chunks: what it costs, what it leaves out, when it is read."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.index import ChunkIndex
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import ROW
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.heap import Heap

from .conftest import Lab

DATA, GRAINS = 2, 4


def test_a_chunk_in_memory_costs_at_most_64_bytes() -> None:
    generator = random.Random(1)
    count = 50_000
    packs = [
        (
            generator.randbytes(16),
            b"".join(ROW.pack(generator.randbytes(32), at, 1000, 0, DATA, at, 0) for at in range(500)),
        )
        for _pack in range(count // 500)
    ]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        known = Heap()
        for pack, rows in packs:
            known.add(pack, rows)
        known.settle()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(known) == count
    assert (after - before) / count <= 64


def test_pieces_are_not_offered_for_deduplication() -> None:
    identity = bytes(range(32))
    known = Heap()
    known.add(b"p" * 16, ROW.pack(identity, 64, 1000, 0, GRAINS, 5, 1))
    known.settle()
    assert known.find(identity) == []
    assert len(known) == 0


def test_footers_are_not_read_while_nothing_new_is_met(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.backup(mixed, source_id="a")

    def fail(_index: ChunkIndex) -> None:
        raise AssertionError("the index was read")

    monkeypatch.setattr(ChunkIndex, "load", fail)
    size = mixed.stat().st_size
    lab.backup(mixed, source_id="b")
    lab.backup(mixed, source_id="c", changes=Changes("b", size, [(4096, 10)]))
    with open(mixed, "r+b") as image:
        image.seek(1000)
        image.write(b"new")
    with pytest.raises(AssertionError, match="the index was read"):
        lab.backup(mixed, source_id="d")

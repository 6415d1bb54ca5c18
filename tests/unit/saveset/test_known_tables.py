# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables: what a file of the index says is right, or is not said."""

from __future__ import annotations

import io
import os
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import ROW, PackFooter
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.keys import KeyRing
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known import table as table_module
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.table import (
    BUCKET_MAX,
    DamagedTable,
    Table,
    bits_for,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.writing import Batch, Content, merged, write

from .known import DATA, RING, Packs


def content_of(packs: Packs) -> Content:
    """The packs as one batch."""
    batch = Batch()
    for name in packs.names():
        footer = packs.footers[name]
        assert footer is not None
        batch.add(bytes.fromhex(name[-32:]), footer)
    return batch.content()


def bytes_of(content: Content, ring: KeyRing = RING) -> bytes:
    """A table's bytes."""
    stream = io.BytesIO()
    write(stream, ring, content)
    assert len(stream.getvalue()) <= content.bytes_max
    return stream.getvalue()


OpenTable = t.Callable[[bytes], Table]


@pytest.fixture
def open_table(tmp_path: Path) -> OpenTable:
    """Opens a table that has these bytes."""

    def call(data: bytes) -> Table:
        path = tmp_path / "table"
        path.write_bytes(data)
        return Table("table", os.open(path, os.O_RDONLY), RING)

    return call


def some_packs(seed: int, *sizes: int) -> Packs:
    packs = Packs(seed)
    for size in sizes:
        packs.add(size)
    return packs


def answers(table: Table, packs: Packs) -> dict[bytes, set[bytes]]:
    """What a table says about all chunks that it may know."""
    return {identity: set(found) for identity in packs.identities if (found := table.find(identity))}


@pytest.mark.parametrize("sizes", [(), (0,), (1,), (15, 16, 17), (500, 3, 700)])
def test_every_chunk_is_found_where_it_is(open_table: OpenTable, sizes: tuple[int, ...]) -> None:
    packs = some_packs(1, *sizes)
    table = open_table(bytes_of(content_of(packs)))
    assert answers(table, packs) == packs.places()
    assert table.find(bytes(32)) == table.find(b"\xff" * 32) == []
    assert {pack.hex() for pack, _tag in table.packs()} == {name[-32:] for name in packs.names()}
    assert table.bits == bits_for(table.entries)


def test_a_flipped_bit_anywhere_is_noticed_before_it_matters(open_table: OpenTable) -> None:
    packs = some_packs(2, 40, 30)
    whole = bytes_of(content_of(packs))
    # One in each bucket that does not exist, too.
    expected = {**{bytes([first]) * 32: set() for first in range(256)}, **packs.places()}
    for at in range(len(whole)):
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        try:
            table = open_table(bytes(data))
        except DamagedTable:
            continue
        refused = 0
        for identity, places in expected.items():
            try:
                assert set(table.find(identity)) == places
            except DamagedTable:
                refused += 1
        assert refused, f"byte {at} may be anything"


def test_a_file_of_another_length_is_refused(open_table: OpenTable) -> None:
    whole = bytes_of(content_of(some_packs(3, 40)))
    for data in (*(whole[:length] for length in range(len(whole))), whole + b"\0", whole[1:], whole + whole):
        with pytest.raises(DamagedTable):
            open_table(data)


def test_a_table_of_another_repository_is_refused(open_table: OpenTable) -> None:
    with pytest.raises(DamagedTable, match="another repository"):
        open_table(bytes_of(content_of(some_packs(3, 40)), KeyRing("cd" * 16, b"x" * 32)))


def test_a_bucket_in_another_place_is_refused(open_table: OpenTable) -> None:
    """From the same table, and from another one of the same repository with the same chunks."""
    packs = some_packs(4, 300)
    whole, other = bytearray(bytes_of(content_of(packs))), bytes_of(content_of(packs))
    table = open_table(whole)
    sizes = [table_module._AROUND + 64 * (table._starts[n + 1] - table._starts[n]) for n in range(1 << table.bits)]
    begins = [sum(sizes[:number]) for number in range(len(sizes))]
    first, second = next(
        (a, b)
        for a in range(len(sizes))
        for b in range(a + 1, len(sizes))
        if sizes[a] == sizes[b] > table_module._AROUND
    )
    pieces = [slice(begins[number], begins[number] + sizes[number]) for number in (first, second)]
    swapped = bytearray(whole)
    swapped[pieces[0]], swapped[pieces[1]] = whole[pieces[1]], whole[pieces[0]]
    foreign = bytearray(whole)
    foreign[pieces[0]] = other[pieces[0]]
    for data in (swapped, foreign):
        table = open_table(data)
        (identity, *_rest) = (each for each in packs.places() if each[0] >> 8 - table.bits == first)
        with pytest.raises(DamagedTable):
            table.find(identity)


def test_shortened_while_it_is_open(open_table: OpenTable, tmp_path: Path) -> None:
    """A mapped file would end the process."""
    packs = some_packs(5, 300)
    table = open_table(bytes_of(content_of(packs)))
    os.truncate(tmp_path / "table", 100)
    with pytest.raises(DamagedTable, match="too short"):
        table.find(b"\xff" + bytes(31))


def test_merged_tables_say_what_they_said(tmp_path: Path) -> None:
    """Of all sizes, so that buckets of one are several of another, either way."""
    parts = [some_packs(seed, *sizes) for seed, sizes in enumerate([(3000, 1000), (5,), (200, 100), (0,)])]
    opened = []
    for number, packs in enumerate(parts):
        path = tmp_path / str(number)
        path.write_bytes(bytes_of(content_of(packs)))
        opened.append(Table(path.name, os.open(path, os.O_RDONLY), RING))
    gone = {bytes.fromhex(parts[0].names()[0][-32:])}
    for removed, remaining in ((set(), parts), (gone, parts)):
        path = tmp_path / "merged"
        path.write_bytes(bytes_of(merged(opened, removed)))
        table = Table("merged", os.open(path, os.O_RDONLY), RING)
        expected: dict[bytes, set[bytes]] = {}
        for packs in remaining:
            for identity, places in packs.places().items():
                expected.setdefault(identity, set()).update(place for place in places if place[:16] not in removed)
        assert table.entries == sum(len(places) for places in expected.values())
        for identity, places in expected.items():
            assert set(table.find(identity)) == places
        assert {pack for pack, _tag in table.packs()}.isdisjoint(removed)


def test_one_chunk_in_countless_packs_is_bounded(open_table: OpenTable) -> None:
    batch = Batch()
    rows = b"".join(ROW.pack(b"i" * 32, number, 1, 0, DATA, 0, 0) for number in range(3 * BUCKET_MAX))
    batch.add(b"p" * 16, PackFooter(bytes(32) + rows))
    table = open_table(bytes_of(batch.content()))
    assert table.entries == BUCKET_MAX and len(table.find(b"i" * 32)) == BUCKET_MAX

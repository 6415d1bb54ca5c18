# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental backups: only changed grains are read, every saveset is whole, and a wrong list is never believed."""

from __future__ import annotations

import filecmp
import random
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import (
    ChangedChunks,
    Changes,
    touched_chunks,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.patch import PIECES_MAX, patch
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import InvalidValue
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import DATA, SPLIT, Extent
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.directory import Geometry
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.page import ALL_GRAINS, Piece
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import KIB, MIB, Lab, MakeImage, noise, text

CHUNK = 64 * KIB
GRAIN = CHUNK // 32


class Volume:
    """An image that changes, and the list of what changed."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.generation = 0
        self.extents: list[tuple[int, int]] = []

    @property
    def source_id(self) -> str:
        return f"snapshot-{self.generation}"

    def write(self, offset: int, data: bytes) -> None:
        data = data[: self.size - offset]
        with open(self.path, "r+b") as image:
            image.seek(offset)
            image.write(data)
        self.extents.append((offset, len(data)))

    def changes(self) -> Changes:
        """What changed since the last call; the volume is a new snapshot from now on."""
        changes = Changes(self.source_id, self.size, self.extents)
        self.generation += 1
        self.extents = []
        return changes


@pytest.fixture
def volume(mixed: Path) -> Volume:
    return Volume(mixed, mixed.stat().st_size)


def assert_whole(lab: Lab, volume: Volume, saveset: t.Any) -> None:
    """The saveset restores to the image, verifies to the bottom, and reads at any place."""
    assert filecmp.cmp(volume.path, lab.restore(saveset), shallow=False)
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems
    image = volume.path.read_bytes()
    generator = random.Random(volume.generation)
    for _number in range(20):
        offset = generator.randrange(volume.size)
        length = generator.randrange(200 * KIB)
        assert saveset.read(offset, length) == image[offset : offset + length]


def test_only_changed_grains_are_read_and_stored(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    offsets = [5 * KIB, 100 * KIB, 300 * KIB + 7, 5 * MIB]
    for offset in offsets:
        volume.write(offset, noise(100, seed=offset))
    changes = volume.changes()
    saveset = lab.backup(volume.path, changes=changes, source_id=volume.source_id)
    assert saveset.info.origin["method"] == "changed"
    assert saveset.info.origin["since"] == "snapshot-0"
    assert saveset.stats.bytes_read == len(offsets) * GRAIN
    assert saveset.stats.bytes_new == len(offsets) * GRAIN
    assert saveset.stats.bytes_stored < len(offsets) * GRAIN + KIB
    assert saveset.stats.bytes_unchanged == volume.size - len(offsets) * GRAIN
    assert [entry.kind for entry in saveset.map.entries(0)].count(SPLIT) == len(offsets)
    assert_whole(lab, volume, saveset)


def test_nothing_changed_reads_and_stores_nothing(lab: Lab, volume: Volume) -> None:
    first = lab.backup(volume.path, source_id=volume.source_id)
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert (saveset.stats.bytes_read, saveset.stats.bytes_stored) == (0, 0)
    assert saveset.info.digest == first.info.digest
    assert saveset.map.packs() == first.map.packs()
    assert_whole(lab, volume, saveset)


def test_holes_and_zeros_that_came_are_not_stored(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    volume.write(4 * KIB, bytes(3 * GRAIN))
    volume.write(1 * MIB, bytes(2 * MIB))
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert saveset.stats.bytes_stored == 0
    assert_whole(lab, volume, saveset)


def test_a_chunk_of_many_pieces_is_stored_whole_again(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    reads = set()
    for number in range(12):
        volume.write(number * 2 * GRAIN, noise(GRAIN, seed=number))
        saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
        reads.add(saveset.stats.bytes_read)
        assert max(len(saveset.map.page(0).pieces(position)) for position in range(10)) <= PIECES_MAX
    assert reads == {GRAIN, CHUNK}
    assert_whole(lab, volume, saveset)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_changes_in_any_order(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("any")
    size = data.draw(st.integers(CHUNK, 3 * MIB), "size")
    path = folder / "image"
    path.write_bytes(text(size))
    lab, volume = Lab(folder), Volume(path, size)
    lab.backup(path, source_id=volume.source_id)
    for generation in range(data.draw(st.integers(1, 4), "generations")):
        for offset, length, zero in data.draw(
            st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, 3 * CHUNK), st.booleans()), max_size=12)
        ):
            volume.write(offset, bytes(length) if zero else noise(length, seed=generation))
        over = data.draw(st.lists(st.tuples(st.integers(0, size + CHUNK), st.integers(0, CHUNK)), max_size=4))
        volume.extents += over  # telling too much is always allowed
        saveset = lab.backup(path, changes=volume.changes(), source_id=volume.source_id)
        assert saveset.info.origin["method"] == "changed"
        assert filecmp.cmp(path, lab.restore(saveset), shallow=False)
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (Changes("snapshot-7", 0, []), "since snapshot-7"),
        (Changes("", 0, []), "an unknown snapshot"),
        (Changes("snapshot-0", 4096, []), "the changed extents are for 4096"),
    ],
)
def test_a_list_that_does_not_fit_the_parent_is_not_used(
    lab: Lab, volume: Volume, changes: Changes, reason: str
) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    volume.write(0, b"changed")
    saveset = lab.backup(volume.path, source_id="snapshot-8", changes=changes)
    assert saveset.info.origin["method"] == "full"
    assert reason in saveset.info.origin["reason"]
    assert_whole(lab, volume, saveset)


def test_without_a_saveset_everything_is_read(lab: Lab, volume: Volume) -> None:
    saveset = lab.backup(volume.path, source_id="snapshot-1", changes=Changes("snapshot-0", volume.size, []))
    assert saveset.info.origin["reason"] == "the volume has no readable saveset yet"
    assert_whole(lab, volume, saveset)


def test_a_volume_that_grew_is_read(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    volume.size += CHUNK
    with open(volume.path, "ab") as image:
        image.write(noise(CHUNK))
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert saveset.info.origin["method"] == "full"
    assert_whole(lab, volume, saveset)


def test_spot_checks_find_a_list_that_lies(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    volume.write(0, noise(volume.size, seed=3))  # all of it, so that any chunk looked at tells
    volume.extents = []
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert saveset.info.origin["method"] == "full"
    assert "the changed extents are wrong" in saveset.info.origin["reason"]
    assert_whole(lab, volume, saveset)


def test_spot_checks_find_the_little_that_a_sparse_volume_holds(lab: Lab, make_image: MakeImage) -> None:
    volume = Volume(make_image("sparse", 64 * MIB, [(40 * MIB, noise(CHUNK))]), 64 * MIB)
    lab.backup(volume.path, source_id=volume.source_id)
    volume.write(40 * MIB, noise(CHUNK, seed=3))
    volume.extents = []
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert saveset.info.origin["method"] == "full"


def test_paranoid_finds_the_one_chunk_that_was_missed(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id)
    volume.write(9 * GRAIN, b"split")
    lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    volume.write(5 * CHUNK, b"told")
    changes = volume.changes()
    good = lab.backup(volume.path, changes=changes, source_id=volume.source_id, paranoid=True)
    assert good.info.origin["reason"] == "asked to read everything and compare"
    assert (good.info.origin["missed"], good.info.origin["unproven"]) == (0, 0)
    assert good.stats.bytes_read > 2 * MIB

    volume.write(6 * CHUNK, b"not told")
    told = [extent for extent in volume.extents if extent[0] != 6 * CHUNK]
    changes = volume.changes()
    bad = lab.backup(
        volume.path, changes=Changes(changes.since, volume.size, told), source_id=volume.source_id, paranoid=True
    )
    if bad.info.origin.get("missed") is None:  # a spot check happened upon it first
        assert "extents are wrong" in bad.info.origin["reason"]
    else:
        assert bad.info.origin["missed"] == 1
        assert f"at offsets {6 * CHUNK}" in bad.info.origin["reason"]
    assert_whole(lab, volume, bad)


def test_what_a_lost_pack_held_is_read_again(lab: Lab, volume: Volume) -> None:
    lab.backup(volume.path, source_id=volume.source_id, pack_bytes=256 * KIB)
    volume.write(2 * GRAIN, b"changed")
    for path in lab.files("packs")[::2]:
        path.unlink()
    saveset = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    assert saveset.info.origin["method"] == "changed"
    assert saveset.stats.bytes_read > CHUNK
    assert filecmp.cmp(volume.path, lab.restore(saveset), shallow=False)
    assert lab.open().verify([saveset], depth="full").ok


def test_a_damaged_piece_is_found_and_named(lab: Lab, volume: Volume) -> None:
    first = lab.backup(volume.path, source_id=volume.source_id)
    volume.write(2 * GRAIN, noise(GRAIN, seed=9))
    second = lab.backup(volume.path, changes=volume.changes(), source_id=volume.source_id)
    (pack,) = second.map.packs() - first.map.packs()
    (path,) = [path for path in lab.files("packs") if path.name == pack.hex()]
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    report = lab.open().verify(depth="stored")
    assert {problem["saveset"] for problem in report.problems} == {second.id}
    assert "offsets 0" in str(report.problems[0]["problem"])
    assert lab.open().verify([first], depth="full").ok


def test_negative_extents_are_refused() -> None:
    with pytest.raises(InvalidValue):
        Changes("s", 100, [(-1, 5)]).merged()


@given(
    st.lists(st.tuples(st.integers(0, 40 * CHUNK), st.integers(0, 3 * CHUNK)), max_size=20),
    st.integers(1, 40 * CHUNK),
)
def test_touched_chunks_cover_the_extents_and_nothing_else(extents: list[tuple[int, int]], size: int) -> None:
    geometry = Geometry(size, CHUNK)

    def allocated(offset: int, length: int) -> t.Iterator[Extent]:
        yield Extent(offset, length, DATA)

    touched = list(touched_chunks(Changes("s", size, extents).merged(), geometry, allocated))
    assert [item.chunk for item in touched] == sorted({item.chunk for item in touched})
    found = {item.chunk: item.mask for item in touched}
    expected: dict[int, int] = {}
    for offset, length in extents:
        for grain in range(offset // GRAIN, -(-min(offset + length, size) // GRAIN) if offset < size and length else 0):
            chunk, bit = divmod(grain, 32)
            short = geometry.chunk_length(chunk) < CHUNK
            expected[chunk] = expected.get(chunk, 0) | (ALL_GRAINS if short else 1 << bit)
    assert found == expected


@given(st.lists(st.tuples(st.integers(1, ALL_GRAINS), st.booleans()), max_size=10))
def test_pieces_always_cover_a_chunk_once(edits: list[tuple[int, bool]]) -> None:
    pieces = [Piece(b"b" * 32, b"p" * 16, 0, 0, 0, DATA, ALL_GRAINS, ALL_GRAINS)]
    owner = dict.fromkeys(range(32), b"b")
    for number, (mask, zero) in enumerate(edits):
        name = bytes([number + 1])
        grains = None if zero else Piece(name * 32, b"q" * 16, 0, 0, 0, 4, mask, mask)
        pieces = patch(pieces, mask if zero else 0, grains)
        owner.update((grain, b"\0" if zero else name) for grain in range(32) if mask >> grain & 1)
        got = {grain: piece.identity[:1] for piece in pieces for grain in range(32) if piece.mask >> grain & 1}
        assert got == owner
        assert sum(piece.mask.bit_count() for piece in pieces) == 32


class _Broken(Exception):
    """Ends a backup in its middle."""


def break_after(read: int) -> t.Callable[[t.Any], None]:
    """A progress callback that raises once so many bytes were read."""

    def progress(now: t.Any) -> None:
        if now.bytes_read >= read:
            raise _Broken

    return progress


@pytest.fixture
def large(make_image: t.Callable[..., Path]) -> Volume:
    """A volume large enough to be interrupted in its middle."""
    path = make_image("large", 24 * MIB, [(0, noise(24 * MIB))])
    return Volume(path, 24 * MIB)


def interrupt(lab: Lab, large: Volume, **options: t.Any) -> None:
    """Break a backup off when about half is stored."""
    with pytest.raises(_Broken):
        lab.backup(
            large.path,
            progress=break_after(12 * MIB),
            rate_limit=24 * MIB,
            pack_bytes=2 * MIB,
            source_id=large.source_id,
            **options,
        )
    assert lab.files("packs")


def test_an_interrupted_backup_is_taken_up_again(lab: Lab, large: Volume) -> None:
    interrupt(lab, large)
    saveset = lab.backup(large.path, source_id=large.source_id)
    assert saveset.info.origin["resumed"]
    assert saveset.stats.bytes_known >= 4 * MIB
    assert saveset.stats.bytes_read + saveset.stats.bytes_known == large.size
    assert_whole(lab, large, saveset)
    assert not lab.files("sessions")
    again = lab.backup(large.path, source_id=large.source_id)
    assert not again.info.origin["resumed"]


def test_another_snapshot_does_not_take_over_what_was_read_of_the_first(lab: Lab, large: Volume) -> None:
    interrupt(lab, large)
    large.write(0, noise(large.size, seed=7))
    large.changes()
    saveset = lab.backup(large.path, source_id=large.source_id)
    assert not saveset.info.origin["resumed"]
    assert saveset.stats.bytes_read == large.size
    assert_whole(lab, large, saveset)


def test_an_interrupted_incremental_backup_is_taken_up_again(lab: Lab, large: Volume) -> None:
    lab.backup(large.path, source_id=large.source_id)
    for chunk in range(0, large.size, CHUNK):
        large.write(chunk, noise(16 * GRAIN, seed=chunk))
    changes = large.changes()
    with pytest.raises(_Broken):
        lab.backup(
            large.path,
            changes=changes,
            source_id=large.source_id,
            rate_limit=12 * MIB,
            progress=break_after(8 * MIB),
            pack_bytes=MIB,
        )
    saveset = lab.backup(large.path, changes=changes, source_id=large.source_id)
    assert saveset.info.origin["resumed"]
    assert saveset.stats.bytes_known >= MIB
    assert saveset.stats.bytes_read + saveset.stats.bytes_known == large.size // 2
    assert_whole(lab, large, saveset)


@given(st.lists(st.tuples(st.integers(0, 40 * CHUNK), st.integers(0, 3 * CHUNK)), max_size=20))
def test_changed_chunks_are_those_touched(extents: list[tuple[int, int]]) -> None:
    merged = Changes("s", 40 * CHUNK, extents).merged()

    def allocated(offset: int, length: int) -> t.Iterator[Extent]:
        yield Extent(offset, length, DATA)

    touched = {item.chunk for item in touched_chunks(merged, Geometry(40 * CHUNK, CHUNK), allocated)}
    changed = ChangedChunks(merged, CHUNK)
    assert {chunk for chunk in range(42) if chunk in changed} == touched

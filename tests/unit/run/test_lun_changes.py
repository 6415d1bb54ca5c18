# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changed extents of LUNs: every byte that differs lies in one of them, whatever was done to the LUN."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.storage import fiemap
from ansible_collections.openisb.backup.plugins.module_utils.storage.fiemap import MappedExtent
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import (
    ChangedExtents,
    NoChanges,
    changes_between,
    compare,
    pack,
    shares_blocks,
    unpack,
)
from hypothesis import given
from hypothesis import strategies as st

BLOCK = 4096
MIB = 1024**2
SHARED, UNWRITTEN, LAST = fiemap.SHARED, fiemap.UNWRITTEN, fiemap.LAST
DELALLOC, ENCODED, INLINE = 0x4, 0x8, 0x200
PUNCH_HOLE = 0x3  # with the size kept
FICLONERANGE = 0x4020940D


def block(number, place, count=1, flags=SHARED):
    """An extent of ``count`` blocks from block ``number``, at block ``place`` of the disk."""
    return MappedExtent(number * BLOCK, place * BLOCK, count * BLOCK, flags)


def changed(base, new, blocks=16):
    """Pairs of block number and number of blocks that changed."""
    found = ChangedExtents(blocks * BLOCK)
    compare(base, new, found)
    return [(offset // BLOCK, length // BLOCK) for offset, length in found]


@pytest.mark.parametrize(
    ("base", "new", "expected"),
    [
        ([], [], []),
        ([block(0, 100, 16)], [block(0, 100, 16)], []),
        # The same blocks, cut into extents in another way.
        ([block(0, 100, 16)], [block(0, 100, 5), block(5, 105, 11, SHARED | LAST)], []),
        ([block(0, 100, 16)], [block(0, 100, 5), block(5, 200, 2), block(7, 107, 9)], [(5, 2)]),
        # The same addresses for other parts of the LUN are a change.
        ([block(0, 100, 4)], [block(4, 100, 4)], [(0, 8)]),
        ([block(0, 100, 4)], [block(0, 101, 3)], [(0, 4)]),
        # A hole where data was, data where a hole was.
        ([block(2, 100, 4)], [], [(2, 4)]),
        ([], [block(2, 100, 4)], [(2, 4)]),
        # What was never written reads as zeros, as a hole does; written where it was only reserved is a change.
        ([block(2, 100, 4, UNWRITTEN)], [], []),
        ([block(2, 100, 4, UNWRITTEN | SHARED)], [block(2, 300, 4, UNWRITTEN)], []),
        ([block(2, 100, 4, UNWRITTEN)], [block(2, 100, 4)], [(2, 4)]),
        # An address that means nothing, or that the filesystem does not call shared, proves nothing.
        ([block(2, 100, 4, SHARED | DELALLOC)], [block(2, 100, 4, SHARED | DELALLOC)], [(2, 4)]),
        ([block(2, 100, 4, SHARED | ENCODED)], [block(2, 100, 4, SHARED | ENCODED)], [(2, 4)]),
        ([block(0, 0, 1, SHARED | INLINE)], [block(0, 0, 1, SHARED | INLINE)], [(0, 1)]),
        ([block(2, 100, 4)], [block(2, 100, 4, 0)], [(2, 4)]),
        ([block(2, 100, 4, 0)], [block(2, 100, 4)], [(2, 4)]),
        ([block(2, 0, 4)], [block(2, 0, 4)], [(2, 4)]),
        ([block(2, 100, 4, UNWRITTEN | DELALLOC)], [], [(2, 4)]),
        # What is allocated behind the end of the LUN is none of it.
        ([block(0, 100, 16)], [block(0, 100, 16), block(16, 300, 4)], []),
        ([block(0, 100, 16)], [block(0, 100, 8), block(8, 300, 20)], [(8, 8)]),
    ],
)
def test_maps_are_compared(base, new, expected):
    assert changed(base, new) == expected


@pytest.mark.parametrize("wrong", [[block(0, 1, 4), block(3, 9)], [block(4, 1), block(0, 9)], [block(0, 1, 0)]])
def test_a_map_that_contradicts_itself_tells_nothing(wrong):
    with pytest.raises(NoChanges, match="contradicts itself"):
        changed([block(0, 1, 16)], wrong)


PLACES = st.lists(
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([None, 0, 7, 50]),
        st.sampled_from([SHARED, SHARED, 0, UNWRITTEN, ENCODED | SHARED]),
    )
)


def mapped(places):
    """A map from triples of blocks, how far away they are (None: a hole) and flags; and of each block, what it is."""
    extents, blocks = [], []
    for count, distance, flags in places:
        if distance is not None:
            extents.append(block(len(blocks), len(blocks) + 100 + distance, count, flags))
        for number in range(len(blocks), len(blocks) + count):
            blocks.append(("zeros",) if distance is None or flags & UNWRITTEN else (number + distance, flags))
    return extents, blocks


@given(PLACES, PLACES, st.integers(1, 40), st.integers(1, 3))
def test_exactly_what_may_differ_is_found(base, new, size, most):
    (olds, old), (news, now) = mapped(base), mapped(new)
    pad = [("zeros",)] * size
    old, now = (old + pad)[:size], (now + pad)[:size]
    expected = {
        number
        for number in range(size)
        if not (old[number] == now[number] and (old[number] == ("zeros",) or now[number][1] == SHARED))
    }
    whole, few = ChangedExtents(size * BLOCK), ChangedExtents(size * BLOCK, most)
    for found in (whole, few):
        compare(olds, news, found)
        found.finish()
    assert {number for offset, length in whole for number in blocks_of(offset, length)} == expected
    assert len(few) <= most
    assert {number for offset, length in few for number in blocks_of(offset, length)} >= expected
    assert whole.bytes == len(expected) * BLOCK


def blocks_of(offset, length):
    return range(offset // BLOCK, (offset + length) // BLOCK)


def test_extents_begin_and_end_with_granules_but_for_the_end_of_the_lun():
    found = ChangedExtents(10 * BLOCK + 100)
    found.add(512, 512)
    found.add(2 * BLOCK - 512, 1024)
    found.add(10 * BLOCK, 50)
    assert list(found) == [(0, 3 * BLOCK), (10 * BLOCK, 100)]


def test_the_smallest_gaps_are_given_up_first():
    found = ChangedExtents(1000 * BLOCK, 3)
    for number in (0, 2, 4, 100, 500, 900):
        found.add(number * BLOCK, BLOCK)
    found.finish()
    assert list(found) == [(0, 101 * BLOCK), (500 * BLOCK, BLOCK), (900 * BLOCK, BLOCK)]


@given(st.lists(st.tuples(st.integers(0, 2**60), st.integers(1, 2**40))))
def test_packed_extents_come_back(pairs):
    extents, position = [], 0
    for gap, length in pairs:
        extents.append((position + gap, length))
        position += gap + length
    if position < 2**64:
        assert unpack(pack(extents)) == extents


@pytest.mark.parametrize("text", ["nonsense!", "bm9uc2Vuc2U=", pack([(0, 4096)])[:-8]])
def test_what_is_not_packed_extents_is_refused(text):
    with pytest.raises(ValueError, match="."):
        unpack(text)


def test_scattered_extents_take_a_few_bytes_each():
    numbers = sorted(random.Random(1).sample(range(2**28), 100000))
    assert len(pack((number * BLOCK, BLOCK) for number in numbers)) < 800000


# -- real files

POOLS = {
    "btrfs": ["mkfs.btrfs", "-q"],
    "btrfs-nodatacow": ["mkfs.btrfs", "-q"],
    "btrfs-compress": ["mkfs.btrfs", "-q"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
}
OPTIONS = {"btrfs-nodatacow": "loop,nodatacow", "btrfs-compress": "loop,compress=zstd"}
LUN_SIZE = 24 * MIB


class Pool:
    """A filesystem with a LUN, and snapshots of it as the drivers take them."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, _dash, self.options = kind.partition("-")
        self.folder = folder
        self.luns = folder / "luns"
        self.lun = self.luns / "lun"
        if self.kind == "btrfs":
            run("btrfs", "-q", "subvolume", "create", self.luns)
        else:
            self.luns.mkdir()

    def snapshot(self, name: str) -> Path:
        """Take a snapshot; where its LUN is."""
        folder = self.folder / name
        if self.kind == "btrfs":
            run("btrfs", "-q", "subvolume", "snapshot", "-r", self.luns, folder)
        else:
            folder.mkdir()
            run("cp", "--reflink=always", self.lun, folder)
        return folder / "lun"

    def drop(self, name: str) -> None:
        """Delete a snapshot."""
        if self.kind == "btrfs":
            run("btrfs", "-q", "subvolume", "delete", "--commit-after", self.folder / name)
        else:
            run("rm", "-r", self.folder / name)


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(params=POOLS)
def pool(request: pytest.FixtureRequest, mounted: Callable[..., Path]) -> Pool:
    kind = request.param
    return Pool(kind, mounted(*POOLS[kind], options=OPTIONS.get(kind, "loop")))


def write(lun: int, chance: random.Random) -> None:
    """A few random writes, here and there, with and without a rhythm."""
    for _number in range(chance.randrange(1, 12)):
        offset = chance.randrange(LUN_SIZE)
        os.pwrite(lun, chance.randbytes(min(chance.choice([1, 512, 4096, 70000]), LUN_SIZE - offset)), offset)


def punch(lun: int, chance: random.Random) -> None:
    """Discard a range, as a file server does."""
    offset = chance.randrange(LUN_SIZE)
    fallocate(lun, PUNCH_HOLE, offset, min(chance.randrange(1, 2 * MIB), LUN_SIZE - offset))


def reserve(lun: int, chance: random.Random) -> None:
    """Allocate a range without writing it, and write a part of it."""
    offset = chance.randrange(LUN_SIZE - MIB)
    fallocate(lun, 0, offset, MIB)
    os.pwrite(lun, chance.randbytes(8192), offset + chance.randrange(MIB - 8192))


def regrow(lun: int, chance: random.Random) -> None:
    """Cut the LUN and let it grow again."""
    os.ftruncate(lun, chance.randrange(LUN_SIZE))
    os.ftruncate(lun, LUN_SIZE)


def clone(lun: int, chance: random.Random) -> None:
    """Let a range share the blocks of another range of the LUN."""
    length = chance.randrange(1, 64) * BLOCK
    source, target = (chance.randrange((LUN_SIZE - length) // BLOCK) * BLOCK for _end in range(2))
    if abs(source - target) >= length:
        share(lun, lun, source, length, target)


def clone_from_elsewhere(lun: int, chance: random.Random) -> None:
    """Let a range share the blocks of a file that comes and goes; its addresses may be used again."""
    length = chance.randrange(1, 64) * BLOCK
    folder = os.path.dirname(os.readlink(f"/proc/self/fd/{lun}"))
    with open(f"{folder}/elsewhere", "w+b", buffering=0) as other:
        other.write(chance.randbytes(length))
        share(lun, other.fileno(), 0, length, chance.randrange((LUN_SIZE - length) // BLOCK) * BLOCK)
        os.unlink(other.name)


def share(lun: int, source: int, offset: int, length: int, target: int) -> None:
    fcntl.ioctl(lun, FICLONERANGE, struct.pack("qQQQ", source, offset, length, target))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    path = f"/proc/{os.getpid()}/fd/{fd}"
    run("fallocate", *(["--punch-hole"] if mode else []), "-o", str(offset), "-l", str(length), path)


DEEDS = [write, write, punch, reserve, regrow, clone, clone_from_elsewhere]


def differing_blocks(first: Path, second: Path) -> set[int]:
    """Blocks in which two files differ."""
    with first.open("rb") as one, second.open("rb") as other:
        return {number for number in range(LUN_SIZE // BLOCK) if one.read(BLOCK) != other.read(BLOCK)}


@pytest.mark.root
@pytest.mark.parametrize("seed", range(3))
def test_every_byte_that_differs_lies_in_a_changed_extent(pool: Pool, seed: int) -> None:
    chance = random.Random(seed)
    with pool.lun.open("w+b", buffering=0) as stream:
        lun = stream.fileno()
        os.ftruncate(lun, LUN_SIZE)
        os.pwrite(lun, chance.randbytes(LUN_SIZE // 2), LUN_SIZE // 8)
        before = pool.snapshot("s0")
        for number in range(1, 10):
            for _deed in range(chance.randrange(1, 5)):
                chance.choice(DEEDS)(lun, chance)
            after = pool.snapshot(f"s{number}")
            found = changes_between(before, after)
            assert differing_blocks(before, after) <= {block for extent in found for block in blocks_of(*extent)}
            pool.drop(before.parent.name)  # from now on its blocks may be used again
            before = after


@pytest.mark.root
def test_little_is_told_where_little_changed(pool: Pool) -> None:
    chance = random.Random(4)
    with pool.lun.open("w+b", buffering=0) as stream:
        os.ftruncate(stream.fileno(), LUN_SIZE)
        os.pwrite(stream.fileno(), chance.randbytes(LUN_SIZE // 2), LUN_SIZE // 8)
        first, second = pool.snapshot("s1"), pool.snapshot("s2")
        os.pwrite(stream.fileno(), chance.randbytes(100), LUN_SIZE // 2)
        os.pwrite(stream.fileno(), b"x", LUN_SIZE - 1)
        third = pool.snapshot("s3")
    assert list(changes_between(first, second)) == []
    assert list(changes_between(first, third)) == [(LUN_SIZE // 2, BLOCK), (LUN_SIZE - BLOCK, BLOCK)]
    assert shares_blocks(third)


@pytest.mark.root
def test_what_is_compressed_counts_as_changed(pool: Pool) -> None:
    with pool.lun.open("w+b", buffering=0) as stream:
        os.pwrite(stream.fileno(), b"x" * MIB, 0)
    first, second = pool.snapshot("s1"), pool.snapshot("s2")
    assert changes_between(first, second).bytes == (MIB if pool.options == "compress" else 0)


@pytest.mark.root
def test_a_base_of_another_size_or_filesystem_tells_nothing(pool: Pool, tmp_path: Path) -> None:
    pool.lun.write_bytes(b"x" * BLOCK)
    first = pool.snapshot("s1")
    pool.lun.write_bytes(b"x" * 2 * BLOCK)
    with pytest.raises(NoChanges, match="the base has 4096 bytes and the LUN 8192"):
        changes_between(first, pool.snapshot("s2"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(first.read_bytes())
    with pytest.raises(NoChanges, match="on another filesystem"):
        changes_between(elsewhere, first)


@pytest.mark.root
def test_a_filesystem_without_maps_tells_nothing(tmp_path: Path) -> None:
    run("mount", "-t", "tmpfs", "none", tmp_path)
    try:
        for name in ("base", "new"):
            (tmp_path / name).write_bytes(b"x" * BLOCK)
        with pytest.raises(NoChanges, match="does not report where its files are"):
            changes_between(tmp_path / "base", tmp_path / "new")
    finally:
        run("umount", tmp_path)


def test_blocks_that_move_meanwhile_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("base", "new"):
        (tmp_path / name).write_bytes(b"x" * 2 * BLOCK)
    stays = [block(0, 100, 2)]
    # How a file is cut into extents, and what else shares its blocks, may change under way.
    told = iter([stays, stays, [block(0, 100, 1), block(1, 101, 1, 0)]])
    monkeypatch.setattr(fiemap, "extents", lambda fd: iter(next(told)))
    assert list(changes_between(tmp_path / "base", tmp_path / "new")) == []
    told = iter([stays, stays, [block(0, 300, 2)]])
    with pytest.raises(NoChanges, match="was moving blocks"):
        changes_between(tmp_path / "base", tmp_path / "new")


@pytest.mark.parametrize(
    ("told", "shares"),
    [([block(0, 100, 2, 0)], False), ([block(0, 100, 1, 0), block(1, 300)], True), ([], True)],
)
def test_a_full_copy_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told, shares) -> None:
    (tmp_path / "copy").write_bytes(b"x" * BLOCK)
    monkeypatch.setattr(fiemap, "extents", lambda fd: iter(told))
    assert shares_blocks(tmp_path / "copy") is shares

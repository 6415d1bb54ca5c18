# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image: the same for the same seed, and of the shares asked for."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import pytest
from bench import data
from bench.mblocks import BLOCK_BYTES, BlockMaker

MIB = 1 << 20
SMALL = {"m": 30, "files": 20, "random": 10, "zeros": 20, "holes": 20}


def test_blocks_are_the_same_for_the_same_seed() -> None:
    first = list(BlockMaker("1/7").blocks(100))
    assert first == list(BlockMaker("1/7").blocks(100))
    assert first != list(BlockMaker("1/8").blocks(100))


def test_blocks_are_all_different_and_whole() -> None:
    blocks = list(BlockMaker("a").blocks(200))
    assert len(set(blocks)) == 200
    assert {len(block) for block in blocks} == {BLOCK_BYTES}


def test_records_of_a_block_can_be_walked_to_the_end_of_what_is_in_use() -> None:
    for block in BlockMaker("walk").blocks(60):
        used = struct.unpack_from("<I", block, 4)[0]
        assert BLOCK_BYTES // 2 < used <= BLOCK_BYTES
        at = 16
        while at < used:
            length = struct.unpack_from("<H", block, at)[0]
            assert length > 4
            at += length
        assert at == used


def test_blocks_compress_like_a_database() -> None:
    content = b"".join(BlockMaker("ratio").blocks(128))
    assert 0.15 < len(zlib.compress(content, 1)) / len(content) < 0.5


def test_random_stretches_do_not_compress() -> None:
    content = data.stretch_bytes("random", MIB, "1/1")
    assert len(zlib.compress(content)) >= MIB
    assert content == data.stretch_bytes("random", MIB, "1/1")


@pytest.mark.parametrize("stretches", [1, 7, 20, 64, 257])
def test_every_kind_gets_its_share(stretches: int) -> None:
    kinds = data.layout(stretches * data.STRETCH_BYTES, data.DEFAULT_SHARES)
    assert len(kinds) == stretches
    for name, share in data.DEFAULT_SHARES.items():
        assert abs(kinds.count(name) - stretches * share / 100) < 1.5


def test_a_size_that_ends_inside_a_stretch_has_one_more() -> None:
    assert len(data.layout(data.STRETCH_BYTES + BLOCK_BYTES, data.DEFAULT_SHARES)) == 2


def test_image_is_the_same_twice_and_holes_are_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = tmp_path / "usr"
    files.mkdir()
    (files / "large").write_bytes(os.urandom(MIB - 100))
    (files / "next").write_bytes(os.urandom(MIB))
    (files / "small").write_bytes(b"x" * 10)
    monkeypatch.setattr(data, "FILES", files)
    monkeypatch.setattr(data, "STRETCH_BYTES", MIB)
    made = data.make_image(tmp_path / "one", 10 * MIB, SMALL)
    assert made == {name: share * MIB // 10 for name, share in SMALL.items()}
    data.make_image(tmp_path / "two", 10 * MIB, SMALL)
    content = (tmp_path / "one").read_bytes()
    assert content == (tmp_path / "two").read_bytes()
    kinds = data.layout(10 * MIB, SMALL)
    for number, kind in enumerate(kinds):
        stretch = content[number * MIB : (number + 1) * MIB]
        assert (not any(stretch)) == (kind in ("zeros", "holes"))
    assert (tmp_path / "one").stat().st_blocks * 512 < 9 * MIB


def test_too_few_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usr").mkdir()
    monkeypatch.setattr(data, "FILES", tmp_path / "usr")
    with pytest.raises(ValueError, match="too few files"):
        data.make_image(tmp_path / "image", MIB, {**dict.fromkeys(data.DEFAULT_SHARES, 0), "files": 100})


def test_files_fill_whole_blocks_and_the_last_one_is_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 5000)
    (tmp_path / "b").write_bytes(b"b" * 4096)
    (tmp_path / "c").symlink_to("a")
    parts = list(data.list_files(tmp_path))
    assert [part.length for part in parts] == [8192, 4096]
    assert [part.length for part in data.take_files(iter(parts), 10_000)] == [8192, 1808]


@pytest.mark.parametrize("text", ["m=50", "m=50,files=60", "m=x", "disks=100", "m=-10,files=110", ""])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        data.parse_shares(text)


def test_shares_not_named_are_none() -> None:
    assert data.parse_shares("m=90,holes=10") == {"m": 90, "files": 0, "random": 0, "zeros": 0, "holes": 10}


@pytest.mark.parametrize("size", [0, 8191, 8193])
def test_sizes_that_are_no_whole_blocks_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        data.make_image(tmp_path / "image", size, data.DEFAULT_SHARES)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a small read costs while nothing is cached, counted in bytes, and what reading in order costs in reads."""

from __future__ import annotations

import contextlib
import filecmp
import typing as t
from pathlib import Path

import pytest
import zstandard
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup import backup
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import codec
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.container import PACK_KIND, Container
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import PackFooter, Row
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve.serving import ServedSaveset
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore

from .conftest import KIB, MIB, Lab, MakeImage, noise, text

CHUNK = 256 * KIB
#: What earlier versions put into a frame.
OLD_FRAME = 4 * CHUNK
BLOCK = 4 * KIB
#: Head, identities, hash and tag of a frame.
OVERHEAD = KIB


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A repository with the default size of chunks."""
    return Lab(tmp_path, chunk_size=CHUNK)


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    """Text and noise, each of several old frames."""
    return make_image("image", 8 * MIB, [(0, text(4 * MIB)), (4 * MIB, noise(4 * MIB))])


class Counts:
    """Bytes and calls since the last reset()."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.read = self.reads = self.decompressed = 0

    def add_plain(self, plain: bytes) -> bytes:
        self.decompressed += len(plain)
        return plain


class CountingReader:
    """A zstd stream whose output is counted."""

    def __init__(self, counts: Counts, reader: t.Any) -> None:
        self._counts = counts
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        return self._counts.add_plain(self._reader.read(size))

    def readinto(self, room: memoryview) -> int:
        got: int = self._reader.readinto(room)
        self._counts.decompressed += got
        return got


class CountingDecompressor:
    """A zstd decompressor whose output is counted."""

    def __init__(self, counts: Counts, real: t.Any) -> None:
        self._counts = counts
        self._real = real

    def decompress(self, data: t.Any, **options: t.Any) -> bytes:
        return self._counts.add_plain(self._real.decompress(data, **options))

    @contextlib.contextmanager
    def stream_reader(self, data: t.Any) -> t.Iterator[CountingReader]:
        with self._real.stream_reader(data) as reader:
            yield CountingReader(self._counts, reader)


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """What is read of packs, and what zstd puts out."""
    counts = Counts()
    get = LocalStore.get
    decompressor = zstandard.ZstdDecompressor

    def counting(self: LocalStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        found = get(self, name, offset, length)
        if name.startswith("packs/"):
            counts.read += len(found)
            counts.reads += 1
        return found

    monkeypatch.setattr(LocalStore, "get", counting)
    monkeypatch.setattr(codec, "_contexts", [])
    monkeypatch.setattr(
        zstandard, "ZstdDecompressor", lambda **options: CountingDecompressor(counts, decompressor(**options))
    )
    return counts


@contextlib.contextmanager
def served(lab: Lab) -> t.Iterator[ServedSaveset]:
    """The saveset opened anew, with its map and its pack open, and nothing of its first block's chunk but that."""
    saveset = ServedSaveset(lab.open().find("fs1/m"), readahead=True)
    saveset.read_into(saveset.size - 1, bytearray(1))
    try:
        yield saveset
    finally:
        saveset.close()


def block(saveset: ServedSaveset, offset: int) -> bytes:
    buffer = bytearray(BLOCK)
    saveset.read_into(offset, buffer)
    return bytes(buffer)


def rows(lab: Lab) -> list[Row]:
    """What all packs hold."""
    found: list[Row] = []
    ring = lab.open()._ring
    for path in lab.files("packs"):
        pack = Container(lab.store(), str(path.relative_to(lab.path)), PACK_KIND, ring)
        found += PackFooter(pack.footer()).rows()
    return found


# -- a read of one block


@pytest.mark.parametrize("offset", [0, CHUNK - BLOCK, CHUNK, 3 * CHUNK + 8 * KIB, 4 * MIB, 5 * MIB - BLOCK])
def test_a_cold_block_costs_its_chunk(lab: Lab, image: Path, counts: Counts, offset: int) -> None:
    """No more than a chunk is read and decompressed."""
    lab.backup(image)
    with served(lab) as saveset:
        counts.reset()
        assert block(saveset, offset) == image.read_bytes()[offset : offset + BLOCK]
        assert BLOCK < counts.read <= CHUNK + OVERHEAD and counts.reads == 1
        assert counts.decompressed == (CHUNK if offset < 4 * MIB else 0)


@pytest.mark.parametrize("place", range(4))
def test_a_cold_block_of_an_older_backup_costs_what_precedes_it(
    lab: Lab, image: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Frames of several chunks are decompressed up to the end of the chunk, and stay compressed behind it."""
    monkeypatch.setattr(backup, "FRAME_BYTES", OLD_FRAME)
    lab.backup(image)
    offset = MIB + place * CHUNK
    with served(lab) as saveset:
        counts.reset()
        assert block(saveset, offset) == image.read_bytes()[offset : offset + BLOCK]
        assert counts.decompressed == (place + 1) * CHUNK


def test_reading_on_in_a_frame_decompresses_it_once_more_at_most(
    lab: Lab, image: Path, counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "FRAME_BYTES", OLD_FRAME)
    lab.backup(image)
    saveset = ServedSaveset(lab.open().find("fs1/m"), readahead=False)
    saveset.read_into(saveset.size - 1, bytearray(1))
    counts.reset()
    read = b"".join(block(saveset, offset) for offset in range(0, OLD_FRAME, BLOCK))
    assert read == image.read_bytes()[:OLD_FRAME]
    assert counts.reads == 1 and counts.decompressed == CHUNK + OLD_FRAME
    saveset.close()


# -- how frames are cut


def test_a_frame_has_one_chunk_and_its_neighbour_follows(lab: Lab, image: Path) -> None:
    lab.backup(image, workers=1)
    found = sorted(rows(lab), key=lambda row: row.chunk)
    assert [row.chunk for row in found] == list(range(8 * MIB // CHUNK))
    assert all(row.place == 0 for row in found) and len({row.offset for row in found}) == len(found)
    assert all(next_.offset == row.offset + row.length for row, next_ in zip(found, found[1:], strict=False))


def test_the_compact_level_still_has_large_frames(lab: Lab, image: Path) -> None:
    lab.backup(image, level=3, workers=1)
    assert [row.place for row in sorted(rows(lab), key=lambda row: row.chunk)] == [*range(16), *range(16)]


@pytest.mark.parametrize("level", [1, 3])
def test_frames_of_any_cut_restore(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch, make_image: MakeImage, level: int
) -> None:
    """Old frames and new ones in one saveset, with an odd end, and chunks of the old ones elsewhere in the volume."""
    monkeypatch.setattr(backup, "FRAME_BYTES", OLD_FRAME)
    lab.backup(image)
    monkeypatch.undo()
    content = image.read_bytes()
    later = make_image(
        "later",
        9 * MIB + 777,
        [(0, content[CHUNK : 3 * CHUNK]), (3 * CHUNK, content[: 7 * MIB]), (8 * MIB, noise(MIB))],
    )
    saveset = lab.backup(later, level=level)
    assert filecmp.cmp(lab.restore(saveset), later, shallow=False)
    assert saveset.read(0, saveset.size) == later.read_bytes()
    assert lab.open().verify(depth="full").ok


# -- reading in order


def test_neighbouring_frames_are_read_at_once(lab: Lab, image: Path, counts: Counts) -> None:
    saveset = lab.backup(image, workers=1)
    counts.reset()
    assert filecmp.cmp(lab.restore(saveset), image, shallow=False)
    stored = saveset.stats.bytes_stored
    assert stored <= counts.read < stored + 16 * KIB
    assert counts.reads <= 12  # of 32 frames: header and trailer, one for the text, and one for each MiB of noise


def spoil(lab: Lab, chunk: int) -> None:
    """Flip a bit in the body of a chunk's frame."""
    (pack,) = lab.files("packs")
    row = next(row for row in rows(lab) if row.chunk == chunk)
    data = bytearray(pack.read_bytes())
    data[row.offset + row.length - 100] ^= 1
    pack.write_bytes(data)


def test_damage_among_neighbours_is_told_of_its_own_chunk(lab: Lab, image: Path) -> None:
    """Frames before the damaged one that were read together with it are restored."""
    saveset = lab.backup(image, workers=1)
    spoil(lab, 2)
    page, reader = saveset.map.page(0), saveset.reader
    lengths, room = [CHUNK] * 4, memoryview(bytearray(4 * CHUNK))
    assert reader.fill(page, 0, lengths, room) == 2
    assert room[: 2 * CHUNK] == image.read_bytes()[: 2 * CHUNK]
    with pytest.raises(errors.Damaged, match="its frame at offset"):
        reader.fill(page, 2, lengths[2:], room)
    with pytest.raises(errors.Damaged, match=f"from offset {2 * CHUNK}, which were not written"):
        lab.restore(saveset)
    assert reader.fill(page, 3, [CHUNK], room) == 1


def test_a_neighbour_that_cannot_be_read_spares_the_others(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saveset = lab.backup(image, workers=1)
    page, reader = saveset.map.page(0), saveset.reader
    bad = page.entry(1)
    get = LocalStore.get

    def failing(self: LocalStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("packs/") and offset <= bad.offset < offset + (length or 0):
            raise errors.StoreError(name, "Input/output error", "Check the disk")
        return get(self, name, offset, length)

    monkeypatch.setattr(LocalStore, "get", failing)
    room = memoryview(bytearray(4 * CHUNK))
    assert reader.fill(page, 0, [CHUNK] * 4, room) == 1
    with pytest.raises(errors.StoreError):
        reader.fill(page, 1, [CHUNK] * 3, room)
    assert reader.fill(page, 2, [CHUNK] * 2, room) == 2
    assert room[: 2 * CHUNK] == image.read_bytes()[2 * CHUNK : 4 * CHUNK]


# -- decompressing in part


@pytest.mark.parametrize("end", [1, CHUNK, 300_000, MIB - 1, MIB])
@pytest.mark.parametrize("plain", [text(MIB), noise(MIB)], ids=["zstd", "raw"])
def test_the_beginning_of_a_body(plain: bytes, end: int) -> None:
    kind, packed = codec.Compressor(1).compress(plain)
    assert codec.decompress_first(kind, packed, MIB, end) == plain[:end]


def test_what_is_no_beginning_of_a_body() -> None:
    plain = text(MIB)
    _codec, packed = codec.Compressor(1).compress(plain)
    assert codec.decompress_first(codec.ZSTD, packed, MIB + 1, CHUNK) is None  # the length is in zstd's header
    assert codec.decompress_first(codec.ZSTD, packed[:100], MIB, CHUNK) is None
    assert codec.decompress_first(codec.ZSTD, packed[:-1], MIB, MIB) is None
    assert codec.decompress_first(codec.ZSTD, packed + b"x", MIB, CHUNK) == plain[:CHUNK]
    assert codec.decompress_first(codec.ZSTD, b"no zstd", MIB, CHUNK) is None
    assert codec.decompress_first(codec.RAW, plain, MIB + 1, CHUNK) is None
    assert codec.decompress_first(7, packed, MIB, CHUNK) is None

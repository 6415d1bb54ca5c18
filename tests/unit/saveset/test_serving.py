# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a served saveset fast: what is kept, what is made once, what is read ahead."""

from __future__ import annotations

import concurrent.futures
import random
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.recent import Recent
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.container import Container
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import tls
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve import serving
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve.readahead import ReadAhead
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve.serving import ServedSaveset

from .conftest import KIB, MIB, Lab, MakeImage, noise, text

CHUNK = 64 * KIB


# -- what is kept


def test_the_values_used_last_are_kept() -> None:
    recent: Recent[int, bytes] = Recent(10, len)
    made: list[int] = []

    def get(key: int, size: int = 4) -> bytes:
        return recent.get(key, lambda: made.append(key) or bytes([key]) * size)

    assert [get(1), get(2), get(1), get(3)] == [b"\1" * 4, b"\2" * 4, b"\1" * 4, b"\3" * 4]
    assert made == [1, 2, 3] and 1 in recent and 2 not in recent and 3 in recent
    get(4, 11)
    assert 4 in recent and 1 not in recent  # one is kept, however large
    recent.keep(5, bytes(3))
    recent.keep(5, bytes(4))
    recent.keep(6, bytes(6))
    assert 5 in recent and 6 in recent and 4 not in recent


def test_what_many_want_is_made_once() -> None:
    recent: Recent[str, bytes] = Recent(100, len)
    made: list[int] = []
    everybody = threading.Barrier(8)

    def make() -> bytes:
        made.append(1)
        time.sleep(0.05)
        return b"value"

    def want() -> bytes:
        everybody.wait()
        return recent.get("key", make)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [work.result() for work in [pool.submit(want) for _number in range(8)]] == [b"value"] * 8
    assert made == [1]


def test_an_error_is_told_to_all_who_wait_and_not_kept() -> None:
    recent: Recent[str, bytes] = Recent(100, len)
    both = threading.Barrier(2)

    def fail() -> bytes:
        time.sleep(0.05)
        raise ValueError("no")

    def want() -> bytes:
        both.wait()
        return recent.get("key", fail)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for work in [pool.submit(want) for _number in range(2)]:
            with pytest.raises(ValueError, match="no"):
                work.result()
    assert "key" not in recent and recent.get("key", lambda: b"yes") == b"yes"


# -- what is read ahead


def read_ahead(ahead: ReadAhead, chunks: t.Iterable[int]) -> set[int]:
    """What is read ahead while these are read."""
    found: set[int] = set()
    for chunk in chunks:
        found.update(ahead.touched(chunk))
    return found


def test_a_reader_in_order_finds_all_but_the_first_two_read_ahead() -> None:
    ahead = ReadAhead(1000, 32)
    ready: set[int] = set()
    for chunk in range(1000):
        assert chunk in ready or chunk < 2
        for _request in range(4):  # several requests a chunk
            more = set(ahead.touched(chunk))
            assert not more & ready and all(chunk < number <= chunk + 32 for number in more)
            ready |= more
    assert ready == set(range(2, 1000))


def test_requests_of_one_reader_come_in_any_order() -> None:
    ahead, generator = ReadAhead(4000, 32), random.Random(3)
    order = sorted(range(4000), key=lambda chunk: chunk + generator.uniform(0, 6))
    ready: set[int] = set()
    missed = 0
    for chunk in order:
        missed += chunk not in ready
        ready.update(ahead.touched(chunk))
    assert missed < 20


def test_several_readers_in_order() -> None:
    ahead = ReadAhead(100_000, 32)
    ready = read_ahead(ahead, (base + step for step in range(200) for base in (0, 30_000, 60_000, 90_000)))
    for base in (0, 30_000, 60_000, 90_000):
        assert set(range(base + 2, base + 200)) <= ready


def test_random_reads_have_nothing_read_ahead() -> None:
    generator = random.Random(7)
    ready = read_ahead(ReadAhead(100_000, 32), (generator.randrange(100_000) for _number in range(3000)))
    assert len(ready) < 100


# -- both together


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    """Text, noise, zeros, holes, an odd end."""
    return make_image(
        "served",
        24 * MIB + 777,
        [(0, noise(8 * MIB)), (9 * MIB, bytes(MIB)), (12 * MIB, text(9 * MIB)), (23 * MIB, b"x")],
    )


@pytest.fixture
def served(lab: Lab, image: Path) -> t.Iterator[ServedSaveset]:
    """A saveset with chunks that are whole and in pieces."""
    lab.backup(image, source_id="a")
    found = ServedSaveset(lab.backup(image), readahead=True)
    yield found
    found.close()


def test_any_range(served: ServedSaveset, image: Path) -> None:
    expected, generator = image.read_bytes(), random.Random(9)

    def read(offset: int, length: int) -> bool:
        buffer = bytearray(b"\xff" * length)
        served.read_into(offset, buffer)
        return buffer == expected[offset : offset + length]

    sizes = (1, 4096, 70_000, MIB)
    ranges = [(generator.randrange(len(expected) - 1), generator.choice(sizes)) for _number in range(300)]
    ranges += [(offset, 128 * KIB) for offset in range(0, len(expected), 128 * KIB)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda item: read(item[0], min(item[1], len(expected) - item[0])), ranges))


def test_a_frame_is_unpacked_once(served: ServedSaveset, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in order by many small requests from several threads, no frame is read twice."""
    read: list[tuple[str, int]] = []
    get = Container.read

    def counting(self: Container, offset: int, length: int) -> memoryview:
        if self.name.startswith("packs"):
            read.append((self.name, offset))
        return get(self, offset, length)

    monkeypatch.setattr(Container, "read", counting)
    size = image.stat().st_size

    def request(offset: int) -> None:
        served.read_into(offset, bytearray(min(16 * KIB, size - offset)))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(request, range(0, size, 16 * KIB)))
    assert len(read) == len(set(read)) > 10


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 512])
def test_large_requests_are_unpacked_to_where_they_are_wanted(served: ServedSaveset, image: Path, size: int) -> None:
    """Whole frames are not kept, the parts of those at a request's ends are."""
    expected = image.read_bytes()
    for offset in range(0, len(expected), size):
        buffer = bytearray(b"\xff" * min(size, len(expected) - offset))
        served.read_into(offset, buffer)
        assert buffer == expected[offset : offset + len(buffer)]
    assert served._kept._size < len(expected) // 2


def test_memory_is_bounded(served: ServedSaveset, monkeypatch: pytest.MonkeyPatch, lab: Lab, image: Path) -> None:
    monkeypatch.setattr(serving, "KEPT_BYTES", MIB)
    small = ServedSaveset(lab.open().find("fs1/m"), readahead=False)
    for offset in range(0, small.size - CHUNK, CHUNK):
        small.read_into(offset, bytearray(CHUNK))
    assert small._kept._size <= MIB and small._kept._size == sum(len(kept) for kept in small._kept._kept.values())
    small.close()


def test_what_a_client_announces_is_there_when_asked_for(served: ServedSaveset) -> None:
    served.prepare(2 * MIB, MIB)
    deadline = time.monotonic() + 10
    wanted = range(2 * MIB // CHUNK, 3 * MIB // CHUNK)
    while not all(number in served._kept for number in wanted):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_damage_that_is_read_ahead_is_told_to_whoever_reads_it(served: ServedSaveset, lab: Lab, image: Path) -> None:
    pack = max(lab.files("packs"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    expected, bad = image.read_bytes(), 0
    for offset in range(0, served.size, CHUNK):
        buffer = bytearray(min(CHUNK, served.size - offset))
        try:
            served.read_into(offset, buffer)
            assert buffer == expected[offset : offset + len(buffer)]
        except errors.Damaged:
            bad += 1
    assert 0 < bad <= MIB // CHUNK


# -- the cipher


def test_a_site_that_has_settings_of_its_own_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tls"
    monkeypatch.setattr(tls, "_SITES", (str(tmp_path / "site"),))
    monkeypatch.setattr(tls, "_has_aes", lambda: True)
    monkeypatch.delenv(tls.VARIABLE, raising=False)
    assert tls.prefer_aes(str(path)) == {tls.VARIABLE: str(path)} and "chacha20" in path.read_text()
    path.unlink()
    monkeypatch.setattr(tls, "_has_aes", lambda: False)
    assert tls.prefer_aes(str(path)) == {} and not path.exists()
    monkeypatch.setattr(tls, "_has_aes", lambda: True)
    (tmp_path / "site").touch()
    assert tls.prefer_aes(str(path)) == {} and not path.exists()
    (tmp_path / "site").unlink()
    monkeypatch.setenv(tls.VARIABLE, "/etc/own")
    assert tls.prefer_aes(str(path)) == {} and not path.exists()

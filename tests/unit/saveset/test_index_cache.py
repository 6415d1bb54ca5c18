# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups with an index in a cache folder: they name what backups without one name, and never what is gone."""

from __future__ import annotations

import filecmp
import gc
import os
import random
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup import index as index_module
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.index import ChunkIndex
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions, PruneReport
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.punched import PunchedPacks, Ranges
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.tombstone import (
    Tombstone,
    Withheld,
    new_name,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.container import PACK_KIND, Container
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import PLACE, PackFooter
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known import chunks
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore

from .conftest import KIB, MIB, NOON, Lab, MakeImage, noise, write

DATA = 2


class Reads(LocalStore):
    """A store that keeps the names of packs that are read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.packs: set[str] = set()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("packs/"):
            self.packs.add(name)
        return super().get(name, offset, length)


def index_of(lab: Lab, cache: Path | None, withheld: Withheld | None = None) -> ChunkIndex:
    """The index of a backup that begins now, without warnings."""

    def fail(text: str) -> None:
        raise AssertionError(text)

    store = Reads(str(lab.path))
    index = ChunkIndex(store, lab.open()._ring, withheld or Withheld(), str(cache) if cache else None, fail)
    index.load()
    return index


def reads_of(index: ChunkIndex) -> set[str]:
    """The packs that an index has read."""
    assert isinstance(index._store, Reads)
    return index._store.packs


def prune(lab: Lab) -> PruneReport:
    """Keep the latest saveset of each volume, and free every dead frame."""
    options = PruneOptions(threshold=0, everywhere=True, max_percent=100)
    return lab.open().prune(Policy(last=1, consistent=False), options=options)


def footers(lab: Lab) -> dict[str, PackFooter | None]:
    """The footers of all packs; None if one cannot be read."""
    found: dict[str, PackFooter | None] = {}
    ring = lab.open()._ring
    for name in lab.store().list("packs"):
        try:
            found[name] = PackFooter(Container(lab.store(), name, PACK_KIND, ring).footer())
        except errors.Damaged:
            found[name] = None
    return found


def usable(lab: Lab, withheld: Withheld) -> dict[bytes, set[bytes]]:
    """Where new maps may find each chunk: a dictionary made from what is in the repository."""
    found: dict[bytes, set[bytes]] = {}
    punched = PunchedPacks(lab.store(), lab.open()._ring)
    for name, footer in footers(lab).items():
        pack = bytes.fromhex(name[-32:])
        for row in footer.rows() if footer and pack not in withheld.packs else ():
            if row.kind != DATA or row.offset in withheld.frames(pack) or row.offset in punched.ranges(pack):
                continue
            place = PLACE.pack(pack, row.offset, row.length, row.place, row.kind)
            found.setdefault(row.identity, set()).add(place)
    return found


def check(index: ChunkIndex, expected: t.Mapping[bytes, set[bytes]], all_identities: t.Iterable[bytes]) -> None:
    """That each chunk is found at one of its places, or not if it has none."""
    for identity in all_identities:
        place = index.find(identity)
        assert (place in expected[identity]) if identity in expected else place is None


@pytest.mark.parametrize("seed", range(4))
def test_the_same_as_without_a_cache(tmp_path: Path, make_image: MakeImage, seed: int) -> None:
    """Backups, prunes that remove packs and punch frames, tombstones, and damaged packs, in any order."""
    generator = random.Random(seed)
    lab = Lab(tmp_path, chunk_size=4 * KIB)
    cache = tmp_path / "cache"
    image = make_image("image", MIB, [(0, noise(MIB, seed))])
    seen: set[bytes] = set()
    for _backup in range(8):
        for _change in range(generator.randrange(4)):
            write(image, generator.randrange(240) * 4 * KIB, generator.randbytes(64 * KIB))
        volume = generator.choice(["fs1/m", "fs2/m"])
        lab.backup(image, volume=volume, pack_bytes=generator.choice([128, 512]) * KIB, cache_dir=str(cache))
        packs = lab.store().list("packs")
        what = generator.choice(["prune", "damage", "remove", "withhold", "nothing"])
        withheld = Withheld()
        if what == "prune":
            prune(lab)
        elif what == "damage":
            path = lab.path / generator.choice(packs)
            data = bytearray(path.read_bytes())
            data[generator.randrange(-150, -50)] ^= 1
            path.write_bytes(data)
        elif what == "remove":
            (lab.path / generator.choice(packs)).unlink()
        elif what == "withhold":
            some = {bytes.fromhex(name[-32:]): footer for name, footer in footers(lab).items() if footer}
            whole = generator.choice(sorted(some))
            parts = {
                pack: [next(footer.rows())[1:3]]
                for pack, footer in some.items()
                if pack != whole and generator.random() < 0.5 and footer.raw_rows
            }
            withheld = Withheld(
                [Tombstone(new_name(), frozenset([whole]), frames={pack: Ranges(each) for pack, each in parts.items()})]
            )
        expected = usable(lab, withheld)
        seen |= expected.keys()
        for folder in (cache, None):
            check(index_of(lab, folder, withheld), expected, [*seen, bytes(32)])
    last = lab.backup(image, volume="fs3/m", cache_dir=str(cache))
    assert filecmp.cmp(image, lab.restore(last), shallow=False)


def test_a_backup_leaves_no_table_open(lab: Lab, make_image: MakeImage, tmp_path: Path) -> None:
    """A process may make many backups, and the garbage collector may come late."""
    cache = tmp_path / "cache"
    lab.backup(make_image("one", 2 * MIB, [(0, noise(2 * MIB, 1))]), cache_dir=str(cache))
    gc.collect()
    gc.disable()
    try:
        lab.backup(make_image("two", 2 * MIB, [(0, noise(2 * MIB, 2))]), volume="fs2/m", cache_dir=str(cache))
        links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    finally:
        gc.enable()
    assert list(cache.iterdir()) and not [link for link in links if link.startswith(str(cache))]


def test_what_was_punched_since_is_not_named(lab: Lab, make_image: MakeImage, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    image = make_image("image", 8 * MIB, [(0, noise(8 * MIB))])
    lab.backup(image, cache_dir=str(cache))
    before = usable(lab, Withheld())
    check(index_of(lab, cache), before, before)
    write(image, 2 * MIB, noise(4 * MIB, 2))
    lab.backup(image, cache_dir=str(cache))
    prune(lab)
    after = usable(lab, Withheld())
    assert lab.files("gc/punched") and len(before.keys() - after.keys()) == 64
    check(index_of(lab, cache), after, [*before, *after])


def test_one_more_pack_costs_one_footer(lab: Lab, make_image: MakeImage, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    image = make_image("image", 8 * MIB, [(0, noise(8 * MIB))])
    lab.backup(image, pack_bytes=512 * KIB, cache_dir=str(cache))
    first = index_of(lab, cache)
    assert len(reads_of(first)) == len(lab.files("packs")) > 6
    assert reads_of(index_of(lab, cache)) == set()
    write(image, 0, noise(64 * KIB, 7))
    before = set(lab.store().list("packs"))
    lab.backup(image, volume="fs2/m", cache_dir=str(cache))
    (new,) = set(lab.store().list("packs")) - before
    later = index_of(lab, cache)
    assert reads_of(later) == {new}
    assert len(later) == len(first) + 1
    assert reads_of(index_of(lab, None)) == before | {new}


def test_a_pack_is_read_once_before_it_is_named(lab: Lab, mixed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    lab.backup(mixed, cache_dir=str(cache))
    index_of(lab, cache)
    (pack,) = lab.files("packs")
    identities = [row.identity for footer in footers(lab).values() if footer for row in footer.rows()]
    index = index_of(lab, cache)
    assert reads_of(index) == set()
    assert all(index.find(identity) for identity in identities)
    assert reads_of(index) == {f"packs/{pack.parent.name}/{pack.name}"}
    index = index_of(lab, cache)
    pack.unlink()  # after the packs were listed
    assert not any(index.find(identity) for identity in identities)
    assert [name for name, _cause in index.damaged] == [f"packs/{pack.parent.name}/{pack.name}"]


def test_another_pack_in_place_of_a_known_one(lab: Lab, make_image: MakeImage, tmp_path: Path) -> None:
    """What the cache has been told of a pack is not believed of another one with its name."""
    cache = tmp_path / "cache"
    image = make_image("image", 2 * MIB, [(0, noise(2 * MIB))])
    lab.backup(image, pack_bytes=MIB, cache_dir=str(cache))
    index_of(lab, cache)
    one, other, *_rest = lab.files("packs")
    shutil.copyfile(other, one)
    saveset = lab.backup(image, volume="fs2/m", cache_dir=str(cache))
    assert saveset.stats.bytes_new > 0
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)


@pytest.mark.parametrize("content", ["rubbish", "another repository's", "older", "link"])
def test_a_backup_with_a_hostile_cache(lab: Lab, mixed: Path, tmp_path: Path, content: str) -> None:
    cache = tmp_path / "cache"
    lab.backup(mixed, cache_dir=str(cache))
    index_of(lab, cache)
    (path,) = cache.glob("*/*.table")
    if content == "rubbish":
        path.write_bytes(os.urandom(path.stat().st_size))
    elif content == "another repository's":
        (tmp_path / "other").mkdir()
        other = Lab(tmp_path / "other")
        other.backup(mixed)
        index_of(other, tmp_path / "other cache")
        (theirs,) = (tmp_path / "other cache").glob("*/*.table")
        shutil.copyfile(theirs, path)
    elif content == "older":
        (lab.path / lab.store().list("packs")[0]).unlink()
    else:
        path.rename(tmp_path / "table")
        path.symlink_to(tmp_path / "table")
    lab.backup(mixed, volume="fs1/m", parent=None, cache_dir=str(cache))
    saveset = lab.backup(mixed, volume="fs2/m", cache_dir=str(cache))
    assert saveset.stats.bytes_new == 0
    assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)
    assert [problem for problem in lab.open().verify(depth="full").problems if problem["saveset"] == saveset.id] == []


def test_a_backup_without_a_usable_cache_warns_and_goes_on(lab: Lab, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    first = lab.backup(mixed)
    repo = lab.open()
    with source.open_source(str(mixed)) as opened:
        request = BackupRequest(
            volume="fs2/m", run_id="x", time=NOON, verdict="x", cache_dir=str(tmp_path / "file" / "cache")
        )
        saveset = repo.backup(opened, request)
    assert saveset.stats.bytes_known == first.stats.bytes_new and saveset.stats.bytes_new == 0
    (warning,) = repo.warnings
    assert "Not a directory" in warning and "cache_dir" in warning


def test_an_interrupted_backup_is_resumed_although_another_has_cached_its_packs(
    lab: Lab, make_image: MakeImage, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    image = make_image("image", 8 * MIB, [(0, noise(8 * MIB))])
    other = make_image("other", MIB, [(0, noise(MIB, 2))])
    stopped = []

    def stop(now: t.Any) -> None:
        if len(lab.files("packs")) > 6:
            stopped.append(now)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lab.backup(image, source_id="s", pack_bytes=512 * KIB, rate_limit=6 * MIB, progress=stop, cache_dir=str(cache))
    stored = len(lab.files("packs"))
    lab.backup(other, volume="fs2/m", cache_dir=str(cache))
    assert reads_of(index_of(lab, cache)) != set(lab.store().list("packs"))
    saveset = lab.backup(image, source_id="s", cache_dir=str(cache))
    assert saveset.info.origin["resumed"]
    assert saveset.stats.bytes_read <= 8 * MIB - (stored - 1) * 256 * KIB  # a second chunk of noise does not fit
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)


def test_the_index_of_a_long_run_leaves_memory(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_YOUNG_MAX", 100)
    monkeypatch.setattr(chunks, "_HEAP_MAX", 300)
    lab = Lab(tmp_path, chunk_size=4 * KIB)
    cache = tmp_path / "cache"
    image = make_image("twice", 16 * MIB, [(0, noise(8 * MIB)), (8 * MIB, noise(8 * MIB))])
    saveset = lab.backup(image, pack_bytes=512 * KIB, cache_dir=str(cache))
    assert saveset.stats.bytes_new == saveset.stats.bytes_known == 8 * MIB
    assert list(cache.glob("*/*.table"))
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)
    assert len(reads_of(index_of(lab, cache))) < len(lab.files("packs"))


def test_nothing_of_the_key_or_of_the_content_is_in_the_cache(tmp_path: Path, make_image: MakeImage) -> None:
    lab = Lab(tmp_path)
    cache = tmp_path / "cache"
    line = b"a patient's name, in clear. "
    image = make_image("clear", MIB, [(0, line * (MIB // len(line)))])
    lab.backup(image, volume="secretserver/m", cache_dir=str(cache))
    index = index_of(lab, cache)
    ring = index._ring
    assert ring.master is not None
    whole = b"".join(path.read_bytes() for path in cache.rglob("*") if path.is_file())
    assert len(whole) > 64
    for secret in (ring.master, ring.writer_keys.writer, ring.identity_key, ring._mac_key, line, b"secretserver"):
        assert secret not in whole


MEMORY = """
import os, sys
sys.path.insert(0, sys.argv[1])
from saveset.format.footer import ROW, PackFooter
from saveset.keys.keys import KeyRing
from saveset.known.cache import CacheFolder
from saveset.known.chunks import KnownChunks
from saveset.known.heap import Heap

PACKS, CHUNKS = int(sys.argv[3]), 8192
tail = [ROW.pack(bytes(32), number * 1000, 1000, 0, 2, number, 0)[32:] for number in range(CHUNKS)]
names = [f"packs/{number:02x}/{number:032x}" for number in range(PACKS)]

def footer(name):
    identities = os.urandom(32 * CHUNKS)
    rows = (identities[32 * number : 32 * number + 32] + tail[number] for number in range(CHUNKS))
    return PackFooter(bytes(32) + b"".join(rows))

def anonymous():
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if line.startswith("RssAnon"))

ring = KeyRing("ab" * 16, b"m" * 32)
known = KnownChunks(CacheFolder(sys.argv[2], ring) if sys.argv[2] else None, lambda: names, footer, sys.exit)
footer(names[0])
before = anonymous()
known.load()
for _look_up in range(2000):
    assert not list(known.find(os.urandom(32)))
print(len(known), anonymous() - before)
"""


def _memory(scratch_environment: dict[str, str], cache: Path | str, packs: int) -> int:
    """How much more memory a process has once it knows the chunks of so many packs."""
    path = scratch_environment["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, path, str(cache), str(packs)], capture_output=True, text=True, check=True
    )
    known, grown = map(int, done.stdout.split())
    assert known == packs * 8192
    return grown


def test_memory_does_not_grow_with_the_repository(scratch_environment: dict[str, str], tmp_path: Path) -> None:
    """Two million chunks take 108 MB in memory."""
    packs = 244
    _memory(scratch_environment, tmp_path, packs)
    assert _memory(scratch_environment, tmp_path, packs) < 8 * MIB
    assert _memory(scratch_environment, "", 61) > 20 * MIB  # a quarter of them, without a cache

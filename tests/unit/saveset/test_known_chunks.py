# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The index in a cache folder: the same answers as from the footers, whatever happens to the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import subprocess
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known import cache, chunks
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.table import Table
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.beneath import Beneath

from .known import RING, Packs, load, tables


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are merged, batches full and packs gone after a few chunks, as with millions."""
    monkeypatch.setattr(chunks, "_SMALL", 16)
    monkeypatch.setattr(chunks, "_BATCH", 64)
    monkeypatch.setattr(chunks, "_GROWTH", 3)
    monkeypatch.setattr(chunks, "_UNMERGED_MAX", 4)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_answers_as_from_the_footers(tmp_path: Path, seed: int) -> None:
    """Packs are added, removed and damaged between backups; what was known once is not read again."""
    packs = Packs(seed)
    generator = random.Random(seed)
    read_once: set[str] = set()
    for _backup in range(15):
        for _pack in range(generator.choice([0, 1, 1, 2, 9])):
            packs.add(generator.choice([0, 1, 10, 60, 150]))
        sound = [name for name, footer in packs.footers.items() if footer]
        if sound and generator.random() < 0.4:
            del packs.footers[generator.choice(sound)]
        if sound and generator.random() < 0.2:
            unread = [name for name in packs.names() if name not in read_once]
            if unread:
                packs.footers[generator.choice(unread)] = None
        packs.reads.clear()
        known, warnings = load(packs, tmp_path)
        assert warnings == []
        packs.check(known)
        expected = {name for name in packs.names() if name not in read_once}
        assert sorted(packs.reads) == sorted(expected)
        read_once |= {name for name in expected if packs.footers[name]}
        assert len(tables(tmp_path)) <= 8
        assert sum(table.stat().st_size for table in tables(tmp_path)) < 4096 + 3 * 80 * len(packs.identities)


def test_memory_alone_says_the_same(tmp_path: Path) -> None:
    packs = Packs(1)
    for size in (100, 0, 50):
        packs.add(size)
    known, warnings = load(packs, None)
    packs.check(known)
    assert warnings == [] and list(tmp_path.iterdir()) == []


def test_the_folder_belongs_to_its_user_alone(tmp_path: Path) -> None:
    packs = Packs(1)
    packs.add(100)
    load(packs, tmp_path / "made" / "cache")
    folder = tmp_path / "made" / "cache"
    for path in (folder, folder / RING.repository_id):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (folder / RING.repository_id).iterdir():
        assert path.stat().st_mode & 0o777 == 0o600


def test_tables_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many small additions, each chunk is written again a few times only."""
    written = []
    real = cache.CacheFolder.add

    def add(folder: cache.CacheFolder, content: t.Any) -> Table:
        table = real(folder, content)
        written.append(table.entries)
        return table

    monkeypatch.setattr(cache.CacheFolder, "add", add)
    packs = Packs(3)
    for _backup in range(120):
        packs.add(20)
        known, _warnings = load(packs, tmp_path)
        sizes = sorted((table.entries for table in known._tables), reverse=True)
        assert len(sizes) <= 6
        for number, size in enumerate(sizes[:-1]):
            assert size >= 3 * sum(sizes[number + 1 :])
    packs.check(known)
    assert sum(written) < 12 * len(packs.identities)


def _damage(path: Path, how: str, outside: Path) -> None:
    data = path.read_bytes()
    if how == "flipped":
        path.write_bytes(bytes(byte ^ 1 for byte in data))
    elif how == "flipped entries":
        path.write_bytes(bytes(byte ^ 1 for byte in data[: len(data) // 2]) + data[len(data) // 2 :])
    elif how == "zeros":
        path.write_bytes(bytes(len(data)))
    elif how == "shortened":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if how == "link":
            outside.write_bytes(data)
            path.symlink_to(outside)
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()


REPLACED = ["link", "pipe", "folder", "missing"]
DAMAGES = ["flipped", "flipped entries", "zeros", "shortened", "empty", *REPLACED]


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("when", ["before", "while it is open"])
def test_a_damaged_table_is_made_again(tmp_path: Path, how: str, when: str) -> None:
    packs = Packs(4)
    packs.add(100)
    folder = tmp_path / "cache"
    known, warnings = load(packs, folder)
    (path,) = tables(folder)
    _damage(path, how, tmp_path / "outside")
    if when == "while it is open":
        packs.check(known)
        if how in REPLACED:
            assert warnings == []  # the open file is still what it was
    known, warnings_before = load(packs, folder)
    packs.check(known)
    warnings += warnings_before
    assert all("cannot be used" in text and str(folder) in text and "check the disk" in text for text in warnings)
    assert warnings or how in ("missing", "folder")
    packs.reads.clear()
    known, warnings = load(packs, folder)
    packs.check(known)
    assert warnings == [] and packs.reads == []
    if how == "link":
        assert (tmp_path / "outside").exists()


def test_a_table_of_another_repository_or_an_old_one_says_nothing(tmp_path: Path) -> None:
    packs, others = Packs(5), Packs(6)
    packs.add(100)
    others.add(80)
    load(packs, tmp_path)
    (old,) = tables(tmp_path)
    kept = old.read_bytes()
    removed = packs.names()[0]
    del packs.footers[removed]
    packs.add(60)
    known, _warnings = load(packs, tmp_path)
    (tmp_path / RING.repository_id / f"{'0' * 32}.table").write_bytes(kept)  # somebody puts it back
    known, warnings = load(packs, tmp_path)
    packs.check(known)
    assert warnings == []
    assert not any(
        place[:16].hex() == removed[-32:]
        for each in packs.identities
        for place in known.find(each)
        if place[:16] not in known.gone
    )


@pytest.mark.parametrize("what", ["cache", "repository", "lock"])
def test_a_link_in_the_place_of_a_folder_or_the_lock(tmp_path: Path, what: str) -> None:
    """The administrator may link the cache to another disk; nothing below it is followed."""
    packs = Packs(7)
    packs.add(50)
    outside, folder = tmp_path / "outside", tmp_path / "cache"
    outside.mkdir()
    if what == "cache":
        folder.symlink_to(outside)
    else:
        folder.mkdir()
        if what == "lock":
            (folder / RING.repository_id).mkdir()
        (folder / RING.repository_id / "lock" if what == "lock" else folder / RING.repository_id).symlink_to(outside)
    known, warnings = load(packs, folder)
    packs.check(known)
    if what == "cache":
        assert warnings == [] and tables(outside)
    else:
        assert len(warnings) == 1 and list(outside.iterdir()) == []


def _exit_at(step: int) -> None:
    """Have this process end without any cleaning up at the step-th thing that it does to files."""
    count = [0]

    def counted(real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any, **options: t.Any) -> t.Any:
            count[0] += 1
            if count[0] == step:
                os._exit(9)
            return real(*arguments, **options)

        return call

    for name in ("make", "make_folder", "rename", "unlink"):
        setattr(Beneath, name, counted(getattr(Beneath, name)))
    os.fsync = counted(os.fsync)
    real_write = cache.write

    def write(stream: t.BinaryIO, *arguments: t.Any) -> None:
        real_write(stream, *arguments)
        count[0] += 1
        if count[0] == step:
            stream.flush()
            stream.truncate(stream.tell() // 2)  # what has reached the disk so far
            os._exit(9)

    cache.write = write


def _in_child(work: t.Callable[[], object]) -> int:
    """The exit status of a process that does this."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_each_step_of_an_update(tmp_path: Path) -> None:
    packs = Packs(8)
    for size in (70, 70, 5, 30):
        packs.add(size)
    ended = 0
    for step in range(1, 200):
        folder = tmp_path / str(step)
        load(packs, folder)
        more = Packs(9)
        more.footers.update(packs.footers)
        more.identities += packs.identities
        for size in (65, 40, 66, 3):
            more.add(size)
        del more.footers[packs.names()[0]]

        def die(step: int = step, more: Packs = more, folder: Path = folder) -> None:
            _exit_at(step)
            load(more, folder)

        status = _in_child(die)
        if not status:
            break
        assert status == 9
        ended += 1
        known, warnings = load(more, folder)
        more.check(known)
        assert warnings == []
        left = {path.suffix for path in (folder / RING.repository_id).iterdir()}
        assert left <= {".table", ""}, "what was half written stays"
    assert ended > 8


def test_many_processes_update_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_POLL_S", 0.01)
    packs = Packs(10)
    for _pack in range(12):
        packs.add(60)
    children = []
    for number in range(4):
        child = os.fork()
        if not child:
            status = 1
            try:
                mine = Packs(100 + number)
                mine.footers.update(packs.footers)
                mine.identities += packs.identities
                for _round in range(3):
                    known, warnings = load(mine, tmp_path)
                    mine.check(known)
                    mine.add(50)
                    assert warnings == []
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    known, warnings = load(packs, tmp_path)
    packs.check(known)
    assert warnings == []


@contextlib.contextmanager
def locked(folder: Path) -> t.Iterator[None]:
    """Another process writes to the cache of the repository."""
    with open(folder / RING.repository_id / "lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def test_another_process_that_writes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_POLL_S", 0.01)
    packs = Packs(11)
    packs.add(60)
    load(packs, tmp_path)
    packs.add(60)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(tmp_path))
        threading.Timer(0.2, stack.pop_all().close).start()
        known, warnings = load(packs, tmp_path)
    packs.check(known)
    assert warnings == [] and len(known._heap) == 0


def test_what_another_process_has_written_meanwhile_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_POLL_S", 0.01)
    packs = Packs(25)
    packs.add(60)
    folder, theirs = tmp_path / "cache", tmp_path / "theirs"
    load(packs, folder)
    packs.add(60)
    load(packs, theirs)
    packs.reads.clear()
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(folder))
        release = stack.pop_all().close

        def finish() -> None:
            for path in tables(theirs):
                path.rename(folder / RING.repository_id / path.name)
            release()

        threading.Timer(0.2, finish).start()
        known, warnings = load(packs, folder)
    packs.check(known)
    assert packs.reads == [] and warnings == []


def test_one_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_WAIT_S", 0.05)
    monkeypatch.setattr(chunks, "_POLL_S", 0.01)
    packs = Packs(12)
    packs.add(60)
    load(packs, tmp_path)
    last = packs.add(60)
    packs.reads.clear()
    with locked(tmp_path):
        known, warnings = load(packs, tmp_path)
    packs.check(known)
    assert packs.reads == [last]  # what is there is used
    assert len(warnings) == 1 and "another process has been writing" in warnings[0] and "cache_dir" in warnings[0]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    packs = Packs(13)
    packs.add(60)
    (tmp_path / "file").write_text("")
    known, warnings = load(packs, tmp_path / "file" / "cache")
    packs.check(known)
    assert len(warnings) == 1
    assert f"{tmp_path}/file/cache" in warnings[0] and "Not a directory" in warnings[0] and "cache_dir" in warnings[0]


@pytest.fixture
def tmpfs(tmp_path: Path) -> t.Iterator[Path]:
    """A filesystem of 1 MiB."""
    folder = tmp_path / "tmpfs"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.root
def test_a_read_only_cache_is_read(tmpfs: Path) -> None:
    packs = Packs(14)
    packs.add(60)
    load(packs, tmpfs)
    last = packs.add(60)
    packs.reads.clear()
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    known, warnings = load(packs, tmpfs)
    packs.check(known)
    assert packs.reads == [last]
    assert len(warnings) == 1 and "Read-only file system" in warnings[0]
    del packs.footers[last]
    known, warnings = load(packs, tmpfs)
    packs.check(known)
    assert warnings == []  # nothing is to be written
    del known


@pytest.mark.root
def test_damage_in_a_read_only_cache(tmpfs: Path) -> None:
    packs = Packs(15)
    packs.add(60)
    load(packs, tmpfs)
    (path,) = tables(tmpfs)
    _damage(path, "flipped entries", tmpfs)
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    known, warnings = load(packs, tmpfs)
    packs.check(known)
    assert any("cannot be used" in text for text in warnings)
    assert any("Read-only file system" in text for text in warnings)
    assert len(known._heap) == len([place for places in packs.places().values() for place in places])
    del known


@pytest.mark.root
def test_a_full_disk_keeps_some_space_free(tmpfs: Path) -> None:
    packs = Packs(16)
    known, warnings = load(packs, tmpfs)
    for _pack in range(300):
        packs.add(60)
    known, warnings = load(packs, tmpfs)
    packs.check(known)
    assert len(warnings) == 1 and "must stay free" in warnings[0] and "free disk space" in warnings[0]
    status = os.statvfs(tmpfs)
    assert status.f_bavail * 20 >= status.f_blocks
    assert not list(tmpfs.rglob("*.tmp"))
    assert tables(tmpfs) and len(known._heap)
    del known


@pytest.mark.root
def test_a_disk_that_fills_up_while_a_table_is_written(tmpfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may take the space that was free."""
    monkeypatch.setattr(cache.CacheFolder, "_check_space", lambda *_arguments: None)
    packs = Packs(17)
    for _pack in range(400):
        packs.add(60)
    known, warnings = load(packs, tmpfs)
    packs.check(known)
    assert len(warnings) == 1 and "No space left on device" in warnings[0]
    assert not list(tmpfs.rglob("*.tmp"))
    del known


def test_without_space_for_all_the_smaller_ones_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = Packs(24)
    packs.add(300)
    load(packs, tmp_path)
    real = cache.CacheFolder._check_space

    def check_space(folder: cache.CacheFolder, length: int) -> None:
        real(folder, length if length < 300 * 64 else 1 << 60)

    monkeypatch.setattr(cache.CacheFolder, "_check_space", check_space)
    for _backup in range(20):
        packs.add(11)
        known, warnings = load(packs, tmp_path)
        packs.check(known)
        assert len(tables(tmp_path)) <= 5
    assert len(warnings) == 1 and "must stay free" in warnings[0]


def test_what_a_backup_adds_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_HEAP_MAX", 100)
    packs = Packs(18)
    packs.add(30)
    known, warnings = load(packs, tmp_path)
    for _pack in range(12):
        name = packs.add(40)
        footer = packs.footers[name]
        assert footer is not None
        known.add([(bytes.fromhex(name[-32:]), footer.raw_rows)])
        assert len(known._heap) <= 100
        packs.check(known)
    assert warnings == []
    packs.reads.clear()
    known, _warnings = load(packs, tmp_path)
    packs.check(known)
    assert len(packs.reads) < 4


def test_what_a_backup_adds_stays_in_memory_while_another_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "_HEAP_MAX", 10)
    packs = Packs(19)
    packs.add(30)
    known, warnings = load(packs, tmp_path)
    with locked(tmp_path):
        for _pack in range(3):
            name = packs.add(40)
            footer = packs.footers[name]
            assert footer is not None
            known.add([(bytes.fromhex(name[-32:]), footer.raw_rows)])
            packs.check(known)
    assert warnings == []


def test_what_others_have_added_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup that has listed the packs long ago brings the cache up to date once more."""
    monkeypatch.setattr(chunks, "_HEAP_MAX", 10)
    packs = Packs(20)
    packs.add(30)
    early, _warnings = load(packs, tmp_path)
    packs.add(70)
    load(packs, tmp_path)  # another backup
    name = packs.add(40)
    footer = packs.footers[name]
    assert footer is not None
    early.add([(bytes.fromhex(name[-32:]), footer.raw_rows)])
    packs.reads.clear()
    known, _warnings = load(packs, tmp_path)
    packs.check(known)
    packs.check(early)
    assert packs.reads == []


def test_threads_that_meet_the_same_damage(tmp_path: Path) -> None:
    packs = Packs(21)
    packs.add(200)
    known, warnings = load(packs, tmp_path)
    (path,) = tables(tmp_path)
    _damage(path, "flipped entries", tmp_path / "outside")
    failed: list[BaseException] = []

    def look() -> None:
        try:
            packs.check(known)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=look) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(warnings) == 1


def test_packs_of_a_session(tmp_path: Path) -> None:
    packs = Packs(22)
    session = b"s" * 32
    mine = {packs.add(10, session), packs.add(0, session)}
    packs.add(20)
    known, _warnings = load(packs, tmp_path)
    assert set(known.of_session(session)) == mine
    del packs.footers[min(mine)]
    known, _warnings = load(packs, tmp_path)
    assert set(known.of_session(session)) == mine - {min(mine)}


def test_files_that_are_no_tables_are_left_alone(tmp_path: Path) -> None:
    packs = Packs(23)
    packs.add(10)
    load(packs, tmp_path)
    (tmp_path / RING.repository_id / "notes").write_text("mine")
    packs.add(10)
    load(packs, tmp_path)
    assert (tmp_path / RING.repository_id / "notes").read_text() == "mine"


def test_the_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.default_folder() == "/somewhere/openisb"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert cache.default_folder() == "/var/cache/openisb"
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("HOME", "/home/somebody")
        assert cache.default_folder() == "/home/somebody/.cache/openisb"

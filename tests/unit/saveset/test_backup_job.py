# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several volumes backed up at once: each is as good as if it were alone, whatever happens to the others."""

from __future__ import annotations

import filecmp
import os
import signal
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.index import ChunkIndex
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.progress import (
    FAILED,
    FINISHED,
    RUNNING,
    VolumeProgress,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.punched import Ranges
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.tombstone import Tombstone, Withheld
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.source import FileSource
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.throttle import RateLimit
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub

from .conftest import ID, KIB, MIB, Lab, MakeImage, noise, text, write
from .stepping import SteppingStore

WAIT_S = 60.0
PART = 4 * MIB
ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"
BROKEN = errors.SourceError("the disk", "it broke", "Replace it")
FULL = errors.StoreFull("packs", "no room is left", "Add space")


class Watched(FileSource):
    """A file; ``on_read`` is called before each read with its offset, and may wait or raise."""

    def __init__(self, path: Path, on_read: t.Callable[[int], object]) -> None:
        super().__init__(str(path))
        self._on_read = on_read

    def read(self, offset: int, buffer: memoryview) -> None:
        self._on_read(offset)
        super().read(offset, buffer)


def breaks_at(path: Path, offset: int) -> Watched:
    """A source that fails from there on."""

    def check(at: int) -> None:
        if at >= offset:
            raise BROKEN

    return Watched(path, check)


class Gate:
    """Where a read waits until something has happened."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        if not self._open.wait(WAIT_S):
            raise AssertionError("what it waits for did not happen")

    def source(self, path: Path, offset: int) -> Watched:
        """A file that can be read from ``offset`` on only when the gate is open."""
        return Watched(path, lambda at: self.wait() if at >= offset else None)


def good(outcome: repository.Saveset | Exception) -> repository.Saveset:
    """A volume's saveset; its error is raised."""
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def assert_whole(lab: Lab, image: Path, outcome: repository.Saveset | Exception) -> None:
    """The saveset is there, and restores bit for bit."""
    saveset = lab.open().find(good(outcome).volume)
    assert saveset.id == good(outcome).id
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)


def assert_sound(lab: Lab) -> None:
    """Nothing is damaged, and nobody has left anything behind."""
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems
    assert scrub(lab.store()) == []
    assert lab.files("tmp") == [] and lab.files("gc/leases") == []


@pytest.fixture
def images(make_image: MakeImage, mixed: Path) -> dict[str, Path]:
    """Volumes of all kinds: some share content, one is empty, one is tiny."""
    return {
        "fs1/m": mixed,
        "fs1/noise": make_image("noise", 9 * MIB + 5, [(0, noise(9 * MIB))]),
        "fs1/shared": make_image("shared", 6 * MIB, [(0, noise(3 * MIB)), (4 * MIB, text(MIB, 9))]),
        "fs1/empty": make_image("empty", 5 * MIB),
        "fs1/tiny": make_image("tiny", 100, [(0, b"tiny")]),
    }


# Together as alone


@pytest.mark.parametrize("workers", [1, 3])
def test_together_they_are_what_they_are_alone(lab: Lab, images: dict[str, Path], workers: int) -> None:
    together = lab.backup_all(images, workers=workers, pack_bytes=MIB)
    assert list(together) == list(images)
    for volume, image in images.items():
        assert_whole(lab, image, together[volume])
        alone = lab.backup(image, volume=volume.replace("fs1", "fs2"))
        assert alone.info.digest == good(together[volume]).info.digest
        assert alone.stats.bytes_new == 0
        stats = good(together[volume]).stats
        holes = stats.bytes_size - stats.bytes_zero - stats.bytes_unchanged - stats.bytes_known - stats.bytes_new
        assert holes == alone.stats.bytes_size - alone.stats.bytes_zero - alone.stats.bytes_known
    assert_sound(lab)


def test_only_changes_of_each(lab: Lab, images: dict[str, Path]) -> None:
    ids = {volume: {"source_id": f"{volume}-0"} for volume in images}
    first = lab.backup_all(images, requests=ids)
    requests: dict[str, dict[str, t.Any]] = {}
    for number, (volume, image) in enumerate(images.items()):
        size = image.stat().st_size
        extents = [(offset, min(3000, size - offset)) for offset in range(0, size, 300 * KIB)]
        for offset, length in extents:
            write(image, offset, noise(length, seed=number + offset))
        requests[volume] = {"source_id": f"{volume}-1", "changes": Changes(f"{volume}-0", size, extents)}
    second = lab.backup_all(images, requests=requests, pack_bytes=200 * KIB)
    for volume, image in images.items():
        assert_whole(lab, image, second[volume])
        info = good(second[volume]).info
        assert (info.origin["method"], info.parent) == ("changed", good(first[volume]).id)
    assert lab.files("sessions") == []
    assert_sound(lab)


def test_one_job_is_of_different_volumes_at_one_pace(lab: Lab, mixed: Path) -> None:
    for other, cause in (("fs1/m", "named twice"), ("fs1/M", "differs from 'fs1/m' in case alone")):
        with FileSource(str(mixed)) as one, FileSource(str(mixed)) as two:
            requests = [lab.request(volume) for volume in ("fs1/m", other)]
            with pytest.raises(errors.InvalidValue, match=f"{other}.*{cause}"):
                lab.open().backup_all(list(zip((one, two), requests, strict=True)))
    for option in ("workers", "rate_limit"):
        with pytest.raises(errors.InvalidValue, match="'fs1/b'.* are not the job's"):
            lab.backup_all({"fs1/a": mixed, "fs1/b": mixed}, requests={"fs1/b": {option: 7}})
    assert lab.backup_all({}) == {}
    assert lab.open().savesets() == []


# What they share


def test_threads_are_as_many_as_for_one_volume(lab: Lab, make_image: MakeImage) -> None:
    readers: set[int] = set()
    most: list[int] = []

    def note(_offset: int) -> None:
        readers.add(threading.get_ident())
        most.append(threading.active_count())

    before = threading.active_count()
    paths = [make_image(f"v{n}", 5 * MIB, [(0, noise(5 * MIB, n))]) for n in range(6)]
    found = lab.backup_all({f"fs1/v{n}": Watched(path, note) for n, path in enumerate(paths)}, workers=2)
    for path, outcome in zip(paths, found.values(), strict=True):
        assert_whole(lab, path, outcome)
    assert len(readers) <= 2
    assert max(most) <= before + 2 + 2  # the workers, the writer and the closer
    assert threading.active_count() == before


class Counting(LocalStore):
    """A store that counts what is listed."""

    listed: t.ClassVar[list[str]] = []

    def list(self, prefix: str) -> list[str]:
        self.listed.append(prefix)
        return super().list(prefix)


def test_the_index_is_loaded_once(lab: Lab, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "listed", [])
    lab.backup(images["fs1/shared"], volume="fs9/m")
    repo = repository.Repository.open(Counting(str(lab.path)), lab.secret)
    lab.backup_all(images, repo=repo)
    assert Counting.listed.count("packs") == 1
    Counting.listed.clear()
    lab.backup_all(images, repo=repo)
    assert Counting.listed.count("packs") == 0


def test_one_rate_for_all(lab: Lab, images: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[tuple[RateLimit, int]] = []
    monkeypatch.setattr(RateLimit, "wait", lambda self, amount, _stop: waited.append((self, amount)))
    found = lab.backup_all(images, rate_limit=10 * MIB)
    assert len({id(limit) for limit, _amount in waited}) == 1
    read = sum(good(outcome).stats.bytes_read for outcome in found.values())
    assert sum(amount for _limit, amount in waited) == read > 0


def test_what_one_has_published_the_others_do_not_store_again(lab: Lab, make_image: MakeImage) -> None:
    """The second volume reads its last third only when the first one is committed."""
    gate = Gate()
    first = make_image("first", PART, [(0, noise(PART, 1))])
    second = make_image("second", 2 * PART, [(0, noise(PART, 2)), (PART, noise(PART, 1))])

    leases: dict[tuple[str, ...], int] = {}

    def progress(volumes: t.Sequence[VolumeProgress]) -> None:
        leases[tuple(volume.state for volume in volumes)] = len(lab.files("gc/leases"))
        if volumes[0].state == FINISHED:
            gate.open()

    found = lab.backup_all({"fs1/a": first, "fs1/b": gate.source(second, PART)}, progress=progress, workers=2)
    assert leases[RUNNING, RUNNING] == 2 and leases[FINISHED, RUNNING] == 1
    assert good(found["fs1/a"]).stats.bytes_new == PART
    stats = good(found["fs1/b"]).stats
    assert (stats.bytes_new, stats.bytes_known) == (PART, PART)
    assert_whole(lab, first, found["fs1/a"])
    assert_whole(lab, second, found["fs1/b"])
    assert_sound(lab)


def test_what_is_not_published_is_used_by_its_own_volume_alone(lab: Lab, make_image: MakeImage) -> None:
    """The first volume's pack with the same chunks is still open when the second one is committed; then it fails."""
    gate = Gate()
    image = make_image("twin", 2 * PART, [(0, noise(2 * PART))])

    def wait_and_fail(offset: int) -> None:
        if offset >= PART:
            gate.wait()
            raise BROKEN

    def progress(volumes: t.Sequence[VolumeProgress]) -> None:
        if volumes[1].state == FINISHED:
            assert lab.open().find("fs1/b").map.packs() == {bytes.fromhex(path.name) for path in lab.files("packs")}
            gate.open()

    found = lab.backup_all({"fs1/a": Watched(image, wait_and_fail), "fs1/b": image}, progress=progress, workers=2)
    assert found["fs1/a"] is BROKEN
    assert good(found["fs1/b"]).stats.bytes_new == 2 * PART
    assert_whole(lab, image, found["fs1/b"])
    assert_sound(lab)


def test_what_a_failed_volume_had_published_stays_while_others_use_it(lab: Lab, make_image: MakeImage) -> None:
    """Even if a collector marks it in between: nothing else uses it then, and its volume's lease is gone."""
    gate = Gate()
    content = noise(2 * PART)
    first = make_image("first", 3 * PART, [(0, content)])
    write(first, 2 * PART, noise(PART, 3))
    second = make_image("second", 3 * PART, [(0, noise(PART, 2)), (PART, content)])
    pruned: list[t.Any] = []

    def fail(offset: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while offset >= 2 * PART:
            if len(lab.files("packs")) >= 5:
                raise BROKEN
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def progress(volumes: t.Sequence[VolumeProgress]) -> None:
        if volumes[0].state == FAILED and not pruned:
            pruned.append(lab.open().prune(None, options=PruneOptions(threshold=0.0, everywhere=True)))
            gate.open()

    found = lab.backup_all(
        {"fs1/a": Watched(first, fail), "fs1/b": gate.source(second, PART)},
        progress=progress,
        workers=2,
        pack_bytes=MIB,
        requests={"fs1/a": {"source_id": "a"}},
    )
    assert found["fs1/a"] is BROKEN
    assert good(found["fs1/b"]).stats.bytes_known >= 3 * MIB
    (report,) = pruned
    assert report.packs_deleted == 0 and len(report.waiting) == 1  # it was marked, and waits for the second volume
    lab.open().prune(None, options=PruneOptions(threshold=0.0, everywhere=True))
    assert lab.open().prune(None).waiting == []
    assert_whole(lab, second, found["fs1/b"])
    assert_sound(lab)


def test_what_any_lease_has_seen_is_used_by_none(lab: Lab) -> None:
    one = Tombstone("one", frozenset([b"a" * 16]), frozenset([f"maps/fs1~m/{ID}"]), {b"p" * 16: Ranges([(0, 10)])})
    two = Tombstone("two", frozenset([b"b" * 16]), frozenset(), {b"p" * 16: Ranges([(20, 5)])})
    withheld = Withheld.of_all([Withheld([one]), Withheld(), Withheld([one, two])])
    assert withheld.packs == {b"a" * 16, b"b" * 16} and withheld.maps == {bytes.fromhex(ID)}
    assert list(withheld.frames(b"p" * 16)) == [(0, 10), (20, 5)]
    index = ChunkIndex(lab.store(), lab.open()._ring, withheld)
    assert not index.trusts(b"a" * 16) and not index.trusts(b"b" * 16)


# Failures


def test_one_source_fails_in_the_middle(lab: Lab, images: dict[str, Path]) -> None:
    sources: dict[str, t.Any] = {**images, "fs1/noise": breaks_at(images["fs1/noise"], PART)}
    found = lab.backup_all(sources, source_id="s1")
    assert found["fs1/noise"] is BROKEN
    assert {info.volume for info in lab.open().savesets()} == set(images) - {"fs1/noise"}
    assert not [path for path in lab.files("maps") if "noise" in str(path)]
    assert [path.parent.name for path in lab.files("sessions")] == ["fs1~noise"]
    for volume in set(images) - {"fs1/noise"}:
        assert_whole(lab, images[volume], found[volume])
    assert_sound(lab)
    again = lab.backup_all(images, source_id="s1")
    assert good(again["fs1/noise"]).info.origin["resumed"] and not good(again["fs1/m"]).info.origin["resumed"]
    assert_whole(lab, images["fs1/noise"], again["fs1/noise"])


def test_one_request_cannot_be_met(lab: Lab, mixed: Path) -> None:
    found = lab.backup_all({"fs1/a": mixed, "fs1/b": mixed}, requests={"fs1/a": {"level": 99}})
    assert isinstance(found["fs1/a"], errors.InvalidValue)
    assert_whole(lab, mixed, found["fs1/b"])


@pytest.mark.parametrize("part", range(4))
def test_a_twin_is_aborted_at_each_of_its_reads(lab: Lab, make_image: MakeImage, part: int) -> None:
    """With chunks that both volumes meet at the same time, in packs of all states."""
    image = make_image("twin", 4 * PART, [(0, noise(4 * PART))])
    sources = {"fs1/a": breaks_at(image, part * PART), "fs1/b": image}
    found = lab.backup_all(sources, workers=3, pack_bytes=MIB)
    assert found["fs1/a"] is BROKEN
    assert_whole(lab, image, found["fs1/b"])
    assert_sound(lab)


class Stumbling(SteppingStore):
    """A store in which the ``countdown``-th step of writing fails, and no other."""

    def __init__(self, path: str, countdown: int) -> None:
        super().__init__(path)
        self._countdown = countdown
        self._counting = threading.Lock()

    def step(self) -> None:
        """One step of writing."""
        with self._counting:
            self._countdown -= 1
            if self._countdown == -1:
                raise FULL

    def settle(self, names: t.Iterable[str]) -> None:
        self.step()
        super().settle(names)


def test_every_step_of_one_of_two_twins_may_fail(lab: Lab, make_image: MakeImage) -> None:
    """Whichever of them it is, it alone fails, and the other is whole."""
    failed = 0
    for countdown in range(200):
        image = make_image("twin", 3 * MIB, [(0, noise(3 * MIB, 100 + countdown))])
        repo = repository.Repository.open(Stumbling(str(lab.path), countdown), lab.secret)
        options = {"pack_bytes": 600 * KIB, "source_id": f"s{countdown}"}
        found = lab.backup_all({"fs1/a": image, "fs1/b": image}, repo=repo, **options)
        errors_told = [outcome for outcome in found.values() if isinstance(outcome, Exception)]
        assert errors_told in ([], [FULL])
        failed += len(errors_told)
        for outcome in found.values():
            if not isinstance(outcome, Exception):
                assert lab.open().find(outcome.volume).id == outcome.id
                assert good(outcome).read(0, 3 * MIB) == image.read_bytes()
        assert lab.files("tmp") == [] and lab.files("gc/leases") == []
        if not errors_told and countdown > 40:
            break
    assert failed > 20 and not errors_told
    assert_sound(lab)


def test_giving_up_stops_all_but_what_is_committed(lab: Lab, make_image: MakeImage) -> None:
    gate = Gate()
    small = make_image("small", MIB, [(0, noise(MIB))])
    large = make_image("large", 3 * PART, [(0, noise(3 * PART))])

    class GivenUp(Exception):
        pass

    def progress(volumes: t.Sequence[VolumeProgress]) -> None:
        if volumes[0].state == FINISHED:
            gate.open()
            raise GivenUp

    with pytest.raises(GivenUp):
        lab.backup_all({"fs1/a": small, "fs1/b": gate.source(large, PART)}, progress=progress, source_id="s")
    assert {info.volume for info in lab.open().savesets()} == {"fs1/a"}
    assert filecmp.cmp(small, lab.restore(lab.open().find("fs1/a")), shallow=False)
    assert_sound(lab)


def test_an_unexpected_error_is_no_outcome(lab: Lab, images: dict[str, Path]) -> None:
    def fail(_offset: int) -> t.NoReturn:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lab.backup_all({**images, "fs1/m": Watched(images["fs1/m"], fail)})
    assert "fs1/m" not in {info.volume for info in lab.open().savesets()}
    assert_sound(lab)


def test_a_source_that_hangs_does_not_keep_the_others(lab: Lab, make_image: MakeImage) -> None:
    """It is released when all others are committed."""
    gate = Gate()
    paths = {f"fs1/v{n}": make_image(f"v{n}", 2 * PART, [(0, noise(2 * PART, n))]) for n in range(4)}

    def progress(volumes: t.Sequence[VolumeProgress]) -> None:
        if all(volume.state == FINISHED for volume in volumes[1:]):
            gate.open()

    sources = {**paths, "fs1/v0": gate.source(paths["fs1/v0"], 0)}
    found = lab.backup_all(sources, progress=progress, workers=2)
    for volume, path in paths.items():
        assert_whole(lab, path, found[volume])


def test_progress_of_each(lab: Lab, images: dict[str, Path]) -> None:
    seen: list[t.Sequence[VolumeProgress]] = []
    sources: dict[str, t.Any] = {**images, "fs1/noise": breaks_at(images["fs1/noise"], PART)}
    lab.backup_all(sources, progress=seen.append)
    assert all([volume.volume for volume in volumes] == list(images) for volumes in seen)
    last = {volume.volume: volume for volume in seen[-1]}
    for volume, path in images.items():
        assert last[volume].progress.bytes_total == path.stat().st_size
        if volume != "fs1/noise":
            assert last[volume].progress.bytes_done == path.stat().st_size
    assert last["fs1/noise"].progress.bytes_done < last["fs1/noise"].progress.bytes_total


# Killed

CHILD = """
import datetime, sys
sys.path.insert(0, sys.argv[1])
from saveset import repository
from saveset.backup import request
from saveset.keys import secret
from saveset.io import source
from saveset.store import registry
path, rate, images = sys.argv[2], int(sys.argv[3]), sys.argv[4:]
repo = repository.Repository.open(registry.open_store(path), secret.Secret(b"correct horse"))
volumes = [
    (
        source.open_source(image),
        request.BackupRequest(
            volume=f"fs1/v{number}", run_id="killed", time=datetime.datetime(2026, 3, 1, tzinfo=datetime.timezone.utc),
            verdict="crash-consistent", pack_bytes=1 << 20, rate_limit=rate, source_id=f"s{number}",
        ),
    )
    for number, image in enumerate(images)
]
repo.backup_all(volumes)
"""


def test_killed_and_taken_up_again(lab: Lab, make_image: MakeImage) -> None:
    """After the kill the small volume is there, of the large ones nothing is; each goes on where it was."""
    small = make_image("small", MIB, [(0, noise(MIB, 9))])
    large = [make_image(f"large{n}", 24 * MIB, [(0, noise(24 * MIB, n))]) for n in range(2)]
    arguments = [str(ENGINE), str(lab.path), str(12 * MIB), *map(str, (small, *large))]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments])
    deadline = time.monotonic() + WAIT_S
    while len(lab.files("packs")) < 7 or not lab.files("savesets") or lab.files("sessions/fs1~v0"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert [info.volume for info in lab.open().savesets()] == ["fs1/v0"]
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems
    paths = {f"fs1/v{number}": path for number, path in enumerate([small, *large])}
    ids = {volume: {"source_id": f"s{number}"} for number, volume in enumerate(paths)}
    found = lab.backup_all(paths, requests=ids)
    for volume, path in paths.items():
        assert_whole(lab, path, found[volume])
        assert good(found[volume]).info.origin["resumed"] == (path in large)
    known = [good(found[f"fs1/v{number}"]).stats for number in (1, 2)]
    assert all(stats.bytes_known + stats.bytes_read == stats.bytes_size for stats in known)
    assert sum(stats.bytes_known for stats in known) >= 4 * 3 * 256 * KIB  # of four packs, three chunks in each
    lab.open().prune(None)  # which removes the leases of the dead
    assert_sound(lab)

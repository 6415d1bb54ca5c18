# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning: what no saveset uses goes, all of it and nothing else, beside running backups and after any crash."""

from __future__ import annotations

import dataclasses
import datetime
import filecmp
import itertools
import os
import random
import subprocess
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup import backup
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import collect, lease
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions, PruneReport
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.punched import PunchedPacks, Ranges
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import container, leafmap
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source, target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Upload
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub, walk_frames
from hypothesis import given
from hypothesis import strategies as st
from marks import slow

from .conftest import KIB, MIB, NOON, Lab, MakeImage, noise

CHUNK = 64 * KIB
LAST = Policy(last=1, consistent=False)
KINDS = [True, False]


@pytest.fixture(autouse=True)
def _small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of two chunks, so that small packs have many."""
    monkeypatch.setattr(backup, "FRAME_BYTES", 2 * CHUNK)


def used_bytes(lab: Lab) -> int:
    """What packs and maps take on the disk."""
    return sum(path.stat().st_blocks * 512 for folder in ("packs", "maps") for path in lab.files(folder))


def content(lab: Lab) -> dict[str, bytes]:
    """Every object of the repository, tmp/ left out."""
    return {str(path): path.read_bytes() for path in lab.files(".") if path.parent != lab.path / "tmp"}


def prune(lab: Lab, policy: Policy | None = LAST, **options: t.Any) -> PruneReport:
    return lab.open().prune(policy, options=PruneOptions(**options))


def assert_sound(lab: Lab, expected: t.Mapping[str, Path]) -> None:
    """These savesets, and no others, are there and restore to their images; nothing is damaged."""
    repo = lab.open()
    assert {info.id for info in repo.savesets()} == set(expected)
    for info in repo.savesets():
        output = lab.restore(repo.saveset(info))
        assert filecmp.cmp(expected[info.id], output, shallow=False)
        output.unlink()
    for depth in ("structure", "stored", "full"):
        report = repo.verify(depth=depth)
        assert report.ok, report.problems
    assert scrub(lab.store()) == []


def assert_no_garbage(lab: Lab) -> None:
    """All packs and maps that are there are used, and nothing waits."""
    repo = lab.open()
    packs, maps = set(), set()
    for info in repo.savesets():
        leaf_map = repo.open_map(info)
        packs |= {pack.hex() for pack in leaf_map.packs()}
        maps |= {leaf_map.name} | {leaf_map.leaf_name(leaf) for leaf in leaf_map.leaves() if leaf.kind == 2}
    assert {path.name for path in lab.files("packs")} == packs
    assert {str(path.relative_to(lab.path)) for path in lab.files("maps")} == maps
    records = lab.files("gc/punched")
    assert {path.name[:32] for path in records} <= packs
    assert lab.files("gc") == records
    assert lab.files("tmp") == []


class Image:
    """A volume of chunks, each filled by a number; its savesets restore to copies that are kept."""

    def __init__(self, folder: Path, name: str, chunks: int) -> None:
        self.path = folder / name
        self.numbers = [0] * chunks
        self._copies = 0

    def write(self, **numbers: int) -> Path:
        """Change chunks (c0=1, c1=2, ...); the image of that moment."""
        for name, number in numbers.items():
            self.numbers[int(name[1:])] = number
        self._copies += 1
        path = self.path.with_suffix(f".{self._copies}")
        path.write_bytes(b"".join(noise(CHUNK, number) if number else bytes(CHUNK) for number in self.numbers))
        return path


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path, "image", 24)


# -- forgetting and pruning


def test_prune_removes_what_only_forgotten_savesets_use(lab: Lab, make_image: MakeImage) -> None:
    images = [make_image(f"i{n}", 2 * MIB, [(0, noise(MIB, n)), (MIB, noise(500 * KIB, 99))]) for n in range(4)]
    savesets = [lab.backup(path) for path in images]
    other = lab.backup(images[0], volume="fs2/m")
    before = used_bytes(lab)
    report = prune(lab, Policy(last=2))
    assert report.forgotten == [savesets[0].id, savesets[1].id] and report.waiting == []
    assert report.packs_deleted == 1 and report.maps_deleted == 2  # the first one's data is fs2's too
    assert report.bytes_freed == before - used_bytes(lab) > MIB
    assert [(item.info.id, item.keep) for item in report.decisions] == [
        (savesets[0].id, False),
        (savesets[1].id, False),
        (savesets[2].id, True),
        (savesets[3].id, True),
        (other.id, True),
    ]
    assert_sound(lab, {savesets[2].id: images[2], savesets[3].id: images[3], other.id: images[0]})
    assert_no_garbage(lab)
    assert prune(lab, Policy(last=2)).bytes_freed == 0


def test_a_dry_run_tells_the_same_and_changes_nothing(lab: Lab, image: Image) -> None:
    first = image.write(c0=1, c1=2, c2=3, c9=4)
    lab.backup(first)
    lab.backup(image.write(c0=5, c1=6))
    lab.backup(image.write(c9=7))
    before = content(lab)
    told = lab.open().prune(LAST, dry_run=True)
    assert content(lab) == before
    done = prune(lab)
    assert told.dry_run and not done.dry_run and done.bytes_freed > 0 and done.packs_punched
    for field in dataclasses.fields(PruneReport):
        if field.name not in ("dry_run", "seconds"):
            assert getattr(told, field.name) == getattr(done, field.name), field.name


def test_servers_that_are_not_named_keep_everything(lab: Lab, mixed: Path) -> None:
    for volume in ("fs1/m", "fs1/m", "fs2/m", "fs2/m"):
        lab.backup(mixed, volume=volume)
    report = prune(lab, servers=["fs2"])
    assert {item.info.volume for item in report.decisions} == {"fs2/m"}
    assert [info.volume for info in lab.open().savesets()] == ["fs1/m", "fs1/m", "fs2/m"]


def test_without_a_policy_only_garbage_goes(lab: Lab, mixed: Path) -> None:
    first, second = lab.backup(mixed), lab.backup(mixed)
    assert prune(lab, None).decisions == [] and len(lab.open().savesets()) == 2
    lab.open().forget([first.id])
    assert prune(lab, None).maps_deleted == 0  # the second one shares its pages
    lab.open().forget([second.id])
    assert prune(lab, None).packs_deleted == 1
    assert lab.files("packs") == lab.files("maps") == lab.files("savesets") == []


def test_files_of_others_are_left_alone(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    strangers = [lab.path / "packs/aa/.nfs0001", lab.path / "maps/fs1~m/notes.txt"]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not ours")
    lab.open().forget([saveset.id])
    prune(lab, None)
    assert lab.files("packs") + lab.files("maps") == strangers


def test_pins_keep_savesets(lab: Lab, mixed: Path) -> None:
    first, second = lab.backup(mixed), lab.backup(mixed)
    repo = lab.open()
    pin = repo.pin(first, "ada", "before the move")
    assert repo.pins() == {first.id: pin} and (pin.who, pin.why) == ("ada", "before the move")
    report = prune(lab)
    assert report.forgotten == [] and report.decisions[0].reasons == (
        f"pinned by ada on {pin.when[:10]}: before the move",
    )
    with pytest.raises(errors.InvalidValue, match="it is pinned"):
        repo.forget([second.id, first.id])
    assert len(repo.savesets()) == 2
    assert repo.unpin(first.id) and not repo.unpin(first.id)
    assert prune(lab).forgotten == [first.id]
    with pytest.raises(errors.NotFound, match="has been forgotten"):
        repo.pin(first, "ada", "too late")
    assert lab.files("pins") == []


def test_a_pin_that_cannot_be_read_counts(lab: Lab, mixed: Path) -> None:
    first, _second = lab.backup(mixed), lab.backup(mixed)
    lab.open().pin(first, "ada", "why")
    (path,) = lab.files("pins")
    path.write_bytes(path.read_bytes().replace(b"ada", b"bob"))
    assert prune(lab).forgotten == []
    with pytest.raises(errors.InvalidValue, match="pinned"):
        lab.open().forget([first.id])
    assert [problem["object"] for problem in lab.open().verify().problems] == [f"pins/{first.id}.json"]
    assert scrub(lab.store()) == [(f"pins/{first.id}.json", "its hash does not match its content")]


def test_a_saveset_pinned_while_it_is_forgotten_stays(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = lab.backup(mixed), lab.backup(mixed)
    mark = collect.Collector.void

    def pin_first(self: collect.Collector, tombstones: t.Any) -> None:
        mark(self, tombstones)
        lab.open().pin(first, "ada", "just in time")

    monkeypatch.setattr(collect.Collector, "void", pin_first)
    assert prune(lab).forgotten == []
    assert_sound(lab, {first.id: mixed, second.id: mixed})
    assert_no_garbage(lab)


def test_a_write_only_key_is_enough(lab: Lab, image: Image) -> None:
    """The backup server prunes, packs that only their sealed key opens included, and still cannot read."""
    lab.open().key_files.add_writer(b"only writes", cost=ScryptCost(n=16))
    full, lab.secret = lab.secret, Secret(b"only writes", ScryptCost(n=16))
    first = lab.backup(image.write(**{f"c{number}": number + 1 for number in range(20)}))
    path = image.write(**{f"c{number}": number + 100 for number in range(4, 12)})
    second = lab.backup(path)
    report = prune(lab)
    assert report.forgotten == [first.id] and report.packs_punched == 1 and report.bytes_freed > 6 * CHUNK
    with pytest.raises(errors.WrongSecret):
        lab.open().saveset(second.info).read(0, 1)
    lab.secret = full
    assert_sound(lab, {second.id: path})


# -- damage


@pytest.mark.parametrize("folder", ["savesets", "maps"])
def test_nothing_is_removed_while_a_saveset_cannot_be_read(lab: Lab, mixed: Path, folder: str) -> None:
    """What it uses is not known.  Forgetting it by its id is the way out."""
    old = lab.backup(mixed)
    kept = lab.backup(mixed, volume="fs2/m")
    lab.backup(mixed)
    (path,) = lab.files(f"{folder}/fs2~m")
    whole = path.read_bytes()
    path.write_bytes(whole[:-60] + b"\0" * 60)
    before = content(lab)
    for dry_run in (True, False):
        with pytest.raises(errors.Damaged, match="nothing was removed"):
            lab.open().prune(LAST, dry_run=dry_run)
    assert content(lab) == before
    path.write_bytes(whole)
    assert prune(lab).forgotten == [old.id]
    path.write_bytes(whole[:-60] + b"\0" * 60)
    assert lab.open().forget([kept.id]) == [kept.id]
    prune(lab)
    assert_no_garbage(lab)
    assert lab.open().verify(depth="full").ok


def test_forgetting_what_is_not_there(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    with pytest.raises(errors.NotFound, match="none with that id"):
        lab.open().forget([saveset.id, "0" * 32])
    assert len(lab.open().savesets()) == 1


# -- beside others


class Gate(source.Source):
    """A source whose first read waits until it is told to go on."""

    def __init__(self, path: Path) -> None:
        self._inner = source.open_source(str(path))
        self.spec = self._inner.spec
        self.size = self._inner.size
        self.reached = threading.Event()
        self.opened = threading.Event()

    def extents(self, *arguments: t.Any) -> t.Any:
        return self._inner.extents(*arguments)

    def read(self, offset: int, buffer: t.Any) -> None:
        self.reached.set()
        assert self.opened.wait(30)
        self._inner.read(offset, buffer)

    def close(self) -> None:
        self._inner.close()


class Running:
    """A backup in a thread that has taken its lease and its parent, and waits before it reads."""

    def __init__(self, lab: Lab, path: Path, volume: str = "fs1/m", **options: t.Any) -> None:
        self._gate = Gate(path)
        self._result: list[t.Any] = []
        options = {
            "source_id": "s",
            "run_id": "running",
            "time": NOON + datetime.timedelta(days=1),
            "verdict": "x",
            **options,
        }

        def work() -> None:
            try:
                self._result.append(lab.open().backup(self._gate, BackupRequest(volume=volume, **options)))
            except BaseException as error:
                self._result.append(error)

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert self._gate.reached.wait(30)

    def end(self) -> repository.Saveset:
        """Let it go on to its end."""
        self._gate.opened.set()
        self._thread.join()
        if isinstance(self._result[0], BaseException):
            raise self._result[0]
        saveset = self._result[0]
        assert isinstance(saveset, repository.Saveset)
        return saveset


def test_what_a_backup_commits_between_mark_and_sweep_is_spared(lab: Lab, make_image: MakeImage) -> None:
    """It deduplicates against a pack that was used by nobody when the tombstone was put, which it has not seen."""
    one = make_image("one", MIB, [(0, noise(MIB))])
    old = lab.backup(one, volume="fs2/m")
    running = Running(lab, one)
    lab.open().forget([old.id])
    marked = prune(lab, None)
    assert marked.packs_deleted == 0 and marked.bytes_freed == 0
    (waiting,) = marked.waiting
    assert waiting.bytes > MIB and [text.partition(" by ")[0] for text in waiting.leases] == ["backup of fs1/m"]
    saveset = running.end()
    assert saveset.stats.bytes_new == 0
    assert_sound(lab, {saveset.id: one})
    swept = prune(lab, None)
    assert swept.packs_deleted == 0 and swept.maps_deleted == 1
    assert_sound(lab, {saveset.id: one})
    assert_no_garbage(lab)


def test_what_is_committed_while_the_collector_works_is_spared(
    lab: Lab, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it has read the commits, and before it looks at the leases for the sweep, which are gone by then."""
    one = make_image("one", MIB, [(0, noise(MIB))])
    old = lab.backup(one, volume="fs2/m")
    running = Running(lab, one)
    lab.open().forget([old.id])
    mark = collect.Collector.mark
    ended = []

    def mark_and_end(self: collect.Collector, tombstone: t.Any) -> None:
        mark(self, tombstone)
        ended.append(running.end())

    monkeypatch.setattr(collect.Collector, "mark", mark_and_end)
    report = prune(lab, None)
    assert report.waiting == [] and report.packs_deleted == 0 and report.maps_deleted == 1
    assert ended[0].stats.bytes_new == 0
    assert_sound(lab, {ended[0].id: one})


def test_tombstoned_chunks_are_not_deduplicated_against(lab: Lab, make_image: MakeImage) -> None:
    one = make_image("one", MIB, [(0, noise(MIB))])
    old = lab.backup(one)
    with lab.open().reading(lease.RESTORE, old.info):
        lab.open().forget([old.id])
        assert len(prune(lab, None).waiting) == 1
        saveset = lab.backup(one)
        assert saveset.stats.bytes_new == MIB and saveset.map.packs().isdisjoint(old.map.packs())
        lab.restore(lab.open().saveset(saveset.info))
    assert prune(lab, None).packs_deleted == 1
    assert_sound(lab, {saveset.id: one})
    assert_no_garbage(lab)


@pytest.mark.parametrize("listed", KINDS, ids=["changed extents", "full read"])
def test_tombstoned_places_of_a_parent_are_not_taken_over(lab: Lab, image: Image, listed: bool) -> None:
    """A parent that came to use tombstoned packs, frames and maps before its backup could see the tombstone."""
    first = image.write(c0=1, c1=2, c2=3, c3=4)
    parent = lab.backup(first, source_id="s1")
    (pack,) = parent.map.packs()
    with lab.open().reading(lease.RESTORE):
        second = image.write(c0=9)
        changes = Changes("s1", second.stat().st_size, [(0, CHUNK)]) if listed else None
        ring, place = lab.open()._ring, lab.store()
        frames = [entry.offset for entry in parent.map.entries(0) if entry.kind == 2]
        tombstone = collect.Tombstone(
            collect.new_name(), frozenset(), frozenset([parent.map.name]), {pack: Ranges([(frames[0], 1)])}
        )
        collect.put_tombstone(place, ring, tombstone)
        child = lab.backup(second, source_id="s2", changes=changes)
    names = {(entry.pack, entry.offset) for entry in child.map.entries(0) if entry.kind == 2}
    assert (pack, frames[0]) not in names
    assert child.map.leaf(0).map_id != parent.map.leaf(0).map_id
    assert prune(lab, None).waiting == []
    assert_sound(lab, {parent.id: first, child.id: second})
    assert_no_garbage(lab)


def test_pages_in_tombstoned_maps_are_written_again(lab: Lab, mixed: Path) -> None:
    parent = lab.backup(mixed, source_id="s1")
    with lab.open().reading(lease.RESTORE):
        tombstone = collect.Tombstone(collect.new_name(), maps=frozenset([parent.map.name]))
        collect.put_tombstone(lab.store(), lab.open()._ring, tombstone)
        full = lab.backup(mixed, source_id="s2")
        changed = lab.backup(mixed, source_id="s3", changes=Changes("s2", mixed.stat().st_size, []), parent=full.info)
    for saveset in (full, changed):
        assert parent.map.leaf(0).map_id not in {leaf.map_id for leaf in saveset.map.leaves()}
        assert saveset.stats.bytes_new == 0
    assert changed.stats.bytes_unchanged == changed.size
    assert prune(lab).maps_deleted
    assert_sound(lab, {changed.id: mixed})


def test_what_a_running_backup_stores_is_not_marked(lab: Lab, make_image: MakeImage) -> None:
    """Else no later backup could build upon it until the tombstone is carried out."""
    path = make_image("one", 4 * MIB, [(0, noise(4 * MIB))])
    marked: list[PruneReport] = []

    class Publishing(LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            if name.startswith("savesets/"):  # all packs and the map are there, the commit is not
                marked.append(prune(lab, None))
            super().put(name, data, exclusive)

    for number, source_id in enumerate(["", "s1"]):
        repo = repository.Repository.open(Publishing(str(lab.path)), lab.secret)
        with source.open_source(str(path)) as opened:
            repo.backup(
                opened, BackupRequest(volume=f"fs{number}/m", run_id="x", time=NOON, verdict="x", source_id=source_id)
            )
        path = make_image("two", 4 * MIB, [(0, noise(4 * MIB, 2))])
    assert [(report.waiting, report.packs_deleted) for report in marked] == [([], 0), ([], 0)]
    assert lab.files("gc") == [] and lab.files("sessions") == []


def test_packs_of_an_interrupted_backup_are_collected(lab: Lab, make_image: MakeImage) -> None:
    path = make_image("one", 4 * MIB, [(0, noise(4 * MIB))])
    kept = lab.backup(make_image("two", MIB, [(0, noise(MIB, 2))]), volume="fs2/m")
    expected = content(lab)
    full = errors.StoreFull("savesets", "no room", "Add space")

    class Failing(LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            if name.startswith("savesets/"):
                raise full
            super().put(name, data, exclusive)

    repo = repository.Repository.open(Failing(str(lab.path)), lab.secret)
    with source.open_source(str(path)) as opened, pytest.raises(errors.StoreFull):
        repo.backup(
            opened, BackupRequest(volume="fs1/m", run_id="x", time=NOON, verdict="x", source_id="s1", pack_bytes=MIB)
        )
    assert len(lab.files("sessions")) == 1 and len(lab.files("packs")) == 6
    report = prune(lab, None)
    assert report.packs_deleted == 5 and report.maps_deleted == 1 and report.bytes_freed > 4 * MIB
    assert content(lab) == expected
    assert [info.id for info in lab.open().savesets()] == [kept.id]


def test_a_restore_ends_though_its_saveset_is_forgotten(lab: Lab, make_image: MakeImage) -> None:
    one = make_image("one", 4 * MIB, [(0, noise(4 * MIB))])
    old = lab.backup(one)
    reports: list[PruneReport] = []

    class Target(target.FileTarget):
        def write(self, offset: int, data: t.Any) -> None:
            if not reports:
                lab.open().forget([old.id])
                reports.append(prune(lab, None))
            super().write(offset, data)

    output = lab.folder / "slow"
    with Target(str(output), old.size) as opened:
        old.restore(opened, workers=1)
    assert filecmp.cmp(one, output, shallow=False)
    assert reports[0].packs_deleted == 0 and "restore" in reports[0].waiting[0].leases[0]
    assert prune(lab, None).packs_deleted == 1
    assert_no_garbage(lab)


def test_a_reader_that_has_seen_the_tombstone_is_not_betrayed_by_forgetting(lab: Lab, make_image: MakeImage) -> None:
    """What it reads was spared for a commit's sake; when that goes, the tombstone has to be put anew, unseen."""
    one = make_image("one", MIB, [(0, noise(MIB))])
    first = lab.backup(one, volume="fs2/m")
    running = Running(lab, one)
    lab.open().forget([first.id])
    assert len(prune(lab, None).waiting) == 1
    second = running.end()  # uses what the tombstone names
    with lab.open().reading(lease.RESTORE, second.info):  # has seen the tombstone
        lab.open().forget([second.id])
        report = prune(lab, None)
        assert report.packs_deleted == 0 and len(report.waiting) == 1
        for path in lab.files("packs"):
            assert path.stat().st_size > MIB
    assert prune(lab, None).packs_deleted == 1
    assert_no_garbage(lab)


def test_a_dead_backup_holds_up_nothing(lab: Lab, make_image: MakeImage) -> None:
    old = lab.backup(make_image("one", MIB, [(0, noise(MIB))]))
    lab.open().forget([old.id])
    (lab.path / "gc/leases").mkdir(parents=True, exist_ok=True)
    (lab.path / "gc/leases" / ("0" * 32)).write_bytes(b"its process is dead, so nobody has it locked")
    assert prune(lab, None).packs_deleted == 1
    assert_no_garbage(lab)


# -- punching


@pytest.fixture
def punched(lab: Lab, image: Image) -> tuple[Lab, dict[str, Path], PruneReport, int]:
    """A repository out of whose only large pack one chunk of two was punched; its savesets, and the bytes freed."""
    numbers = {f"c{number}": number + 1 for number in range(20)}
    first = image.write(**numbers)
    lab.backup(first)
    second = image.write(**{f"c{number}": number + 100 for number in range(4, 12)})
    saveset = lab.backup(second)
    before = used_bytes(lab)
    report = prune(lab)
    return lab, {saveset.id: second}, report, before - used_bytes(lab)


def test_dead_frames_are_punched_out(punched: tuple[Lab, dict[str, Path], PruneReport, int]) -> None:
    lab, expected, report, freed = punched
    assert report.packs_punched == 1 and report.packs_deleted == 0
    assert report.bytes_freed == freed >= 6 * CHUNK
    assert_sound(lab, expected)
    assert_no_garbage(lab)
    assert len(lab.files("gc/punched")) == 1
    assert prune(lab, None, everywhere=True, threshold=0.0).bytes_freed == 0


def test_what_was_forgotten_before_is_looked_at_by_the_next_prune(lab: Lab, image: Image) -> None:
    first = lab.backup(image.write(**{f"c{number}": number + 1 for number in range(20)}))
    second = image.write(**{f"c{number}": number + 100 for number in range(4, 12)})
    saveset = lab.backup(second)
    lab.open().forget([first.id])
    assert prune(lab, None).packs_punched == 1
    assert_sound(lab, {saveset.id: second})
    assert_no_garbage(lab)


def test_punched_chunks_are_stored_again(punched: tuple[Lab, dict[str, Path], PruneReport, int], image: Image) -> None:
    lab, expected, _report, _freed = punched
    again = image.write(**{f"c{number}": number + 1 for number in range(20)})
    saveset = lab.backup(again)
    assert saveset.stats.bytes_new >= 7 * CHUNK
    assert_sound(lab, {**expected, saveset.id: again})


def test_damage_in_a_punched_pack_is_found(punched: tuple[Lab, dict[str, Path], PruneReport, int]) -> None:
    lab, expected, _report, _freed = punched
    (record,) = lab.files("gc/punched")
    pack = lab.path / "packs" / record.name[:2] / record.name[:32]
    layout = container.read_layout(lab.store(), str(pack.relative_to(lab.path)), container.PACK_KIND)
    gone = PunchedPacks(lab.store(), lab.open()._ring).ranges(bytes.fromhex(pack.name))
    whole = pack.read_bytes()
    frames = [(offset, length) for offset, length, _good in walk_frames(lab.store(), layout, gone)]
    assert (
        len(frames) >= 4 and any(whole[offset : offset + length].count(0) == length for offset, length in gone) is False
    )
    for offset, length in frames:
        for at in (offset, offset + length // 2, offset + length - 1):
            damaged = bytearray(whole)
            damaged[at] ^= 4
            pack.write_bytes(damaged)
            report = lab.open().verify(depth="stored")
            assert not report.ok and {p["object"] for p in report.problems} == {layout.name}
            assert scrub(lab.store())
    pack.write_bytes(whole)
    assert_sound(lab, expected)


def test_records_go_with_their_packs(punched: tuple[Lab, dict[str, Path], PruneReport, int]) -> None:
    lab, expected, _report, _freed = punched
    lab.open().forget(list(expected))
    assert prune(lab, None).packs_deleted == 2
    assert lab.files("gc") == []


def test_a_record_of_what_was_punched_is_authentic(punched: tuple[Lab, dict[str, Path], PruneReport, int]) -> None:
    lab = punched[0]
    (record,) = lab.files("gc/punched")
    name = str(record.relative_to(lab.path))
    whole = record.read_bytes()
    record.write_bytes(whole.replace(b'"pack"', b'"pakc"'))
    assert name in {problem["object"] for problem in lab.open().verify().problems}
    assert name in {found[0] for found in scrub(lab.store())}
    record.unlink()  # what was punched cannot be told from damage any more
    assert {found[0].partition("/")[0] for found in scrub(lab.store())} == {"packs"}


def test_a_map_that_names_what_was_punched_is_damaged(
    lab: Lab, image: Image, punched: tuple[Lab, dict[str, Path], PruneReport, int]
) -> None:
    """Should it ever happen, the cheapest verification tells."""
    _lab, _expected, _report, _freed = punched
    saveset = lab.backup(image.write(c3=77), volume="fs3/m")
    entry = next(entry for entry in saveset.map.entries(0) if entry.kind == 2)
    PunchedPacks(lab.store(), lab.open()._ring).record(entry.pack, [(entry.offset, entry.length)])
    problems = lab.open().verify(depth="structure").problems
    assert saveset.id in {problem["saveset"] for problem in problems}


def test_packs_below_the_threshold_are_left_alone(lab: Lab, image: Image) -> None:
    first = image.write(**{f"c{number}": number + 1 for number in range(20)})
    lab.backup(first)
    second = lab.backup(image.write(**{f"c{number}": number + 100 for number in range(4)}))
    assert prune(lab, threshold=0.9).packs_punched == 0
    assert prune(lab, None).packs_punched == 0  # looked at once, when its saveset was forgotten
    assert prune(lab, None, everywhere=True).packs_punched == 1
    assert_sound(lab, {second.id: image.path.with_suffix(".2")})


def test_grains_are_punched_out(lab: Lab, image: Image) -> None:
    """Frames of grains that later pieces took the place of."""
    path = image.write(**{f"c{number}": number + 1 for number in range(20)})
    lab.backup(path, source_id="s0")
    size = path.stat().st_size
    data = bytearray(path.read_bytes())
    for number in range(1, 4):
        changed = [(chunk * CHUNK, CHUNK // 2) for chunk in range(0, 20, 1 if number == 1 else 3)]
        for offset, length in changed:
            data[offset : offset + length] = noise(length, offset + number)
        path = image.path.with_suffix(f".grains{number}")
        path.write_bytes(data)
        changes = Changes(f"s{number - 1}", size, changed)
        saveset = lab.backup(path, source_id=f"s{number}", changes=changes)
        assert saveset.info.origin["method"] == "changed"
    report = prune(lab, threshold=0.0)
    assert report.packs_deleted + report.packs_punched > 0 and report.bytes_freed > 0
    assert_sound(lab, {saveset.id: path})
    assert_no_garbage(lab)


def test_a_store_that_cannot_punch_does_without(lab: Lab, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStore, "can_punch", lambda self: False)
    lab.backup(image.write(c0=1, c1=2, c2=3))
    second = image.write(c0=4, c1=5)
    saveset = lab.backup(second)
    report = prune(lab)
    assert report.packs_punched == 0 and report.maps_deleted == 1 and lab.files("gc/punched") == []
    assert_sound(lab, {saveset.id: second})


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 10)), max_size=12), st.integers(0, 80))
def test_ranges(pieces: list[tuple[int, int]], offset: int) -> None:
    covered = {at for begin, length in pieces for at in range(begin, begin + length)}
    ranges = Ranges(pieces)
    assert (offset in ranges) == (offset in covered)
    merged = list(ranges)
    assert {at for begin, length in merged for at in range(begin, begin + length)} == covered
    assert all(one[0] + one[1] < two[0] for one, two in itertools.pairwise(merged))
    if offset in covered:
        end = ranges.end_of(offset)
        assert end is not None and end not in covered and all(at in covered for at in range(offset, end))


def test_leaves_that_savesets_share_are_looked_at_once(lab: Lab, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.backup(image.write(c0=1, c1=2, c2=3))
    for number in range(10, 16):
        path = image.write(c0=number, c1=number + 10)
        for _time in range(3):  # savesets of the same content share their only leaf
            lab.backup(path)
    loaded: list[int] = []
    load = leafmap.LeafMap._load

    def counting(self: leafmap.LeafMap, number: int) -> t.Any:
        loaded.append(number)
        return load(self, number)

    monkeypatch.setattr(leafmap.LeafMap, "_load", counting)
    assert lab.open().prune(None, options=PruneOptions(everywhere=True), dry_run=True).packs_punched == 0
    assert len(loaded) == 7


# -- crashes


class Dying(LocalStore):
    """A store in which the process dies before the ``countdown``-th step that changes anything."""

    def __init__(self, path: str, countdown: int, die: t.Callable[[], t.Any]) -> None:
        super().__init__(path)
        self.countdown = countdown
        self.die = die

    def step(self) -> None:
        self.countdown -= 1
        if self.countdown < 0:
            self.die()

    def create(self, name: str) -> Upload:
        self.step()
        return super().create(name)

    def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
        super().put(name, data, exclusive)
        self.step()

    def hold(self, name: str, data: bytes) -> t.Any:
        self.step()
        return super().hold(name, data)

    def delete(self, name: str) -> None:
        self.step()
        super().delete(name)

    def delete_all(self, names: t.Iterable[str]) -> None:
        for name in names:
            self.step()
            super().delete_all([name])

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        freed = 0
        for item in ranges:
            self.step()
            freed += super().punch(name, [item])
        return freed


def _history(lab: Lab, image: Image) -> dict[str, Path]:
    """Savesets of which pruning to the last one deletes and punches packs; the image of each."""
    expected = {}
    numbers = {f"c{number}": number + 1 for number in range(20)}
    for path in (
        image.write(**numbers),
        image.write(**{f"c{number}": number + 100 for number in range(10)}),
        image.write(**{f"c{number}": number + 200 for number in range(10)}),
    ):
        expected[lab.backup(path, pack_bytes=MIB).id] = path
    other = image.write(c0=300, c1=301)
    expected[lab.backup(other, volume="fs2/m").id] = other
    return expected


def _latest(lab: Lab) -> set[str]:
    """The ids of the latest saveset of each volume."""
    return {info.id for info in {info.volume: info for info in lab.open().savesets()}.values()}


def _prune_in_a_child(lab: Lab, countdown: int) -> int:
    """Prune in a process that dies before its ``countdown``-th step; its exit status, 9 when it died so."""
    child = os.fork()
    if not child:
        try:
            store = Dying(str(lab.path), countdown, lambda: os._exit(9))
            repository.Repository.open(store, lab.secret).prune(LAST)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_collector_may_die_before_every_step(lab: Lab, image: Image) -> None:
    """Before each write and delete in turn: whatever is there is whole, and the next prune ends the work."""
    for countdown in itertools.count():
        expected = _history(lab, image)
        latest = _latest(lab)
        status = _prune_in_a_child(lab, countdown)
        there = {info.id for info in lab.open().savesets()}
        assert latest <= there
        assert_sound(lab, {key: path for key, path in expected.items() if key in there})
        assert prune(lab).waiting == []
        assert_sound(lab, {key: expected[key] for key in latest})
        assert_no_garbage(lab)
        lab.open().forget(latest)
        prune(lab, None)
        assert lab.files("packs") == lab.files("maps") == []
        if status == 0:
            break
        assert status == 9
    assert countdown > 12


def test_every_step_of_collecting_may_fail(lab: Lab, image: Image) -> None:
    """The store fails at each step in turn, and the process lives: nothing stays locked, the next prune works."""
    error = errors.StoreError("gc", "it broke", "Mend it")

    def fail() -> t.NoReturn:
        raise error

    for countdown in itertools.count():
        expected = _history(lab, image)
        latest = _latest(lab)
        try:
            repository.Repository.open(Dying(str(lab.path), countdown, fail), lab.secret).prune(LAST)
        except errors.StoreError as caught:
            assert caught is error
        else:
            break
        there = {info.id for info in lab.open().savesets()}
        assert latest <= there
        if countdown % 3 == 0:
            assert_sound(lab, {key: path for key, path in expected.items() if key in there})
        assert prune(lab).waiting == []
        assert_no_garbage(lab)
        lab.open().forget(latest)
    assert countdown > 12
    assert lab.open().verify(depth="full").ok


def test_what_progress_raises_stops_pruning(lab: Lab, image: Image) -> None:
    expected = _history(lab, image)

    def stop(now: t.Any) -> None:
        if now.bytes_done:
            raise errors.Cancelled("the prune", "it was stopped", "Run it again")

    with pytest.raises(errors.Cancelled):
        lab.open().prune(LAST, progress=stop)
    assert_sound(lab, {key: expected[key] for key in _latest(lab)})
    assert prune(lab).bytes_freed > 0
    assert_no_garbage(lab)


@pytest.mark.root
def test_a_full_store_can_be_pruned(tmp_path: Path, make_image: MakeImage) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    try:
        lab = Lab(mount)
        lab.backup(make_image("one", 2 * MIB, [(0, noise(2 * MIB))]))
        two = make_image("two", 2 * MIB, [(0, noise(2 * MIB, 2))])
        kept = lab.backup(two)
        with open(mount / "ballast", "wb", buffering=0) as ballast, pytest.raises(OSError, match="No space"):
            while True:
                ballast.write(bytes(4 * KIB))
        with pytest.raises(errors.StoreFull):
            lab.store().put("features/any.json", b"x" * KIB)
        assert prune(lab).bytes_freed > 2 * MIB
        lab.folder = tmp_path
        assert_sound(lab, {kept.id: two})
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# -- any history


@pytest.mark.parametrize("seed", [0, 1, *map(slow, range(2, 6))])
def test_any_order_of_backups_forgetting_and_pruning(lab: Lab, tmp_path: Path, seed: int) -> None:
    """Random histories of three volumes that share data: what is there restores bit for bit, and no garbage stays."""
    generator = random.Random(seed)
    images = [Image(tmp_path, f"v{number}", 12) for number in range(3)]
    expected: dict[str, Path] = {}
    for _step in range(30):
        action = generator.random()
        if action < 0.6 or not expected:
            number = generator.randrange(3)
            chunks = generator.sample(range(12), generator.randrange(1, 9))
            path = images[number].write(**{f"c{chunk}": generator.randrange(0, 30) for chunk in chunks})
            saveset = lab.backup(path, volume=f"fs{number}/m", pack_bytes=generator.choice([300 * KIB, MIB]))
            expected[saveset.id] = path
        elif action < 0.8:
            gone = generator.sample(sorted(expected), min(len(expected), generator.randrange(1, 3)))
            lab.open().forget(gone)
            for key in gone:
                del expected[key]
        else:
            prune(lab, None, threshold=generator.choice([0.0, 0.1]), everywhere=generator.random() < 0.2)
            assert_sound(lab, expected)
    prune(lab, None, threshold=0.0, everywhere=True)
    assert_sound(lab, expected)
    assert_no_garbage(lab)

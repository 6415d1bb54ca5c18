# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases: who uses the repository, and what he knows of; those of the dead are told from those of the living."""

from __future__ import annotations

import copy
import filecmp
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.tombstone import (
    Tombstone,
    new_name,
    put_tombstone,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import local, store

from .conftest import MIB, Lab, MakeImage, noise

ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from saveset.collect import lease
from saveset import repository
from saveset.keys import secret
from saveset.store import registry
place = registry.open_store(sys.argv[2])
ring = repository.Repository.open(place, secret.Secret(b"correct horse"))._ring
held = lease.collecting(place, ring) if sys.argv[3] == "collector" else lease.writing(place, ring, "fs1/m", bytes(32))
with held:
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that holds a lease."""

    def __init__(self, lab: Lab, role: str) -> None:
        arguments = [sys.executable, "-c", CHILD, str(ENGINE), str(lab.path), role]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stdout.readline() == "held\n"

    def end(self, kill: bool = False) -> None:
        """Let it end, or kill it."""
        if kill:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder(lab: Lab) -> t.Iterator[t.Callable[[str], Holder]]:
    started: list[Holder] = []

    def start(role: str) -> Holder:
        started.append(Holder(lab, role))
        return started[-1]

    yield start
    for one in started:
        one.end(kill=True)


def living(lab: Lab, **options: t.Any) -> list[lease.LeaseInfo]:
    return lease.living_leases(lab.store(), lab.open()._ring, **options)


def test_every_use_of_the_repository_has_a_lease(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    class Looking(local.LocalStore):
        """Looks at the leases whenever anything of packs is touched."""

        def look(self, name: str) -> None:
            if name.startswith("packs/"):
                seen.update(f"{info.role} {info.volume} {info.seen is not None}".strip() for info in living(plain))

        def create(self, name: str) -> store.Upload:
            self.look(name)
            return super().create(name)

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            self.look(name)
            return super().get(name, offset, length)

    def used() -> set[str]:
        found = set(seen)
        seen.clear()
        return found

    plain = copy.copy(lab)
    monkeypatch.setattr(lab, "store", lambda: Looking(str(lab.path)))
    saveset = lab.backup(mixed)
    assert used() == {"backup fs1/m True"}
    lab.restore(saveset)
    assert used() == {"restore  True"}
    lab.open().verify(depth="stored")
    assert used() == {"verify  True"}
    with lab.open().reading(lease.SERVE, saveset.info):
        lab.open().find("fs1/m").read(0, 1)
    assert used() == {"serve  True"}
    assert living(lab) == [] and lab.files("gc") == []


def test_a_lease_names_the_tombstones_that_its_owner_has_seen(lab: Lab) -> None:
    ring = lab.open()._ring
    first = Tombstone(new_name(), packs=frozenset([bytes(16)]))
    second = Tombstone(new_name(), maps=frozenset(["maps/fs1~m/" + "0" * 32]))
    put_tombstone(lab.store(), ring, first)
    with lease.writing(lab.store(), ring, "fs1/m", bytes(32)) as held:
        put_tombstone(lab.store(), ring, second)
        (info,) = living(lab)
        assert info.has_seen(first.name) and not info.has_seen(second.name)
        assert held.withheld.packs == {bytes(16)} and held.withheld.maps == set()


def test_a_lease_is_there_before_tombstones_are_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsettled at first: whatever tombstone is put from then on waits for it."""
    found: list[lease.LeaseInfo] = []
    read = lease.read_tombstones

    def reading(*arguments: t.Any) -> t.Any:
        found.extend(living(lab))
        return read(*arguments)

    monkeypatch.setattr(lease, "read_tombstones", reading)
    with lease.reading(lab.store(), lab.open()._ring, lease.RESTORE):
        pass
    (unsettled,) = found
    assert unsettled.seen is None and not unsettled.has_seen("gc/tombstones/any")


def test_a_tombstone_of_another_key_counts_for_nothing(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Lab(tmp_path / "other")
    put_tombstone(lab.store(), other.open()._ring, Tombstone(new_name(), packs=frozenset([bytes(16)])))
    with lease.writing(lab.store(), lab.open()._ring, "fs1/m", bytes(32)) as held:
        assert held.withheld.packs == set()
        assert living(lab)[0].seen == frozenset()


def test_the_lease_of_a_dead_process_is_recognised(lab: Lab, holder: t.Callable[[str], Holder]) -> None:
    alive, dead = holder("backup"), holder("backup")
    assert len(living(lab)) == 2
    dead.end(kill=True)
    assert len(living(lab)) == 1 and len(lab.files("gc/leases")) == 2
    assert len(living(lab, remove_dead=True)) == 1 and len(lab.files("gc/leases")) == 1
    assert f"backup of fs1/m by process {alive.process.pid}" in str(living(lab)[0])
    alive.end()
    assert lab.files("gc/leases") == []


def test_a_lease_that_cannot_be_read_counts_as_unsettled(lab: Lab) -> None:
    hold = lab.store().hold(f"gc/leases/{'bb' * 16}", b"{half")
    (info,) = living(lab, remove_dead=True)
    assert info.seen is None and not info.has_seen("any")
    hold.release()
    assert living(lab) == []


def test_a_backup_whose_lease_is_lost_leaves_no_saveset(lab: Lab, mixed: Path) -> None:
    """Somebody took its process for dead: what it builds upon may be gone."""

    def lose(_progress: object) -> None:
        for path in lab.files("gc/leases"):
            path.unlink()

    with pytest.raises(errors.RepositoryBusy, match="lease of this backup is gone"):
        lab.backup(mixed, progress=lose)
    assert lab.open().savesets() == []
    assert filecmp.cmp(mixed, lab.restore(lab.backup(mixed)), shallow=False)


def test_a_commit_is_withdrawn_when_the_lease_goes_at_that_moment(
    lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(local.LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            super().put(name, data, exclusive)
            if name.startswith("savesets/"):
                for path in lab.files("gc/leases"):
                    path.unlink()

    monkeypatch.setattr(lab, "store", lambda: Slow(str(lab.path)))
    with pytest.raises(errors.RepositoryBusy):
        lab.backup(mixed)
    assert lab.open().savesets() == []


def test_only_one_collects_at_a_time(lab: Lab, mixed: Path, holder: t.Callable[[str], Holder]) -> None:
    lab.backup(mixed)
    other = holder("collector")
    with pytest.raises(errors.RepositoryBusy, match="another process is collecting"):
        lab.open().prune(None)
    other.end(kill=True)
    assert lab.open().prune(None).packs_deleted == 0
    assert not (lab.path / "gc/collector").exists()


def test_a_collector_that_was_taken_for_dead_removes_nothing(
    lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saveset = lab.backup(mixed)
    lab.open().forget([saveset.id])
    before = lab.files("packs")

    class Lost(local.LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            super().put(name, data, exclusive)
            if name.startswith("gc/tombstones/"):
                (lab.path / "gc/collector").unlink()

    with pytest.raises(errors.RepositoryBusy, match="another process is collecting"):
        repository.Repository.open(Lost(str(lab.path)), lab.secret).prune(None)
    assert lab.files("packs") == before
    assert lab.open().prune(None).packs_deleted == 1


@pytest.mark.parametrize("error", [errors.StoreReadOnly, errors.StoreFull])
def test_reading_goes_on_where_no_lease_can_be_put(
    lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch, error: type[errors.StoreError]
) -> None:
    saveset = lab.backup(mixed)

    def refuse(*_arguments: object) -> t.NoReturn:
        raise error("gc", "it cannot be written", "Read only")

    monkeypatch.setattr(local.LocalStore, "hold", refuse)
    assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)
    assert lab.open().verify(depth="full").ok
    with pytest.raises(error):
        lab.backup(mixed)


@pytest.mark.root
def test_a_store_mounted_read_only_can_be_read(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    if subprocess.run(["mount", "--bind", str(lab.path), str(lab.path)], check=False).returncode:
        pytest.skip("this machine refuses bind mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(lab.path)], check=True)
        assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)
        assert lab.open().verify(depth="full").ok
        assert lab.open().prune(None, dry_run=True).bytes_freed == 0
        with pytest.raises(errors.StoreReadOnly):
            lab.open().prune(None)
    finally:
        subprocess.run(["umount", str(lab.path)], check=True)


def test_a_forgotten_saveset_is_not_restored(lab: Lab, make_image: MakeImage) -> None:
    saveset = lab.backup(make_image("one", MIB, [(0, noise(MIB))]))
    lab.open().forget([saveset.id])
    with pytest.raises(errors.NotFound, match="has been forgotten"):
        lab.restore(saveset)

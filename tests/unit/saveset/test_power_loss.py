# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The power fails after any step of any writer: what was there stays, and the next run works without repair."""

from __future__ import annotations

import random
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.beneath import Beneath
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub

from .conftest import KIB, Lab, noise, text
from .power import Disk, Least, Left, Most, NamesOnly, Some

pytestmark = pytest.mark.slow

CHUNK = 64 * KIB
SIZE = 20 * CHUNK
RANDOM_STATES = 2


class Loss:
    """Collects what may be left when the power fails after each step; states that differ only in tmp/ count once."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self._disk = disk
        self._generator = random.Random(seed)
        self._seen: set[frozenset[tuple[str, int]]] = set()
        self.steps = 0
        self.states: list[tuple[str, Left]] = []
        disk.on_change = self._step

    def _step(self) -> None:
        self.steps += 1
        choices: list[Least] = [Least(), NamesOnly(), Most(), *[Some(self._generator)] * RANDOM_STATES]
        for choice in choices:
            left = self._disk.left(choice)
            key = frozenset((path, hash(data)) for path, data in left.items() if "tmp/" not in path)
            if key not in self._seen:
                self._seen.add(key)
                self.states.append((f"step {self.steps}, {type(choice).__name__}", left))


def lay_out(left: Left, path: Path) -> None:
    """Make the folder that is left."""
    path.mkdir(parents=True)
    for name, data in left.items():
        if data is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(data)


class Server:
    """A volume with two savesets, the second of pieces, and a third state that no saveset has yet."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.image = lab.folder / "image"
        self.image.write_bytes(text(SIZE // 2) + noise(SIZE // 2))
        self.contents: dict[str, bytes] = {}
        self._keep(lab.backup(self.image, source_id="s0", pack_bytes=256 * KIB))
        self._keep(lab.backup(self.image, source_id="s1", changes=self.change("s0", 1)))
        self.last_changes = self.change("s1", 2)
        self.last = self.image.read_bytes()

    def change(self, since: str, seed: int) -> Changes:
        """Change grains of some chunks, and another one whole."""
        extents = [(3 * CHUNK + 2 * KIB, 100), (9 * CHUNK, 5 * KIB), (15 * CHUNK, CHUNK)]
        with open(self.image, "r+b") as stream:
            for offset, length in extents:
                stream.seek(offset)
                stream.write(noise(length, seed=seed))
        return Changes(since, SIZE, extents)

    def _keep(self, saveset: repository.Saveset) -> None:
        self.contents[saveset.id] = self.image.read_bytes()

    def assert_nothing_is_lost(self, where: str, left: Left, number: int) -> None:
        """What is left is a repository with all earlier savesets, and goes on as if nothing had happened."""
        path = self.lab.folder / f"left-{number}"
        lay_out(left, path)
        lab = At(path, self.lab)
        repo = lab.open()
        infos = {info.id: info for info in repo.savesets()}
        assert set(self.contents) <= set(infos), where
        for saveset_id, info in infos.items():
            assert repo.saveset(info).read(0, SIZE) == self.contents.get(saveset_id, self.last), where
        report = repo.verify(depth="full")
        assert report.ok, (where, report.problems)
        saveset = lab.backup(self.image, source_id="s2", changes=self.last_changes)
        assert lab.restore(saveset).read_bytes() == self.last, where
        assert lab.files("tmp") == [] and scrub(lab.store()) == [], where
        assert lab.open().verify(depth="full").ok, where
        shutil.rmtree(path)


class At(Lab):
    """A repository that is somewhere else now."""

    def __init__(self, path: Path, like: Lab) -> None:
        self.path = path
        self.folder = like.folder
        self.secret = like.secret
        self._minutes = 30
        self._outputs = 0

    def restore(self, saveset: repository.Saveset) -> Path:
        """Restore to one and the same file."""
        (self.folder / "restored-1").unlink(missing_ok=True)
        self._outputs = 0
        return super().restore(saveset)


@pytest.fixture
def server(lab: Lab) -> Server:
    return Server(lab)


Action = t.Callable[[Server], t.Any]

ACTIONS: dict[str, Action] = {
    "incremental": lambda server: server.lab.backup(server.image, source_id="s2", changes=server.last_changes),
    "full": lambda server: server.lab.backup(server.image, source_id="s2", pack_bytes=256 * KIB, parent=None),
    "new volume": lambda server: server.lab.backup(server.image, volume="fs2/m", pack_bytes=256 * KIB),
    "two at once": lambda server: server.lab.backup_all(
        {"fs1/m": server.image, "fs2/m": server.image},
        pack_bytes=256 * KIB,
        requests={"fs1/m": {"source_id": "s2", "changes": server.last_changes}},
    ),
    "verify": lambda server: [server.lab.open().verify(depth=depth) for depth in ("stored", "full")],
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("links", [True, False])
def test_power_fails_after_every_step(
    server: Server, monkeypatch: pytest.MonkeyPatch, action: str, links: bool
) -> None:
    if not links:
        monkeypatch.setattr("os.link", no_links)
    disk = Disk(server.lab.path)
    loss = Loss(disk, seed=len(action))
    with disk.recording(monkeypatch):
        ACTIONS[action](server)
    assert loss.steps > 10 and len(loss.states) > 4
    for number, (where, left) in enumerate(loss.states):
        server.assert_nothing_is_lost(where, left, number)


def make_without_a_sync(store: LocalStore, folder: str) -> None:
    """Make a folder, and those above it, of which nothing is durable."""
    Path(store.location, folder).mkdir(parents=True, exist_ok=True)


def no_links(*_arguments: t.Any, **_names: t.Any) -> t.NoReturn:
    """A filesystem without hard links."""
    raise PermissionError(1, "no hard links here")


def test_what_was_reported_done_is_durable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """When backup() has returned, its saveset survives whatever happens to what is not durable."""
    disk = Disk(server.lab.path)
    with disk.recording(monkeypatch):
        saveset = ACTIONS["incremental"](server)
    path = server.lab.folder / "left"
    lay_out(disk.left(Least()), path)
    assert At(path, server.lab).open().find("fs1/m").id == saveset.id


def test_a_saveset_upon_packs_of_a_killed_writer_is_durable(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer is killed when it has published packs and synced no folder; another takes their chunks over."""
    disk = Disk(server.lab.path)
    other = server.lab.folder / "other"
    other.write_bytes(noise(SIZE, seed=77))

    with disk.recording(monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "make_folder", make_without_a_sync)
            patch.setattr(Beneath, "sync_folder", lambda self, name: None)
            killed = server.lab.backup(other, volume="fs2/m", pack_bytes=256 * KIB)
        (server.lab.path / killed.info.name).unlink()
        saveset = server.lab.backup(other, volume="fs3/m")
    assert saveset.stats.bytes_known == SIZE
    path = server.lab.folder / "left"
    lay_out(disk.left(Least()), path)
    lab = At(path, server.lab)
    assert lab.open().find("fs3/m").read(0, SIZE) == other.read_bytes()
    assert lab.open().verify(depth="full").ok


def test_power_fails_while_a_repository_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either it is there whole, or making it can be tried again."""
    root = tmp_path / "disk"
    root.mkdir()
    disk = Disk(root)
    loss = Loss(disk, seed=5)
    with disk.recording(monkeypatch):
        secret = Lab(root).secret
    whole = 0
    for number, (where, left) in enumerate(loss.states):
        path = tmp_path / f"left-{number}"
        lay_out(left, path)
        store = open_store(str(path / "repository"))
        try:
            repository.Repository.open(store, secret)
            whole += 1
        except errors.NotARepository:
            repository.Repository.create(store, secret)
        assert repository.Repository.open(store, secret).verify().ok, where
    assert 0 < whole < len(loss.states)
    lay_out(disk.left(Least()), tmp_path / "durable")
    assert repository.Repository.open(open_store(str(tmp_path / "durable" / "repository")), secret).savesets() == []


def test_the_recorder_sees_what_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder itself: a store that forgets a sync is caught."""
    lost, kept = f"pins/{'aa' * 16}.json", f"keys/{'bb' * 16}.json"
    disk = Disk(tmp_path)
    with disk.recording(monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda fd: None)
            LocalStore(str(tmp_path)).put(lost, b"data")
        LocalStore(str(tmp_path)).put(kept, b"data")
    assert disk.left(Least()).get(kept) == b"data"
    assert lost not in disk.left(Least())
    assert disk.left(NamesOnly())[lost] == b""
    assert disk.left(Most())[lost] == b"data"


def test_what_was_deleted_stays_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a commit could come back whose packs were collected afterwards."""
    name = f"pins/{'aa' * 16}.json"
    LocalStore(str(tmp_path)).put(name, b"data")
    disk = Disk(tmp_path)
    with disk.recording(monkeypatch):
        LocalStore(str(tmp_path)).delete(name)
    assert name not in disk.left(Least())

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writers that are killed, stores that fill up, and several writers at once."""

from __future__ import annotations

import contextlib
import datetime
import errno
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors, progress
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import SPLIT
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub

from .conftest import KIB, MIB, NOON, Lab, MakeImage, noise, text
from .stepping import SteppingStore

CHILD = """
import datetime, sys
sys.path.insert(0, sys.argv[1])
from saveset import repository
from saveset.backup import request
from saveset.keys import secret
from saveset.io import source
from saveset.store import registry
path, image, volume, run_id, rate = sys.argv[2:7]
repo = repository.Repository.open(registry.open_store(path), secret.Secret(b"correct horse"))
print("open", flush=True)
with source.open_source(image) as opened:
    wanted = request.BackupRequest(
        volume=volume, run_id=run_id, time=datetime.datetime.now(datetime.timezone.utc), verdict="crash-consistent",
        pack_bytes=1 << 20, rate_limit=int(rate) or None)
    saveset = repo.backup(opened, wanted)
print(saveset.id, flush=True)
"""
ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"


def start(lab: Lab, image: Path, volume: str, run_id: str, rate: int = 0) -> subprocess.Popen[str]:
    """A backup in a process of its own; returns when it has opened the repository."""
    arguments = [sys.executable, "-c", CHILD, str(ENGINE), str(lab.path), str(image), volume, run_id, str(rate)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "open\n"
    return child


def test_kill_at_random_moments(lab: Lab, mixed: Path, make_image: MakeImage) -> None:
    """kill -9 at any moment: earlier savesets stay whole, the killed run leaves none, the next run works."""
    first = lab.backup(mixed)
    image = make_image("large", 40 * MIB, [(0, text(10 * MIB, 5)), (10 * MIB, noise(30 * MIB))])
    generator = random.Random()
    killed = 0
    for number in range(6):
        child = start(lab, image, "fs2/m", f"killed-{number}", rate=60 * MIB)
        time.sleep(generator.uniform(0, 0.6))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        killed += child.returncode == -signal.SIGKILL
        report = lab.open().verify(depth="full")
        assert report.ok, report.problems
        assert first.id in {info.id for info in lab.open().savesets()}
    assert killed
    assert filecmp.cmp(mixed, lab.restore(lab.open().find("fs1/m")), shallow=False)
    last = lab.backup(image, volume="fs3/m")
    assert lab.files("tmp") == []
    assert filecmp.cmp(image, lab.restore(last), shallow=False)
    assert lab.open().verify(depth="full").ok and scrub(lab.store()) == []


def test_packs_of_a_killed_run_are_used_by_the_next(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("large", 24 * MIB, [(0, noise(24 * MIB))])
    child = start(lab, image, "fs1/m", "killed", rate=12 * MIB)
    deadline = time.monotonic() + 20
    while len(lab.files("packs")) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.communicate()
    assert lab.open().savesets() == []
    saveset = lab.backup(image)
    assert saveset.stats.bytes_known >= 4 * 3 * 256 * KIB  # a fourth chunk of noise does not fit into a pack of 1 MiB
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)


class _Failing(SteppingStore):
    """A store in which the ``countdown``-th step of writing fails, and every one after it."""

    def __init__(self, path: str, countdown: int, error: Exception) -> None:
        super().__init__(path)
        self.countdown = countdown
        self.error = error

    def step(self) -> None:
        """One step of writing."""
        self.countdown -= 1
        if self.countdown < 0:
            raise self.error


def test_every_step_of_writing_may_fail(lab: Lab, mixed: Path, make_image: MakeImage) -> None:
    """The store fails at each step in turn: nothing half-made stays, nothing earlier is hurt, then it works."""
    first = lab.backup(mixed)
    full = errors.StoreFull("packs", "no room is left", "Add space")
    for countdown in range(100):
        # New data each time: else later tries would find what earlier ones stored, and take fewer steps.
        image = make_image(f"other{countdown}", 3 * MIB, [(0, noise(3 * MIB, 9 + countdown))])
        store = _Failing(str(lab.path), countdown, full)
        repo = repository.Repository.open(store, lab.secret)
        with source.open_source(str(image)) as opened:
            try:
                repo.backup(
                    opened, BackupRequest(volume="fs2/m", run_id="x", time=NOON, verdict="x", pack_bytes=600 * KIB)
                )
            except errors.StoreFull as error:
                assert error is full
            else:
                break
        assert [info.id for info in lab.open().savesets()] == [first.id]
        assert lab.files("tmp") == []
        assert scrub(lab.store()) == []
    assert countdown > 10
    assert lab.open().verify(depth="full").ok
    for volume, path in (("fs1/m", mixed), ("fs2/m", image)):
        assert filecmp.cmp(path, lab.restore(lab.open().find(volume)), shallow=False)


FULL = errors.StoreFull("packs", "no room is left", "Add space")
BROKEN = errors.StoreError("packs", "Input/output error", "Check the disk")


@pytest.mark.parametrize("trouble", [FULL, BROKEN])
def test_every_step_of_an_incremental_backup_may_fail(lab: Lab, mixed: Path, trouble: errors.StoreError) -> None:
    """With pieces in packs of their own, of a source that is taken up again: at each step in turn, then it works."""
    first = lab.backup(mixed, source_id="s0")
    before = mixed.read_bytes()
    extents = [(chunk * 64 * KIB + 4 * KIB, 3000) for chunk in range(40)]
    with open(mixed, "r+b") as stream:
        for offset, length in extents:
            stream.seek(offset)
            stream.write(noise(length, seed=offset))
    changes = Changes("s0", first.size, extents)

    request = BackupRequest(
        volume="fs1/m",
        run_id="x",
        time=NOON + datetime.timedelta(hours=1),
        verdict="x",
        source_id="s1",
        changes=changes,
        pack_bytes=50 * KIB,
    )

    def back_up(store: LocalStore) -> repository.Saveset:
        with source.open_source(str(mixed)) as opened:
            return repository.Repository.open(store, lab.secret).backup(opened, request)

    for countdown in range(100):
        spare = lab.folder / "spare"
        shutil.copytree(lab.path, spare)  # each try begins with the same repository
        try:
            second = back_up(_Failing(str(lab.path), countdown, trouble))
        except errors.StoreError as error:
            assert error is trouble
        else:
            break
        repo = lab.open()
        assert [info.id for info in repo.savesets()] == [first.id]
        assert repo.saveset(first.info).read(0, first.size) == before
        assert repo.verify(depth="full").ok and lab.files("tmp") == []
        saveset = back_up(LocalStore(str(lab.path)))
        assert saveset.info.origin["method"] == "changed"
        assert saveset.read(0, first.size) == mixed.read_bytes()
        assert lab.open().verify(depth="full").ok
        shutil.rmtree(lab.path)
        spare.rename(lab.path)
    assert countdown > 10
    assert filecmp.cmp(mixed, lab.restore(lab.open().find("fs1/m")), shallow=False)
    assert SPLIT in {entry.kind for entry in second.map.entries(0)}


@pytest.mark.parametrize("folder", [".", "packs", "maps", "tmp"])
def test_a_medium_that_vanishes(lab: Lab, make_image: MakeImage, folder: str) -> None:
    """The store's folder, or one in it, is gone in the middle of a backup; when it is back, all goes on."""
    small = make_image("small", MIB, [(0, noise(MIB, 3))])
    first = lab.backup(small)
    image = make_image("large", 16 * MIB, [(0, noise(16 * MIB))])
    path, away = lab.path / folder, lab.folder / "away"

    def vanish(now: progress.Progress) -> None:
        if now.bytes_read >= 6 * MIB and not away.exists():
            path.rename(away)
            if folder == ".":
                path.write_bytes(b"")  # as an automounter or another disk would have it: nothing can be made there

    options = {"source_id": "s1", "pack_bytes": MIB, "rate_limit": 16 * MIB}
    with contextlib.suppress(errors.StoreError):  # tmp/ is made again: then it may even succeed
        lab.backup(image, volume="fs2/m", progress=vanish, **options)
    assert away.exists()
    if path.is_file():
        path.unlink()
    shutil.copytree(away, path, dirs_exist_ok=True)
    repo = lab.open()
    assert first.id in {info.id for info in repo.savesets()}
    assert repo.saveset(first.info).read(0, MIB) == small.read_bytes()
    again = lab.backup(image, volume="fs2/m", source_id="s1")
    assert filecmp.cmp(image, lab.restore(again), shallow=False)
    assert lab.open().verify(depth="full").ok


#: A link that ends with EIO is one that a filesystem does not make: there is another way.
DEAD = [
    (call, code)
    for call in ("write", "fsync", "link", "mkdir")
    for code in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
    if (call, code) != ("link", errno.EIO)
]


@pytest.mark.parametrize(("call", "code"), DEAD)
def test_calls_that_fail_for_good(
    lab: Lab, mixed: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """From some moment on, each such call fails, as on a disk that died: no saveset, no half one, and no traceback."""
    first = lab.backup(mixed)
    image = make_image("other", 3 * MIB, [(0, noise(3 * MIB, 4))])
    real, left = getattr(os, call), 3

    def fail(*arguments: t.Any, **names: t.Any) -> t.Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **names)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(errors.StoreFull if code in (errno.ENOSPC, errno.EDQUOT) else errors.StoreError):
            lab.backup(image, volume="fs2/m", pack_bytes=600 * KIB)
    assert [info.id for info in lab.open().savesets()] == [first.id]
    assert lab.open().verify(depth="full").ok
    assert filecmp.cmp(image, lab.restore(lab.backup(image, volume="fs2/m")), shallow=False)


@pytest.mark.root
def test_a_full_filesystem(tmp_path: Path, make_image: MakeImage) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], check=False).returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    try:
        lab = Lab(mount)
        small = make_image("small.img", MIB, [(0, noise(MIB))])
        first = lab.backup(small)
        large = make_image("large.img", 12 * MIB, [(0, noise(12 * MIB, 2))])
        with pytest.raises(errors.StoreFull, match="no disk space left") as caught:
            lab.backup(large, volume="fs2/m", pack_bytes=2 * MIB)
        assert "earlier savesets are intact" in str(caught.value)
        assert lab.files("tmp") == []
        assert [info.id for info in lab.open().savesets()] == [first.id]
        lab.folder = tmp_path
        assert filecmp.cmp(small, lab.restore(lab.open().find("fs1/m")), shallow=False)
        assert lab.open().verify(depth="full").ok
        subprocess.run(["mount", "-o", "remount,size=40m", str(mount)], check=True)
        again = lab.backup(large, volume="fs2/m")
        assert filecmp.cmp(large, lab.restore(again), shallow=False)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_concurrent_writers(lab: Lab, make_image: MakeImage) -> None:
    """Several processes back up overlapping volumes into one repository at once; one is killed."""
    shared = noise(4 * MIB)
    images = [make_image(f"v{n}", 12 * MIB, [(0, shared), (6 * MIB, text(3 * MIB, n))]) for n in range(4)]
    children = [start(lab, image, f"fs{n}/m", "together", rate=40 * MIB) for n, image in enumerate(images)]
    time.sleep(0.1)
    children[3].kill()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children[:3]] == [0, 0, 0]
    repo = lab.open()
    for number in range(3):
        found = repo.find(f"fs{number}/m")
        assert filecmp.cmp(images[number], lab.restore(found), shallow=False)
    assert repo.verify(depth="full").ok


def test_a_filesystem_without_hard_links(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_names: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert filecmp.cmp(mixed, lab.restore(lab.backup(mixed)), shallow=False)
    with pytest.raises(errors.StoreError, match="taken"):
        lab.store().put("repo.json", b"{}")
    assert lab.open().verify(depth="full").ok and lab.files("tmp") == []


@pytest.mark.root
def test_a_store_that_may_not_be_written(lab: Lab, mixed: Path) -> None:
    """Permission problems are told as such (root passes permissions, so the folder is mounted read-only)."""
    mounted = subprocess.run(["mount", "--bind", str(lab.path), str(lab.path)], check=False).returncode == 0
    if not mounted:
        pytest.skip("this machine refuses bind mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(lab.path)], check=True)
        with pytest.raises(errors.StoreError, match="Read-only"):
            lab.backup(mixed)
    finally:
        subprocess.run(["umount", str(lab.path)], check=True)
    assert os.path.exists(lab.path / "repo.json")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Media that refuse something: who reads needs nothing but to read, and who writes is told what is refused."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.backup import exports as saveset_exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository, trial
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import local, registry

from . import media
from .conftest import KIB, Cli, Lab, MakeImage, noise, text
from .media import ERRORS, FATAL, LINK, LOCK, NO_LEASE, SYNC, TABLE, UNLINK
from .refusing import Refusing


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    return make_image("image", 300 * KIB, [(0, noise(100 * KIB)), (150 * KIB, text(60 * KIB))])


@pytest.fixture
def refusing(lab: Lab) -> Refusing:
    return Refusing(lab.path)


def everything(lab: Lab) -> dict[str, bytes]:
    return {str(path.relative_to(lab.path)): path.read_bytes() for path in lab.path.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("operation", "code"), TABLE)
def test_who_reads_needs_only_to_read(
    lab: Lab, image: Path, cli: Cli, refusing: Refusing, operation: str, code: str
) -> None:
    lab.backup(image)
    before = everything(lab)
    with refusing.refuse(operation, code):
        media.read_everything(lab, image, cli, leases=(operation, code) not in FATAL)
    assert {name: data for name, data in everything(lab).items() if name in before} == before
    media.nothing_is_left(lab)


@pytest.mark.parametrize("what", media.WRITERS)
@pytest.mark.parametrize(("operation", "code"), TABLE)
def test_who_writes_finds_another_way_or_is_told(
    lab: Lab, make_image: MakeImage, image: Path, refusing: Refusing, operation: str, code: str, what: str
) -> None:
    lab.backup(make_image("older", 300 * KIB, [(0, noise(300 * KIB, seed=7))]))
    lab.backup(image)
    with refusing.refuse(operation, code):
        media.write(lab, image, what, operation, code)
    media.nothing_is_left(lab)


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (LINK, "making a hard link (link) was refused"),
        (UNLINK, "removing a file (unlink) was refused"),
        (SYNC, "making names in a folder durable (fsync) was refused"),
    ],
)
def test_what_is_done_another_way_is_told(lab: Lab, refusing: Refusing, operation: str, told: str, code: str) -> None:
    opened = lab.open()
    assert trial.try_out(lab.store()) == []
    if (operation, code) in FATAL:
        return
    with refusing.refuse(operation, code):
        opened.try_writing()
        made = repository.Repository.create(registry.open_store(str(lab.path / "another")), lab.secret)
    assert told in opened.warnings[0] and f"({code})" in opened.warnings[0]
    assert [told in text for text in made.warnings] == [True]


def test_locks_that_hold_nobody_off_are_found_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda _fd, _flags: None)
    with pytest.raises(errors.StoreError, match="a running backup would look dead"):
        lab.open().try_writing()
    with pytest.raises(errors.StoreError, match="a running backup would look dead"):
        repository.Repository.create(registry.open_store(str(lab.folder / "another")), lab.secret)


def test_a_server_that_hides_removed_files_is_no_trouble(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FUSE does: what is removed while it is open gets a name of the filesystem's own."""

    def hide(_progress: object) -> None:
        for path in lab.files("gc/leases"):
            path.rename(path.with_name(".fuse_hidden0000000100000001"))

    with pytest.raises(errors.RepositoryBusy, match="lease of this backup is gone"):
        lab.backup(image, progress=hide)
    assert lab.open().savesets() == []


@pytest.mark.parametrize("code", [errno.ESTALE, errno.ENOENT])
def test_a_lease_that_is_stale_withdraws_the_commit(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """What network filesystems say of an open file that another host has removed."""
    lab.backup(image)
    real = os.fstat
    gone: set[tuple[int, int]] = set()

    def fstat(fd: int) -> os.stat_result:
        status = real(fd)
        if (status.st_dev, status.st_ino) in gone:
            raise OSError(code, os.strerror(code))
        return status

    class Slow(local.LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            super().put(name, data, exclusive)
            if name.startswith("savesets/"):
                for path in lab.files("gc/leases"):
                    gone.add((path.stat().st_dev, path.stat().st_ino))
                    path.unlink()

    monkeypatch.setattr(lab, "store", lambda: Slow(str(lab.path)))
    monkeypatch.setattr(os, "fstat", fstat)
    with pytest.raises(errors.RepositoryBusy, match="lease of this backup is gone"):
        lab.backup(image)
    assert len(lab.open().savesets()) == 1


def test_a_lease_of_which_nothing_can_be_told_withdraws_the_commit(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(local.LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            super().put(name, data, exclusive)
            if name.startswith("savesets/"):
                monkeypatch.setattr("os.path.samestat", refuse)

    def refuse(*_arguments: object) -> t.NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(lab, "store", lambda: Slow(str(lab.path)))
        with pytest.raises(errors.StoreError, match="Input/output error"):
            lab.backup(image)
    monkeypatch.undo()
    assert lab.open().savesets() == []


def test_a_commit_that_cannot_be_withdrawn_is_named(lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(local.LocalStore):
        def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
            super().put(name, data, exclusive)
            if name.startswith("savesets/"):
                raise errors.StoreError(name, "it may be there", "Look")

        def delete(self, name: str) -> None:
            raise errors.StoreError(name, "it cannot be removed", "Look")

    monkeypatch.setattr(lab, "store", lambda: Stuck(str(lab.path)))
    with pytest.raises(errors.StoreError, match="could not be removed") as raised:
        lab.backup(image)
    assert lab.open().savesets()[0].id in raised.value.way_out


def test_the_answer_to_a_link_may_get_lost(lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An NFS client then asks again, and is told of its own link."""
    real = os.link

    def link(*names: t.Any, **options: t.Any) -> None:
        real(*names, **options)
        real(*names, **options)

    monkeypatch.setattr(os, "link", link)
    assert filecmp.cmp(image, lab.restore(lab.backup(image)), shallow=False)
    with pytest.raises(errors.NameTaken):
        lab.store().put("repo.json", b"another")


def test_holds_exclude_each_other_without_exclusive_renames(lab: Lab, image: Path, refusing: Refusing) -> None:
    with refusing.without_exclusive_renames():
        lab.open().try_writing()
        assert filecmp.cmp(image, lab.restore(lab.backup(image)), shallow=False)
        opened = lab.open()
        with (
            lease.collecting(lab.store(), opened._ring) as check,
            pytest.raises(errors.RepositoryBusy, match="another process is collecting"),
        ):
            check()
            opened.prune(None)
        opened.prune(None)
        assert lab.files("tmp") == [] == lab.files("gc/leases") and not (lab.path / lease.COLLECTOR).exists()


def test_a_saveset_that_is_pruned_under_a_reader_without_a_lease(
    lab: Lab, image: Path, refusing: Refusing, make_image: MakeImage
) -> None:
    """No lease can hold that up; what is gone is met as gone, never as wrong data, and the reader is told why."""
    old = lab.backup(make_image("older", 300 * KIB, [(0, noise(300 * KIB, seed=7))]))
    lab.backup(image)
    opened = lab.open()
    saveset = opened.saveset(old.info)
    with (
        pytest.raises(
            errors.NotFound, match="forgotten while it was being read, and there was no lease to prevent that"
        ),
        contextlib.ExitStack() as stack,
    ):
        with refusing.refuse(LOCK, "ENOLCK"):
            stack.enter_context(opened.reading(lease.EXPORT, saveset.info))
        media.prune(lab, image)
        saveset.read(0, saveset.size)
    assert NO_LEASE in opened.warnings[0]


def test_the_dead_leases_of_a_copy_that_is_read_only_are_left_alone(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export is ended all the same."""
    lab.backup(image)
    (lab.path / "gc/leases" / ("ab" * 16)).write_bytes(b"")

    def refuse(*_names: object, **_options: object) -> t.NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    exports = saveset_exports.SavesetExports(str(lab.folder / "run"))
    monkeypatch.setattr(exports, "get", lambda _name: {"pid": 0, "path": str(lab.path), "saveset": {}})
    monkeypatch.setattr(exports, "stop", lambda *_arguments: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rename", refuse)
        exports.end("any")
    assert len(lab.files("gc/leases")) == 1


def test_half_written_files_of_others_that_cannot_be_swept_stop_nobody(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = lab.path / "tmp" / ("cd" * 16)
    left.write_bytes(b"half")
    real = os.open

    def refuse(path: t.Any, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if path == left.name:
            raise PermissionError(errno.EACCES, "no", path)
        return real(path, flags, *mode, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        lab.backup(image)
    assert left.exists()
    lab.backup(image)
    assert not left.exists()


def test_a_repository_below_a_folder_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the repository only has to let one pass."""
    real = os.open

    def refuse(path: t.Any, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if str(path) == str(tmp_path):
            raise PermissionError(errno.EACCES, "no", path)
        return real(path, flags, *mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    lab = Lab(tmp_path)
    assert lab.open().savesets() == []
    shutil.rmtree(lab.path)

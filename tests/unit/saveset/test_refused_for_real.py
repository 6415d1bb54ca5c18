# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories on real filesystems that refuse something: one that ends one operation with one error, mergerfs, and
one that is mounted read-only."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors

from . import media
from .conftest import KIB, MIB, Cli, Lab, MakeImage, noise, text
from .media import FATAL, NO_LEASE, TABLE

pytestmark = [pytest.mark.root, pytest.mark.slow]

PASSTHROUGH = Path(__file__).with_name("passthrough.py")
MOUNTED_S = 20.0


@contextlib.contextmanager
def mounted(command: t.Sequence[str | Path], point: Path) -> t.Iterator[None]:
    """A FUSE filesystem, while its program runs."""
    point.mkdir(exist_ok=True)
    environment = {**os.environ, "FUSE_LIBRARY_NAME": "fuse3"}
    program = subprocess.Popen([*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + MOUNTED_S
        while not os.path.ismount(point):
            assert program.poll() is None and time.monotonic() < deadline, program.stderr and program.stderr.read()
            time.sleep(0.02)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=False)
        program.terminate()
        program.communicate(timeout=MOUNTED_S)


@contextlib.contextmanager
def refused(lab: Lab, operation: str, code: str) -> t.Iterator[Lab]:
    """The same repository on a filesystem that refuses an operation."""
    point = lab.folder / "mounted"
    with mounted([sys.executable, PASSTHROUGH, lab.path.parent, point, operation, code], point):
        through = copy.copy(lab)
        through.path = point / lab.path.name
        yield through


@pytest.fixture(scope="module", autouse=True)
def without_syncs() -> None:
    """They are what is tried here, so they are not left out as they are elsewhere."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """In a folder of its own, as what is in it is shown elsewhere once more."""
    (tmp_path / "real").mkdir()
    made = Lab(tmp_path / "real")
    made.folder = tmp_path
    return made


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    return make_image("image", 300 * KIB, [(0, noise(100 * KIB)), (150 * KIB, text(60 * KIB))])


@pytest.mark.parametrize(("operation", "code"), TABLE)
def test_a_filesystem_that_refuses(
    lab: Lab, image: Path, make_image: MakeImage, cli: Cli, operation: str, code: str
) -> None:
    lab.backup(make_image("older", 300 * KIB, [(0, noise(300 * KIB, seed=7))]))
    lab.backup(image)
    shutil.copytree(lab.path, lab.folder / "as it was")
    with refused(lab, operation, code) as through:
        for what in media.WRITERS:
            media.write(through, image, what, operation, code)
            media.nothing_is_left(lab)
            shutil.rmtree(lab.path)
            shutil.copytree(lab.folder / "as it was", lab.path)
        media.read_everything(through, image, cli, leases=(operation, code) not in FATAL)


@contextlib.contextmanager
def pool(folder: Path, *options: str) -> t.Iterator[Path]:
    """Two disks as one, by mergerfs; keys/ is on the first one alone, and tmp/ on the second."""
    for name in ("disk1/repository/keys", "disk2/repository/tmp"):
        (folder / name).mkdir(parents=True)
    point = folder / "pool"
    joined = ",".join(("allow_other", "use_ino", "cache.files=off", *options))
    with mounted(["mergerfs", "-f", "-o", joined, f"{folder}/disk1:{folder}/disk2", point], point):
        yield point


@pytest.mark.parametrize(
    "options", [("category.create=rand",), ("category.create=epmfs", "ignorepponrename=true")], ids=" ".join
)
def test_mergerfs(lab: Lab, image: Path, make_image: MakeImage, cli: Cli, options: tuple[str, ...]) -> None:
    with pool(lab.folder, *options) as point:
        pooled = Lab(point)
        pooled.folder = lab.folder
        pooled.backup(make_image("older", 300 * KIB, [(0, noise(300 * KIB, seed=7))]))
        pooled.backup(image)
        media.prune(pooled, image)
        media.read_everything(pooled, image, cli, leases=True)
        pooled.open().try_writing()
        media.pin(pooled, image)
        media.change_keys(pooled, image)
        assert pooled.open().verify(depth="full").problems == []
        media.nothing_is_left(pooled)


def test_a_repository_that_is_mounted_read_only(lab: Lab, image: Path, cli: Cli) -> None:
    lab.backup(image)
    with media.read_only(lab.path):
        media.read_everything(lab, image, cli, leases=False)
        for what in media.WRITERS:
            with pytest.raises(errors.StoreReadOnly, match=r"was refused: .* \(EROFS\)"):
                media.WRITERS[what](lab, image)
        paced = cli("verify", "--older-than", "1", "--repository", lab.path)
        assert paced.status == 0 and NO_LEASE in paced.err and "could not be recorded" in paced.err
    media.nothing_is_left(lab)


def test_another_client_takes_the_lease(lab: Lab, make_image: MakeImage) -> None:
    """Seen through a filesystem where it is the other side that removes it."""
    big = make_image("big", 2 * MIB, [(0, noise(2 * MIB))])
    with refused(lab, "nothing", "EIO") as through:

        def lose(_progress: object) -> None:
            for path in lab.files("gc/leases"):
                path.unlink()

        with pytest.raises(errors.RepositoryBusy, match="lease of this backup is gone"):
            through.backup(big, progress=lose)
    assert lab.open().savesets() == []


def test_mergerfs_that_keeps_files_on_their_disks(lab: Lab, image: Path, cli: Cli) -> None:
    """What was made in tmp/ can neither be linked nor renamed to a folder on the other disk: only reading works."""
    lab.backup(image)
    with pool(lab.folder, "category.create=epmfs") as point:
        with pytest.raises(errors.StoreError, match=r"renaming a file \(rename\) was refused: .* \(EXDEV\).*mergerfs"):
            Lab(point)
        pooled = copy.copy(lab)
        pooled.path = point / "repository"
        for disk, folders in (("disk1", ("*.json", "keys", "maps", "packs", "savesets", "gc")), ("disk2", ("tmp",))):
            shutil.rmtree(lab.folder / disk / "repository")
            for path in (found for folder in folders for found in lab.path.glob(folder)):
                copied = lab.folder / disk / "repository" / path.name
                copied.parent.mkdir(exist_ok=True)
                (shutil.copytree if path.is_dir() else shutil.copy)(path, copied)
        opened = pooled.open()
        saveset = opened.find("fs1/m")
        assert saveset.read(0, saveset.size) == image.read_bytes()
        assert opened.verify(depth="full").savesets == 1

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""fs1/m and FS1/m: on a filesystem that folds case the savesets of one would be lost among the other's."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import backup_job
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.volume import folded
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store, Upload

from .conftest import KIB, Lab, MakeImage

SPELLINGS = ["FS1/m", "fs1/M", "Fs1/m"]


class Folding(LocalStore):
    """A store whose filesystem keeps case and folds it, as CIFS, exFAT and ext4 with casefold do."""

    def _spelled(self, name: str) -> str:
        """The name with its second part as it was spelled when it was made."""
        first, *rest = name.split("/")
        if rest and os.path.isdir(f"{self.location}/{first}"):
            there = {folded(entry): entry for entry in os.listdir(f"{self.location}/{first}")}
            rest[0] = there.get(folded(rest[0]), rest[0])
        return "/".join([first, *rest])

    def create(self, name: str) -> Upload:
        return super().create(self._spelled(name))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return super().get(self._spelled(name), offset, length)

    def size(self, name: str) -> int:
        return super().size(self._spelled(name))

    def delete(self, name: str) -> None:
        super().delete(self._spelled(name))

    def list(self, prefix: str) -> list[str]:
        real = self._spelled(prefix)
        return [prefix + name[len(real) :] for name in super().list(real)]


class FoldingLab(Lab):
    """A repository in such a store."""

    def store(self) -> Store:
        return Folding(str(self.path))


@pytest.fixture
def folding(tmp_path: Path) -> FoldingLab:
    return FoldingLab(tmp_path)


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    return make_image("image", 64 * KIB)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_volume_alike_is_refused_before_it_is_read(tmp_path: Path, image: Path, spelling: str) -> None:
    """Its backup succeeded, and its saveset was not listed."""
    for kind in (Lab, FoldingLab):  # what does not fold today may be copied to what does
        (tmp_path / kind.__name__).mkdir()
        lab = kind(tmp_path / kind.__name__)
        first = lab.backup(image)
        before = lab.files("")
        with pytest.raises(errors.InvalidValue, match=f"'{spelling}'.*has 'fs1/m', which differs only in .* case;"):
            lab.backup(image, spelling)
        assert lab.files("") == before
        assert [entry.id for entry in lab.open().savesets()] == [first.id]
        # The one that was first goes on, and so do those that are other ones.
        lab.backup(image)
        lab.backup(image, "fs1/m2")
        assert len(lab.open().savesets()) == 3


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_of_two_that_begin_at_once_no_saveset_is_lost_without_a_word(
    folding: FoldingLab, image: Path, spelling: str
) -> None:
    done: list[t.Any] = []

    def meanwhile(_progress: t.Any) -> None:
        if not done:
            done.append(folding.backup(image, spelling))

    with pytest.raises(errors.InvalidValue, match=f"'fs1/m'.*has '{spelling}'"):
        folding.backup(image, progress=meanwhile)
    assert [entry.volume for entry in folding.open().savesets()] == [spelling]
    infos, problems = folding.open().scan()
    assert len(infos) == 1 and problems == []


def test_both_go_on_where_both_are(lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older version let them begin, on a store that tells them apart."""
    with monkeypatch.context() as patch:
        for name in ("check_alone", "check_listed"):
            patch.setattr(backup_job, name, unchecked)
        lab.backup(image)
        lab.backup(image, "FS1/m")
    lab.backup(image)
    lab.backup(image, "FS1/m")
    assert len(lab.open().savesets()) == 4


def unchecked(*_anything: t.Any) -> None:
    """Nothing is checked."""


def test_names_of_two_forms_are_one() -> None:
    assert folded("M\u00fcller") == folded("mu\u0308LLER") and folded("stra\u00dfe") == folded("STRASSE")
    assert folded("fs1/m") != folded("fs2/m")


# -- filesystems


@pytest.fixture
def mounted(tmp_path: Path) -> t.Iterator[t.Callable[..., Path]]:
    """Make a filesystem and mount it."""
    with contextlib.ExitStack() as after:

        def mount(make: list[str], mount: list[str]) -> Path:
            for command in (make, mount):
                assert shutil.which(command[0]), (
                    f"there is no {command[0]}: scripts/debian-packages.txt has its package"
                )
            image, place = tmp_path / "image.fs", tmp_path / "mounted"
            place.mkdir()
            image.touch()
            os.truncate(image, 64 << 20)
            command = ["losetup", "--find", "--show", str(image)]
            device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            after.callback(subprocess.run, ["losetup", "--detach", device], check=True)
            subprocess.run([*make, device], check=True, capture_output=True)
            subprocess.run([mount[0], device, place, *mount[1:]], check=True, capture_output=True)
            after.callback(subprocess.run, ["umount", place], check=True)
            return place

        yield mount


@pytest.mark.root
def test_a_filesystem_that_folds_case(mounted: t.Callable[..., Path], image: Path) -> None:
    """exFAT: names stay as they were spelled first, and are found however they are spelled."""
    lab = Lab(mounted(["mkfs.exfat"], ["mount.exfat-fuse"]))
    first = lab.backup(image)
    assert (lab.path / "savesets/FS1~M").is_dir()
    for spelling in SPELLINGS:
        with pytest.raises(errors.InvalidValue, match=f"'{spelling}'.*has 'fs1/m', which differs only in .* case;"):
            lab.backup(image, spelling)
    other = lab.backup(image, "FS9/m")
    assert [entry.id for entry in lab.open().savesets()] == [other.id, first.id]
    assert lab.open().scan()[1] == []


@pytest.mark.root
def test_a_filesystem_that_changes_names(mounted: t.Callable[..., Path], image: Path) -> None:
    """NTFS that ignores case shows all names in lower case."""
    lab = Lab(mounted(["mkntfs", "-F", "-Q"], ["lowntfs-3g", "-o", "ignore_case"]))
    # Names of commits have upper case, too. The backup succeeded, and no saveset of any volume was ever listed.
    for volume, told in (("fs1/m", "lists a saveset's commit under another name"), ("FS9/m", "has 'fs9/m'")):
        with pytest.raises(errors.InvalidValue, match=told):
            lab.backup(image, volume)
    assert [path for path in lab.path.rglob("savesets/*/*") if path.is_file()] == []

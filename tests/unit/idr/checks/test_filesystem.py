# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems: sound ones pass, frozen and crashed ones after their replay, damaged ones fail for the right reason."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.root

MIB = 1024 * 1024
MAKE = {
    "ext4": (["mkfs.ext4", "-q"], 32),
    "xfs": (["mkfs.xfs", "-q"], 300),
    "btrfs": (["mkfs.btrfs", "-q", "-m", "single", "-d", "single"], 256),
    "ntfs": (["mkfs.ntfs", "--quick", "--quiet", "--force"], 32),
}
MOUNT = {"ntfs": ["-t", "ntfs-3g"]}


def sh(*command: object, **options: object) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.contextmanager
def mounted(image: Path, kind: str) -> Iterator[Path]:
    folder = image.with_suffix(".mnt")
    folder.mkdir(exist_ok=True)
    sh("mount", *MOUNT.get(kind, []), "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        sh("umount", folder)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a filesystem of a type, with files in it, in a sparse file."""

    def do(kind: str) -> Path:
        command, size = MAKE[kind]
        image = tmp_path / f"{kind}.img"
        image.touch()
        os.truncate(image, size * MIB)
        sh(*command, image)
        with mounted(image, kind) as folder:
            fill(folder, 0, 40)
        return image

    return do


def fill(folder: Path, first: int, last: int) -> None:
    for number in range(first, last):
        (folder / f"file-{number}").write_bytes(bytes([number]) * 20000)


@contextlib.contextmanager
def loop(image: Path, *options: str) -> Iterator[Path]:
    device = Path(sh("losetup", "--find", "--show", *options, image).strip())
    try:
        yield device
    finally:
        sh("losetup", "--detach", device)


def copied_while(image: Path, kind: str, freeze: bool) -> Path:
    """A copy of a mounted filesystem in mid-life, frozen or not."""
    copy = image.with_suffix(".copy")
    with mounted(image, kind) as folder:
        fill(folder, 40, 80)
        for number in range(20):
            (folder / f"file-{number}").unlink()
        sh("sync", "--file-system", folder)  # not all of this machine: other tests have disks that hang
        if freeze:
            sh("fsfreeze", "--freeze", folder)
        try:
            shutil.copyfile(image, copy)
        finally:
            if freeze:
                sh("fsfreeze", "--unfreeze", folder)
    return copy


def test_another_btrfs_of_the_host_stops_no_check(make: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    """Without rights, btrfs cannot find out whether one on a loop device is the one to check."""
    image = make("btrfs")
    other = tmp_path / "other"
    shutil.copy(image, other)
    sh("btrfstune", "-f", "-u", other)
    with mounted(other, "btrfs"), loop(image) as device:
        result = run({"name": "filesystem", "volume": "fs1/m", "type": "btrfs"}, devices={"fs1/m": device})
    assert result["ok"], result


@pytest.mark.parametrize("kind", MAKE)
def test_a_sound_one_passes_on_a_device_and_in_a_file(make: Callable[[str], Path], run: Run, kind: str) -> None:
    image = make(kind)
    with loop(image) as device:
        result = run({"name": "filesystem", "volume": "fs1/m", "type": kind}, devices={"fs1/m": device})
        assert result["ok"], result
        assert result["what"] == f"fs1/m {kind}"
        assert result["detail"].startswith(f"{kind} is clean")
        assert all(command["rc"] == 0 for command in result["commands"])
    found_out = run({"name": "filesystem", "device": str(image)})
    assert found_out["ok"], found_out
    assert found_out["what"] == f"{image} {kind}"


FROZEN = [("ext4", True), ("xfs", True), ("btrfs", True)]
CRASHED = [(kind, False) for kind in MAKE]


@pytest.mark.parametrize(("kind", "freeze"), FROZEN + CRASHED)
def test_a_copy_in_mid_life_passes(make: Callable[[str], Path], run: Run, kind: str, freeze: bool) -> None:
    copy = copied_while(make(kind), kind, freeze)
    with loop(copy) as device:
        result = run({"name": "filesystem", "device": str(device), "type": kind})
    assert result["ok"], result
    assert ("after its log was replayed" in result["detail"]) == (kind == "xfs" or (kind == "ext4" and not freeze))


def test_a_frozen_xfs_that_may_not_be_replayed_is_not_called_clean(make: Callable[[str], Path], run: Run) -> None:
    copy = copied_while(make("xfs"), "xfs", freeze=True)
    result = run({"name": "filesystem", "device": str(copy), "type": "xfs", "replay": False})
    assert not result["ok"]
    with loop(copy, "--read-only") as device:
        result = run({"name": "filesystem", "device": str(device), "type": "xfs"})
    assert not result["ok"]
    assert "cannot be mounted to replay its log" in result["detail"]


def damage_ext4(image: Path) -> None:
    sh("debugfs", "-w", "-R", "clri /file-3", image)


def damage_xfs(image: Path) -> None:
    sh("xfs_db", "-x", "-c", "sb 0", "-c", "addr rootino", "-c", "write -d core.nlinkv2 77", image)


def damage_btrfs(image: Path) -> None:
    """A byte in every block of the tree of files."""
    content = bytearray(image.read_bytes())
    fsid = content[64 * 1024 + 32 : 64 * 1024 + 48]
    for start in range(0, len(content), 16384):
        owner = int.from_bytes(content[start + 88 : start + 96], "little")
        if content[start + 32 : start + 48] == fsid and owner == 5:
            content[start + 16000] ^= 0xFF
    image.write_bytes(content)


def damage_ntfs(image: Path) -> None:
    """Clusters that are in use and not called so."""
    with open(image, "r+b") as stream:
        boot = stream.read(512)
        cluster = int.from_bytes(boot[11:13], "little") * boot[13]
        stream.seek(int.from_bytes(boot[48:56], "little") * cluster + 6 * 1024)  # record 6: $Bitmap
        record = stream.read(1024)
        at = int.from_bytes(record[20:22], "little")
        while int.from_bytes(record[at : at + 4], "little") != 0x80:
            at += int.from_bytes(record[at + 4 : at + 8], "little")
        runs = at + int.from_bytes(record[at + 32 : at + 34], "little")
        lengths, offsets = record[runs] & 15, record[runs] >> 4
        first = int.from_bytes(record[runs + 1 + lengths : runs + 1 + lengths + offsets], "little")
        stream.seek(first * cluster)
        stream.write(bytes(16))


REASONS = {
    "ext4": "e2fsck found damage (exit status 4): Entry 'file-3' in / ",
    "xfs": "xfs_repair found damage (exit status 1): ",
    "btrfs": "btrfs found damage (exit status 1): ",
    "ntfs": "ntfsresize found damage (exit status 1): ",
}
WORDS = {"ext4": "inode", "xfs": "nlinks", "btrfs": "checksum", "ntfs": "luster accounting failed"}


@pytest.mark.parametrize("kind", MAKE)
def test_a_damaged_one_is_found(make: Callable[[str], Path], run: Run, kind: str) -> None:
    image = make(kind)
    globals()[f"damage_{kind}"](image)
    with loop(image) as device:
        result = run({"name": "filesystem", "device": str(device), "type": kind})
    assert not result["ok"]
    assert result["detail"].startswith(REASONS[kind]), result
    assert WORDS[kind] in result["detail"], result


@pytest.mark.parametrize("kind", MAKE)
def test_one_whose_beginning_is_lost_is_found(make: Callable[[str], Path], run: Run, kind: str) -> None:
    image = make(kind)
    with open(image, "r+b") as stream:
        stream.write(bytes(256 * 1024))
    with loop(image) as device:
        known = run({"name": "filesystem", "device": str(device), "type": kind})
        unknown = run({"name": "filesystem", "device": str(device)})
    assert not known["ok"]
    assert not unknown["ok"]
    assert unknown["detail"] == f"there is no filesystem on {device}, or its beginning is damaged"


def test_a_mounted_one_is_not_checked(make: Callable[[str], Path], run: Run) -> None:
    image = make("ext4")
    with mounted(image, "ext4") as folder:
        device = sh("findmnt", "--noheadings", "--output", "SOURCE", folder).strip()
        result = run({"name": "filesystem", "device": device, "type": "ext4"})
    assert not result["ok"]
    assert result["detail"] == f"{device} is in use by {folder}: check it before it is mounted"


def test_what_is_not_there_or_has_no_checker(make: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    gone = run({"name": "filesystem", "volume": "fs1/m", "type": "ext4"}, devices={"fs1/files": "/dev/null"})
    assert (gone["ok"], gone["what"]) == (False, "fs1/m ext4")
    assert gone["detail"] == "volume fs1/m has no device here (known: fs1/files): it was not brought up"
    gone = run({"name": "filesystem", "device": str(tmp_path / "none"), "type": "ext4"})
    assert gone["detail"] == f"there is no {tmp_path}/none on this host: the volume was not brought up"
    swap = run({"name": "filesystem", "device": str(make("ext4")), "type": "swap"})
    assert not swap["ok"]
    assert "there is no checker for the filesystem type swap" in swap["detail"]

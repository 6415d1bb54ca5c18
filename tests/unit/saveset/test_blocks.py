# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sectors and blocks, of real loop devices and filesystems; and what a disk with larger ones is not restored to."""

from __future__ import annotations

import os
import struct
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import volumes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import TargetError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import blocks

from .conftest import MIB, Cli, Lab

SERIAL = "6f70656e69736299"
Attach = t.Callable[[Path, int], str]


def disk(path: Path, size: int = 320 * MIB) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


@pytest.fixture
def attach() -> t.Iterator[Attach]:
    """Shows a file as a disk with sectors of some size."""
    made = []

    def run(path: Path, sectors: int) -> str:
        command = ["losetup", "--find", "--show", "--sector-size", str(sectors), str(path)]
        made.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        return made[-1]

    yield run
    for device in made:
        subprocess.run(["losetup", "--detach", device], check=True)


def of(function: t.Callable[[int], int], path: t.Any) -> int:
    fd = os.open(path, os.O_RDONLY)
    try:
        return function(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["mkfs.xfs", "-q"], 512),
        (["mkfs.xfs", "-q", "-s", "size=4096"], 4096),
        (["mkfs.ext4", "-q", "-b", "1024"], 1024),
        (["mkfs.ext4", "-q", "-b", "4096"], 4096),
        (["mkfs.btrfs", "-q"], 4096),
        (["mkfs.ntfs", "-q", "-Q", "-F"], 512),
        (["true"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_filesystem_tells_its_smallest_block(command: list[str], expected: int, tmp_path: Path) -> None:
    image = disk(tmp_path / "image")
    subprocess.run([*command, image], check=True, capture_output=True)
    assert of(blocks.block_size, image) == expected
    assert of(blocks.sector_size, image) == 0


@pytest.mark.parametrize(
    "head",
    [b"XFSB" + bytes(98) + b"\xff\xff", bytes(1048) + b"\xff" * 4 + bytes(28) + b"\x53\xef", b"   NTFS    ", b"", b"x"],
)
def test_a_superblock_that_lies_tells_nothing(head: bytes, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(head)
    assert of(blocks.block_size, image) == 0


@pytest.mark.parametrize("value", [None, "512", 0, 513, -512, 1 << 40, True, 512.0, [512]])
def test_what_metadata_cannot_mean_is_unknown(value: t.Any) -> None:
    assert blocks.told({"block_size": value}, "block_size") == 0
    assert blocks.told({}, "block_size") == 0


@pytest.mark.root
@pytest.mark.parametrize("sectors", [512, 4096])
def test_a_volume_is_recorded_with_its_sectors(
    sectors: int, attach: Attach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = disk(tmp_path / "image")
    device = attach(image, sectors)
    monkeypatch.setattr(volumes, "BY_ID", str(tmp_path))
    (tmp_path / f"wwn-0x{SERIAL}").symlink_to(device)
    told = volumes.describe({"name": "m", "serial": SERIAL})
    assert (told["sector_size"], told["block_size"]) == (sectors, sectors)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", device], check=True)
    point = tmp_path / "mounted"
    point.mkdir()
    subprocess.run(["mount", device, point], check=True)
    try:
        told = volumes.describe({"name": "m", "serial": SERIAL, "mount": str(point)})
    finally:
        subprocess.run(["umount", point], check=True)
    assert (told["filesystem"], told["sector_size"], told["block_size"]) == ("ext4", sectors, 4096)


@pytest.mark.root
def test_a_disk_with_larger_sectors_is_refused(attach: Attach, tmp_path: Path) -> None:
    device = attach(disk(tmp_path / "image"), 4096)
    fd = os.open(device, os.O_RDONLY)
    try:
        with pytest.raises(TargetError, match="sectors of 4096 bytes.*blocks of 512: it could not be mounted there"):
            blocks.check_target(fd, device, 512)
        blocks.check_target(fd, device, 4096)
        blocks.check_target(fd, device, 0)
    finally:
        os.close(fd)


@pytest.mark.root
def test_the_program_says_so_before_it_writes(cli: Cli, lab: Lab, attach: Attach, tmp_path: Path) -> None:
    image = disk(tmp_path / "image")
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    lab.backup(image, metadata={"sector_size": 512, "block_size": 512})
    device = attach(disk(tmp_path / "target"), 4096)
    told = cli("restore", "fs1/m", device)
    assert told.status == 1
    assert "a disk with sectors of 4096 bytes" in told.err
    with open(device, "rb") as stream:
        assert stream.read(4096) == bytes(4096)
    assert cli("restore", "fs1/m", attach(disk(tmp_path / "other"), 512)).status == 0


def test_metadata_of_a_stranger_does_no_harm(cli: Cli, lab: Lab, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(struct.pack("<Q", 7) * 1024)
    lab.backup(image, metadata={"sector_size": "4096; reboot", "block_size": [1]})
    assert cli("restore", "fs1/m", tmp_path / "target").status == 0

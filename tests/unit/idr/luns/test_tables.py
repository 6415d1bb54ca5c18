# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUNs with partition tables."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = pytest.mark.root
Mount = Callable[..., Path]
MIB = 1024**2
NAME = 'data, "M" \\& $more é'
GPT = """
label: gpt
start=2048, size=131072, name="data"
start=133120, size=131072, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name="Basic data partition"
start=264192, size=8192
"""
DOS = """
label: dos
start=2048, size=131072, type=83
start=133120, size=278528, type=f
start=135168, size=131072, type=7
start=268288, size=8192, type=83
"""
DOS_4K = """
label: dos
start=256, size=16384, type=83
"""
GPT_4K = """
label: gpt
start=256, size=16384, name="4Kn"
"""


def test_gpt(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    offsets = {1: 2048 * 512, 2: 133120 * 512}
    parts = {1: disks.filesystem("ext4"), 2: disks.filesystem("ntfs")}
    disk = disks.table(GPT, 160 * MIB, parts, offsets)
    subprocess.run(["sfdisk", "--quiet", "--part-label", disk, "1", NAME], check=True, capture_output=True)
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk)
    assert lun["table"] == "gpt"
    assert [(part["number"], part["type"], part["offset"], part["size"]) for part in lun["parts"]] == [
        (1, "ext4", MIB, 64 * MIB),
        (2, "ntfs", 65 * MIB, 64 * MIB),
        (3, "", 129 * MIB, 4 * MIB),
    ]
    assert [part["name"] for part in lun["parts"]] == [NAME, "Basic data partition", ""]
    assert len({lun["device"], *(part["device"] for part in lun["parts"])}) == 4
    for part in lun["parts"][:2]:
        assert (mount(part) / "proof").exists()
    assert made.luns.get(lun["name"])["running"]
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []


def test_dos_with_logical_partitions(disks: Disks, made: Made, mount: Mount) -> None:
    offsets = {1: 2048 * 512, 5: 135168 * 512}
    parts = {1: disks.filesystem("ext4"), 5: disks.filesystem("ntfs")}
    lun = made.start(disks.table(DOS, 210 * MIB, parts, offsets))
    assert lun["table"] == "dos"
    assert [(part["number"], part["type"]) for part in lun["parts"]] == [(1, "ext4"), (5, "ntfs"), (6, "")]
    assert (mount(lun["parts"][0]) / "proof").exists()
    assert (mount(lun["parts"][1]) / "proof").exists()


def test_sectors_of_4096_bytes(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    disk = disks.table(GPT_4K, 80 * MIB, {1: disks.filesystem("ext4")}, {1: 256 * 4096}, 4096)
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk)
    assert lun["table"] == "gpt"
    assert [(part["number"], part["type"], part["offset"], part["size"]) for part in lun["parts"]] == [
        (1, "ext4", MIB, 64 * MIB)
    ]
    assert (mount(lun["parts"][0]) / "proof").exists()


@pytest.mark.parametrize("method", ["fuse", "file", "device"])
def test_an_mbr_counts_in_the_sectors_of_its_disk(
    disks: Disks, served: Served, made: Made, mount: Mount, method: str
) -> None:
    """An MBR does not tell its sectors, so it is read with those of the disk that it was made on."""
    disk = disks.table(DOS_4K, 80 * MIB, {1: disks.filesystem("ext4")}, {1: 256 * 4096}, 4096)
    if method == "fuse":
        uri, psk = served.start(disk)
        lun = made.start(uri, psk=psk, sector_size=4096)
    elif method == "file":
        lun = made.start(disk, overlay=False, sector_size=4096)
    else:
        with disks.attached(disk) as device:  # a disk that was restored to, with sectors of 512 bytes
            lun = made.start(device, overlay=False, sector_size=4096)
            assert lun["device"] != device
            assert (mount(lun["parts"][0]) / "proof").exists()
            assert made.luns.stop(lun["name"]) == []
    assert lun["table"] == "dos"
    assert [(part["number"], part["type"], part["offset"], part["size"]) for part in lun["parts"]] == [
        (1, "ext4", MIB, 64 * MIB)
    ]
    if method != "device":
        assert (mount(lun["parts"][0]) / "proof").exists()
        assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []


def test_a_gpt_tells_its_sectors_whatever_was_told(disks: Disks, made: Made) -> None:
    disk = disks.table(GPT_4K, 80 * MIB, {1: disks.filesystem("ext4")}, {1: 256 * 4096}, 4096)
    lun = made.start(disk, sector_size=512)
    assert [(part["type"], part["offset"]) for part in lun["parts"]] == [("ext4", MIB)]


def test_a_disk_without_a_table_is_used_as_it_is(disks: Disks, made: Made) -> None:
    with disks.attached(disks.filesystem("ext4")) as device:
        lun = made.start(device, overlay=False, sector_size=4096)
        assert (lun["device"], lun["parts"][0]["type"]) == (device, "ext4")
        assert made.luns.stop(lun["name"]) == []


def test_what_is_written_to_a_partition_stays_off_the_source(disks: Disks, made: Made, mount: Mount) -> None:
    disk = disks.table(GPT, 160 * MIB, {1: disks.filesystem("ext4")}, {1: 2048 * 512})
    before = disk.read_bytes()
    lun = made.start(disk)
    point = mount(lun["parts"][0])
    (point / "new").write_bytes(os.urandom(3 * MIB))
    os.sync()
    assert made.luns.stop(lun["name"]) == []
    assert disk.read_bytes() == before


def test_a_cut_disk_is_refused(disks: Disks, made: Made) -> None:
    disk = disks.table(DOS, 210 * MIB, {}, {})
    os.truncate(disk, 100 * MIB)
    with pytest.raises(LunError, match="partition .* ends beyond the end of the LUN"):
        made.start(disk)
    assert made.traces() == []

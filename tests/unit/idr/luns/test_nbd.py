# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUNs by the kernel's own NBD client. On a kernel without nbd: make test-vm."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns import nbd as luns_nbd

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not luns_nbd.usable(), reason="no nbd in this kernel or no nbd-client: run make test-vm"),
]
Mount = Callable[..., Path]
MIB = 1024**2
DOS_4K, GPT_4K = (f"label: {kind}\nstart=256, size=16384\n" for kind in ("dos", "gpt"))
GPT = "label: gpt\nstart=2048, size=131072\nstart=133120, size=8192\n"


def digest(path: Path) -> str:
    """What a file holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_filesystem(disks: Disks, served: Served, made: Made, mount: Mount, kind: str) -> None:
    disk = disks.filesystem(kind)
    before = digest(disk)
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk, method="auto")
    assert (lun["method"], lun["device"][:8], lun["writable"]) == ("nbd", "/dev/nbd", True)
    assert (lun["size"], lun["parts"][0]["type"]) == (disk.stat().st_size, kind)
    point = mount(lun["parts"][0])
    assert (point / "proof").exists()
    (point / "new").write_bytes(os.urandom(3 * MIB))
    os.sync()
    assert made.luns.get(lun["name"])["running"]
    assert made.luns.stop(lun["name"]) == []
    assert not os.path.ismount(point)
    assert not luns_nbd.connected(lun["device"][5:])
    assert made.traces() == []
    assert digest(disk) == before


def test_partitions_and_no_record(disks: Disks, made: Made, mount: Mount) -> None:
    lun = made.start(disks.table(GPT, 80 * MIB, {1: disks.filesystem("ext4")}, {1: MIB}), method="nbd")
    assert [(part["number"], part["type"], part["device"][:9]) for part in lun["parts"]] == [
        (1, "ext4", "/dev/loop"),
        (2, "", "/dev/loop"),
    ]
    assert (mount(lun["parts"][0]) / "proof").exists()
    made.luns.records.forget(lun["name"])
    assert made.luns.stop(lun["name"]) == []
    assert not luns_nbd.connected(lun["device"][5:])
    assert made.traces() == []


@pytest.mark.parametrize(
    ("script", "told"), [(DOS_4K, 4096), (GPT_4K, 0), (GPT_4K, 512)], ids=["mbr", "gpt", "gpt-512"]
)
def test_sectors_of_4096_bytes(disks: Disks, made: Made, mount: Mount, script: str, told: int) -> None:
    disk = disks.table(script, 80 * MIB, {1: disks.filesystem("ext4")}, {1: MIB}, 4096)
    lun = made.start(disk, method="nbd", sector_size=told)
    assert Path(f"/sys/block/{lun['device'][5:]}/queue/logical_block_size").read_text() == "4096\n"
    assert [(part["type"], part["offset"]) for part in lun["parts"]] == [("ext4", MIB)]
    assert (mount(lun["parts"][0]) / "proof").exists()
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []


def test_two_at_once(disks: Disks, made: Made) -> None:
    first = made.start(disks.filesystem("ext4"), "first", method="nbd")
    second = made.start(disks.filesystem("xfs"), "second", method="nbd")
    assert first["device"] != second["device"]
    assert made.luns.stop(first["name"]) == []
    assert made.luns.get(second["name"])["running"]


def test_a_read_only_export_without_overlay(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    uri, psk = served.start(disks.filesystem("xfs"))
    lun = made.start(uri, psk=psk, overlay=False, method="nbd")
    assert not lun["writable"]
    assert (mount(lun["parts"][0], writable=False) / "proof").exists()


def test_a_killed_server(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk, method="nbd")
    point = mount(lun["parts"][0])
    os.kill(served.pid(disk), signal.SIGKILL)
    begun = time.monotonic()
    words = ["dd", f"if={lun['device']}", "of=/dev/null", "bs=64k", "count=16", "skip=500", "iflag=direct"]
    assert subprocess.run(words, check=False, capture_output=True).returncode
    assert time.monotonic() - begun < 5
    assert made.luns.stop(lun["name"]) == []
    assert not os.path.ismount(point)
    assert made.traces() == []


def test_a_server_that_hangs(disks: Disks, served: Served, made: Made) -> None:
    """The kernel's client gives up by itself."""
    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk, method="nbd", timeout=3.0)
    os.kill(served.pid(disk), signal.SIGSTOP)
    try:
        begun = time.monotonic()
        words = ["dd", f"if={lun['device']}", "of=/dev/null", "bs=64k", "count=1", "skip=500", "iflag=direct"]
        assert subprocess.run(words, check=False, capture_output=True).returncode
        assert time.monotonic() - begun < 20
        assert made.luns.stop(lun["name"]) == []
        assert made.traces() == []
    finally:
        os.kill(served.pid(disk), signal.SIGCONT)

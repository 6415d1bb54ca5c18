# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUNs with each filesystem: found, mounted, written to, and their source left as it was."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError
from marks import slow

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = pytest.mark.root
Mount = Callable[..., Path]
MIB = 1024**2


def digest(path: Path) -> str:
    """What a file holds."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def blkid(path: Path, tag: str) -> str:
    """What blkid says of a disk."""
    command = ["blkid", "--probe", "--output", "value", "--match-tag", tag, path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs"), "ntfs"])
def test_a_filesystem_of_an_export(disks: Disks, served: Served, made: Made, mount: Mount, kind: str) -> None:
    disk = disks.filesystem(kind)
    before = digest(disk)
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk)
    (part,) = lun["parts"]
    assert (lun["size"], lun["table"], lun["writable"], lun["method"]) == (disk.stat().st_size, "", True, "fuse")
    assert (part["number"], part["device"], part["offset"], part["size"]) == (0, lun["device"], 0, lun["size"])
    assert (part["type"], part["uuid"]) == (kind, blkid(disk, "UUID"))

    point = mount(part)
    assert (point / "proof").read_text().startswith("what was there")
    if kind == "ntfs":
        with pytest.raises(OSError, match="Read-only file system"):
            (point / "new").write_bytes(b"x")
    else:
        (point / "new").write_bytes(os.urandom(5 * MIB))
        os.sync()
    (told,) = made.luns.of_drill()
    assert told["running"]
    assert told["mounts"][0]["path"] == str(point)
    assert made.luns.stop(lun["name"]) == []
    assert not os.path.ismount(point)
    assert made.traces() == []
    assert digest(disk) == before


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_copy_beside_its_mounted_original(disks: Disks, made: Made, mount: Mount, kind: str) -> None:
    disk = disks.filesystem(kind)
    with disks.mounted(disk, kind) as original:
        (original / "later").write_text("only in the original")
        copy = disks.folder / "copy.img"
        subprocess.run(["sync", "--file-system", original], check=True)
        subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
        (original / "later").unlink()
        point = mount(made.start(copy)["parts"][0])
        (point / "proof").write_text("changed in the copy")
        os.sync()
        assert (point / "later").read_text() == "only in the original"
        assert (original / "proof").read_text().startswith("what was there")
        assert not (original / "later").exists()
        assert made.luns.stop(made.name()) == []


def test_a_copy_gets_its_own_identity_though_its_device_was_a_member_of_another_btrfs(
    disks: Disks, made: Made, mount: Mount
) -> None:
    """The kernel remembers the members of a btrfs of several devices, and the device numbers are used again."""
    disk = disks.filesystem("btrfs")
    with disks.mounted(disk, "btrfs"):
        copy = disks.folder / "copy.img"
        subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
        members = [disks.empty(f"member{number}.img", 160 * 1024**2) for number in range(2)]
        with disks.attached(members[0]) as first, disks.attached(members[1]) as second:
            subprocess.run(["mkfs.btrfs", first, second], check=True, capture_output=True)
            point = disks.folder / "members"
            point.mkdir()
            subprocess.run(["mount", first, point], check=True)
            subprocess.run(["umount", point], check=True)
        assert (mount(made.start(copy)["parts"][0]) / "proof").exists()
        assert made.luns.stop(made.name()) == []


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_read_only_means_not_a_byte(disks: Disks, made: Made, mount: Mount, kind: str) -> None:
    """Also where the journal has something: a copy taken while the original was written to."""
    disk = disks.filesystem(kind)
    with disks.mounted(disk, kind) as original:
        for number in range(20):
            (original / f"file{number}").write_bytes(os.urandom(10000))
        subprocess.run(["sync", "--file-system", original], check=True)
        copy = disks.folder / "copy.img"
        subprocess.run(["cp", "--sparse=always", disk, copy], check=True)
    before = digest(copy)
    lun = made.start(copy, overlay=False)
    point = mount(lun["parts"][0], writable=False)
    assert (point / "proof").read_text().startswith("what was there")
    assert made.luns.stop(lun["name"]) == []
    assert digest(copy) == before


def test_without_overlay_the_source_is_written(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk, readonly=False)
    for source, volume, method in ((uri, "served", "fuse"), (str(disk), "file", "loop")):
        lun = made.start(source, volume, psk, overlay=False)
        assert (lun["method"], lun["writable"]) == (method, True)
        (mount(lun["parts"][0]) / volume).write_text(volume)
        assert made.luns.stop(lun["name"]) == []
        assert made.traces(volume) == []
    with disks.mounted(disk, "ext4") as point:
        assert [(point / name).read_text() for name in ("served", "file")] == ["served", "file"]


def test_a_read_only_export_without_overlay(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    disk = disks.filesystem("xfs")
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk, overlay=False)
    assert not lun["writable"]
    with pytest.raises(OSError, match="not permitted|Read-only|Permission"), open(lun["device"], "wb") as device:
        device.write(bytes(4096))
    assert (mount(lun["parts"][0], writable=False) / "proof").exists()


def test_a_device_is_used_as_it_is(disks: Disks, made: Made, mount: Mount) -> None:
    disk = disks.filesystem("ext4")
    losetup = ["losetup", "--find", "--show", disk]
    device = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    try:
        lun = made.start(device, overlay=False)
        assert (lun["method"], lun["device"], lun["parts"][0]["device"]) == ("device", device, device)
        assert made.luns.get(lun["name"])["running"]
        point = mount(lun["parts"][0])
        (point / "new").write_text("new")
        assert made.luns.stop(lun["name"]) == []
        assert not os.path.ismount(point)
        assert made.traces() == []
        assert Path(f"/sys/block/{device[5:]}/loop").exists()
        # And with an overlay, the device stays as it is.
        before = digest(Path(device))
        lun = made.start(device)
        (mount(lun["parts"][0]) / "more").write_text("more")
        assert made.luns.stop(lun["name"]) == []
        assert digest(Path(device)) == before
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_large_sparse_lun_is_there_at_once(disks: Disks, served: Served, made: Made) -> None:
    """What is on it takes a few reads, whatever its size."""
    disk = disks.empty("large.img", 8 * 1024 * 1024 * MIB)
    uri, psk = served.start(disk)
    started = time.monotonic()
    lun = made.start(uri, psk=psk)
    assert time.monotonic() - started < 5
    assert (lun["size"], lun["parts"][0]["type"]) == (disk.stat().st_size, "")


def test_the_key_is_on_no_disk_and_no_command_line(disks: Disks, served: Served, made: Made) -> None:
    uri, psk = served.start(disks.filesystem("ext4"))
    lun = made.start(uri, psk=psk)
    assert psk not in repr(lun)
    for path in made.run_dir.parent.rglob("*"):
        if path.is_file() and served.exports.folder not in str(path) and path.stat().st_size < MIB:
            assert psk not in path.read_text(errors="replace")
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_text(errors="replace")
        except OSError:
            continue
        assert psk not in text


def wrong(source: str, **options: Any) -> tuple[str, dict[str, Any]]:
    return source, options


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("/nowhere/m.img", "the source /nowhere/m.img cannot be used: No such file"),
        ("/tmp", "the source /tmp is neither a file nor a block device"),
        ("http://127.0.0.1/m", "http://127.0.0.1/m is not a source of a LUN: use nbd://HOST:PORT/NAME"),
        ("nbd://user:secret@127.0.0.1:99999/m", "nbd://user@127.0.0.1:99999/m has an invalid port"),
        ("nbd://127.0.0.1:9/m", "127.0.0.1 does not answer at port 9"),
    ],
)
def test_wrong_sources_are_named(made: Made, source: str, text: str) -> None:
    with pytest.raises(LunError) as raised:
        made.start(source)
    assert text in str(raised.value)
    assert made.traces() == []


def test_a_wrong_key_is_refused(disks: Disks, served: Served, made: Made) -> None:
    uri, psk = served.start(disks.filesystem("ext4"))
    with pytest.raises(LunError, match="nbdkit did not start"):
        made.start(uri, psk="0" * len(psk))
    assert made.traces() == []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks with real filesystems, exports of them, and LUNs made of those."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.luns import commands as luns_commands
from ansible_collections.openisb.backup.plugins.module_utils.luns import loops as luns_loops
from ansible_collections.openisb.backup.plugins.module_utils.luns import mounts as luns_mounts
from ansible_collections.openisb.backup.plugins.module_utils.luns import names as luns_names
from ansible_collections.openisb.backup.plugins.module_utils.luns import serve as luns_serve
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import Luns

MIB = 1024**2
DRILL = "idr-20261128T210000Z-4f1c2a"
MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ntfs": ("mkfs.ntfs", "-q", "-Q", "-F"),
}
SIZES = {"xfs": 320 * MIB, "btrfs": 160 * MIB}
TEXT = "what was there at the consistency point\n"


class Disks:
    """Makes disks in files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def empty(self, name: str, size: int) -> Path:
        """A disk with nothing on it."""
        path = self.folder / name
        path.touch()
        os.truncate(path, size)
        return path

    def filesystem(self, kind: str, name: str = "", size: int = 0) -> Path:
        """A disk that is one filesystem with the file `proof`."""
        path = self.empty(name or f"{kind}.img", size or SIZES.get(kind, 64 * MIB))
        subprocess.run([*MAKERS[kind], path], check=True, capture_output=True)
        with self.mounted(path, kind) as point:
            (point / "proof").write_text(TEXT)
        return path

    def table(self, script: str, size: int, parts: dict[int, Path], offsets: dict[int, int], sector: int = 512) -> Path:
        """A disk with the partition table of sfdisk's script, and these filesystems in its partitions."""
        path = self.empty("table.img", size)
        with self.attached(path, sector) as device:
            sfdisk = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device]
            subprocess.run(sfdisk, input=script, text=True, check=True, capture_output=True)
        for number, part in parts.items():
            with path.open("r+b") as disk, part.open("rb") as content:
                disk.seek(offsets[number])
                shutil.copyfileobj(content, disk)
        return path

    @contextlib.contextmanager
    def attached(self, path: Path, sector: int = 512) -> Iterator[str]:
        """The disk, as a device with sectors of that size for a while."""
        attach = ["losetup", "--find", "--show", "--sector-size", str(sector), path]
        device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
        try:
            yield device
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)

    @contextlib.contextmanager
    def mounted(self, path: Path, kind: str) -> Iterator[Path]:
        """The disk, mounted for a while."""
        point = self.folder / f"{path.name}.mount"
        point.mkdir()
        subprocess.run(["mount", "-t", "ntfs-3g" if kind == "ntfs" else kind, "-o", "loop", path, point], check=True)
        try:
            yield point
        finally:
            unmount(point)
            point.rmdir()


class Made:
    """LUNs below one run_dir."""

    def __init__(self, folder: Path) -> None:
        self.run_dir, self.scratch = folder / "run", folder / "scratch"
        self.luns = Luns(str(self.run_dir))

    def start(self, source: str | Path, volume: str = "m", psk: str = "", **options: Any) -> dict[str, Any]:
        """Make a LUN."""
        return self.luns.start(self.wanted(source, volume, **options), psk)

    def wanted(self, source: str | Path, volume: str = "m", **options: Any) -> dict[str, Any]:
        """What a LUN is made by."""
        common = {"drill": DRILL, "overlay": True, "timeout": 10.0, "expires": 0, "method": "fuse"}
        return {**common, "name": self.name(volume), "source": str(source), "scratch": str(self.scratch), **options}

    def name(self, volume: str = "m") -> str:
        """The name of a volume's LUN."""
        return f"{DRILL}.{self.run_dir.parent.name}.{volume}"

    def traces(self, volume: str = "m") -> list[str]:
        """All that there is of a LUN, looked for without the code under test where that goes."""
        name = self.name(volume)
        folder = luns_names.folder(self.luns.folder, name)
        found = [f"process {each['pid']} {each['program']}" for each in luns_serve.find_of(folder)]
        found += luns_loops.labelled(luns_names.label(name)).values()
        found += [mount.point for mount in luns_mounts.current() if str(self.run_dir.parent) in mount.point]
        found += [str(path) for path in self.run_dir.rglob("*") if path != self.run_dir / "luns"]
        if self.scratch.exists():
            found += [str(path) for path in self.scratch.iterdir()]
        return found


class Served:
    """Exports of this machine."""

    def __init__(self, folder: Path) -> None:
        self.exports = Exports(str(folder))

    def start(self, path: Path, tls: bool = True, readonly: bool = True) -> tuple[str, str]:
        """Serve a disk; returns the uri and the key."""
        record = self.exports.start(path.stem, str(path), "127.0.0.1", tls, readonly, "isb-test")
        return str(record["uri"]), self.exports.key(path.stem) or ""

    def pid(self, path: Path) -> int:
        """The process that serves a disk."""
        return int(self.exports.get(path.stem)["pid"])


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name: LUNs have sockets in it, whose paths cannot be long."""
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    folder = tmp_path / "disks"
    folder.mkdir()
    return Disks(folder)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """LUNs that are ended with the test, whatever came of it."""
    made = Made(tmp_path)
    yield made
    for name in made.luns.records.names():
        assert made.luns.stop(name) == []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Exports that are ended with the test."""
    served = Served(tmp_path / "served")
    yield served
    for record in served.exports.list():
        served.exports.stop(record["name"])


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a device with the options that are ours; what is still mounted after the test is unmounted."""
    from ansible_collections.openisb.backup.plugins.module_utils.control.drill import mounting

    points: list[Path] = []

    def do(part: dict[str, Any], writable: bool = True) -> Path:
        point = tmp_path / f"mount{len(points)}"
        point.mkdir()
        options = mounting.mount_options(part["type"], writable)
        kind = mounting.mount_type(part["type"])
        subprocess.run(["mount", "-t", kind, "-o", options, part["device"], point], check=True)
        points.append(point)
        return point

    yield do
    for point in points:
        if os.path.ismount(point):
            unmount(point)


def unmount(point: Path) -> None:
    """Unmount, and wait for what ntfs-3g and the kernel do afterwards."""
    for _try in range(50):
        if subprocess.run(["umount", point], check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(f"{point} cannot be unmounted")


@pytest.fixture(params=["dr-host", ""], ids=["host-with-id", "host-without"])
def strict_host(request: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A host that runs a lock manager for groups of its own, and activates no group but those it knows."""
    folder = tmp_path / "lvm"
    folder.mkdir()
    (folder / "lvm.conf").write_text(
        f'global {{ use_lvmlockd=1 system_id_source="{"lvmlocal" if request.param else "none"}" }}\n'
        'activation { volume_list=["vg-of-this-host"] auto_activation_volume_list=["vg-of-this-host"] }\n'
    )
    (folder / "lvmlocal.conf").write_text(f'local {{ system_id="{request.param}" }}\n' if request.param else "")
    before = luns_commands.environment
    monkeypatch.setattr(luns_commands, "environment", lambda **more: {**before(**more), "LVM_SYSTEM_DIR": str(folder)})
    return folder


def share_group(settings: list[str], group: str, folder: Path) -> None:
    """Have a group say that several hosts use it by a lock manager, which is not needed to write that."""
    written = folder / "metadata"
    subprocess.run(["vgcfgbackup", *settings, "--file", written, group], check=True, capture_output=True)
    lock = '\tlock_type = "sanlock"\n\tlock_args = "1.0.0:lvmlock"\n'
    written.write_text(written.read_text().replace("\tstatus = [", lock + "\tstatus = [", 1))
    subprocess.run(["vgcfgrestore", *settings, "--force", "--file", written, group], check=True, capture_output=True)

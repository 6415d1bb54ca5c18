# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems that lie on each other: real ones, and devices of which this machine has none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.mounts import Mount, current, mount_of
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import backing, manage
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings

from .conftest import MAKE, SIZES, mount_image, unmount, wait_for

pytestmark = pytest.mark.root
MakeFilesystem = Callable[[str], Path]
Build = Callable[..., Any]


def sparse(path: Path, mebibytes: int) -> Path:
    with open(path, "wb") as stream:
        stream.truncate(mebibytes * 1024 * 1024)
    return path


def run(*command: str) -> str:
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout.strip()


class Stacks:
    """Mounts on files of other mounts, unmounted in the end before those."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounts: list[Path] = []
        self.devices: list[str] = []
        self.images: list[Path] = []

    def place(self) -> Path:
        return self.folder / f"stacked-{len(self.mounts)}"

    def on(self, below: Path, kind: str = "ext4") -> Path:
        image, point = sparse(below / "image", SIZES[kind]), self.place()
        run(*MAKE[kind], str(image))
        mount_image(image, point)
        self.mounts.append(point)
        self.images.append(image)
        return point

    def loop(self, image: Path) -> str:
        self.devices.append(run("losetup", "--find", "--show", str(image)))
        self.images.append(image)
        return self.devices[-1]

    def mount(self, *arguments: str) -> Path:
        point = self.place()
        point.mkdir()
        run("mount", *arguments, str(point))
        self.mounts.append(point)
        return point

    def end(self) -> None:
        for point in reversed(self.mounts):
            unmount(point)
        for device in self.devices:
            run("losetup", "--detach", device)
        wait_for(lambda: not any(str(image) in run("losetup", "--all") for image in self.images))


@pytest.fixture
def stacks(make_filesystem: MakeFilesystem, tmp_path: Path) -> Iterator[Stacks]:
    made = Stacks(tmp_path)
    yield made
    made.end()


def refused(build: Build, *mounts: Path, paths: dict[str, str] | None = None) -> str:
    """What the check says against these mounts, in either order."""
    said = []
    for each in (mounts, mounts[::-1]):
        with pytest.raises(DriverError) as caught:
            build({"name": "filesystem", "mounts": list(map(str, each))}).check(Surroundings(paths or {}))
        said.append(str(caught.value))
    assert said[0] == said[1]
    return said[0]


def accepted(build: Build, *mounts: Path) -> bool:
    return bool(build({"name": "filesystem", "mounts": list(map(str, mounts))}).check(Surroundings({})))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_filesystem_in_a_file_of_another(
    kind: str, build: Build, make_filesystem: MakeFilesystem, stacks: Stacks
) -> None:
    below, other = make_filesystem("xfs"), make_filesystem("ext4")
    above = stacks.on(below, kind)
    assert refused(build, below, other, above) == (
        f"filesystem: {above} is stored on {below}, in {below}/image, and cannot be frozen together with "
        "it: put them on different volumes, or remove one of them from 'mounts'"
    )
    assert accepted(build, above, other)
    assert accepted(build, below, other)


def test_one_that_is_not_listed_lies_between(build: Build, make_filesystem: MakeFilesystem, stacks: Stacks) -> None:
    below = make_filesystem("xfs")
    between = stacks.on(below, "btrfs")
    above = stacks.on(between)
    assert f"{above} is stored on {below}, in {below}/image" in refused(build, below, above)


def test_the_file_is_known_by_what_it_is_and_not_by_its_name(
    build: Build, make_filesystem: MakeFilesystem, stacks: Stacks
) -> None:
    below = make_filesystem("ext4")
    above = stacks.on(below)
    (below / "image").unlink()
    assert f"{above} is stored on {below}" in refused(build, below, above)


def test_a_log_on_another(build: Build, make_filesystem: MakeFilesystem, stacks: Stacks, tmp_path: Path) -> None:
    below = make_filesystem("ext4")
    log = stacks.loop(sparse(below / "log", 10))
    data = sparse(tmp_path / "data", 16)
    run("mke2fs", "-q", "-b", "4096", "-O", "journal_dev", log)
    run("mkfs.ext4", "-q", "-b", "4096", "-J", f"device={log}", str(data))
    above = stacks.mount("-o", "loop", str(data))
    assert f"{above} is stored on {below}, in {below}/log" in refused(build, below, above)


def test_a_log_of_xfs_on_another(build: Build, make_filesystem: MakeFilesystem, stacks: Stacks, tmp_path: Path) -> None:
    below = make_filesystem("xfs")
    log = stacks.loop(sparse(below / "log", 70))
    data = sparse(tmp_path / "data", 320)
    run("mkfs.xfs", "-q", "-l", f"logdev={log}", str(data))
    above = stacks.mount("-o", f"loop,logdev={log}", str(data))
    assert f"{above} is stored on {below}, in {below}/log" in refused(build, below, above)


def test_a_second_device_of_btrfs_on_another(
    build: Build, make_filesystem: MakeFilesystem, stacks: Stacks, tmp_path: Path
) -> None:
    below = make_filesystem("ext4")
    free = sparse(tmp_path / "data", 120)
    first, second = stacks.loop(free), stacks.loop(sparse(below / "second", 120))
    run("mkfs.btrfs", "-q", first, second)
    above = stacks.mount(first)
    assert f"{above} is stored on {below}, in {below}/second" in refused(build, below, above)


@pytest.mark.parametrize("layer", ["lowerdir", "upperdir", "workdir"])
def test_a_folder_that_is_used_on_an_overlay_of_one(
    layer: str, build: Build, make_filesystem: MakeFilesystem, stacks: Stacks, tmp_path: Path
) -> None:
    frozen = make_filesystem("ext4")
    folders = {name: tmp_path / name for name in ("lowerdir", "upperdir", "workdir")}
    if layer == "lowerdir":
        folders[layer] = frozen / "a,b:c d"
    else:
        folders.update(upperdir=frozen / "upper", workdir=frozen / "work")
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    escaped = str(folders["lowerdir"]).replace(",", "\\,").replace(":", "\\:")
    options = f"lowerdir={escaped},upperdir={folders['upperdir']},workdir={folders['workdir']}"
    overlay = stacks.mount("-t", "overlay", "-o", options, "overlay")
    (result,) = manage.check(str(overlay / "run"), [build({"name": "filesystem", "mounts": [str(frozen)]})])
    purpose = f"{overlay}/run (the holder's directory)"
    expected = f"{frozen} must not be frozen, because {purpose} is on it, through {frozen}/"
    assert expected in result["message"]


def test_swap_in_a_file_on_one(
    build: Build, make_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frozen = make_filesystem("ext4")
    swap = sparse(frozen / "a b", 1)
    table = tmp_path / "swaps"
    table.write_text("Filename\t\t\t\tType\t\tSize\tUsed\tPriority\n" + f"{frozen}/a\\040b file\t\t1020\t0\t-2\n")
    monkeypatch.setattr(backing, "SWAPS", str(table))
    assert refused(build, frozen) == (
        f"filesystem: {frozen} must not be frozen, because {swap} (swap) is on it: "
        "move one of them to another filesystem"
    )


def test_swap_on_a_loop_device_over_a_file_on_one(
    build: Build, make_filesystem: MakeFilesystem, stacks: Stacks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frozen = make_filesystem("ext4")
    device = stacks.loop(sparse(frozen / "swap", 1))
    table = tmp_path / "swaps"
    table.write_text(f"Filename Type Size Used Priority\n{device} partition 1020 0 -2\n")
    monkeypatch.setattr(backing, "SWAPS", str(table))
    assert f"{frozen} must not be frozen, because {frozen}/swap (swap) is on it" in refused(build, frozen)


def test_partitions_and_members_of_volume_managers_are_followed(
    make_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """dm-0 (LVM, multipath, crypt) on md0 and on a partition of a disk that is a file of a mounted filesystem."""
    below = make_filesystem("ext4")
    image = sparse(below / "disk", 1)
    system = tmp_path / "sys"
    for number, folder in {"252:0": "dm-0", "9:0": "md0", "259:1": "loop99/loop99p1", "7:99": "loop99"}.items():
        (system / folder / "slaves").mkdir(parents=True, exist_ok=True)
        (system / folder / "dev").write_text(number + "\n")
        (system / number).symlink_to(folder)
    (system / "loop99/loop99p1/partition").write_text("1\n")
    (system / "loop99/loop").mkdir()
    (system / "loop99/loop/backing_file").write_text(f"{image}\n")
    (system / "dm-0/slaves/md0").symlink_to(system / "md0")
    (system / "md0/slaves/loop99p1").symlink_to(system / "loop99/loop99p1")
    monkeypatch.setattr(backing, "DEVICES", str(system))
    volume = Mount(1, "252:0", "/srv/x", "xfs")
    mounts = current()
    assert backing.below(volume, mounts) == {mount_of(str(below), mounts).device: str(image)}


def test_filesystems_of_different_devices_are_accepted(build: Build, make_filesystem: MakeFilesystem) -> None:
    assert accepted(build, *(make_filesystem(kind) for kind in ("ext4", "xfs", "btrfs")))

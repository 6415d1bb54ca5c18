# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filesystem driver against real filesystems in loop files."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import mounts
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import freezer, manage, records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers import filesystem
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.freezer import FIFREEZE, FITHAW
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.hold import Limits
from marks import slow

from .conftest import Holds, is_frozen, wait_for

pytestmark = pytest.mark.root
MakeFilesystem = Callable[[str], Path]
Build = Callable[..., Any]
Writer = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def make_driver(make_filesystem: MakeFilesystem, build: Build) -> Build:
    """Drivers that are closed before the filesystems are unmounted."""

    def make(*mounts: Path, marks: dict[str, Any] | None = None) -> Any:
        return build({"name": "filesystem", "mounts": [str(mount) for mount in mounts]}, marks)

    return make


def ioctl(mount: Path, request: int) -> None:
    descriptor = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, request, 0)
    finally:
        os.close(descriptor)


def paths_in(marks: dict[str, Any]) -> list[str]:
    return [mark["path"] for mark in marks.get("mounts", [])]


def device_of(mount: Path) -> str:
    return mounts.mount_of(str(mount), mounts.current()).device


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_writes_wait_until_the_thaw(kind: str, make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    mount = make_filesystem(kind)
    driver = make_driver(mount)
    assert driver.check(Surroundings({})) == f"can freeze {mount}"
    driver.prepare()
    driver.freeze()
    assert is_frozen(mount)
    assert driver.status() == {"frozen": True, "mounts": [str(mount)]}
    assert driver.thaw() == []
    assert not is_frozen(mount)
    assert driver.thaw() == []


def test_another_process_thaws_by_the_marks(make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    mount = make_filesystem("ext4")
    driver = make_driver(mount)
    noted: list[Any] = []
    driver.on_marks(lambda: noted.append(dict(driver.marks)))
    driver.freeze()
    assert paths_in(noted[0]) == [str(mount)]
    assert noted[0]["mounts"][0]["device"] == device_of(mount)
    assert make_driver(mount, marks=noted[-1]).thaw() == []
    assert not is_frozen(mount)


def test_a_failed_freeze_leaves_what_it_froze_to_the_thaw(make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    first, second, third = (make_filesystem("ext4") for _number in range(3))
    driver = make_driver(first, second, third)
    ioctl(second, FIFREEZE)
    with pytest.raises(DriverError, match=f"{second} is already frozen by somebody else"):
        driver.freeze()
    assert paths_in(driver.marks) == [str(first)]
    assert driver.thaw() == []
    assert not is_frozen(first)
    assert is_frozen(second)  # not ours to thaw
    ioctl(second, FITHAW)


def test_a_thaw_by_somebody_else_is_told(make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    mount = make_filesystem("ext4")
    driver = make_driver(mount)
    driver.freeze()
    ioctl(mount, FITHAW)
    assert driver.thaw() == [f"filesystem: {mount} was thawed by somebody else"]
    assert driver.marks == {}


@pytest.fixture
def cover() -> Iterator[Callable[..., None]]:
    """Mounts something over a path, until the end of the test: memory, or what is at another path."""
    covered: list[Path] = []

    def mount(point: Path, what: Path | None = None) -> None:
        source = ["-t", "tmpfs", "cover"] if what is None else ["--bind", str(what)]
        subprocess.run(["mount", *source, str(point)], check=True)
        covered.append(point)

    yield mount
    for point in reversed(covered):
        subprocess.run(["umount", str(point)], check=True)


def marks_of(driver: Any) -> dict[str, Any]:
    """As they are on record: what goes on is another process."""
    found: dict[str, Any] = json.loads(json.dumps(driver.marks))
    return found


@pytest.fixture
def waiting_writer() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts processes that have a file open somewhere, and write to it once they are told to."""
    started: list[subprocess.Popen[bytes]] = []

    def start(mount: Path) -> subprocess.Popen[bytes]:
        code = 'exec 3>"$0"; read x; echo x >&3'
        started.append(subprocess.Popen(["sh", "-c", code, str(mount / "f")], stdin=subprocess.PIPE))
        wait_for((mount / "f").exists)
        return started[-1]

    yield start
    for writer in started:
        writer.kill()


def assert_goes_on(writer: subprocess.Popen[bytes]) -> None:
    assert writer.stdin is not None
    writer.stdin.write(b"\n")
    writer.stdin.close()
    assert writer.wait(5) == 0


@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs")])
def test_what_was_frozen_is_thawed_though_the_path_shows_something_else(
    kind: str, holds: Holds, make_filesystem: MakeFilesystem, waiting_writer: Writer, cover: Callable[..., None]
) -> None:
    mount = make_filesystem(kind)
    writer = waiting_writer(mount)
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount)]}])
    assert holds.ask("freeze")["ok"]
    cover(mount)
    holds.kill_all_three()
    answer = manage.thaw(holds.run_dir, holds.find(), 5)
    assert (answer["ok"], answer["reason"], answer["error"]) == (True, "recovery", manage.LEFT_OVER)
    assert_goes_on(writer)
    assert not holds.find().leftover
    assert os.path.ismount(mount)  # what covers it is still there for everybody else
    assert list(mount.iterdir()) == []


@pytest.mark.parametrize("who", ["partner", "guard"])
def test_whoever_takes_over_thaws_what_is_covered(
    who: str, holds: Holds, make_filesystem: MakeFilesystem, waiting_writer: Writer, cover: Callable[..., None]
) -> None:
    mount = make_filesystem("ext4")
    writer = waiting_writer(mount)
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount)]}])
    assert holds.ask("freeze")["ok"]
    cover(mount)
    cover(mount)
    holds.kill(*(["holder"] if who == "partner" else ["partner", "holder"]))
    holds.wait_for_thaw_by(who)
    assert_goes_on(writer)


def test_a_filesystem_below_a_covered_folder_is_reached(
    make_driver: Build,
    make_filesystem: MakeFilesystem,
    waiting_writer: Writer,
    cover: Callable[..., None],
    tmp_path: Path,
) -> None:
    mount = make_filesystem("ext4")
    writer = waiting_writer(mount)
    driver = make_driver(mount)
    driver.freeze()
    cover(tmp_path)
    assert make_driver(mount, marks=marks_of(driver)).thaw() == []
    assert_goes_on(writer)


def test_what_covers_a_frozen_filesystem_is_never_thawed_in_its_place(
    make_driver: Build, make_filesystem: MakeFilesystem, cover: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezer, "open_covered", lambda _device: None)
    mount, other = make_filesystem("ext4"), make_filesystem("ext4")
    driver = make_driver(mount)
    driver.freeze()
    ioctl(other, FIFREEZE)
    cover(mount, other)
    second = make_driver(mount, marks=marks_of(driver))
    with pytest.raises(DriverError, match=r"is covered by another mount and stays frozen: unmount what .* thaw again"):
        second.thaw()
    assert second.marks == marks_of(driver)
    assert is_frozen(other)
    ioctl(other, FITHAW)
    monkeypatch.undo()
    assert second.thaw() == []
    assert second.marks == {}


def test_another_mount_point_of_what_was_frozen_is_used(
    make_driver: Build,
    make_filesystem: MakeFilesystem,
    cover: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(freezer, "open_covered", lambda _device: None)
    mount = make_filesystem("ext4")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    driver = make_driver(mount)
    driver.freeze()
    cover(elsewhere, mount)
    cover(mount)
    assert make_driver(mount, marks=marks_of(driver)).thaw() == []
    assert not is_frozen(elsewhere)


def test_what_is_mounted_nowhere_stays_marked_until_it_is_mounted_again(
    make_driver: Build, make_filesystem: MakeFilesystem
) -> None:
    mount = make_filesystem("ext4")
    device = subprocess.run(
        ["findmnt", "-no", "SOURCE", str(mount)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    driver = make_driver(mount)
    driver.freeze()
    os.kill(driver.marks["mounts"][0]["freezer"]["pid"], signal.SIGKILL)
    driver.close()
    subprocess.run(["umount", str(mount)], check=True)
    second = make_driver(mount, marks=marks_of(driver))
    try:
        with pytest.raises(DriverError, match=r"is no longer mounted anywhere and stays frozen: mount it again"):
            second.thaw()
        assert second.marks == marks_of(driver)
    finally:
        subprocess.run(["mount", device, str(mount)], check=True)
    assert second.thaw() == []
    assert not is_frozen(mount)


def test_a_path_that_shows_something_else_than_armed_is_not_frozen(
    make_driver: Build, make_filesystem: MakeFilesystem, cover: Callable[..., None]
) -> None:
    mount = make_filesystem("ext4")
    driver = make_driver(mount)
    driver.prepare()
    cover(mount)
    with pytest.raises(DriverError, match=r"when the hold was armed: something was mounted over it"):
        driver.freeze()
    assert driver.marks == {}


def test_a_path_that_shows_something_else_than_checked_is_not_armed(
    make_driver: Build, make_filesystem: MakeFilesystem, cover: Callable[..., None]
) -> None:
    mount = make_filesystem("ext4")
    checked, driver = make_driver(mount), make_driver(mount)
    checked.check(Surroundings({}))
    driver.findings = checked.findings
    assert driver.findings == {str(mount): device_of(mount)}
    cover(mount)
    with pytest.raises(DriverError, match=r"now shows 0:\d+, but showed .* when it was tested"):
        driver.prepare()


def test_a_holder_opens_what_was_checked(
    holds: Holds, make_filesystem: MakeFilesystem, cover: Callable[..., None]
) -> None:
    mount = make_filesystem("ext4")
    limits = Limits(arm_ttl=30, hold_ttl=10, linger=600)
    arming = manage.Arming(holds.run_dir, "r1", [{"name": "filesystem", "mounts": [str(mount)]}], limits)
    with records.locked(holds.run_dir):
        assert arming.plan()
        cover(mount)
        with pytest.raises(HolderError, match="when it was tested"):
            arming.carry_out()


def test_a_cancelled_freeze_stops(make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    mount = make_filesystem("ext4")
    driver = make_driver(mount)
    driver.cancel()
    with pytest.raises(DriverError, match="cancelled"):
        driver.freeze()
    assert driver.marks == {}


def test_a_prepared_mount_cannot_go_away(make_driver: Build, make_filesystem: MakeFilesystem) -> None:
    mount = make_filesystem("ext4")
    driver = make_driver(mount)
    driver.prepare()
    assert subprocess.run(["umount", str(mount)], check=False, capture_output=True).returncode != 0
    driver.close()
    assert subprocess.run(["umount", str(mount)], check=False).returncode == 0
    subprocess.run(["mount", "-o", "loop", f"{mount}.img", str(mount)], check=True)


def check_fails(driver: Any, message: str, paths: dict[str, str] | None = None) -> None:
    with pytest.raises(DriverError) as caught:
        driver.check(Surroundings(paths or {}))
    assert message in str(caught.value)


def test_what_cannot_be_frozen_is_refused_before(
    make_driver: Build, make_filesystem: MakeFilesystem, tmp_path: Path
) -> None:
    mount = make_filesystem("btrfs")
    check_fails(make_driver(Path("/")), "/ contains the system itself")
    check_fails(make_driver(tmp_path), f"{tmp_path} is not a mount point here")
    check_fails(make_driver(tmp_path / "nowhere"), "is not a mount point here")
    check_fails(make_driver(Path("/proc")), "/proc is of type proc, which cannot be frozen")
    check_fails(make_driver(mount), "(the holder's directory) is on it", {f"{mount}/run/x": "the holder's directory"})
    check_fails(make_driver(mount, mount), "are one filesystem")


def test_a_filesystem_is_known_at_every_mount_of_it(
    make_driver: Build, make_filesystem: MakeFilesystem, tmp_path: Path
) -> None:
    mount = make_filesystem("btrfs")
    subprocess.run(["btrfs", "-q", "subvolume", "create", str(mount / "sub")], check=True)
    for number, (kind, what) in enumerate([("bind", mount), ("bind", mount / "sub"), ("bind", Path("/root"))]):
        other = tmp_path / f"other-{number}"
        other.mkdir()
        subprocess.run(["mount", f"--{kind}", str(what), str(other)], check=True)
        try:
            expected = "are one filesystem" if number < 2 else "(the system) is on it"
            check_fails(make_driver(mount, other), expected)
        finally:
            subprocess.run(["umount", str(other)], check=True)


@pytest.mark.parametrize("purpose", ["Python", "Python's library", "the holder's directory"])
def test_what_the_holder_runs_from_is_refused(
    purpose: str, make_driver: Build, make_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount = make_filesystem("ext4")
    run_dir = str(tmp_path)
    if purpose == "Python":
        (mount / "python3").symlink_to("python3.8")  # the interpreter itself is what counts, not the link to it
        (mount / "python3.8").touch()
        (tmp_path / "python").symlink_to(mount / "python3")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    elif purpose == "Python's library":
        monkeypatch.setattr(os, "__file__", str(mount / "python3.8" / "os.py"))
    else:
        run_dir = str(mount / "run" / "openisb")
    (result,) = manage.check(run_dir, [make_driver(mount)])
    assert result["message"].startswith(f"filesystem: {mount} must not be frozen, because {mount}/") or (
        purpose == "Python" and result["message"].startswith(f"filesystem: {mount} must not be frozen, because ")
    )
    assert f"({purpose}) is on it" in result["message"]


def test_several_types_freeze_in_order_and_thaw_in_reverse(
    make_driver: Build, make_filesystem: MakeFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "ORDER", 60)  # a busy machine may need longer than a thaw in order may take
    mounts = [make_filesystem(kind) for kind in ("xfs", "btrfs", "ext4")]
    driver = make_driver(*mounts)
    assert driver.check(Surroundings({})) == f"can freeze {', '.join(str(mount) for mount in mounts)}"
    noted: list[list[str]] = []
    driver.on_marks(lambda: noted.append(paths_in(driver.marks)))
    driver.freeze()
    assert all(is_frozen(mount) for mount in mounts)
    frozen = [str(mount) for mount in mounts]
    assert noted == [frozen[:1], frozen[:2], frozen]
    noted.clear()
    assert driver.thaw() == []
    assert noted == [frozen[:2], frozen[:1], []]
    assert not any(is_frozen(mount) for mount in mounts)


def test_a_killed_holder_leaves_no_freeze(make_filesystem: MakeFilesystem, holds: Holds) -> None:
    mounts = [make_filesystem(kind) for kind in ("ext4", "xfs", "btrfs")]
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount) for mount in mounts]}])
    assert holds.ask("freeze")["ok"]
    assert all(is_frozen(mount) for mount in mounts)
    holds.kill_holder()
    holds.wait_for_partner()
    assert not any(is_frozen(mount) for mount in mounts)


def test_a_holder_of_real_filesystems_thaws_by_itself(holds: Holds, make_filesystem: MakeFilesystem) -> None:
    mounts = [make_filesystem(kind) for kind in ("ext4", "xfs")]
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount) for mount in mounts]}], hold_ttl=1.5)
    assert holds.ask("freeze")["hold_unbroken"]
    waiting = [subprocess.Popen(["touch", str(mount / "probe")]) for mount in mounts]
    assert all(writer.wait(5) == 0 for writer in waiting)
    answer = holds.ask("end")
    assert answer["reason"] == "ttl"
    assert 1500 <= answer["window_ms"] < 1500 + 3000


def fs(mount: Path) -> list[dict[str, Any]]:
    return [{"name": "filesystem", "mounts": [str(mount)]}]


@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs")])
def test_what_somebody_else_froze_after_the_arming_stays_theirs(
    kind: str, make_filesystem: MakeFilesystem, holds: Holds
) -> None:
    mine, theirs = make_filesystem("ext4"), make_filesystem(kind)
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mine), str(theirs)]}])
    ioctl(theirs, FIFREEZE)
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["state"]) == (False, "failed")
    assert f"{theirs} is already frozen by somebody else" in answer["error"]
    assert not is_frozen(mine)
    for command in ("thaw", "end"):
        assert holds.ask(command)["ok"]
    assert is_frozen(theirs)
    ioctl(theirs, FITHAW)


@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs")])
def test_one_remounted_read_only_after_the_arming_is_held_as_any_other(
    kind: str, make_filesystem: MakeFilesystem, holds: Holds
) -> None:
    mount = make_filesystem(kind)
    holds.arm(descriptions=fs(mount))
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    assert holds.ask("freeze")["hold_unbroken"]
    # Nobody can begin to write while it is held.
    assert subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=False, capture_output=True).returncode != 0
    assert holds.ask("end")["hold_unbroken"]
    subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
    assert not is_frozen(mount)


def test_one_unmounted_after_the_check_is_not_armed(make_filesystem: MakeFilesystem, holds: Holds) -> None:
    mount = make_filesystem("ext4")
    limits = Limits(arm_ttl=30, hold_ttl=10, linger=600)
    arming = manage.Arming(holds.run_dir, "r1", fs(mount), limits)
    with records.locked(holds.run_dir):
        assert arming.plan()
        subprocess.run(["umount", str(mount)], check=True)
        with pytest.raises(HolderError, match=rf"{mount} now shows .*, but showed .* when it was tested"):
            arming.carry_out()
    subprocess.run(["mount", "-o", "loop", f"{mount}.img", str(mount)], check=True)


def test_one_unmounted_after_the_arming_is_not_frozen(make_filesystem: MakeFilesystem, holds: Holds) -> None:
    mount = make_filesystem("ext4")
    holds.arm(descriptions=fs(mount))
    assert subprocess.run(["umount", str(mount)], check=False, capture_output=True).returncode != 0  # the holder has it
    subprocess.run(["umount", "--lazy", str(mount)], check=True)
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["state"]) == (False, "failed")
    assert "when the hold was armed: something was mounted over it, or it was unmounted" in answer["error"]
    assert holds.ask("end")["ok"]
    wait_for(lambda: not any(is_running(process) for process in holds.processes()))
    subprocess.run(["mount", "-o", "loop", f"{mount}.img", str(mount)], check=True)
    assert not is_frozen(mount)


def test_another_in_its_place_after_the_arming_is_not_frozen(make_filesystem: MakeFilesystem, holds: Holds) -> None:
    mount, other = make_filesystem("ext4"), make_filesystem("ext4")
    holds.arm(descriptions=fs(mount))
    subprocess.run(["mount", "--bind", str(other), str(mount)], check=True)
    try:
        assert not holds.ask("freeze")["ok"]
        assert not is_frozen(other)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    assert not is_frozen(mount)


def test_one_unmounted_while_it_is_frozen_is_thawed_all_the_same(
    make_filesystem: MakeFilesystem, waiting_writer: Writer, holds: Holds
) -> None:
    mount = make_filesystem("ext4")
    writer = waiting_writer(mount)
    holds.arm(descriptions=fs(mount))
    assert holds.ask("freeze")["ok"]
    subprocess.run(["umount", "--lazy", str(mount)], check=True)
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["hold_unbroken"]) == (True, True)
    assert_goes_on(writer)
    assert holds.ask("end")["ok"]
    wait_for(lambda: subprocess.run(["mount", "-o", "loop", f"{mount}.img", str(mount)], check=False).returncode == 0)


def test_the_process_that_froze_thaws_when_its_maker_is_gone(make_filesystem: MakeFilesystem, holds: Holds) -> None:
    """Nobody else does: partner and guard are stopped."""
    mounts = [make_filesystem("ext4"), make_filesystem("xfs")]
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount) for mount in mounts]}])
    assert holds.ask("freeze")["ok"]
    record = holds.find().record
    for name in ("guard", "partner"):
        os.kill(record[name]["pid"], signal.SIGSTOP)
    holds.kill_holder()
    assert not any(is_frozen(mount) for mount in mounts)
    freezers = [mark["freezer"] for mark in record["drivers"][0]["marks"]["mounts"]]
    wait_for(lambda: not any(map(is_running, freezers)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_froze_and_is_killed_or_stopped_is_no_obstacle(
    how: signal.Signals, make_filesystem: MakeFilesystem, holds: Holds
) -> None:
    mounts = [make_filesystem("ext4"), make_filesystem("xfs")]
    holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount) for mount in mounts]}])
    assert holds.ask("freeze")["ok"]
    for mark in holds.find().record["drivers"][0]["marks"]["mounts"]:
        os.kill(mark["freezer"]["pid"], how)
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["hold_unbroken"]) == (True, True)
    assert not any(is_frozen(mount) for mount in mounts)


def test_the_processes_that_freeze_are_in_memory_and_let_go_of_everything_else(
    make_filesystem: MakeFilesystem, holds: Holds
) -> None:
    mounts = [make_filesystem("ext4"), make_filesystem("xfs")]
    armed = holds.arm(descriptions=[{"name": "filesystem", "mounts": [str(mount) for mount in mounts]}])
    assert holds.ask("freeze")["ok"]
    for mark in holds.find().record["drivers"][0]["marks"]["mounts"]:
        process = Path(f"/proc/{mark['freezer']['pid']}")
        assert process.joinpath("cmdline").read_bytes().strip(b"\0") == b"thaw-worker"
        opened = sorted(os.readlink(each).partition(":")[0] for each in process.joinpath("fd").iterdir())
        assert opened == sorted([*["/dev/null"] * 3, mark["path"], "pipe", "pipe"])
        assert os.readlink(process / "cwd") == "/"
        locked = next(line for line in process.joinpath("status").read_text().splitlines() if line.startswith("VmLck"))
        assert (int(locked.split()[1]) > 0) == armed["memory_locked"]

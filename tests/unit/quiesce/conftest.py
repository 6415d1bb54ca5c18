# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holders with a driver that only keeps files, real filesystems, and a real GT.M database."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.options import Option
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers, holder, manage, protocol, records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Driver, Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.freezer import FITHAW
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.hold import Limits

GTM_DIST = "/usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64"


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What ``condition`` returned once it was true; fails the test where it did not become so in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not so within {seconds} s: {condition}")


def waits(writer: subprocess.Popen[bytes]) -> bool:
    """Whether a process that writes has to wait. It is ended then."""
    try:
        writer.wait(0.5)
    except subprocess.TimeoutExpired:
        return True
    finally:
        writer.kill()
        writer.wait()
    return False


def freeze_in_background(driver: Driver) -> Callable[[], str]:
    """Begin a freeze that will fail. Returns what waits for its end and tells its error."""
    errors: list[str] = []

    def freeze() -> None:
        try:
            driver.freeze()
        except DriverError as error:
            errors.append(str(error))

    thread = threading.Thread(target=freeze)
    thread.start()

    def end() -> str:
        thread.join(5)
        return errors[0]

    return end


class FileDriver(Driver):
    """Frozen is what has a file ``frozen-<label>``; ``log`` tells the order of the calls.

    ``freeze``: ok; fail (before it holds); half (holds, and then fails); hang (holds, and returns only once the file
    ``release-<label>`` is there, whatever anybody asks). ``thaw``: ok; fail (until ``release-<label>`` is there); hang
    (until it is there).
    """

    name = "file"
    options = {
        "folder": Option("path", "Where its files are.", required=True),
        "label": Option("str", "Which one it is.", required=True),
        "freeze": Option("str", "How freezing goes.", default="ok"),
        "thaw": Option("str", "How thawing goes.", default="ok"),
    }

    def _path(self, kind: str) -> Path:
        return Path(self.values["folder"], f"{kind}-{self.values['label']}")

    def _log(self, what: str) -> None:
        with open(Path(self.values["folder"], "log"), "a", encoding="utf-8") as stream:
            stream.write(f"{what} {self.values['label']}\n")

    def check(self, surroundings: Surroundings) -> str:
        if self._path("frozen").exists():
            raise DriverError(f"{self.values['label']} is frozen already")
        return "can freeze"

    def freeze(self) -> None:
        self._log("freeze")
        self.mark("held", True)
        behaviour = self.values["freeze"]
        if behaviour == "fail":
            raise DriverError(f"{self.values['label']} cannot be frozen")
        self._path("frozen").touch()
        if behaviour == "half":
            raise DriverError(f"{self.values['label']} is frozen in part")
        while behaviour == "hang" and not self._path("release").exists():
            time.sleep(0.01)
        if behaviour == "hang":
            self._path("frozen").touch()
            self.mark("held", True)

    def thaw(self) -> list[str]:
        self._log("thaw")
        if self.values["thaw"] == "fail" and not self._path("release").exists():
            raise DriverError(f"{self.values['label']} cannot be thawed")
        while self.values["thaw"] == "hang" and not self._path("release").exists():
            time.sleep(0.01)
        if not self.marks:
            return []
        broken = [] if self._path("frozen").exists() else [f"{self.values['label']} was thawed by somebody else"]
        self._path("frozen").unlink(missing_ok=True)
        self.clear_marks()
        return broken

    def status(self) -> dict[str, Any]:
        return {"frozen": self._path("frozen").exists()}


class Holds:
    """Holders in a folder of their own, with file drivers unless a test gives others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = str(folder / "run")

    def driver(self, label: str, **options: Any) -> dict[str, Any]:
        return {"name": "file", "folder": str(self.folder), "label": label, **options}

    def arm(
        self,
        run_id: str = "r1",
        descriptions: list[dict[str, Any]] | None = None,
        arm_ttl: float = 30,
        hold_ttl: float = 10,
        linger: float = 600,
    ) -> dict[str, Any]:
        limits = Limits(arm_ttl=arm_ttl, hold_ttl=hold_ttl, linger=linger)
        chosen = descriptions or [self.driver("a"), self.driver("b")]
        with records.locked(self.run_dir):
            arming = manage.Arming(self.run_dir, run_id, chosen, limits)
            arming.plan()
            return arming.carry_out()

    def arm_unchecked(self, descriptions: list[dict[str, Any]], hold_ttl: float) -> None:
        """Arm what the checks would refuse."""
        limits = Limits(arm_ttl=30, hold_ttl=hold_ttl, linger=600)
        with records.locked(self.run_dir):
            holder.start(self.run_dir, "r1", descriptions, limits)

    def ask(self, command: str, run_id: str = "r1", timeout: float = 10) -> dict[str, Any]:
        return protocol.call(records.socket_path(self.run_dir, run_id), run_id, command, timeout)

    def find(self, run_id: str = "r1") -> manage.Found:
        found = manage.find(self.run_dir, run_id)
        assert found is not None
        return found

    def processes(self) -> list[dict[str, Any]]:
        return [
            process
            for record in records.read_all(self.run_dir)
            for process in (record["guard"], record["partner"], record["holder"])
            if process is not None
        ]

    def frozen(self) -> list[str]:
        return sorted(path.name.partition("-")[2] for path in self.folder.glob("frozen-*"))

    def log(self) -> list[str]:
        return Path(self.folder, "log").read_text(encoding="utf-8").splitlines()

    def release(self, label: str) -> None:
        Path(self.folder, f"release-{label}").touch()

    def kill_holder(self) -> None:
        os.kill(self.find().record["holder"]["pid"], signal.SIGKILL)

    def kill(self, *names: str) -> None:
        """Kill processes of the hold, in that order."""
        record = self.find().record
        for name in names:
            os.kill(record[name]["pid"], signal.SIGKILL)

    def kill_all_three(self) -> None:
        """The guard first, then the partner, so that nobody is left to thaw."""
        self.kill("guard", "partner", "holder")
        wait_for(lambda: not self.find().alive)

    def wait_for_partner(self) -> None:
        """Returns once the partner of a killed holder has thawed."""
        self.wait_for_thaw_by("partner")

    def wait_for_thaw_by(self, who: str) -> None:
        wait_for(lambda: self.find().answers and self.ask("thaw")["reason"] == who)

    def kill_all(self) -> None:
        """Leave no process behind, whatever the test did."""
        for process in self.processes():
            if is_running(process):
                os.kill(process["pid"], signal.SIGKILL)


@pytest.fixture
def holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holds]:
    monkeypatch.setitem(drivers.DRIVERS, "file", FileDriver)
    made = Holds(tmp_path)
    yield made
    # The partner of a killed holder becomes a holder, so more than one round may be needed.
    for _round in range(3):
        made.kill_all()
        time.sleep(0.02)


@pytest.fixture(scope="session", autouse=True)
def server_templates() -> Iterator[None]:
    """Removes what new database servers are copied from."""
    from .servers import remove_templates

    yield
    remove_templates()


def thaw_hard(mount: Path) -> None:
    descriptor = os.open(mount, os.O_RDONLY)
    with contextlib.suppress(OSError):
        while True:
            fcntl.ioctl(descriptor, FITHAW, 0)
    os.close(descriptor)


MAKE = {
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
    "btrfs": ["mkfs.btrfs", "-q"],
}
SIZES = {"ext4": 16, "xfs": 300, "btrfs": 110}
"""MiB: the smallest that there can be."""


@pytest.fixture
def build() -> Iterator[Callable[..., Any]]:
    """Builds one driver from its description and marks, and closes it in the end."""
    built: list[Driver] = []

    def make(description: dict[str, Any], marks: dict[str, Any] | None = None) -> Driver:
        built.extend(drivers.build([description], [marks or {}]))
        return built[-1]

    yield make
    for driver in built:
        driver.close()


@contextlib.contextmanager
def filesystems(folder: Path) -> Iterator[Callable[..., Path]]:
    """Makes and mounts filesystems of a type, and of a size in MiB, in sparse files in a folder."""
    mounts: list[Path] = []

    def make(kind: str, size: int | None = None) -> Path:
        mount = folder / f"{kind}-{len(mounts)}"
        image = mount.with_suffix(".img")
        with open(image, "wb") as stream:
            stream.truncate((size or SIZES[kind]) * 1024 * 1024)
        subprocess.run([*MAKE[kind], str(image)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        mount_image(image, mount)
        mounts.append(mount)
        return mount

    try:
        yield make
    finally:
        for mount in reversed(mounts):
            unmount(mount)


def mount_image(image: Path, mount: Path) -> None:
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)


def unmount(mount: Path) -> None:
    thaw_hard(mount)
    # A mount namespace that another test has just made may hold what lies on it for a while.
    wait_for(lambda: subprocess.run(["umount", str(mount)], check=False).returncode == 0, 30)


@pytest.fixture
def make_filesystem(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes and mounts a filesystem of a type in a sparse file."""
    with filesystems(tmp_path) as make:
        yield make


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in memory that any user can enter, with a short name: servers run as users and have sockets."""
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            unmount(Path(name))


@pytest.fixture
def make_open_filesystem(open_folder: Path) -> Iterator[Callable[..., Path]]:
    """Makes and mounts a filesystem of a type where any user can enter."""
    with filesystems(open_folder) as make:
        yield make


def is_frozen(mount: Path) -> bool:
    """Whether a write to the filesystem waits."""
    writer = subprocess.Popen(["touch", str(mount / "probe")])
    try:
        writer.wait(0.3)
    except subprocess.TimeoutExpired:
        return True
    return False


class Database:
    """A GT.M database with two regions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "gtm_dist": GTM_DIST,
            "gtmgbldir": str(folder / "mumps.gld"),
            "gtmroutines": f"{folder} {GTM_DIST}/libgtmutil.so {GTM_DIST}",
            "HOME": str(folder),
            "PATH": "/usr/bin:/bin",
        }
        commands = [
            f"change -segment DEFAULT -file={folder}/default.dat",
            f"add -segment B -file={folder}/b.dat",
            "add -region BREG -dynamic=B",
            "add -name B* -region=BREG",
            "exit",
        ]
        self.run("mumps", "-run", "GDE", typed="\n".join(commands) + "\n")
        self.run("mupip", "create")

    def run(self, program: str, *arguments: str, typed: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"{GTM_DIST}/{program}", *arguments],
            env=self.environment,
            input=typed,
            stdin=None if typed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=20,
        )

    def start(self, code: str) -> subprocess.Popen[bytes]:
        """Run M without waiting for its end."""
        return subprocess.Popen(
            [f"{GTM_DIST}/mumps", "-run", "%XCMD", code],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def value(self, code: str) -> str:
        return self.run("mumps", "-run", "%XCMD", f"write {code}").stdout.strip()

    def writes_wait(self, name: str = "^A") -> bool:
        """Whether an update waits. It is ended then, and did not happen."""
        return waits(self.start(f"set {name}=1"))

    def description(self, **options: Any) -> dict[str, Any]:
        return {"name": "gtm", "gtm_dist": GTM_DIST, "gbldir": self.environment["gtmgbldir"], **options}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path)
    yield made
    made.run("mupip", "freeze", "-off", "-override", "*")
    made.run("mupip", "rundown", "-region", "*")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of several filesystems hangs in its freeze or its thaw: the others go free, and none is frozen in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import manage
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError
from marks import slow
from stuck_storage import StuckStorage

from .conftest import MAKE, SIZES, Holds, is_frozen, mount_image, thaw_hard, unmount, wait_for

pytestmark = pytest.mark.root
MakeFilesystem = Callable[[str], Path]

BUDGET = 1.5
"""Seconds: the holder's time to live."""

SLACK = 2.0
"""Seconds after it in which what does not hang must be writable again, on a machine that does other things as well."""


class Stuck:
    """A filesystem whose storage can be stopped."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.storage = StuckStorage(folder / "storage", SIZES[kind])
        subprocess.run([*MAKE[kind], str(self.storage.image)], check=True, stdout=subprocess.DEVNULL)
        self.mount = folder / "stuck"
        mount_image(self.storage.image, self.mount)
        (self.mount / "old").write_text("x")
        subprocess.run(["sync", "--file-system", str(self.mount)], check=True)
        self._writers: list[subprocess.Popen[bytes]] = []

    def write(self) -> subprocess.Popen[bytes]:
        """Begin a write that has to reach the storage."""
        command = f"echo x >{self.mount}/new && sync {self.mount}/new"
        self._writers.append(subprocess.Popen(["sh", "-c", command]))
        return self._writers[-1]

    def end(self) -> None:
        self.storage.go_on()
        for writer in self._writers:
            writer.wait(10)
        unmount(self.mount)
        self.storage.close()


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[Stuck]:
    made = Stuck(tmp_path / "third", "ext4")
    yield made
    made.end()


def describe(*mounts: Path, **options: Any) -> list[dict[str, Any]]:
    return [{"name": "filesystem", "mounts": [str(mount) for mount in mounts], **options}]


def freeze_in_background(holds: Holds) -> threading.Thread:
    """The freeze, whose answer nobody may ever get."""

    def ask() -> None:
        with contextlib.suppress(HolderError):
            holds.ask("freeze", timeout=30)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread


def free_after(begun: float, mounts: list[Path]) -> float:
    """Seconds from ``begun`` until a write to each of these filesystems has returned."""
    writers = [subprocess.Popen(["touch", str(mount / "probe")]) for mount in mounts]
    try:
        for writer in writers:
            writer.wait(20)
    except subprocess.TimeoutExpired:
        return 1000.0
    return time.monotonic() - begun


def begin_freeze(holds: Holds, frozen: list[Path]) -> float:
    """Begin a freeze that hangs, and return when it began, once the healthy filesystems are frozen."""
    begun = time.monotonic()
    freeze_in_background(holds)
    wait_for(lambda: len(holds.find().record["drivers"][0]["marks"].get("mounts", [])) > len(frozen))
    time.sleep(0.2)
    return begun


@pytest.mark.slow
def test_one_whose_storage_hangs_in_the_freeze_keeps_no_other_frozen(
    make_filesystem: MakeFilesystem, stuck: Stuck, holds: Holds
) -> None:
    healthy = [make_filesystem("ext4"), make_filesystem("xfs")]
    holds.arm(descriptions=describe(*healthy, stuck.mount), hold_ttl=BUDGET)
    stuck.storage.stop()
    stuck.write()
    time.sleep(0.2)
    begun = begin_freeze(holds, healthy)
    assert all(is_frozen(mount) for mount in healthy)
    assert free_after(begun, healthy) < BUDGET + SLACK
    status = holds.ask("status")
    assert (status["state"], status["reason"], status["hold_unbroken"]) == ("thawing", "ttl", False)
    with pytest.raises(HolderError, match="run r1 holds this server"):
        holds.arm("r2")
    stuck.storage.go_on()
    wait_for(lambda: holds.ask("status")["state"] == "failed")
    assert not is_frozen(stuck.mount)


@pytest.mark.parametrize("position", [slow(0), 1, slow(2)])
def test_one_that_hangs_in_the_thaw_keeps_no_other_frozen(
    position: int, make_filesystem: MakeFilesystem, stuck: Stuck, holds: Holds
) -> None:
    healthy = [make_filesystem("ext4"), make_filesystem("xfs")]
    mounts = [*healthy[:position], stuck.mount, *healthy[position:]]
    holds.arm(descriptions=describe(*mounts, timeout=2))
    assert holds.ask("freeze")["hold_unbroken"]
    stuck.storage.stop()
    begun = time.monotonic()
    asked = threading.Thread(target=lambda: holds.ask("thaw", timeout=30), daemon=True)
    asked.start()
    assert free_after(begun, healthy) < SLACK
    wait_for(lambda: holds.ask("status")["error"])
    assert f"{stuck.mount}: the thaw has not ended: see whether its storage" in holds.ask("status")["error"]
    assert holds.find().record["drivers"][0]["marks"]["mounts"][0]["path"] == str(stuck.mount)
    stuck.storage.go_on()
    wait_for(lambda: holds.ask("status")["state"] == "thawed")
    assert not is_frozen(stuck.mount)


@pytest.mark.parametrize("when", [slow("armed"), "frozen"])
def test_one_whose_storage_is_gone_keeps_no_other_frozen(
    when: str, make_filesystem: MakeFilesystem, stuck: Stuck, holds: Holds
) -> None:
    healthy = [make_filesystem("ext4"), make_filesystem("xfs")]
    holds.arm(descriptions=describe(*healthy, stuck.mount), hold_ttl=BUDGET)
    if when == "frozen":
        assert holds.ask("freeze")["ok"]
    stuck.storage.lose()
    begun = time.monotonic()
    if when == "armed":
        (stuck.mount / "new").write_text("x")
        freeze_in_background(holds)
        time.sleep(0.2)
    assert free_after(begun, healthy) < BUDGET + SLACK
    wait_for(lambda: holds.ask("status")["state"] in ("failed", "thawed"))


@pytest.fixture
def on_another(make_filesystem: MakeFilesystem, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A filesystem, and another one whose file lies on it."""
    below, above = make_filesystem("ext4"), tmp_path / "above"
    image = below / "image"
    with open(image, "wb") as stream:
        stream.truncate(8 * 1024 * 1024)
    subprocess.run([*MAKE["ext4"], str(image)], check=True, stdout=subprocess.DEVNULL)
    mount_image(image, above)
    (above / "file").write_text("x")
    yield below, above
    thaw_hard(below)
    unmount(above)


def test_one_whose_file_lies_on_another_keeps_nothing_frozen(
    make_filesystem: MakeFilesystem, on_another: tuple[Path, Path], holds: Holds
) -> None:
    healthy = make_filesystem("xfs")
    holds.arm_unchecked(describe(healthy, *on_another), hold_ttl=BUDGET)
    begun = begin_freeze(holds, [healthy, on_another[0]])
    assert is_frozen(healthy)
    assert is_frozen(on_another[0])
    assert free_after(begun, [healthy, *on_another]) < BUDGET + SLACK
    wait_for(lambda: holds.ask("thaw")["ok"])
    assert not any(is_frozen(mount) for mount in (healthy, *on_another))


@pytest.mark.slow
def test_it_is_thawed_from_the_record_as_well(on_another: tuple[Path, Path], holds: Holds) -> None:
    holds.arm_unchecked(describe(*on_another), hold_ttl=30)
    begin_freeze(holds, [on_another[0]])
    freezers = [mark["freezer"] for mark in holds.find().record["drivers"][0]["marks"]["mounts"]]
    for freezer in freezers:
        os.kill(freezer["pid"], signal.SIGKILL)
    holds.kill_all_three()
    assert is_frozen(on_another[0])
    begun = time.monotonic()
    answer = manage.thaw(holds.run_dir, holds.find(), 10)
    assert (answer["ok"], answer["reason"]) == (True, "recovery")
    assert time.monotonic() - begun < 3
    assert not any(is_frozen(mount) for mount in on_another)


@pytest.mark.parametrize("killed", [slow(["holder"]), slow(["partner", "holder"]), ["guard", "partner", "holder"]])
@pytest.mark.parametrize("worker_too", [False, True])
def test_a_freeze_that_hangs_is_undone_whoever_is_killed_meanwhile(
    worker_too: bool, killed: list[str], make_filesystem: MakeFilesystem, stuck: Stuck, holds: Holds
) -> None:
    """The kernel calls a filesystem not frozen whose freeze waits for a write: whoever thaws then must come again."""
    healthy = make_filesystem("ext4")
    holds.arm(descriptions=describe(healthy, stuck.mount), hold_ttl=30)
    stuck.storage.stop()
    stuck.write()
    time.sleep(0.2)
    begin_freeze(holds, [healthy])
    marks = holds.find().record["drivers"][0]["marks"]["mounts"]
    if worker_too:
        for mark in marks:
            os.kill(mark["freezer"]["pid"], signal.SIGKILL)
    begun = time.monotonic()
    holds.kill(*killed)
    if len(killed) == 3:
        wait_for(lambda: not holds.find().alive)
        assert not manage.thaw(holds.run_dir, holds.find(), 1)["ok"]
        assert holds.find().leftover
    assert free_after(begun, [healthy]) < 4
    stuck.storage.go_on()
    wait_for(lambda: not any(is_running(mark["freezer"]) for mark in marks))
    if len(killed) < 3:
        wait_for(lambda: holds.find().answers and holds.ask("thaw")["state"] == "thawed", 10)
    else:
        wait_for(lambda: manage.thaw(holds.run_dir, holds.find(), 5)["ok"], 10)
    assert not is_frozen(stuck.mount)
    assert not is_frozen(healthy)


@pytest.mark.slow
def test_what_somebody_else_froze_meanwhile_is_not_thawed(
    make_filesystem: MakeFilesystem, stuck: Stuck, holds: Holds
) -> None:
    """Our freeze waits for somebody else's, is given up, and fails in the end: what is frozen is not ours."""
    healthy = make_filesystem("ext4")
    holds.arm(descriptions=describe(healthy, stuck.mount), hold_ttl=BUDGET)
    stuck.storage.stop()
    stuck.write()
    time.sleep(0.2)
    other = subprocess.Popen(["fsfreeze", "--freeze", str(stuck.mount)])
    time.sleep(0.2)
    begun = begin_freeze(holds, [healthy])
    assert free_after(begun, [healthy]) < BUDGET + SLACK
    stuck.storage.go_on()
    assert other.wait(10) == 0
    wait_for(lambda: holds.ask("status")["state"] == "failed")
    assert is_frozen(stuck.mount)
    subprocess.run(["fsfreeze", "--unfreeze", str(stuck.mount)], check=True)

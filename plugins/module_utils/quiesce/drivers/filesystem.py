# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes mounted ext4, xfs and btrfs filesystems, each in its own process, so that a hung one keeps no other frozen.

A path may later show another filesystem than the one that was frozen. So the filesystem is identified by its device
number, which the kernel does not reuse while it is frozen.
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple

from ...host.clock import Deadline
from ...host.errors import DriverError
from ...host.mounts import Mount, current
from ...host.options import Option
from ...host.processes import end_stopped
from .. import backing
from ..freezer import FREEZE, THAW, Freezer, Mender, open_mount
from ..workers import Worker
from .base import Driver, Surroundings

TYPES = ("btrfs", "ext4", "xfs")
MOUNTS = "mounts"

ORDER = 0.1
"""Seconds, in total, that later thaws wait for earlier ones."""

TURN = 0.02
"""Seconds to wait for a hung thaw before polling the others."""

START_PATIENCE = 10.0
"""Seconds for a mount's process to report ready, before anything is frozen."""

MARGIN = 0.1
"""Part of the driver's ``timeout``, at most MOST_MARGIN seconds, by which the driver gives up earlier.

Otherwise the hold would report that the driver hangs, but not which filesystem.
"""

MOST_MARGIN = 0.5


class Held(NamedTuple):
    """A mount that a process keeps open: the filesystem's device as ``major:minor``, the mount's ID."""

    worker: Worker
    device: str
    number: int


class Asked(NamedTuple):
    """A requested thaw; ``own``: by the process that froze."""

    worker: Worker
    number: int
    own: bool


class Told(NamedTuple):
    """The results of thaws: how the hold was broken, and what failed."""

    broken: list[str]
    failed: list[str]


class FilesystemDriver(Driver):
    """Filesystems by mount point, frozen in the order listed and thawed in reverse.

    Marks: ``mounts``, each with its ``path``, ``device`` (``major:minor``), ``mount`` (the mount's ID) and ``freezer``
    (the identity of the process that freezes it). Findings of ``check``: the device by path.
    """

    name = "filesystem"
    options = {MOUNTS: Option("list", "The mount points, in the order in which to freeze them.", required=True)}

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self.mounts: list[str] = [os.path.normpath(point) for point in values[MOUNTS]]
        self._held: dict[str, Held] = {}
        self._asked: dict[str, Asked] = {}
        self._asking = threading.Lock()

    def check(self, surroundings: Surroundings) -> str:
        mounts = current()
        seen: dict[str, str] = {}
        for point in self.mounts:
            mount = self._check_mount(point, mounts)
            if mount.device in seen:
                raise DriverError(
                    f"filesystem: {seen[mount.device]} and {point} are one filesystem, and one freeze covers both: "
                    "list only one of them"
                )
            seen[mount.device] = point
        self._check_surroundings(seen, mounts, surroundings)
        self._check_stacks(seen, mounts)
        self.findings = {point: device for device, point in seen.items()}
        return f"can freeze {', '.join(self.mounts)}"

    def _check_mount(self, point: str, mounts: list[Mount]) -> Mount:
        if point == "/":
            raise DriverError("filesystem: / contains the system itself and cannot be frozen: list the volumes' mounts")
        found = [mount for mount in mounts if mount.point == os.path.realpath(point)]
        if not found:
            raise DriverError(f"filesystem: {point} is not a mount point here: mount the volume or correct 'mounts'")
        if found[-1].type not in TYPES:
            raise DriverError(
                f"filesystem: {point} is of type {found[-1].type}, which cannot be frozen: only {', '.join(TYPES)} can"
            )
        return found[-1]

    def _check_surroundings(self, frozen: dict[str, str], mounts: list[Mount], surroundings: Surroundings) -> None:
        """Raise DriverError if anything that must stay usable is stored on one of the filesystems to freeze."""
        used = {path: (purpose, backing.on_path(path, mounts)) for path, purpose in surroundings.paths.items()}
        used["/"] = ("the system", backing.on_path("/", mounts))
        used.update((name, ("swap", {device: name})) for device, name in backing.swaps(mounts).items())
        for path, (purpose, places) in used.items():
            for device in sorted(frozen.keys() & places.keys()):
                raise DriverError(
                    f"filesystem: {frozen[device]} must not be frozen, because {path} ({purpose}) is on it"
                    f"{_by_way_of(places[device], path)}: move one of them to another filesystem"
                )

    def _check_stacks(self, frozen: dict[str, str], mounts: list[Mount]) -> None:
        """Raise DriverError if one filesystem is stored on another: its freeze would wait for that one's thaw."""
        for device, point in frozen.items():
            mount = next(each for each in mounts if each.device == device)
            for below, name in backing.below(mount, mounts).items():
                if below in frozen:
                    raise DriverError(
                        f"filesystem: {point} is stored on {frozen[below]}, in {name}, and cannot be frozen together "
                        "with it: put them on different volumes, or remove one of them from 'mounts'"
                    )

    def prepare(self) -> None:
        """Start a process per mount that keeps it open: then its path is not needed, and nobody can unmount it."""
        for point in self.mounts:
            self._start(point)
        for point, held in self._held.items():
            if not held.worker.ready(START_PATIENCE):
                raise DriverError(
                    f"filesystem: the process for {point} did not start within {START_PATIENCE:g} s: "
                    "find out what keeps that server busy"
                )

    def _start(self, point: str) -> Held:
        opened = open_mount(point, self.findings.get(point))
        try:
            worker = Worker(Freezer(point, opened).carry_out, [opened.descriptor], locked=True)
        finally:
            os.close(opened.descriptor)
        self._held[point] = Held(worker, opened.device, opened.number)
        return self._held[point]

    def close(self) -> None:
        while self._asked:
            self._asked.popitem()[1].worker.close()
        while self._held:
            self._held.popitem()[1].worker.close()

    def freeze(self) -> None:
        deadline = self._deadline()
        for point in self.mounts:
            self._freeze_one(point, deadline)

    def _freeze_one(self, point: str, deadline: Deadline) -> None:
        held = self._held.get(point) or self._start(point)
        mark = {"path": point, "device": held.device, "mount": held.number, "freezer": held.worker.identity}
        with self._asking:  # nothing may be frozen once a thaw was requested
            self.stop_if_cancelled()
            self.mark_item(MOUNTS, mark, True)
            number = held.worker.ask(FREEZE)
        answer = held.worker.answer(number, deadline.left(), self.cancelled)
        if answer is None:
            raise DriverError(f"filesystem: the freeze of {point} has not ended: see whether its storage answers")
        if "error" in answer:
            self.mark_item(MOUNTS, mark, False)
            raise DriverError(answer["error"])

    def thaw(self) -> list[str]:
        """Thaw in reverse order; as soon as one takes long, thaw all others at once."""
        deadline, order = self._deadline(), Deadline(ORDER)
        told = Told([], [])
        waiting = []
        for mark in reversed(list(self.marks.get(MOUNTS, []))):
            self._ask_thaw(mark)
            if not self._is_thawed(mark, order.left(), told):
                waiting.append(mark)
        while waiting and deadline.left():
            waiting = [mark for mark in waiting if not self._is_thawed(mark, min(TURN, deadline.left()), told)]
        told.failed.extend(
            f"{mark['path']}: the thaw has not ended: see whether its storage answers; it is thawed as soon as it does"
            for mark in waiting
        )
        if told.failed:
            raise DriverError(f"filesystem: cannot thaw {'; '.join(told.failed)}")
        return told.broken

    def _deadline(self) -> Deadline:
        return Deadline(self.timeout - min(MARGIN * self.timeout, MOST_MARGIN))

    def _ask_thaw(self, mark: dict[str, Any]) -> None:
        """Request the thaw from the process that froze it, else from another, unless it was already requested."""
        asked = self._asked.get(mark["device"])
        if asked is not None and not asked.worker.gone():
            return
        held = self._held.get(mark["path"])
        own = held is not None and held.worker.identity == mark.get("freezer") and not held.worker.gone()
        worker = held.worker if held is not None and own else Worker(Mender(mark).carry_out)
        with self._asking:
            self._asked[mark["device"]] = Asked(worker, worker.ask(THAW), own)

    def _is_thawed(self, mark: dict[str, Any], seconds: float, told: Told) -> bool:
        """Whether the result of a thaw is known within that time."""
        worker, number, own = self._asked[mark["device"]]
        answer = worker.answer(number, seconds)
        if answer is None and not worker.gone():
            end_stopped(worker.identity)
            return False
        del self._asked[mark["device"]]
        if answer is None and own:
            self._ask_thaw(mark)
            return False
        if not own:
            worker.close()
        if answer is None or "error" in answer:
            told.failed.append((answer or {}).get("error", f"{mark['path']}: the process that thaws it was killed"))
            return True
        if answer["broken"]:
            told.broken.append(f"filesystem: {mark['path']} was thawed by somebody else")
        self.mark_item(MOUNTS, mark, False)
        return True

    def frozen_devices(self) -> dict[str, str]:
        return {mark["device"]: mark["path"] for mark in self.marks.get(MOUNTS, [])}

    def status(self) -> dict[str, Any]:
        """The kernel does not report whether a filesystem is frozen, so only what this driver froze is known."""
        paths = [mark["path"] for mark in self.marks.get(MOUNTS, [])]
        return {"frozen": bool(paths) or None, MOUNTS: paths}


def _by_way_of(name: str, path: str) -> str:
    return "" if name == path else f", through {name}"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base class of quiesce drivers: their options, and how they freeze, thaw and report."""

from __future__ import annotations

import threading
from typing import Any, Callable, ClassVar, NamedTuple

from ...host.errors import DriverError
from ...host.options import Option, complete


class Surroundings(NamedTuple):
    """What a driver's test needs to know beyond the driver itself.

    ``paths``: files and directories that the holder and all drivers of the hold use during the hold: path -> purpose.
    """

    paths: dict[str, str]


TIMEOUT = Option("number", "Seconds that one freeze or thaw may take.", default=10)


class Driver:
    """Base of the drivers.

    The holder calls ``check`` and ``prepare`` before anything is frozen, then ``freeze`` once, then ``thaw`` until it
    succeeds. ``freeze`` and ``thaw`` run in threads, and ``thaw`` may run while a ``freeze`` that was given up is still
    running. ``marks`` is what the driver may have frozen, as JSON: it is recorded outside the process *before* each
    step, so that another process can thaw after this one died. A driver that keeps a session open instead leaves marks
    that identify the session, and its freeze ends with the process.

    After a freeze ``degraded`` says what is incomplete although the site accepts it, and ``without`` names the servers
    that a driver for many servers could not freeze. A thaw adds those that did not respond to it.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Option]] = {}
    run_id = ""
    """The run that the hold belongs to; empty if there is none, as in a test."""

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        self.values = values
        self.timeout = float(values["timeout"])
        self.marks: dict[str, Any] = dict(marks or {})
        self.findings: dict[str, Any] = {}
        """What ``check`` found and must still hold at the freeze, as JSON."""
        self.result: dict[str, Any] = {}
        """What the hold's status reports about this driver besides times, as JSON."""
        self.degraded: list[str] = []
        self.without: list[str] = []
        self.cancelled = threading.Event()
        self.may_be_frozen: Callable[[], dict[str, str]] = dict
        """The filesystems that any driver of the hold may have frozen: device as ``major:minor`` -> mount point."""
        self._note: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def on_marks(self, note: Callable[[], None]) -> None:
        """Have ``note`` called after each change of ``marks``; the driver waits until it returns."""
        self._note = note

    def paths(self) -> dict[str, str]:
        """Files and directories that must stay usable during the hold: purpose -> path."""
        return {}

    def patience(self) -> float:
        """Seconds that ``prepare`` may take."""
        return self.timeout

    def check(self, surroundings: Surroundings) -> str:
        """Test whether a freeze would work; changes nothing. Returns a short finding. Raises DriverError."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Prepare the freeze in the holder: open sessions and descriptors."""

    def close(self) -> None:
        """Close what ``prepare`` opened, once nothing is frozen any more. The end of the process does the same."""

    def freeze(self) -> None:
        """Freeze, and return once it is proven. Raises DriverError; parts may be frozen then."""
        raise NotImplementedError

    def thaw(self) -> list[str]:
        """Thaw what ``marks`` lists. Idempotent. Returns how the hold was broken meanwhile; empty: it was not.

        Raises DriverError if something is, or may be, still frozen.
        """
        raise NotImplementedError

    def lost(self) -> list[str]:
        """How the hold was broken since the freeze, as far as this is known without waiting."""
        return []

    def frozen_devices(self) -> dict[str, str]:
        """The filesystems that this driver may have frozen: device as ``major:minor`` -> mount point."""
        return {}

    def status(self) -> dict[str, Any]:
        """``{"frozen": bool or None}`` (None: unknown), and what else the driver knows."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Have a freeze in progress stop as soon as it can."""
        self.cancelled.set()

    def stop_if_cancelled(self) -> None:
        """Raise DriverError if the freeze was cancelled."""
        if self.cancelled.is_set():
            raise DriverError(f"{self.name}: the freeze was cancelled")

    def mark(self, key: str, value: Any) -> None:
        """Set one mark and record it."""
        with self._lock:
            self.marks[key] = value
            self._note()

    def mark_item(self, key: str, item: Any, present: bool) -> None:
        """Add ``item`` to the list ``marks[key]``, or remove it, and record that."""
        with self._lock:
            items = [entry for entry in self.marks.get(key, []) if entry != item]
            if present:
                items.append(item)
            if items:
                self.marks[key] = items
            else:
                self.marks.pop(key, None)
            self._note()

    def clear_marks(self) -> None:
        """Record that nothing is frozen any more."""
        with self._lock:
            self.marks.clear()
            self._note()


def check_options(driver: type[Driver], given: dict[str, Any]) -> dict[str, Any]:
    """The driver's options, validated and completed with defaults. Raises OptionError."""
    return complete(f"driver {driver.name}", {"timeout": TIMEOUT, **driver.options}, given)

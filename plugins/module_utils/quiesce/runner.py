# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the calls that a hold asks for, each in its own thread, so that a hung call does not block the others."""

from __future__ import annotations

import queue
import threading
import time
from typing import Callable, NamedTuple

from ..host.errors import HostError
from .drivers.base import Driver
from .hold import FREEZE, THAW, Hold, Work

STACK = 256 * 1024
"""Bytes of a thread's stack: small, because all of it is locked in memory."""


class Outcome(NamedTuple):
    """How a call ended."""

    work: Work
    error: str | None
    broken: list[str]


class Runner:
    """Makes the calls of one hold. ``wake`` is called from a thread when a call has ended."""

    def __init__(self, hold: Hold, drivers: list[Driver], wake: Callable[[], None]) -> None:
        self.hold = hold
        self.drivers = drivers
        self._wake = wake
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        threading.stack_size(STACK)
        for driver in drivers:
            driver.may_be_frozen = self._frozen_devices

    def advance(self) -> None:
        """Report ended calls and the time to the hold, and start the calls that it asks for next."""
        while True:
            self._collect()
            self.hold.tick()
            work = self.hold.take_work()
            if not work:
                return
            for item in work:
                self._start(item)

    def _frozen_devices(self) -> dict[str, str]:
        return {device: point for driver in self.drivers for device, point in driver.frozen_devices().items()}

    def _collect(self) -> None:
        while not self._outcomes.empty():
            self.hold.done(*self._outcomes.get())

    def _start(self, work: Work) -> None:
        if work.kind == THAW:
            for driver in self.drivers:
                driver.cancel()
        threading.Thread(target=self._call, args=(work,), daemon=True).start()

    def _call(self, work: Work) -> None:
        error: str | None = None
        broken: list[str] = []
        try:
            if work.kind == FREEZE:
                self.drivers[work.driver].freeze()
            else:
                broken = self.drivers[work.driver].thaw()
        except HostError as failure:
            error = str(failure)
        except Exception as failure:  # a bug in a driver must not leave the hold waiting
            error = f"driver {self.drivers[work.driver].name}: {type(failure).__name__}: {failure}"
        self._outcomes.put(Outcome(work, error, broken))
        self._wake()


def run_until_settled(hold: Hold, drivers: list[Driver], timeout: float) -> None:
    """Make a hold's calls until nothing is in progress, for at most ``timeout`` seconds."""
    ended = threading.Event()
    runner = Runner(hold, drivers, ended.set)
    end = time.monotonic() + timeout
    runner.advance()
    while hold.live() and time.monotonic() < end:
        ended.wait(0.05)
        ended.clear()
        runner.advance()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the calls that a hold asks for, each in a thread of its own, so that one that hangs stops nothing else."""

from __future__ import annotations

import queue
import threading
import time
from typing import Callable, NamedTuple

from .drivers.base import Driver
from .errors import QuiesceError
from .hold import FREEZE, THAW, Hold, Work

STACK = 256 * 1024
"""Bytes of a thread's stack: all of it is locked in memory."""


class Outcome(NamedTuple):
    """How a call ended."""

    work: Work
    error: str | None
    broken: list[str]


class Runner:
    """Works for one hold. ``wake`` is called, from a thread, when a call has ended."""

    def __init__(self, hold: Hold, drivers: list[Driver], wake: Callable[[], None]) -> None:
        self.hold = hold
        self.drivers = drivers
        self._wake = wake
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        threading.stack_size(STACK)

    def advance(self) -> None:
        """Tell the hold what has ended and what time it is, and start what it wants next."""
        while True:
            self._collect()
            self.hold.tick()
            work = self.hold.take_work()
            if not work:
                return
            for item in work:
                self._start(item)

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
        except QuiesceError as failure:
            error = str(failure)
        except Exception as failure:  # a driver's own mistake must not leave the hold waiting for its answer
            error = f"driver {self.drivers[work.driver].name}: {type(failure).__name__}: {failure}"
        self._outcomes.put(Outcome(work, error, broken))
        self._wake()


def run_until_settled(hold: Hold, drivers: list[Driver], timeout: float) -> None:
    """Make a hold's calls until nothing is under way any more, for at most ``timeout`` seconds."""
    ended = threading.Event()
    runner = Runner(hold, drivers, ended.set)
    end = time.monotonic() + timeout
    runner.advance()
    while hold.live() and time.monotonic() < end:
        ended.wait(0.05)
        ended.clear()
        runner.advance()

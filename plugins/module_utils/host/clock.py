# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two clocks of a hold, a monotonic one for deadlines and durations and the wall clock for people; and waiting."""

from __future__ import annotations

import time
from typing import Callable


class Clock:
    """The system's clocks."""

    def monotonic(self) -> float:
        """Seconds, including those in which the machine is suspended, so that a hold's time to live ends on time."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class Deadline:
    """A deadline that several steps share: ``seconds`` from now, not counting time suspended."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left; 0 once it has passed."""
        return max(0.0, self._end - time.monotonic())


def wait_until(settled: Callable[[], bool], seconds: float, poll: float = 0.02) -> bool:
    """Wait until ``settled()``, at most that long. Returns whether it is."""
    deadline = Deadline(seconds)
    while not settled():
        if not deadline.left():
            return False
        time.sleep(poll)
    return True

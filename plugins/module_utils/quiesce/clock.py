# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two times of a hold: one that never jumps, for deadlines and durations, and the wall clock, for people."""

from __future__ import annotations

import time


class Clock:
    """The system's clocks."""

    def monotonic(self) -> float:
        """Seconds that also pass while the machine sleeps, so that a hold's time to live ends on time."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Seconds since the epoch."""
        return time.time()


class Deadline:
    """A time that several steps share: ``seconds`` from now, while the machine is awake."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then; 0 once it is over."""
        return max(0.0, self._end - time.monotonic())

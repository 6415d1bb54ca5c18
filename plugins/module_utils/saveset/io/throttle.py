# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limiting the load on production when reading a source: a fixed rate, and a guard on the source's latency."""

from __future__ import annotations

import threading
import time

from .source import Source

_STEP_BYTES = 1 << 20  # the size of one read while latency is guarded
_PAUSE_FIRST_S = 0.005
_PAUSE_MAX_S = 2.0


class RateLimit:
    """Delays threads so that together they pass at most ``rate`` bytes per second; None means no limit."""

    def __init__(self, rate: int | None) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def wait(self, amount: int, stop: threading.Event) -> None:
        """Wait until ``amount`` bytes may pass, or until ``stop`` is set."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(self._free_at, now)
            self._free_at = begin + amount / self._rate
        if begin > now:
            stop.wait(begin - now)


class LatencyGuard:
    """Backoff while reads take longer than ``bound`` seconds: the pause before reads doubles, and halves afterwards."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self._lock = threading.Lock()
        self._pause = 0.0
        #: How many reads took longer than the bound.
        self.slow_reads = 0
        #: Seconds that all threads together waited because of that.
        self.paused = 0.0

    def wait(self, stop: threading.Event) -> None:
        """Wait for the current pause."""
        pause = self._pause
        if not pause:
            return
        begun = time.monotonic()
        stop.wait(pause)
        with self._lock:
            self.paused += time.monotonic() - begun

    def told(self, seconds: float) -> None:
        """Adjust the pause to the duration of a read."""
        with self._lock:
            if seconds > self.bound:
                self.slow_reads += 1
                self._pause = min(max(self._pause * 2, _PAUSE_FIRST_S), _PAUSE_MAX_S)
            else:
                self._pause = self._pause / 2 if self._pause > _PAUSE_FIRST_S else 0.0


class PacedSource:
    """A source as a backup's workers read it."""

    def __init__(self, source: Source, stop: threading.Event, rate: RateLimit, latency: float | None) -> None:
        """:param rate: the limit that the sources of a job share.
        :param latency: seconds that a read of at most 1 MiB may take before reading slows down, None for no guard.
        """
        self._source = source
        self._stop = stop
        self._rate = rate
        self._guard = LatencyGuard(latency) if latency else None

    @property
    def slow_reads(self) -> int:
        """How many reads took longer than the guard allows."""
        return self._guard.slow_reads if self._guard else 0

    @property
    def paused(self) -> float:
        """Seconds that all threads together waited because of slow reads."""
        return self._guard.paused if self._guard else 0.0

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``, paced; stops waiting if the backup is stopped.  Raises SourceError."""
        step = _STEP_BYTES if self._guard else len(buffer)
        for begin in range(0, len(buffer), step):
            part = buffer[begin : begin + step]
            self._rate.wait(len(part), self._stop)
            if self._guard is None:
                self._source.read(offset + begin, part)
                continue
            self._guard.wait(self._stop)
            started = time.monotonic()
            self._source.read(offset + begin, part)
            self._guard.told(time.monotonic() - started)

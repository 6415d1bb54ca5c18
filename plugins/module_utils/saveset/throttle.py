# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a source no faster than production can bear: a fixed rate, and a guard on the source's latency."""

from __future__ import annotations

import threading
import time

from .source import Source

_STEP_BYTES = 1 << 20  # how much one read asks for while its latency is guarded
_PAUSE_FIRST_S = 0.005
_PAUSE_MAX_S = 2.0


class RateLimit:
    """Holds threads back so that together they pass at most ``rate`` bytes a second; None means no limit."""

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
    """Pauses before reads as long as reads take longer than ``bound`` seconds: doubled while they do, halved after."""

    def __init__(self, bound: float) -> None:
        self.bound = bound
        self._lock = threading.Lock()
        self._pause = 0.0
        #: How often a read took longer than the bound.
        self.slow_reads = 0
        #: Seconds that threads waited because of that, all of them together.
        self.paused = 0.0

    def wait(self, stop: threading.Event) -> None:
        """Wait as long as the last reads make it advisable."""
        pause = self._pause
        if not pause:
            return
        begun = time.monotonic()
        stop.wait(pause)
        with self._lock:
            self.paused += time.monotonic() - begun

    def told(self, seconds: float) -> None:
        """Take in how long a read took."""
        with self._lock:
            if seconds > self.bound:
                self.slow_reads += 1
                self._pause = min(max(self._pause * 2, _PAUSE_FIRST_S), _PAUSE_MAX_S)
            else:
                self._pause = self._pause / 2 if self._pause > _PAUSE_FIRST_S else 0.0


class PacedSource:
    """A source as a backup's workers read it."""

    def __init__(self, source: Source, stop: threading.Event, rate: int | None, latency: float | None) -> None:
        """:param rate: bytes a second, None for no limit.
        :param latency: seconds that a read of at most 1 MiB may take before reading slows down, None for no guard.
        """
        self._source = source
        self._stop = stop
        self._rate = RateLimit(rate)
        self._guard = LatencyGuard(latency) if latency else None

    @property
    def slow_reads(self) -> int:
        """How many reads took longer than the guard allows."""
        return self._guard.slow_reads if self._guard else 0

    @property
    def paused(self) -> float:
        """Seconds that threads waited because of slow reads, all of them together."""
        return self._guard.paused if self._guard else 0.0

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``, in time; stops waiting when the backup is stopped.  Raises SourceError."""
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

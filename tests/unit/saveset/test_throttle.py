# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading no faster than production can bear, by a clock that only the test moves."""

from __future__ import annotations

import concurrent.futures
import threading
import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import Extent
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.progress import BackupStats
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import throttle
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.source import Source

from .conftest import MIB

BOUND = 0.05


class Clock(threading.Event):
    """A clock, and the event that waits by it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        self.now += timeout or 0.0
        return False


class SlowSource(Source):
    """A source whose reads take as long as ``latency`` says."""

    def __init__(self, clock: Clock) -> None:
        self.size = 64 * MIB
        self.spec = "slow"
        self.latency = 0.0
        self.lengths: list[int] = []
        self._clock = clock

    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        return iter(())

    def read(self, offset: int, buffer: memoryview) -> None:
        self.lengths.append(len(buffer))
        self._clock.now += self.latency
        buffer[:] = bytes([offset // MIB]) * len(buffer)

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(throttle.time, "monotonic", made.monotonic)
    return made


def test_a_rate_is_kept_over_all_reads(clock: Clock) -> None:
    paced = throttle.PacedSource(SlowSource(clock), clock, throttle.RateLimit(10 * MIB), None)
    began = clock.now
    for number in range(21):
        paced.read(number * MIB, memoryview(bytearray(MIB)))
    assert clock.now - began == pytest.approx(2.0)


def test_the_sources_of_a_job_share_one_rate(clock: Clock) -> None:
    rate = throttle.RateLimit(10 * MIB)
    sources = [throttle.PacedSource(SlowSource(clock), clock, rate, None) for _volume in range(3)]
    began = clock.now
    for number in range(7):
        for paced in sources:
            paced.read(number * MIB, memoryview(bytearray(MIB)))
    assert clock.now - began == pytest.approx(2.0)


def test_without_limits_nothing_waits(clock: Clock) -> None:
    paced = throttle.PacedSource(SlowSource(clock), clock, throttle.RateLimit(None), None)
    paced.read(0, memoryview(bytearray(4 * MIB)))
    assert not clock.waits
    assert (paced.slow_reads, paced.paused) == (0, 0.0)


def test_the_guard_slows_down_and_recovers(clock: Clock) -> None:
    source = SlowSource(clock)
    paced = throttle.PacedSource(source, clock, throttle.RateLimit(None), BOUND)
    data = bytearray(MIB)
    source.latency = 2 * BOUND
    for _number in range(12):
        paced.read(0, memoryview(data))
    assert paced.slow_reads == 12
    assert clock.waits == sorted(clock.waits)
    assert clock.waits[-1] == 2.0
    assert paced.paused == pytest.approx(sum(clock.waits))
    paused = paced.paused
    clock.waits.clear()
    source.latency = BOUND / 2
    for _number in range(12):
        paced.read(0, memoryview(data))
    assert clock.waits == sorted(clock.waits, reverse=True)
    assert paced.slow_reads == 12 and paced.paused == pytest.approx(paused + sum(clock.waits))
    clock.waits.clear()
    paced.read(0, memoryview(data))
    assert not clock.waits


def test_the_guard_judges_reads_of_one_size(clock: Clock) -> None:
    source = SlowSource(clock)
    buffer = bytearray(4 * MIB - 5)
    throttle.PacedSource(source, clock, throttle.RateLimit(None), BOUND).read(3 * MIB, memoryview(buffer))
    assert source.lengths == [MIB, MIB, MIB, MIB - 5]
    assert bytes(buffer) == b"".join(bytes([number]) * MIB for number in (3, 4, 5, 6))[: len(buffer)]


def test_threads_lose_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_PAUSE_MAX_S", 0.0)
    guard = throttle.LatencyGuard(BOUND)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _number: guard.told(2 * BOUND), range(20_000)))
    assert guard.slow_reads == 20_000


def test_figures_of_another_version() -> None:
    figures = BackupStats(bytes_read=5, seconds=1.5, slow_reads=3, seconds_paused=0.5)
    assert BackupStats.from_dict(figures.as_dict()) == figures
    older = {name: value for name, value in figures.as_dict().items() if name not in ("slow_reads", "seconds_paused")}
    assert BackupStats.from_dict({**older, "of_a_newer_one": 7}) == BackupStats(bytes_read=5, seconds=1.5)

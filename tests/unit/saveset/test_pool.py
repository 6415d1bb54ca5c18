# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volume a worker serves next, and what a failure does to the others; with volumes that only count."""

from __future__ import annotations

import threading
import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup import pool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SourceError

WAIT_S = 30.0


class Volume(pool.Work[object]):
    """A volume of some parts; ``on_part`` is called with the number of each."""

    def __init__(
        self, name: str, parts: int, events: list[tuple[str, str]], on_part: t.Callable[[int], object] = lambda _n: None
    ) -> None:
        self.name = name
        self.error: BaseException | None = None
        self.stopped = False
        self._parts = iter(range(parts))
        self._events = events
        self._on_part = on_part
        self._lock = threading.Lock()

    def note(self, what: str) -> None:
        self._events.append((self.name, what))

    def begin(self) -> None:
        self.note("begin")

    def step(self, hand: object) -> bool:
        with self._lock:
            part = next(self._parts, None)
        if part is None:
            return False
        self._on_part(part)
        self.note("part")
        return True

    def finish(self, hand: object, then: t.Callable[[], object]) -> None:
        self.note("finish")
        then()

    def conclude(self) -> None:
        self.note("conclude")

    def stop(self) -> None:
        self.stopped = True

    def close(self, error: BaseException | None) -> None:
        self.error = error
        self.note("close")


Events = list[tuple[str, str]]


def run(threads: int, *volumes: Volume, tick: t.Callable[[], object] | None = None) -> None:
    pool.Pool(threads, object).run(volumes, tick)


def order(events: Events, what: str) -> list[str]:
    """The volumes to which something happened, in that order."""
    return [name for name, event in events if event == what]


def test_volumes_are_served_in_turn_and_small_ones_end_early() -> None:
    events: Events = []
    run(1, *(Volume(name, parts, events) for name, parts in (("a", 50), ("b", 3), ("c", 1))))
    assert order(events, "part")[:7] == ["a", "b", "c", "a", "b", "a", "b"]
    assert order(events, "finish") == ["c", "b", "a"]
    assert order(events, "part").index("a") < 10 and order(events, "conclude") == ["c", "b", "a"]
    assert sorted(order(events, "close")) == ["a", "b", "c"]


def test_a_small_volume_is_concluded_while_a_large_one_is_worked_on() -> None:
    """The large one waits for it: were it concluded only at the end of all, this would never end."""
    events: Events = []
    concluded = threading.Event()

    class Small(Volume):
        def conclude(self) -> None:
            super().conclude()
            concluded.set()

    def wait(part: int) -> None:
        if part == 5 and not concluded.wait(WAIT_S):
            raise AssertionError("the small volume was not concluded")

    run(2, Volume("large", 10, events, wait), Small("small", 1, events))
    assert order(events, "conclude") == ["small", "large"]


@pytest.mark.parametrize("threads", [2, 3])
def test_a_volume_that_hangs_leaves_a_worker_to_the_others(threads: int) -> None:
    """It is released when the others are concluded: were there no worker for them, this would never end."""
    events: Events = []
    released = threading.Event()
    left = {"b", "c", "d"}

    class Other(Volume):
        def conclude(self) -> None:
            super().conclude()
            left.discard(self.name)
            if not left:
                released.set()

    def hang(_part: int) -> None:
        if not released.wait(WAIT_S):
            raise AssertionError("the others were not concluded")

    run(threads, Volume("a", 4, events, hang), *(Other(name, 20, events) for name in sorted(left)))
    assert order(events, "conclude")[-1] == "a" and len(order(events, "part")) == 64


def test_a_volume_that_stalls_comes_last() -> None:
    stalled, busy = pool._Turn(Volume("a", 1, [])), pool._Turn(Volume("b", 1, []))
    stalled.entered = {0: 0.0}
    busy.entered = {1: 5.0, 2: 5.0}
    stalled.served, busy.served = 1, 2
    assert stalled.rank(pool.STALL_S / 2) < busy.rank(5.0)
    assert busy.rank(5.5) < stalled.rank(5.5)


def test_one_that_fails_is_closed_alone() -> None:
    events: Events = []
    error = SourceError("a", "it broke", "Replace it")

    def fail(part: int) -> None:
        if part == 2:
            raise error

    failing, sound = Volume("a", 9, events, fail), Volume("b", 9, events)
    run(2, failing, sound)
    assert failing.error is error and failing.stopped
    assert ("a", "conclude") not in events and ("a", "finish") not in events
    assert sound.error is None and order(events, "part").count("b") == 9 and ("b", "conclude") in events


@pytest.mark.parametrize("where", ["begin", "finish", "conclude"])
def test_one_that_fails_anywhere(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    events: Events = []
    error = OSError(5, "Input/output error")
    failing, sound = Volume("a", 2, events), Volume("b", 2, events)

    def fail(*_arguments: object) -> t.NoReturn:
        raise error

    monkeypatch.setattr(failing, where, fail)
    run(2, failing, sound)
    assert failing.error is error and sound.error is None and ("b", "conclude") in events


def test_an_unexpected_error_stops_all_and_is_raised() -> None:
    events: Events = []
    wait = threading.Event()

    def fail(_part: int) -> t.NoReturn:
        raise ZeroDivisionError

    first, second = Volume("a", 9, events, fail), Volume("b", 10**9, events, lambda _part: wait.wait(0.01))
    with pytest.raises(ZeroDivisionError):
        run(2, first, second)
    assert ("a", "conclude") not in events and ("b", "conclude") not in events
    assert second.stopped and sorted(order(events, "close")) == ["a", "b"]


def test_an_error_of_the_last_part_is_not_passed_over() -> None:
    """Although another worker has found that there are no more parts."""
    events: Events = []
    seen_the_end = threading.Event()

    class Last(Volume):
        def step(self, hand: object) -> bool:
            more = super().step(hand)
            if not more:
                seen_the_end.set()
            return more

    def fail(_part: int) -> t.NoReturn:
        seen_the_end.wait(WAIT_S)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(2, Last("a", 1, events, fail))
    assert ("a", "conclude") not in events and ("a", "finish") not in events


def test_a_tick_that_raises_stops_all() -> None:
    events: Events = []
    wait = threading.Event()
    volumes = [Volume(name, 10**9, events, lambda _part: wait.wait(0.01)) for name in ("a", "b")]

    def give_up() -> t.NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(2, *volumes, tick=give_up)
    assert all(volume.stopped for volume in volumes) and order(events, "conclude") == []
    assert sorted(order(events, "close")) == ["a", "b"]


def test_no_more_threads_than_asked_for_and_none_left() -> None:
    events: Events = []
    used: set[int] = set()
    before = threading.active_count()
    most: list[int] = []

    def note(_part: int) -> None:
        used.add(threading.get_ident())
        most.append(threading.active_count())

    run(2, *(Volume(name, 20, events, note) for name in "abcdef"))
    assert len(used) <= 2 and max(most) <= before + 2 and threading.active_count() == before


def test_nothing_to_do() -> None:
    before = threading.active_count()
    run(2)
    assert threading.active_count() == before

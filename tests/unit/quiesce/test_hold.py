# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine of a hold, without processes: single cases, and anything that can happen in any order."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.clock import Clock
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import Refused
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.hold import (
    ORDER_PATIENCE,
    RETRY_AFTER,
    Hold,
    Limits,
    Work,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

LIMITS = Limits(arm_ttl=60, hold_ttl=10, linger=100)


class FakeClock(Clock):
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1e9


class Case:
    """A hold over drivers a, b, c (timeout 3 s each) that do as they are told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.hold = Hold("r1", [("a", 3.0), ("b", 3.0), ("c", 3.0)], LIMITS, self.clock)

    def work(self) -> list[Work]:
        self.hold.tick()
        return self.hold.take_work()

    def go_on(self, **errors: str) -> list[str]:
        """Do all the work there is, and tell it in order; ``freeze_1="why"`` has a call fail."""
        told = []
        while True:
            work = self.work()
            if not work:
                return told
            for item in work:
                told.append(f"{item.kind} {item.driver}")
                self.clock.now += 0.125
                self.hold.done(item, errors.get(f"{item.kind}_{item.driver}"))

    def frozen(self) -> Case:
        self.hold.request("freeze")
        self.go_on()
        assert self.hold.state == "frozen"
        return self


def test_freezes_in_order_and_thaws_in_reverse() -> None:
    case = Case()
    case.hold.request("freeze")
    assert case.go_on() == ["freeze 0", "freeze 1", "freeze 2"]
    case.hold.request("thaw")
    assert case.go_on() == ["thaw 2", "thaw 1", "thaw 0"]
    status = case.hold.status()
    assert (status["state"], status["hold_unbroken"], status["reason"]) == ("thawed", True, "command")
    assert status["window_ms"] == pytest.approx(750.0)
    assert [driver["freeze_ms"] for driver in status["drivers"]] == pytest.approx([125.0] * 3)


def test_an_armed_hold_ends_when_nobody_freezes() -> None:
    case = Case()
    assert case.hold.deadline() == case.clock.now + LIMITS.arm_ttl
    case.clock.now += LIMITS.arm_ttl
    assert case.work() == []
    assert (case.hold.finished, case.hold.reason, case.hold.unbroken()) == (True, "arm_ttl", False)


def test_a_freeze_that_comes_after_the_thaw_is_refused() -> None:
    case = Case()
    case.hold.request("thaw")
    with pytest.raises(Refused, match="freezes only once"):
        case.hold.request("freeze")
    assert case.go_on() == []
    assert not case.hold.unbroken()


def test_a_repeated_freeze_changes_nothing() -> None:
    case = Case().frozen()
    case.hold.request("freeze")
    assert case.go_on() == []
    assert case.hold.unbroken()


def test_a_repeated_thaw_changes_nothing() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    case.go_on()
    before = case.hold.status()
    case.clock.now += 1
    case.hold.request("thaw")
    assert case.go_on() == []
    assert case.hold.status() == before
    assert case.hold.unbroken()


def test_a_failed_freeze_thaws_the_failed_driver_too() -> None:
    case = Case()
    case.hold.request("freeze")
    assert case.go_on(freeze_1="why") == ["freeze 0", "freeze 1", "thaw 1", "thaw 0"]
    status = case.hold.status()
    assert (status["state"], status["error"], status["reason"]) == ("failed", "why", "freeze_failed")
    assert not case.hold.succeeded("freeze")
    assert case.hold.succeeded("thaw")


def test_what_was_lost_breaks_a_frozen_hold_once() -> None:
    case = Case()
    case.hold.lose(["too early"])
    case.frozen()
    assert case.hold.unbroken()
    case.hold.lose([])
    assert case.hold.unbroken()
    case.hold.lose(["b was lost"])
    case.hold.lose(["b was lost"])
    assert (case.hold.unbroken(), case.hold.status()["error"]) == (False, "b was lost")
    case.hold.request("thaw")
    case.hold.take_work()
    case.hold.done(Work("thaw", 2), broken=["b was lost"])
    case.go_on()
    case.hold.lose(["too late"])
    status = case.hold.status()
    assert (status["state"], status["hold_unbroken"], status["error"]) == ("thawed", False, "b was lost")


def test_the_time_to_live_counts_from_the_start_of_the_freeze() -> None:
    case = Case()
    case.clock.now += 50
    case.frozen()
    assert case.hold.deadline() == pytest.approx(case.clock.now - 0.375 + LIMITS.hold_ttl)
    case.clock.now += LIMITS.hold_ttl - 0.375
    assert case.go_on() == ["thaw 2", "thaw 1", "thaw 0"]
    assert (case.hold.state, case.hold.reason, case.hold.unbroken()) == ("thawed", "ttl", False)
    case.hold.request("thaw")
    assert not case.hold.unbroken()


def test_the_time_to_live_ends_a_freeze_that_is_under_way() -> None:
    clock = FakeClock()
    hold = Hold("r1", [("a", 100.0)], LIMITS, clock)
    hold.request("freeze")
    (freezing,) = hold.take_work()
    clock.now += LIMITS.hold_ttl
    hold.tick()
    (thawing,) = hold.take_work()
    hold.done(thawing)
    assert hold.state == "thawing"  # the freeze that still runs may yet take hold
    hold.done(freezing)
    (again,) = hold.take_work()
    assert again == Work("thaw", 0)
    hold.done(again)
    assert (hold.state, hold.reason) == ("failed", "ttl")


def test_a_freeze_that_hangs_is_given_up_and_thawed_again_when_it_ends() -> None:
    case = Case()
    case.hold.request("freeze")
    (first,) = case.work()
    case.hold.done(first)
    (hanging,) = case.work()
    case.clock.now += 3.0
    assert case.go_on() == ["thaw 1", "thaw 0"]
    assert case.hold.state == "thawing"
    assert not case.hold.settled()
    case.hold.done(hanging, "too late")
    assert case.go_on() == ["thaw 1"]
    assert case.hold.state == "failed"
    assert "longer than 3 s" in case.hold.status()["error"]


def test_a_thaw_that_fails_is_tried_again_and_does_not_keep_the_others_frozen() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    assert case.go_on(thaw_1="why") == ["thaw 2", "thaw 1", "thaw 0"]
    assert case.hold.state == "thawing"
    assert case.hold.settled()
    assert not case.hold.succeeded("thaw")
    assert case.hold.status()["error"] == "why"
    case.clock.now += RETRY_AFTER
    assert case.go_on() == ["thaw 1"]
    assert case.hold.succeeded("thaw")
    assert case.hold.unbroken()


def test_a_thaw_that_hangs_does_not_keep_the_others_frozen() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    (hanging,) = case.work()
    assert case.work() == []
    case.clock.now += 3.0
    assert case.go_on() == ["thaw 1", "thaw 0"]
    assert case.hold.state == "thawing"
    case.hold.done(hanging)
    assert case.hold.state == "thawed"


def test_a_thaw_that_takes_long_has_all_others_go_at_once() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    (slow,) = case.work()
    assert case.hold.deadline() == pytest.approx(case.clock.now + ORDER_PATIENCE)
    case.clock.now += ORDER_PATIENCE
    assert case.work() == [Work("thaw", 1), Work("thaw", 0)]
    case.hold.done(Work("thaw", 0))
    case.hold.done(Work("thaw", 1))
    assert (case.hold.state, case.hold.settled()) == ("thawing", False)
    case.hold.done(slow)
    assert (case.hold.state, case.hold.unbroken()) == ("thawed", True)


def test_a_thaw_that_is_tried_again_keeps_nobody_waiting() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    (failing,) = case.work()
    case.hold.done(failing, "why")
    assert not case.hold.settled()  # whoever asked hears of all of them
    (second,) = case.work()
    case.clock.now += RETRY_AFTER - 0.1
    case.hold.done(second)
    (third,) = case.work()
    case.clock.now += 0.1
    (again,) = case.work()
    assert (third, again) == (Work("thaw", 0), Work("thaw", 2))
    assert case.hold.settled()
    case.hold.done(third)
    case.hold.done(again)
    assert case.hold.state == "thawed"


def test_a_hold_broken_from_outside_is_not_unbroken() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    (work,) = case.work()
    case.hold.done(work, None, ["somebody thawed c"])
    case.go_on()
    assert not case.hold.unbroken()
    assert case.hold.status()["error"] == "somebody thawed c"


def test_a_signal_thaws_and_ends() -> None:
    case = Case().frozen()
    case.hold.terminate()
    assert not case.hold.finished
    assert case.go_on() == ["thaw 2", "thaw 1", "thaw 0"]
    assert (case.hold.finished, case.hold.reason, case.hold.unbroken()) == (True, "signal", False)


def test_end_waits_for_the_thaw() -> None:
    case = Case().frozen()
    case.hold.request("end")
    assert not case.hold.finished
    case.go_on()
    assert case.hold.finished
    assert case.hold.unbroken()


def test_it_stays_to_answer_and_then_ends() -> None:
    case = Case().frozen()
    case.hold.request("thaw")
    case.go_on()
    assert not case.hold.finished
    case.clock.now += LIMITS.linger
    case.hold.tick()
    assert case.hold.finished


def test_a_leftover_is_thawed_and_broken() -> None:
    clock = FakeClock()
    before = {"armed": clock.wall() - 9, "freeze_started": clock.wall() - 2, "frozen": None, "state": "freezing"}
    hold = Hold.leftover("r1", [("a", 3.0), ("b", 3.0)], LIMITS, clock, "partner", "the holder died", before)
    told = []
    while hold.live():
        for work in hold.take_work():
            told.append(f"{work.kind} {work.driver}")
            hold.done(work, None, ["not frozen"])
    assert told == ["thaw 1", "thaw 0"]
    assert (hold.state, hold.reason, hold.unbroken()) == ("thawed", "partner", False)
    assert hold.status()["error"] == "the holder died"
    assert hold.status()["window_ms"] == pytest.approx(2000.0)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(Refused, match="use one of"):
        Case().hold.request("melt")


class Anything(RuleBasedStateMachine):
    """Drivers whose calls end in any order, in any way, at any time, and commands and time in between."""

    @initialize(drivers=st.integers(1, 3), freezing=st.booleans())
    def begin(self, drivers: int, freezing: bool) -> None:
        self.clock = FakeClock()
        self.hold = Hold("r1", [(str(index), 2.0) for index in range(drivers)], LIMITS, self.clock)
        self.running: list[Work] = []
        self.held = [False] * drivers
        self.freezes: list[int] = []
        self.thaw_asked = False
        if freezing:
            self.ask("freeze")
            self.advance()

    @rule(command=st.sampled_from(["freeze", "thaw", "status", "end"]))
    def ask(self, command: str) -> None:
        self.thaw_asked |= command in ("thaw", "end")
        try:
            self.hold.request(command)
            self.advance()
        except Refused:
            assert command == "freeze"
            assert not self.hold.live() or self.hold.state == "thawing"

    @rule()
    def terminate(self) -> None:
        self.hold.terminate()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.6, 2.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.advance()

    @rule()
    def advance(self) -> None:
        self.hold.tick()
        for work in self.hold.take_work():
            assert work not in self.running
            self.running.append(work)
            if work.kind == "freeze":
                assert self.hold.state == "freezing"
                self.freezes.append(work.driver)

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 5), outcome=st.sampled_from(["ok", "fail", "half", "broken"]))
    def finish(self, which: int, outcome: str) -> None:
        work = self.running.pop(which % len(self.running))
        if work.kind == "freeze":
            self.held[work.driver] = outcome != "fail"
            self.hold.done(work, "why" if outcome in ("fail", "half") else None)
        elif outcome in ("fail", "half"):
            self.hold.done(work, "why")
        else:
            self.held[work.driver] = False
            self.hold.done(work, None, ["broken"] if outcome == "broken" else [])

    @invariant()
    def each_driver_freezes_once_in_order(self) -> None:
        assert self.freezes == list(range(len(self.freezes)))

    @invariant()
    def nothing_is_frozen_once_it_is_over(self) -> None:
        if not self.hold.live():
            assert not any(self.held)
            assert not self.running

    @invariant()
    def frozen_means_all_frozen(self) -> None:
        if self.hold.state == "frozen":
            assert all(self.held)

    @invariant()
    def unbroken_means_frozen_until_asked(self) -> None:
        if self.hold.unbroken():
            assert len(self.freezes) == len(self.held)
            assert self.hold.state == "frozen" or self.thaw_asked

    @invariant()
    def it_ends_only_when_it_is_over(self) -> None:
        if self.hold.finished:
            assert not self.hold.live()

    @invariant()
    def something_always_comes_next(self) -> None:
        assert self.running or self.hold.deadline() is not None

    def teardown(self) -> None:
        """Whatever happened: once the drivers work again, it ends by itself, with nothing frozen."""
        if not hasattr(self, "hold"):
            return
        for _step in range(100):
            if self.hold.finished:
                break
            while self.running:
                self.finish(0, "ok")
            self.wait(max(0.0, (self.hold.deadline() or self.clock.now) - self.clock.now))
        assert self.hold.finished
        assert not any(self.held)


Anything.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAnything: Any = Anything.TestCase

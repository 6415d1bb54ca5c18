# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine of one hold: pure logic that is given the time and the events, and says what to do next.

::

    armed -> freezing -> frozen -> thawing -> thawed
      |          |                    ^  |
      |          +-- error, deadline -+  +--> failed   (it was never completely frozen)
      +-- thaw: thawed, without ever having been frozen; a later freeze is refused

Drivers freeze one after the other and thaw in reverse. If one driver's thaw fails or hangs, the others do not stay
frozen: as soon as one takes longer than ``ORDER_PATIENCE``, all others are thawed at once. A failed thaw is retried
without limit, and the hold leaves ``thawing`` only when nothing can be frozen any more. A freeze that was given up may
still take effect later, so its driver is thawed again after that call has ended.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..host.clock import Clock
from .errors import Refused

ARMED, FREEZING, FROZEN, THAWING, THAWED, FAILED = "armed", "freezing", "frozen", "thawing", "thawed", "failed"
FREEZE, THAW, STATUS, END = "freeze", "thaw", "status", "end"
COMMANDS = (FREEZE, THAW, STATUS, END)

BY_COMMAND, BY_TTL, BY_ARM_TTL, BY_SIGNAL, BY_FAILURE = "command", "ttl", "arm_ttl", "signal", "freeze_failed"
BY_PARTNER, BY_GUARD, BY_RECOVERY = "partner", "guard", "recovery"

RETRY_AFTER = 0.5
"""Seconds until a failed thaw is retried."""

ORDER_PATIENCE = 0.5
"""Seconds that the other drivers wait for one driver's thaw before they are thawed regardless."""


class Limits(NamedTuple):
    """Seconds: armed without a freeze; frozen, from the start of the freeze; responding after the end."""

    arm_ttl: float
    hold_ttl: float
    linger: float = 600.0


class Work(NamedTuple):
    """A call to make: ``freeze`` or ``thaw`` of driver number ``driver``."""

    kind: str
    driver: int


class Call:
    """A driver's call in progress. ``given_up``: it timed out, and the hold went on without it.

    ``again``: it is a retry.
    """

    def __init__(self, begun: float, again: bool) -> None:
        self.begun = begun
        self.given_up = False
        self.again = again


class Part:
    """One driver's part in the hold.

    ``touched``: its freeze was started. ``dirty``: it may be frozen, and no thaw that could end this is in progress.
    ``tried``: a thaw of it was started.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.touched = False
        self.dirty = False
        self.tried = False
        self.calls: dict[str, Call] = {}
        self.retry_at = 0.0
        self.error: str | None = None
        self.freeze_ms: float | None = None
        self.thaw_ms: float | None = None


class Hold:
    """One hold over some drivers. ``drivers``: name and timeout in seconds of each, in freeze order."""

    def __init__(self, run_id: str, drivers: list[tuple[str, float]], limits: Limits, clock: Clock) -> None:
        self.run_id = run_id
        self.limits = limits
        self.parts = [Part(name, timeout) for name, timeout in drivers]
        self.state = ARMED
        self.reason: str | None = None
        self.error: str | None = None
        self.broken: list[str] = []
        self.finished = False
        self._clock = clock
        self._since = clock.monotonic()
        self._freeze_begun: float | None = None
        self._end_asked = False
        self._complete = False
        self._window: float | None = None
        self._times: dict[str, float | None] = dict.fromkeys(
            ("armed", "freeze_started", "frozen", "thaw_started", "thawed")
        )
        self._stamp("armed")

    @classmethod
    def leftover(
        cls,
        run_id: str,
        drivers: list[tuple[str, float]],
        limits: Limits,
        clock: Clock,
        reason: str,
        error: str,
        before: dict[str, Any],
    ) -> Hold:
        """The hold of a dead process, whose last status was ``before``: all may be frozen, so all is thawed."""
        hold = cls(run_id, drivers, limits, clock)
        for name in ("armed", "freeze_started", "frozen"):
            hold._times[name] = before.get(name)
        hold.error = error
        for part in hold.parts:
            part.touched = True
        hold._begin_thaw(reason)
        return hold

    # Events

    def request(self, command: str) -> None:
        """A command arrived. Raises Refused if the state does not allow it."""
        if command == FREEZE:
            self._ask_freeze()
        elif command in (THAW, END):
            self._ask_thaw(BY_COMMAND)
            self._end_asked = self._end_asked or command == END
            self._settle()
        elif command != STATUS:
            raise Refused(f"unknown command '{command}': use one of {', '.join(COMMANDS)}")

    def lose(self, how: list[str]) -> None:
        """Somebody else thawed, or may have thawed, what is frozen."""
        if self.state == FROZEN:
            self._break(how)

    def terminate(self) -> None:
        """The process received a signal to end: thaw, then end."""
        self._end_asked = True
        self._ask_thaw(BY_SIGNAL)
        self._settle()

    def tick(self) -> None:
        """Time has passed: end what has exceeded its deadline."""
        now = self._clock.monotonic()
        if self.state == ARMED and now >= self._since + self.limits.arm_ttl:
            self._end_asked = True
            self._never_frozen(BY_ARM_TTL)
        if self.state in (FREEZING, FROZEN) and now >= self._ttl_end():
            self.error = f"the hold's time to live of {self.limits.hold_ttl:g} s ended before the thaw came"
            self._begin_thaw(BY_TTL)
        for part in self.parts:
            for kind, call in list(part.calls.items()):
                if now >= call.begun + part.timeout and not call.given_up:
                    call.given_up = True
                    self._overdue(kind, part)
        self._settle()

    def take_work(self) -> list[Work]:
        """The calls to start now. The end of each must be reported with ``done``."""
        now = self._clock.monotonic()
        work: list[Work] = []
        if self.state == FREEZING and not any(part.calls for part in self.parts):
            work = [Work(FREEZE, index) for index, part in enumerate(self.parts) if not part.touched][:1]
        elif self.state == THAWING:
            work = self._next_thaw(now)
        for item in work:
            self._start(item, now)
        return work

    def done(self, work: Work, error: str | None = None, broken: list[str] | None = None) -> None:
        """A call has ended: ``error`` if it failed; for a thaw, ``broken`` says how the hold was broken."""
        now = self._clock.monotonic()
        part = self.parts[work.driver]
        took = (now - part.calls.pop(work.kind).begun) * 1000.0
        if work.kind == FREEZE:
            part.freeze_ms = took
            self._freeze_done(part, error)
        else:
            part.thaw_ms = took
            self._thaw_done(part, now, error, broken or [])
        self._settle()

    # Queries

    def deadline(self) -> float | None:
        """The latest time for the next ``tick``, on the monotonic clock; None: no need."""
        times = [call.begun + part.timeout for part in self.parts for call in part.calls.values() if not call.given_up]
        if self.state == ARMED:
            times.append(self._since + self.limits.arm_ttl)
        elif self.state in (FREEZING, FROZEN):
            times.append(self._ttl_end())
        elif self.state == THAWING:
            times += self._turns()
        else:
            times.append(self._since + self.limits.linger)
        return min(times) if times else None

    def settled(self) -> bool:
        """Whether a response can be given: nothing is in progress, or all was tried and failures are being retried."""
        if self.state not in (FREEZING, THAWING):
            return True
        return any(part.error for part in self.parts) and not self._untried()

    def live(self) -> bool:
        """Whether it is, or may become, frozen."""
        return self.state not in (THAWED, FAILED)

    def succeeded(self, command: str) -> bool:
        """Whether the goal of ``command`` is reached."""
        if command == FREEZE:
            return self.state == FROZEN
        return command == STATUS or not self.live()

    def unbroken(self) -> bool:
        """Whether it was completely frozen, and stayed so until now or until the thaw by command."""
        if not self._complete or self.broken:
            return False
        return self.state == FROZEN or (self.state in (THAWING, THAWED) and self.reason == BY_COMMAND)

    def status(self) -> dict[str, Any]:
        """The status, as JSON: times in seconds since the epoch, durations in milliseconds."""
        return {
            "run_id": self.run_id,
            "state": self.state,
            "hold_unbroken": self.unbroken(),
            "reason": self.reason,
            "error": self._errors(),
            **self._times,
            "window_ms": self._window,
            "arm_ttl": self.limits.arm_ttl,
            "hold_ttl": self.limits.hold_ttl,
            "drivers": [
                {"name": part.name, "freeze_ms": _round(part.freeze_ms), "thaw_ms": _round(part.thaw_ms)}
                for part in self.parts
            ],
        }

    # Freezing

    def _ask_freeze(self) -> None:
        if self.state in (FREEZING, FROZEN):
            return
        if self.state != ARMED:
            raise Refused(
                f"the hold of run {self.run_id} is already {self.state}, and a hold freezes only once: start a new run"
            )
        self.state = FREEZING
        self._freeze_begun = self._stamp("freeze_started")

    def _freeze_done(self, part: Part, error: str | None) -> None:
        if self.state != FREEZING:
            part.dirty = True  # the hold went on without it, so whatever it did since must be undone
            part.retry_at = 0.0
        elif error is not None:
            self.error = error
            self._begin_thaw(BY_FAILURE)
        elif all(other.touched for other in self.parts):
            self.state = FROZEN
            self._complete = True
            self._stamp("frozen")

    def _overdue(self, kind: str, part: Part) -> None:
        text = f"driver {part.name}: the {kind} takes longer than {part.timeout:g} s"
        if kind == THAW:
            part.error = text
        elif self.state == FREEZING:
            self.error = text
            self._begin_thaw(BY_FAILURE)

    # Thawing

    def _ask_thaw(self, reason: str) -> None:
        if self.state == FREEZING:
            self.error = "the thaw came before all was frozen"
        if self.state in (FREEZING, FROZEN):
            self._begin_thaw(reason)
        elif self.state == ARMED:
            self._never_frozen(reason)

    def _never_frozen(self, reason: str) -> None:
        self.state = THAWED
        self.reason = reason
        self._since = self._clock.monotonic()

    def _begin_thaw(self, reason: str) -> None:
        self.state = THAWING
        self.reason = reason
        self._stamp("thaw_started")
        for part in self.parts:
            part.dirty = part.touched

    def _next_thaw(self, now: float) -> list[Work]:
        """The next driver in thaw order once the previous one is thawed; all of them if that takes too long.

        Retries do not wait for others, and others do not wait for them.
        """
        due = [
            index
            for index, part in reversed(list(enumerate(self.parts)))
            if part.dirty and THAW not in part.calls and now >= part.retry_at
        ]
        first = [index for index in due if not self.parts[index].tried]
        calls = self._thaws()
        if all(now < call.begun + ORDER_PATIENCE for call in calls):
            first = first[:1] if all(call.again for call in calls) else []
        return [Work(THAW, index) for index in due if self.parts[index].tried or index in first]

    def _turns(self) -> list[float]:
        """When the next thaws are due."""
        calls = self._thaws()
        waiting = [part for part in self.parts if part.dirty and THAW not in part.calls]
        times = [part.retry_at for part in waiting if part.tried or all(call.again for call in calls)]
        return times + ([call.begun + ORDER_PATIENCE for call in calls] if self._untried() else [])

    def _thaws(self) -> list[Call]:
        """The thaws in progress."""
        return [part.calls[THAW] for part in self.parts if THAW in part.calls]

    def _untried(self) -> bool:
        """Whether a driver is still waiting for its first thaw."""
        return any(part.dirty and not part.tried for part in self.parts)

    def _thaw_done(self, part: Part, now: float, error: str | None, broken: list[str]) -> None:
        part.error = error
        if error is not None:
            part.dirty = True
            part.retry_at = now + RETRY_AFTER
        elif self._complete:
            self._break(broken)

    def _break(self, how: list[str]) -> None:
        self.broken += [text for text in how if text not in self.broken]

    def _start(self, work: Work, now: float) -> None:
        part = self.parts[work.driver]
        part.calls[work.kind] = Call(now, work.kind == THAW and part.tried)
        if work.kind == FREEZE:
            part.touched = True
        else:
            part.dirty = False
            part.tried = True

    def _settle(self) -> None:
        """Leave ``thawing`` once nothing can be frozen any more; finish on request or when the linger time is over."""
        if self.state == THAWING and not any(part.dirty or part.calls for part in self.parts):
            recovered = self.reason in (BY_PARTNER, BY_GUARD, BY_RECOVERY)
            self.state = THAWED if self._complete or recovered else FAILED
            self._since = self._stamp("thawed")
            self._window = self._measure_window()
        if not self.live():
            self.finished = self._end_asked or self._clock.monotonic() >= self._since + self.limits.linger

    def _measure_window(self) -> float | None:
        """Milliseconds from the freeze to now; by the wall clock if another process froze."""
        if self._freeze_begun is not None:
            return _round((self._since - self._freeze_begun) * 1000.0)
        begun, ended = self._times["freeze_started"], self._times["thawed"]
        return None if begun is None or ended is None else _round((ended - begun) * 1000.0)

    # Helpers

    def _ttl_end(self) -> float:
        return (self._freeze_begun or 0.0) + self.limits.hold_ttl

    def _stamp(self, name: str) -> float:
        self._times[name] = round(self._clock.wall(), 6)
        return self._clock.monotonic()

    def _errors(self) -> str | None:
        texts = ([self.error] if self.error else []) + [part.error for part in self.parts if part.error] + self.broken
        return "; ".join(texts) or None


def _round(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)

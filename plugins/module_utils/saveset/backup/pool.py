# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workers of a job, which all its volumes share.

A worker that is free takes the next part of the volume in which the fewest workers are, and of those the one that was
served longest ago.  So every volume gets on from the beginning, small ones end early, and a volume whose source is slow
or hangs gets no more workers while others get none: it costs the one that it holds.  With more workers than volumes it
could hold a second one, so a volume that keeps a worker for more than STALL_S is served only when no other volume has
work left.  Threads that hang forever in as many sources as there are workers still stop the job, as one did before:
nothing can be taken from a thread inside a system call, and more threads would break the bound on load and memory.
"""

from __future__ import annotations

import abc
import contextlib
import queue
import threading
import time
import typing as t

from ..base.errors import SavesetError

TICK_S = 0.5
STALL_S = 1.0

Hand = t.TypeVar("Hand")


class Work(abc.ABC, t.Generic[Hand]):
    """A volume, as the pool sees it.  SavesetError and OSError are its own failures, any other error stops the job."""

    @abc.abstractmethod
    def begin(self) -> None:
        """Prepare; called once, in one worker, before anything else."""

    @abc.abstractmethod
    def step(self, hand: Hand) -> bool:
        """Do the next part, in any worker; False if there is none."""

    @abc.abstractmethod
    def finish(self, hand: Hand, then: t.Callable[[], object]) -> None:
        """Called once, in one worker, when all parts are done; ``then`` is to be called when the work may conclude."""

    @abc.abstractmethod
    def conclude(self) -> None:
        """The end, in the caller's thread."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Have steps end as soon as they can: the work has failed, or the job is stopped."""

    @abc.abstractmethod
    def close(self, error: BaseException | None) -> None:
        """Release everything, in the caller's thread, with no worker inside; ``error``: why it failed."""


class _Turn(t.Generic[Hand]):
    """A volume, and the workers in it."""

    def __init__(self, work: Work[Hand]) -> None:
        self.work = work
        self.begun = False
        self.is_open = True  # there may be parts left
        self.entered: dict[int, float] = {}  # when each worker that is inside came
        self.served = 0
        self.error: BaseException | None = None

    def rank(self, now: float) -> tuple[bool, int, int]:
        """The lowest is served first."""
        stalled = any(now - moment > STALL_S for moment in self.entered.values())
        return stalled, len(self.entered), self.served


class Pool(t.Generic[Hand]):
    """A fixed number of threads that work on several volumes at once."""

    def __init__(self, threads: int, hand: t.Callable[[], Hand]) -> None:
        """:param hand: makes what each worker needs for itself."""
        self._threads = threads
        self._hand = hand
        self._changed = threading.Condition()
        self._turns: list[_Turn[Hand]] = []
        self._stopped = False
        self._error: BaseException | None = None
        self._served = 0
        #: Volumes in which no worker is any more.
        self._ended: queue.Queue[_Turn[Hand]] = queue.Queue()

    def run(self, works: t.Iterable[Work[Hand]], tick: t.Callable[[], object] | None) -> None:
        """Do all the work, and close each volume as soon as it has ended; its failure is told to close() alone.

        :param tick: called every half second, and before each volume concludes, in this thread; an exception from it
            stops all volumes that are not concluded.
        """
        self._turns = [_Turn(work) for work in works]
        left = list(self._turns)
        threads = [
            threading.Thread(target=self._work, args=(number, self._hand()), name=f"saveset-{number}", daemon=True)
            for number in range(self._threads if left else 0)
        ]
        for thread in threads:
            thread.start()
        try:
            while left:
                turn = self._next_ended(TICK_S if tick else None)
                if self._error is not None:
                    raise self._error
                if tick:
                    tick()
                if turn is not None:
                    self._conclude(turn)
                    left.remove(turn)
        finally:
            self._stop()
            for thread in threads:
                thread.join()
            with contextlib.ExitStack() as closing:
                for turn in left:
                    closing.callback(turn.work.close, turn.error)

    def _next_ended(self, timeout: float | None) -> _Turn[Hand] | None:
        try:
            return self._ended.get(timeout=timeout)
        except queue.Empty:
            return None

    def _conclude(self, turn: _Turn[Hand]) -> None:
        try:
            if turn.error is None:
                turn.work.conclude()
        except (SavesetError, OSError) as error:
            turn.error = error
        turn.work.close(turn.error)

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for turn in self._turns:
            turn.work.stop()

    # -- in the workers

    def _work(self, number: int, hand: Hand) -> None:
        while (turn := self._enter(number)) is not None:
            try:
                self._serve(turn, hand)
            except BaseException as error:
                self._fail(turn, error)
            if self._leave(turn, number):
                self._finish(turn, hand)

    def _enter(self, number: int) -> _Turn[Hand] | None:
        """The volume to serve next, once there is one; None if there is nothing left to do."""
        with self._changed:
            while not self._stopped and self._error is None:
                left = [turn for turn in self._turns if turn.is_open]
                ready = [turn for turn in left if turn.begun or not turn.entered]
                if ready:
                    now = time.monotonic()
                    turn = min(ready, key=lambda each: each.rank(now))
                    self._served += 1
                    turn.served = self._served
                    turn.entered[number] = now
                    return turn
                if not left:
                    return None
                self._changed.wait()
            return None

    def _serve(self, turn: _Turn[Hand], hand: Hand) -> None:
        if not turn.begun:
            turn.work.begin()
            with self._changed:
                turn.begun = True
                self._changed.notify_all()
        elif not turn.work.step(hand):
            turn.is_open = False

    def _fail(self, turn: _Turn[Hand], error: BaseException) -> None:
        with self._changed:
            turn.error = turn.error or error
            turn.is_open = False
            if not isinstance(error, (SavesetError, OSError)):
                self._error = self._error or error
        turn.work.stop()

    def _leave(self, turn: _Turn[Hand], number: int) -> bool:
        """Leave a volume; True for the last worker to leave after the last part."""
        with self._changed:
            del turn.entered[number]
            if not turn.is_open:
                self._changed.notify_all()
            return not turn.is_open and not turn.entered

    def _finish(self, turn: _Turn[Hand], hand: Hand) -> None:
        try:
            if turn.error is None:
                turn.work.finish(hand, lambda: self._ended.put(turn))
                return
        except BaseException as error:
            self._fail(turn, error)
        self._ended.put(turn)

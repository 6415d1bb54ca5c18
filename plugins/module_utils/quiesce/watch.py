# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a holder reports to its watchers, through a pipe whose other end only the watched processes have.

``FREEZING``: the holder is about to freeze. ``THAWING``, repeated as a heartbeat: it is thawing. ``DONE``: nothing is
frozen any more. ``CLEAN_END``: it ends, and all is well. If the pipe closes without that, every process that could have
written to it is dead.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import NamedTuple

from ..host.clock import Clock
from . import hold

FREEZING, THAWING, DONE, CLEAN_END = b"freezing\n", b"thawing\n", b"done\n", b"ended\n"

SAID = {hold.FREEZING: FREEZING, hold.THAWING: THAWING, hold.THAWED: DONE, hold.FAILED: DONE}
"""What is reported for each state of the hold."""


class Patience(NamedTuple):
    """Seconds until the watched process counts as hung: ``late`` after the end of the time to live without a thaw,
    ``silence`` without a heartbeat during the thaw.
    """

    late: float
    silence: float


class Teller:
    """The writing end of the pipe."""

    def __init__(self, writer: int) -> None:
        self._writer = writer
        os.set_blocking(writer, False)  # a watcher that does not read must not block the holder

    def tell(self, what: bytes) -> None:
        """Write one of the words above."""
        with contextlib.suppress(OSError):
            os.write(self._writer, what)

    def follow(self, state: str) -> None:
        """Report what the hold is about to do."""
        if state in SAID:
            self.tell(SAID[state])

    def is_heard(self) -> bool:
        """Whether any process still has the reading end open. Does not block."""
        poll = select.poll()
        poll.register(self._writer, 0)
        return not any(event & (select.POLLERR | select.POLLNVAL) for _writer, event in poll.poll(0))

    def end(self) -> None:
        """Report that all is well, and close the pipe."""
        self.tell(CLEAN_END)
        os.close(self._writer)


def lost(reader: int, hold_ttl: float, patience: Patience, leave_when_done: bool = False) -> bool:
    """Wait until the watched process has ended or hangs. Returns whether it left something to thaw.

    With ``leave_when_done`` this returns as soon as nothing is frozen any more.
    """
    watched, rest, clock = Watched(hold_ttl, patience), b"", Clock()
    while True:
        left = None if watched.deadline is None else watched.deadline - clock.monotonic()
        if not _said_more(reader, left):
            return True
        piece = os.read(reader, 64)
        if not piece:
            return watched.live
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            watched.hear(line + b"\n", clock.monotonic())
        if leave_when_done and not watched.live:
            return False


class Watched:
    """What is known about the holder. ``deadline``: when it counts as hung if it stays silent; None: nothing is frozen.

    ``live``: whether it would leave something to thaw if it ended now.
    """

    def __init__(self, hold_ttl: float, patience: Patience) -> None:
        self.deadline: float | None = None
        self.live = True
        self._hold_ttl = hold_ttl
        self._patience = patience
        self._ttl_end: float | None = None

    def hear(self, what: bytes, now: float) -> None:
        """Process a word from the holder."""
        if what == FREEZING and self._ttl_end is None:
            self._ttl_end = now + self._hold_ttl
            self.deadline = self._ttl_end + self._patience.late
        elif what == THAWING and self._ttl_end is not None:
            self.deadline = self._silent_until(now, self._ttl_end)
        elif what in (DONE, CLEAN_END):
            self.deadline, self.live = None, False

    def _silent_until(self, now: float, ttl_end: float) -> float:
        """How long a thawing holder may stay silent: not much beyond its time to live."""
        late, silence = self._patience
        if now <= ttl_end:
            return min(now + silence, ttl_end + late)
        return now + (late if now <= ttl_end + 2 * late else silence)


def _said_more(reader: int, patience: float | None) -> bool:
    return bool(select.select([reader], [], [], None if patience is None else max(patience, 0.0))[0])

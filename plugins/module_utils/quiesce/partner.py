# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder's partner: a second process that does nothing until the holder dies or hangs, and then thaws in its place.

It reads from a pipe of which only the holder has the other end. ``FREEZING`` says that the holder is about to freeze;
``THAWING``, repeated as a sign of life, that it is thawing; ``DONE`` that nothing is frozen any more; ``CLEAN_END``
that it ends, and all is well. An end of the pipe without that says that the holder is dead. One that has not begun to
thaw when its time to live is over hangs, and so does one that has fallen silent while it thaws: it is killed. Then the
partner ends what the holder left running, becomes the holder itself, thaws what is on record as possibly frozen, and
answers at the socket that the hold was broken. A holder that dies when nothing is frozen any more leaves its record.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any

from . import daemon, drivers, records
from .clock import Clock
from .hold import BY_PARTNER, Hold, Limits
from .processes import identity, session_members
from .server import Server, timeouts

FREEZING, THAWING, DONE, CLEAN_END = b"freezing\n", b"thawing\n", b"done\n", b"ended\n"
DIED = "the holder died or hung before it had thawed, and its partner thawed in its place"

HANG_PATIENCE = 0.5
"""Seconds after the end of the time to live at which a holder that has not begun to thaw is taken to hang."""

SILENCE = 3.0
"""Seconds without a sign of life after which a holder that thaws hangs; HANG_PATIENCE where its time is just over."""

SESSION_PATIENCE = 1.0
"""Seconds to wait for what the dead holder left running to be gone."""


def watch(reader: int, run_dir: str, run_id: str, holder: int, hold_ttl: float) -> None:
    """The partner's whole life, beside the holder with process id ``holder``. Returns when there is no more to do."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the holder thaws on these; the partner's turn comes only after it
    daemon.detach([reader])
    memory_locked = daemon.lock_memory()
    daemon.protect_from_oom()
    if not _lost(reader, hold_ttl):
        return
    end_session(holder)
    record = records.read(run_dir, run_id)
    if record is not None:
        _take_over(run_dir, record, memory_locked)


def _lost(reader: int, hold_ttl: float) -> bool:
    """Wait until the holder ends, or hangs; whether it left something to do."""
    watched, rest, clock = _Watched(hold_ttl), b"", Clock()
    while True:
        patience = None if watched.deadline is None else watched.deadline - clock.monotonic()
        if not _said_more(reader, patience):
            return True
        piece = os.read(reader, 64)
        if not piece:
            return watched.live
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            watched.hear(line + b"\n", clock.monotonic())


class _Watched:
    """What is known of the holder. ``deadline``: when it hangs unless it says more; None while nothing is frozen.

    ``live``: whether it leaves something to do when it ends now.
    """

    def __init__(self, hold_ttl: float) -> None:
        self.deadline: float | None = None
        self.live = True
        self._hold_ttl = hold_ttl
        self._ttl_end: float | None = None

    def hear(self, what: bytes, now: float) -> None:
        """The holder has said something."""
        if what == FREEZING and self._ttl_end is None:
            self._ttl_end = now + self._hold_ttl
            self.deadline = self._ttl_end + HANG_PATIENCE
        elif what == THAWING and self._ttl_end is not None:
            self.deadline = self._silent_until(now, self._ttl_end)
        elif what in (DONE, CLEAN_END):
            self.deadline, self.live = None, False

    @staticmethod
    def _silent_until(now: float, ttl_end: float) -> float:
        """Until when a holder that thaws may be silent: not past its time to live by more than HANG_PATIENCE."""
        if now <= ttl_end:
            return min(now + SILENCE, ttl_end + HANG_PATIENCE)
        return now + (HANG_PATIENCE if now <= ttl_end + 2 * HANG_PATIENCE else SILENCE)


def _said_more(reader: int, patience: float | None) -> bool:
    return bool(select.select([reader], [], [], None if patience is None else max(patience, 0.0))[0])


def end_session(leader: int) -> None:
    """End what a dead holder left running in its session, such as a command that was about to freeze."""
    end = time.monotonic() + SESSION_PATIENCE
    left = session_members(leader)
    while left and time.monotonic() < end:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
        left = session_members(leader)


def _take_over(run_dir: str, record: dict[str, Any], memory_locked: bool) -> None:
    clock = Clock()
    entries = record["drivers"]
    run_id = record["run_id"]
    built = drivers.build([entry["options"] for entry in entries], [entry["marks"] for entry in entries], run_id)
    limits = Limits(**record["limits"])
    hold = Hold.leftover(run_id, timeouts(built), limits, clock, BY_PARTNER, DIED, record["status"])
    record["holder"] = identity(os.getpid())
    record["partner"] = None
    server = Server(hold, built, run_dir, record, clock, memory_locked)
    server.open()
    server.serve()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder's partner: a second process that does nothing until the holder dies, and then thaws in its place.

It reads from a pipe of which only the holder has the other end. ``CLEAN_END`` says that the holder thawed and ended;
an end of the pipe without it says that the holder is dead. Then the partner ends what the holder left running, becomes
the holder itself, thaws what is on record as possibly frozen, and answers at the socket that the hold was broken.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from . import daemon, drivers, records
from .clock import Clock
from .hold import BY_PARTNER, Hold, Limits
from .processes import identity, session_members
from .server import Server, timeouts

CLEAN_END = b"thawed\n"
DIED = "the holder died before it had thawed, and its partner thawed in its place"

SESSION_PATIENCE = 1.0
"""Seconds to wait for what the dead holder left running to be gone."""


def watch(reader: int, run_dir: str, run_id: str, holder: int) -> None:
    """The partner's whole life, beside the holder with process id ``holder``. Returns when there is no more to do."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the holder thaws on these; the partner's turn comes only after it
    daemon.detach([reader])
    memory_locked = daemon.lock_memory()
    daemon.protect_from_oom()
    if not _died(reader):
        return
    end_session(holder)
    record = records.read(run_dir, run_id)
    if record is not None:
        _take_over(run_dir, record, memory_locked)


def _died(reader: int) -> bool:
    said = b""
    while True:
        piece = os.read(reader, 16)
        if not piece:
            return CLEAN_END not in said
        said += piece


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

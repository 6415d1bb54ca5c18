# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a process that watches a holder takes over when the holder is dead, and thaws what it left frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Callable

from ..host.clock import Clock
from ..host.processes import identity, session_members
from . import drivers
from .daemon import Protection
from .hold import Hold, Limits
from .server import Server, timeouts

SESSION_PATIENCE = 1.0
"""Seconds to wait for the end of what the dead holder left running."""


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


def take_over(
    run_dir: str,
    record: dict[str, Any],
    protection: Protection,
    why: tuple[str, str],
    connect: Callable[[Server], None] = lambda _server: None,
) -> None:
    """Become the holder: thaw what the record says may be frozen, and respond that the hold was broken.

    ``why``: the reason for the end of the hold, and the error to report. ``connect`` is called with the server before
    it starts. Returns when the hold is over.
    """
    entries = record["drivers"]
    run_id = record["run_id"]
    clock = Clock()
    built = drivers.build([entry["options"] for entry in entries], [entry["marks"] for entry in entries], run_id)
    limits = Limits(**record["limits"])
    reason, error = why
    hold = Hold.leftover(run_id, timeouts(built), limits, clock, reason, error, record["status"])
    record.update(holder=identity(os.getpid()), partner=None)
    server = Server(hold, built, run_dir, record, clock, protection)
    connect(server)
    server.open()
    server.serve()

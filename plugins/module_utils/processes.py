# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names a process for good: its id and the moment it began, so that a reused id is never mistaken for it."""

from __future__ import annotations

import os
import signal
import time


def start_ticks(pid):
    """When the process began, in clock ticks since the system started; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, ticks = fields[0], int(fields[19])
    return None if state in "ZX" else ticks


def is_running(pid, ticks):
    """Whether the process that began at ``ticks`` with this id still runs."""
    return ticks is not None and start_ticks(pid) == ticks


def stop(pid, ticks, grace=5.0):
    """End that process and no other: SIGTERM, and SIGKILL after ``grace`` seconds. Returns whether it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_running(pid, ticks):
            return True
        os.kill(pid, number)
        deadline = time.monotonic() + grace
        while is_running(pid, ticks) and time.monotonic() < deadline:
            time.sleep(0.01)
    return not is_running(pid, ticks)

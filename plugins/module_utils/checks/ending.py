# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends the processes of a check, and reports those that cannot be ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

from ..host.processes import descendants, identity, is_running

POLL = 0.02


def below(pid: int, mark: str) -> list[dict[str, Any]]:
    """Identities of the descendants of ``pid`` and of processes with ``mark`` in their environment, without ``pid``."""
    found = {process["pid"]: process for process in descendants(pid)}
    for number in _marked(mark):
        found.setdefault(number, identity(number))
    found.pop(pid, None)
    return [process for process in found.values() if process["ticks"] is not None]


def _marked(mark: str) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and mark.encode() in _environment(name)]


def _environment(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as stream:
            return stream.read().split(b"\0")
    except OSError:  # it has ended, or belongs to another user
        return []


def end_below(pid: int, mark: str, grace: float, patience: float) -> list[int]:
    """End all processes of a check except ``pid``: with SIGTERM, after ``grace`` seconds with SIGKILL.

    Returns those still there after ``patience`` seconds: they wait for a disk that does not respond.
    """
    polite_until, give_up = time.monotonic() + grace, time.monotonic() + patience
    asked: set[int] = set()
    while True:
        left = below(pid, mark)
        if not left or time.monotonic() >= give_up:
            return [process["pid"] for process in left]
        for process in left:
            if time.monotonic() >= polite_until:
                send(process, signal.SIGKILL)
            elif process["pid"] not in asked:
                asked.add(process["pid"])
                send(process, signal.SIGTERM)
        time.sleep(POLL)


def send(process: dict[str, Any], number: int) -> None:
    """Send a signal to a process, guarding against PID reuse."""
    if is_running(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)


def end(process: dict[str, Any], patience: float) -> bool:
    """Kill one process. Returns whether it is gone in time."""
    give_up = time.monotonic() + patience
    while is_running(process):
        if time.monotonic() >= give_up:
            return False
        send(process, signal.SIGKILL)
        time.sleep(POLL)
    return True

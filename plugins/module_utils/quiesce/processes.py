# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names a process for good: its id and the moment it began, so that a reused id is never mistaken for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any


def identity(pid: int) -> dict[str, Any]:
    """``{"pid", "ticks"}``: ticks is when it began, in clock ticks since the system started; None: it is gone."""
    return {"pid": pid, "ticks": _start_ticks(pid)}


def is_running(process: dict[str, Any] | None) -> bool:
    """Whether the process with this identity runs."""
    return process is not None and process["ticks"] is not None and _start_ticks(process["pid"]) == process["ticks"]


def session_members(leader: int) -> list[int]:
    """The processes of a session that run; those that are dead and not yet reaped do not."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [number for number in numbers if _fields(number)[3:4] == [str(leader)]]


def end(process: dict[str, Any], patience: float) -> bool:
    """End the process with this identity, and the process group that it leads. Whether it is gone in time (seconds)."""
    return end_all([process], patience)


def end_all(processes: list[dict[str, Any]], patience: float) -> bool:
    """End several at once, as end() does one: a process takes a while to give back memory that it has locked."""
    deadline = time.monotonic() + patience
    while True:
        running = [process for process in processes if is_running(process)]
        if not running or time.monotonic() >= deadline:
            return not running
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                _kill(process["pid"])
        time.sleep(0.01)


def _kill(pid: int) -> None:
    if os.getpgid(pid) == pid:
        os.killpg(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[dict[str, Any]]:
    """Identities of all processes below a process, as they are now."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    parents = {number: int(fields[1]) for number, fields in ((each, _fields(each)) for each in numbers) if fields}
    below, found = {pid}, []
    while below:
        below = {number for number, parent in parents.items() if parent in below}
        found += sorted(below)
    return [identity(number) for number in found]


def _start_ticks(pid: int) -> int | None:
    fields = _fields(pid)
    return int(fields[19]) if fields else None


def _fields(pid: int) -> list[str]:
    """What proc(5) tells of a process, from its state on; empty where it does not run."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in "ZX" else fields

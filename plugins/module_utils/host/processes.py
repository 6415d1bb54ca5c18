# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifies a process by its id and its start time, which guards against PID reuse."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any


def identity(pid: int) -> dict[str, Any]:
    """``{"pid", "ticks"}``: ticks is its start time in clock ticks since boot; None: it is gone."""
    return {"pid": pid, "ticks": _start_ticks(pid)}


def is_running(process: dict[str, Any] | None) -> bool:
    """Whether the process with this identity is running."""
    return process is not None and process["ticks"] is not None and _start_ticks(process["pid"]) == process["ticks"]


def stop(process: dict[str, Any], grace: float = 5.0) -> bool:
    """End that process and no other: SIGTERM, and SIGKILL after ``grace`` seconds. Returns whether it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_running(process):
            return True
        os.kill(process["pid"], number)
        deadline = time.monotonic() + grace
        while is_running(process) and time.monotonic() < deadline:
            time.sleep(0.01)
    return not is_running(process)


def command_line(pid: int) -> list[str]:
    """The words of a process's command line; none where there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return os.fsdecode(stream.read()).split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def find(word: str) -> dict[str, Any] | None:
    """The identity of the process that has exactly this word on its command line; None where there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if word in command_line(int(pid)):
            process = identity(int(pid))
            if process["ticks"] is not None:
                return process
    return None


def end_stopped(process: dict[str, Any]) -> None:
    """Kill the process with this identity if a signal or a debugger has stopped it: it would never continue."""
    if is_running(process) and _fields(process["pid"])[:1] in (["T"], ["t"]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], signal.SIGKILL)


def session_members(leader: int) -> list[int]:
    """The running processes of a session, without zombies."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [number for number in numbers if _fields(number)[3:4] == [str(leader)]]


def end(process: dict[str, Any], patience: float) -> bool:
    """Kill the process with this identity and the group that it leads. Returns whether it is gone in time."""
    return end_all([process], patience)


def end_all(processes: list[dict[str, Any]], patience: float) -> bool:
    """Like end(), for several at once: releasing locked memory takes a process a while."""
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
    """Identities of all current descendants of a process."""
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
    """The fields of /proc/PID/stat from the state on; empty if the process is not running."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in "ZX" else fields

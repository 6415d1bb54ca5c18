# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of the lab, found by a mark in their environment, which cannot become stale as a PID file can."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shell import LabError

MARK = "OPENISB_LAB"
# Processes end within milliseconds; GT.M may first flush its database.
END_TIMEOUT = 20.0


@dataclass(frozen=True)
class Process:
    """A live process of the lab: its PID on the machine, its mark, and whether it is the first of a PID namespace."""

    pid: int
    mark: str
    first: bool


def marked(prefix: str) -> list[Process]:
    """Return processes whose mark is ``prefix`` or begins with ``prefix/``."""
    return [each for each in _all_marked() if each.mark == prefix or each.mark.startswith(prefix + "/")]


def is_first(pid: int, mark: str) -> bool:
    """Return whether this process is alive, has exactly this mark, and is the first of a PID namespace."""
    folder = Path("/proc") / str(pid)
    try:
        return _mark(folder) == mark and _alive(pid) and _is_first(folder)
    except OSError:
        return False


def end(processes: list[Process], how: signal.Signals) -> None:
    """Signal processes and wait until they are gone; raise `LabError` if any remain."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, how)
    left = list(processes)

    def gone() -> bool:
        left[:] = [process for process in left if _alive(process.pid)]
        return not left

    if not wait_for(gone, END_TIMEOUT):
        names = ", ".join(f"{process.mark} (pid {process.pid})" for process in left)
        raise LabError(f"processes of the lab did not end within {END_TIMEOUT:.0f} s after {how.name}: {names}")


def wait_for(condition: Callable[[], bool], timeout: float, interval: float = 0.01) -> bool:
    """Wait for ``condition``; return whether it became true within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
    return True


def _all_marked() -> Iterator[Process]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        # A process may end, or change its user, while it is examined.
        with contextlib.suppress(OSError):
            mark = _mark(folder)
            if mark and _alive(int(folder.name)):
                yield Process(int(folder.name), mark, _is_first(folder))


def _mark(folder: Path) -> str:
    start = f"{MARK}=".encode()
    for item in (folder / "environ").read_bytes().split(b"\0"):
        if item.startswith(start):
            return item[len(start) :].decode()
    return ""


def _is_first(folder: Path) -> bool:
    """Return whether the process is PID 1 of a nested namespace."""
    for line in (folder / "status").read_bytes().split(b"\n"):
        if line.startswith(b"NSpid:"):
            pids = line.split()[1:]
            return len(pids) > 1 and pids[-1] == b"1"
    return False


def _alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return text.rpartition(b")")[2].split()[0] not in (b"Z", b"X")

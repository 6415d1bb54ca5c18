# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running one contender's operation as a process of its own, and what it took."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import time
import typing as t
from pathlib import Path


class ContenderError(Exception):
    """A contender failed; the text says which, at what, and how its output ended."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One operation of one contender in one round.

    ``wall_s`` ends when the filesystem of the work folder is synced; ``cpu_s`` is user and system time of the process
    and all its children; ``peak_bytes`` the resident memory of the largest of these processes; ``read_bytes`` all that
    they got from read calls, whatever they read; ``source_read_bytes`` what was read of the image, where the contender
    tells; ``stored_bytes`` the growth of the repository.
    """

    contender: str
    operation: str
    round: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    read_bytes: int
    stored_bytes: int
    source_read_bytes: int | None = None


class Usage(t.NamedTuple):
    """What a process and its children took; see Sample."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    read_bytes: int


def run_durably(command: str, environment: t.Mapping[str, str], work: Path, log: Path) -> Usage:
    """run() between two syncs of the filesystem of ``work``, the second one in the time taken."""
    sync(work)
    begun = time.monotonic()
    usage = run(command, environment, log)
    sync(work)
    return usage._replace(wall_s=time.monotonic() - begun)


def run(command: str, environment: t.Mapping[str, str], log: Path) -> Usage:
    """Run a shell command; its output goes to ``log``.  Raises ContenderError when it fails."""
    with open(log, "wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", command],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        # The counters of /proc are there until the process is waited for, and then hold its children's too.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read_bytes = _read_bytes(process.pid)
        _pid, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(errors="replace")[-2000:]
        raise ContenderError(f"this command ended with {process.returncode}:\n  {command}\n{end}")
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, read_bytes)


def sync(work: Path) -> None:
    """Make all that was written to the filesystem of ``work`` durable."""
    subprocess.run(["sync", "-f", str(work)], check=True)


def stored_bytes(folder: Path) -> int:
    """What the files of a folder hold; holes punched into them are no part of that."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum(min(status.st_size, status.st_blocks * 512) for status in found)


def warm(path: Path) -> None:
    """Bring a file, or all files of a folder, into the page cache."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with open(file, "rb") as stream:
            while stream.read(1 << 20):
                pass


def _read_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise ContenderError(f"/proc/{pid}/io has no rchar: bytes read cannot be counted on this kernel")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs MBF with limits on its time and output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import IO, Any, cast

from ...host import children
from .codes import Ended

POLL = 0.05
GRACE = 0.5
"""Seconds between SIGTERM and SIGKILL; also the wait for output that a leftover process keeps open."""

MOST_OUTPUT = 1 << 20


def run(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    given: str,
    timeout: float,
    cancelled: threading.Event | None = None,
) -> Ended:
    """Run a command in ``folder`` with ``given`` on its standard input; returns once it is gone.

    If the command must be ended, all that it started is ended too. It stays in this process's group, so that it also
    ends with a killed holder. Raises OSError if it cannot be started.
    """
    process = children.start(
        arguments, environment, folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        _give(process, given)
        reader = _Reader(process)
        why = _follow(process, reader, timeout, cancelled)
    finally:
        end_tree(process)
    reader.drain()
    output, errors = reader.texts()
    return Ended(process.returncode, output, errors, why)


def _give(process: subprocess.Popen[bytes], given: str) -> None:
    stdin = cast(IO[bytes], process.stdin)
    with contextlib.suppress(BrokenPipeError):
        stdin.write(given.encode())
        stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        stdin.close()


def _follow(
    process: subprocess.Popen[bytes], reader: _Reader, timeout: float, cancelled: threading.Event | None
) -> str:
    """Wait for the command's end. Returns why it must be ended, if it must."""
    end = time.monotonic() + timeout
    while process.poll() is None:
        reader.read(POLL)
        if reader.size > MOST_OUTPUT:
            return f"it printed more than {MOST_OUTPUT >> 20} MiB"
        if cancelled is not None and cancelled.is_set():
            return "it was cancelled"
        if time.monotonic() >= end:
            return f"it took longer than {timeout:g} s"
    return ""


class _Reader:
    """Reads standard output and standard error as they arrive."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.size = 0
        self._pieces: dict[Any, list[bytes]] = {process.stdout: [], process.stderr: []}
        self._streams = (process.stdout, process.stderr)
        self._selector = selectors.DefaultSelector()
        for stream in self._streams:
            self._selector.register(stream, selectors.EVENT_READ)  # type: ignore[arg-type]

    def read(self, patience: float) -> None:
        """Read what is available, waiting at most ``patience`` seconds."""
        if not self._selector.get_map():
            time.sleep(patience)
        for key, _mask in self._selector.select(patience):
            piece = os.read(key.fd, 65536)
            self._pieces[key.fileobj].append(piece)
            self.size += len(piece)
            if not piece:
                self._selector.unregister(key.fileobj)

    def drain(self) -> None:
        """Read the rest; not forever, because another process may keep the output open."""
        end = time.monotonic() + GRACE
        while self._selector.get_map() and time.monotonic() < end and self.size <= MOST_OUTPUT:
            self.read(POLL)
        self._selector.close()
        for stream in self._streams:
            stream.close()  # type: ignore[union-attr]

    def texts(self) -> tuple[str, str]:
        """All of standard output, and of standard error."""
        output, errors = (b"".join(self._pieces[stream]).decode("utf-8", "replace") for stream in self._streams)
        return output, errors


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started: MBF may be run by a script."""
    _signal([*descendants(process.pid), process.pid] if process.poll() is None else [], signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    if process.poll() is None:
        _signal([*descendants(process.pid), process.pid], signal.SIGKILL)
    process.wait()


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """All descendants of a process, the youngest generation first."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
            parent = int(stream.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    generation = [pid]
    while generation:
        generation = [child for parent in generation for child in children.get(parent, [])]
        found = generation + found
    return found

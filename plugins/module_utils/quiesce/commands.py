# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a driver's external command, bounded in time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from typing import Callable, NamedTuple

from .errors import DriverError
from .processes import descendants, is_running

GRACE = 1.0
"""Seconds between the polite and the hard end of a command that took too long."""

POLL = 0.05


class Finished(NamedTuple):
    """What a command left: its process id, exit status, and output and errors in one text."""

    pid: int
    status: int
    output: str


def run(
    arguments: list[str],
    environment: dict[str, str],
    timeout: float,
    cancelled: threading.Event | None = None,
    started: Callable[[int], None] | None = None,
) -> Finished:
    """Run a command with nothing but ``environment`` and wait for its end.

    After ``timeout`` seconds, or once ``cancelled`` is set, it is ended. This returns only when the process is really
    gone, so that nothing it was about to do can happen later; whoever calls must be able to wait. ``started`` is told
    its process id.

    Raises DriverError where it cannot be started, took too long or was cancelled.
    """
    try:
        process = subprocess.Popen(
            arguments,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            close_fds=True,
        )
    except OSError as error:
        raise DriverError(f"{arguments[0]} cannot be started: {error.strerror}") from error
    try:
        if started is not None:
            started(process.pid)
    except BaseException:
        _end(process)
        raise
    output, why = _collect(process, timeout, cancelled)
    if why:
        command = " ".join(shlex.quote(item) for item in arguments)
        raise DriverError(f"'{command}' was ended: {why}")
    return Finished(process.pid, process.returncode, output.decode("utf-8", "replace").strip())


def _collect(process: subprocess.Popen[bytes], timeout: float, cancelled: threading.Event | None) -> tuple[bytes, str]:
    """Wait for the output; returns it and, where the command had to be ended, why."""
    remaining = timeout
    while True:
        try:
            return process.communicate(timeout=min(POLL, max(remaining, 0.001)))[0], ""
        except subprocess.TimeoutExpired:
            remaining -= POLL
        if cancelled is not None and cancelled.is_set():
            return _end(process), "it was cancelled"
        if remaining <= 0:
            return _end(process), f"it took longer than {timeout:g} s"


def _end(process: subprocess.Popen[bytes]) -> bytes:
    """End a command with all that it has started: what hangs may be below it, and would keep its output open."""
    below = descendants(process.pid)
    process.terminate()
    try:
        return process.communicate(timeout=GRACE)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        for each in below:
            if is_running(each):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each["pid"], signal.SIGKILL)
        return process.communicate()[0]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs external commands with a time limit.

``run()`` waits until a command that takes too long is really gone. ``run_or_leave()`` waits for none.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
from typing import Any, Callable, NamedTuple

from . import children
from .clock import Deadline
from .errors import DriverError
from .processes import descendants, is_running

GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for a command that timed out."""

POLL = 0.05

TOLD = 2000
"""Characters of a command's output that an error text repeats: the holder's response must fit into one line."""


class Ended(NamedTuple):
    """What a command has left: its exit status, its output and its errors."""

    status: int
    output: bytes
    errors: bytes


class Finished(NamedTuple):
    """The result of a command: its process id, its exit status, and its output and errors as one text."""

    pid: int
    status: int
    output: str


def run(
    arguments: list[str],
    environment: dict[str, str],
    timeout: float,
    cancelled: threading.Event | None = None,
    started: Callable[[int], None] | None = None,
    group: bool = False,
) -> Finished:
    """Run a command with only ``environment`` and wait for its end.

    After ``timeout`` seconds, or once ``cancelled`` is set, it is ended. This returns only when the process is really
    gone, so that nothing it was about to do can happen later; the caller must be able to wait. ``started`` is called
    with its process id. With ``group`` it leads a process group and is ended together with all it started. Processes
    that it leaves behind at a normal end keep running, even if they still have its output open.

    Raises DriverError if it cannot be started, timed out or was cancelled.
    """
    try:
        process = children.start(
            arguments,
            environment,
            group=group,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        raise DriverError(f"{arguments[0]} cannot be started: {error.strerror}") from error
    try:
        if started is not None:
            started(process.pid)
    except BaseException:
        _end(process, group)
        raise
    printed, why = _collect(process, timeout, cancelled, group)
    if process.stdout is not None:
        process.stdout.close()
    output = printed.decode("utf-8", "replace").strip()
    if why:
        raise DriverError(f"'{quoted(arguments)}' was ended: {why}{told(output)}")
    return Finished(process.pid, process.returncode, output)


def run_or_leave(arguments: list[str], environment: dict[str, str], timeout: float) -> Ended:
    """Run a command with only ``environment``. Raises OSError, and TimeoutError after ``timeout`` seconds.

    It is then killed, and left to the kernel: what it waits for may never come, until the caller has cut it off.
    """
    process = children.start(
        arguments, environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _leave(process)
        raise TimeoutError from None
    return Ended(process.returncode, output, errors)


def quoted(arguments: list[str]) -> str:
    """A command as typed in a shell."""
    return " ".join(shlex.quote(item) for item in arguments)


def told(output: str) -> str:
    """The end of a command's output, as the end of an error text."""
    return f": {output[-TOLD:].strip()}" if output else ""


def _collect(
    process: subprocess.Popen[bytes], timeout: float, cancelled: threading.Event | None, group: bool
) -> tuple[bytes, str]:
    """Wait for the output; returns it and, if the command had to be ended, why."""
    deadline = Deadline(timeout)
    while True:
        ended = process.poll() is not None
        output, closed = _output(process, min(POLL, max(deadline.left(), 0.001)))
        if ended or closed:
            return output, ""
        if cancelled is not None and cancelled.is_set():
            return _end(process, group), "it was cancelled"
        if not deadline.left():
            return _end(process, group), f"it took longer than {timeout:.3g} s"


def _end(process: subprocess.Popen[bytes], group: bool) -> bytes:
    """End a command and all that it started: a hung descendant would keep its output open."""
    below = descendants(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        _send(process, number, group)
        if number == signal.SIGKILL:
            _kill(below)
        output, closed = _output(process, GRACE)
        if closed:
            break
    process.wait()
    if group:
        _send(process, signal.SIGKILL, group)  # what ignored SIGTERM and has closed its output
    return output


def _leave(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _kill(processes: list[dict[str, Any]]) -> None:
    """Kill those of these processes that still run, guarding against PID reuse."""
    for each in processes:
        if is_running(each):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each["pid"], signal.SIGKILL)


def _send(process: subprocess.Popen[bytes], number: int, group: bool) -> None:
    if not group:
        process.send_signal(number)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _output(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bool]:
    """All output so far, and whether the command has ended and no other process has its output open."""
    try:
        return process.communicate(timeout=seconds)[0], True
    except subprocess.TimeoutExpired as waiting:
        return waiting.output or b"", False

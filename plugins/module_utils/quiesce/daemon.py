# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts a process that outlives its module and keeps working when other processes are blocked."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import traceback
from typing import Callable, NamedTuple

from ..host.children import protect_from_oom
from .errors import HolderError

MCL_CURRENT, MCL_FUTURE = 1, 2
PR_SET_NAME = 15
STARTED = b"started"


class Protection(NamedTuple):
    """Whether a process has its memory locked and is exempt from the OOM killer."""

    memory_locked: bool
    oom_protected: bool


def start(main: Callable[[Callable[[], None]], None], timeout: float) -> None:
    """Run ``main`` in a new process, detached from this one's session, descriptors and parents.

    ``main`` gets a function to call once it is ready; then this returns. Raises HolderError with the cause if that does
    not happen within ``timeout`` seconds. Everything that ``main`` needs must already be imported, because the file
    with this code is removed when the module ends.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(main, writer)
    os.close(writer)
    try:
        os.waitpid(child, 0)
        message = _read_message(reader, timeout)
    finally:
        os.close(reader)
    if message != STARTED:
        raise HolderError("the holder could not start: %s" % (message.decode("utf-8", "replace") or "it died"))


def _read_message(reader: int, timeout: float) -> bytes:
    message = b""
    while select.select([reader], [], [], timeout)[0]:
        piece = os.read(reader, 65536)
        message += piece
        if not piece or message == STARTED:
            return message
    raise HolderError(f"the holder did not start within {timeout:g} s: find out what keeps that server busy")


def _in_child(main: Callable[[Callable[[], None]], None], writer: int) -> None:
    status = 1
    report = _Report(writer)
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setsid()  # its own session, so that the partner can end what it leaves behind
        detach([writer])
        main(lambda: report(STARTED))
        status = 0
    except BaseException as error:  # nothing may return into the module's own code
        report((str(error) or traceback.format_exc()).encode())
    finally:
        os._exit(status)


class _Report:
    """Sends one message to the parent, and only one: the descriptor may be reused afterwards."""

    def __init__(self, writer: int) -> None:
        self._writer: int | None = writer

    def __call__(self, message: bytes) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(OSError):  # the parent is gone
            os.write(writer, message)
        os.close(writer)


def detach(keep: list[int]) -> None:
    """Drop everything inherited except the descriptors in ``keep``. The umask stays, for the drivers' commands."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    last = 3
    for descriptor in sorted(keep):
        os.closerange(last, descriptor)
        last = descriptor + 1
    os.closerange(last, max_descriptors())
    for number in (signal.SIGHUP, signal.SIGPIPE):
        ignore(number)


def ignore(number: int) -> None:
    """Ignore a signal in this process only: programs that it starts do not inherit this."""
    signal.signal(number, lambda _number, _frame: None)


def max_descriptors() -> int:
    """One more than the highest open descriptor."""
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    except (OSError, ValueError):
        return min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65536)


def lock_memory() -> bool:
    """Lock this process in memory, so that it never waits for a disk to page in. Returns whether it worked."""
    try:
        return bool(ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT | MCL_FUTURE) == 0)
    except (OSError, AttributeError):
        return False


def protect() -> Protection:
    """Lock this process in memory and exempt it from the OOM killer, as far as allowed."""
    return Protection(lock_memory(), protect_from_oom())


def rename(name: str) -> bool:
    """Show this process under another name in ps, without arguments. Returns whether it worked."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        begin, end = int(fields[45]), int(fields[46])
        if end - begin <= len(name):
            return False
        ctypes.memset(begin, 0, end - begin)
        ctypes.memmove(begin, name.encode(), len(name))
    except (OSError, AttributeError, IndexError, ValueError):
        return False
    return True

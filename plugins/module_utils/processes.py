# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names a process for good: its id and the moment it began, so that a reused id is never mistaken for it."""

from __future__ import annotations

import fcntl
import os
import signal
import time

FIRST_SOCKET = 3  # where socket activation puts the first one
FIRST_INHERITED = 4  # and where spawn_orphan() puts what else a program gets
OUT_OF_THE_WAY = 64  # more than is ever handed on, and far below the limit of open files that hosts have (1024)
HIGHEST_DESCRIPTOR = 65536


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


def command_line(pid):
    """The words of a process's command line; none where there is no such process."""
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


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


def find(word):
    """The process that has exactly this word on its command line, as (id, ticks); None where there is none."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if word in command_line(pid):
            ticks = start_ticks(pid)
            if ticks is not None:
                return int(pid), ticks
    return None


def spawn_orphan(command, log, environment, listener=None, inherited=()):
    """Start ``command`` (a list, its program as a path) as nobody's child, and return its process id.

    It gets the file ``log`` as output, the socket ``listener`` (None: none) as systemd's socket activation would give
    it, and after that, from FIRST_INHERITED on (without a listener, from FIRST_SOCKET), the descriptors ``inherited``.
    nbdkit that stays in the foreground, or is activated so, ends with its parent; an orphan's parent is the system's
    first process, which stays.
    """
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        descriptors = inherited if listener is None else (listener, *inherited)
        _in_middle(command, log, descriptors, listener is not None, environment, writer)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, "rb") as stream:
        return int(stream.read())


def _in_middle(command, log, descriptors, is_activated, environment, writer):
    """In the first child: start the second one, tell its id, and end, so that it becomes an orphan."""
    try:
        os.setsid()
        middle = os.getpid()
        child = os.fork()
        if child == 0:
            _in_orphan(command, log, descriptors, is_activated, environment, middle)
        os.write(writer, str(child).encode())
    finally:
        os._exit(0)


def _in_orphan(command, log, descriptors, is_activated, environment, middle):
    """In the second child: wait until it is an orphan, and become the program."""
    try:
        while os.getppid() == middle:
            time.sleep(0.001)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # First out of the way of the places that they are to have, then there.
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD, OUT_OF_THE_WAY) for each in (null, output, output, *descriptors)]
        for place, descriptor in enumerate(moved):
            os.dup2(descriptor, place)
        os.closerange(len(moved), HIGHEST_DESCRIPTOR)
        if is_activated:
            environment = dict(environment, LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        os.execve(command[0], command, environment)
    except (OSError, ValueError) as error:
        with open(log, "a", encoding="utf-8") as stream:
            stream.write(f"{command[0]} could not be started: {error}\n")
    finally:
        os._exit(127)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts programs that outlive the module which starts them."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from typing import Mapping, NamedTuple, NoReturn, Sequence

FIRST_SOCKET = 3  # the descriptor of the first socket in socket activation
FIRST_INHERITED = 4  # the first of the other descriptors that spawn_orphan() passes on
OUT_OF_THE_WAY = 64  # more than are ever passed on, and far below the usual limit of open files (1024)
HIGHEST_DESCRIPTOR = 65536


class Program(NamedTuple):
    """A program to start. ``is_activated``: the first of ``descriptors`` is a socket, as with socket activation."""

    command: list[str]
    log: str
    environment: Mapping[str, str]
    descriptors: Sequence[int]
    is_activated: bool
    lifetime: int


def spawn_orphan(
    command: list[str],
    log: str,
    environment: Mapping[str, str],
    listening: int | None = None,
    inherited: Sequence[int] = (),
    lifetime: int = 0,
) -> int:
    """Start ``command`` (a list, its program as a path) as an orphan, and return its process id.

    It gets the file ``log`` as output, the socket ``listening`` (None: none) as with systemd's socket activation, and
    after that, from FIRST_INHERITED on (without a socket, from FIRST_SOCKET), the descriptors ``inherited``. nbdkit in
    the foreground, or socket-activated, ends with its parent; an orphan's parent is init, which stays. The kernel ends
    the program after ``lifetime`` seconds (0: never).
    """
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        descriptors = inherited if listening is None else (listening, *inherited)
        _in_middle(Program(command, log, environment, descriptors, listening is not None, lifetime), writer)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, "rb") as stream:
        return int(stream.read())


def _in_middle(program: Program, writer: int) -> NoReturn:
    """In the first child: start the second child, report its id, and exit, so that it becomes an orphan."""
    try:
        os.setsid()
        middle = os.getpid()
        child = os.fork()
        if child == 0:
            _in_orphan(program, middle)
        os.write(writer, str(child).encode())
    finally:
        os._exit(0)


def _in_orphan(program: Program, middle: int) -> NoReturn:
    """In the second child: wait until it is an orphan, then exec the program."""
    try:
        while os.getppid() == middle:
            time.sleep(0.001)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY)
        output = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        # First away from the numbers that they will get, then there.
        moved = [
            fcntl.fcntl(each, fcntl.F_DUPFD, OUT_OF_THE_WAY) for each in (null, output, output, *program.descriptors)
        ]
        for place, descriptor in enumerate(moved):
            os.dup2(descriptor, place)
        os.closerange(len(moved), HIGHEST_DESCRIPTOR)
        environment = dict(program.environment)
        if program.is_activated:
            environment.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(program.lifetime)  # inherited across exec
        os.execve(program.command[0], program.command, environment)
    except (OSError, ValueError) as error:
        with open(program.log, "a", encoding="utf-8") as stream:
            stream.write(f"{program.command[0]} could not be started: {error}\n")
    finally:
        os._exit(127)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes for calls that may never return, so that no caller has to wait for them.

A thread blocked in the kernel cannot be ended and keeps its whole process from ending. So each call that may hang runs
in its own process, started before anything is frozen. From then on it needs no new memory, disk or program to serve a
request. It outlives its parent: when that is gone, it completes the last request, cleans up and ends.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import threading
import time
from typing import Any, Callable, Dict, Iterator, Sequence

from ..host.clock import Deadline
from ..host.processes import identity
from . import daemon

NAME = "thaw-worker"
"""The name in ps: no pattern for OpenISB, Ansible or Python matches it."""

END_PATIENCE = 1.0
"""Seconds to wait for a worker's end. A hung worker is left behind."""

READY, END = "ready", "end"
POLL = 0.02
READ_SIZE = 65536

CarryOut = Callable[[str], Dict[str, Any]]
"""Handles a request in the worker and returns the answer. If it raises, the answer has the ``error``."""


class Worker:
    """One worker process, as seen by its parent.

    ``carry_out`` is called in the process with one request at a time, and returns the answer. At the end it is called
    with ``END``. ``keep``: the descriptors that it needs. ``locked``: its memory is locked.
    """

    def __init__(self, carry_out: CarryOut, keep: Sequence[int] = (), locked: bool = False) -> None:
        requests, self._to = os.pipe()
        self._from, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _work(carry_out, requests, answers, keep, locked)
        os.close(requests)
        os.close(answers)
        os.set_blocking(self._from, False)
        self.identity = identity(self.pid)
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._rest = b""
        self._ended = False
        self._lock = threading.Lock()
        self._heard = 0

    def ready(self, seconds: float) -> bool:
        """Whether it is ready for requests within that time. It reports this without being asked."""
        return self.answer(0, seconds) is not None

    def ask(self, request: str) -> int:
        """Send a request without waiting. Returns its number, for ``answer``."""
        with self._lock:
            with contextlib.suppress(OSError):  # the worker has ended; ``gone`` reports that
                os.write(self._to, request.encode() + b"\n")
            return next(self._numbers)

    def answer(self, number: int, seconds: float, cancelled: threading.Event | None = None) -> dict[str, Any] | None:
        """The answer to a request; None if there is none in time, before ``cancelled``, or ever."""
        deadline = Deadline(seconds)
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        while True:
            self._listen()
            if number in self._answers or self._ended or not deadline.left():
                return self._answers.get(number)
            if cancelled is not None and cancelled.is_set():
                return None
            poll.poll(min(POLL, deadline.left()) * 1000)

    def gone(self) -> bool:
        """Whether it has ended, so that the outcome of unanswered requests is unknown."""
        self._listen()
        return self._ended

    def _listen(self) -> None:
        """Read its answers. Several threads may wait for answers."""
        with self._lock:
            while not self._ended:
                try:
                    piece = os.read(self._from, READ_SIZE)
                except BlockingIOError:
                    return
                self._ended = not piece
                *lines, self._rest = (self._rest + piece).split(b"\n")
                for line in lines:
                    self._answers[self._heard] = json.loads(line)
                    self._heard += 1

    def close(self) -> None:
        """Have it end, and wait briefly for that."""
        with self._lock:
            if self._to < 0:
                return
            os.close(self._to)
            os.close(self._from)
            self._to, self._from, self._ended = -1, -1, True
        deadline = Deadline(END_PATIENCE)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self.pid, os.WNOHANG)[0] == 0 and deadline.left():
                time.sleep(0.002)


def _work(carry_out: CarryOut, requests: int, answers: int, keep: Sequence[int], locked: bool) -> None:
    """The main function of the process."""
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon.ignore(number)
        daemon.detach([requests, answers, *keep])
        daemon.rename(NAME)
        if locked:
            daemon.protect()
        _say(answers, {READY: True})
        for request in _lines(requests):
            _say(answers, _carry_out(carry_out, request))
        _carry_out(carry_out, END)
    finally:
        os._exit(0)


def _carry_out(carry_out: CarryOut, request: str) -> dict[str, Any]:
    try:
        return carry_out(request)
    except Exception as failure:  # the requester must get an answer
        return {"error": f"{type(failure).__name__}: {failure}"}


def _say(answers: int, what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the requester is gone
        os.write(answers, json.dumps(what).encode() + b"\n")


def _lines(requests: int) -> Iterator[str]:
    rest = b""
    while True:
        piece = os.read(requests, READ_SIZE)
        if not piece:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line.decode() for line in lines)

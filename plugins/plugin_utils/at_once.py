# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks many hosts at once, each in a thread of its own, and has an answer of each in time, whatever connections do."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.host import open_files

Outcomes = queue.SimpleQueue[tuple[str, dict[str, Any]]]


CONNECTING = 64
"""How many connections are opened at the same time: hundreds would slow each other down, and sshd of a jump host would
refuse some."""


def ask_all(tasks: Mapping[str, tuple[Any, ...]], timeout: float, most: int | None = None) -> dict[str, Any]:
    """Call each task, a function with its arguments, in a thread of its own; return the answers by name.

    Each function is given its name first and the outcomes last, into which it puts its name with its answer. One that
    has put none after ``timeout`` seconds is given up: its answer is then that the host is unreachable, and the
    connection programs of its thread are ended, but those of no other. ``most``: how many may run at the same time, if
    not all; the others wait for their turn, and those whose turn has not come in time are never called.
    """
    open_files.allow_all()
    end = time.monotonic() + timeout
    outcomes: Outcomes = queue.SimpleQueue()
    turns, over = threading.Semaphore(most or max(len(tasks), 1)), threading.Event()
    threads = {
        name: threading.Thread(target=_in_turn, args=(turns, over, function, name, *arguments, outcomes), daemon=True)
        for name, (function, *arguments) in tasks.items()
    }
    for thread in threads.values():
        thread.start()
    answers: dict[str, Any] = {}
    while len(answers) < len(tasks):
        try:
            name, answer = outcomes.get(timeout=max(end - time.monotonic(), 0.0))
        except queue.Empty:
            break
        answers[name] = answer
    over.set()
    for silent in set(tasks) - set(answers):
        answers[silent] = {"ok": False, "unreachable": True, "error": f"no answer within {timeout:g} s"}
        _end_programs_of(threads[silent])
    return answers


def _in_turn(turns: threading.Semaphore, over: threading.Event, function: Callable[..., None], *args: Any) -> None:
    """In a thread."""
    with turns:
        if not over.is_set():
            function(*args)


def _end_programs_of(thread: threading.Thread) -> None:
    """Terminate the processes that a thread has started; none where the kernel does not tell whose they are."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{thread.native_id}/children", encoding="ascii") as stream:
        for child in stream.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGTERM)

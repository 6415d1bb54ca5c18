# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One poll of a host at a time, whose answer serves all tasks of this playbook that follow a job there.

Every task runs in a process of its own, and a hundred servers follow as many jobs on one backup server. Whoever holds
the host's lock polls it; the others read what that poll has found, from a file in Ansible's temporary folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

TURN = 0.1
"""Seconds from one look at the file to the next."""

SPACING = 0.02
"""Seconds from one poll to the next for each job that was found: many jobs begin and end at the same time."""

Jobs = dict[str, Any]


class Answer(NamedTuple):
    """What the poll with this number found."""

    number: int
    jobs: Jobs


class Polls:
    """The polls of one host. ``folder``: of this playbook; ``host``: a name that identifies it there."""

    def __init__(self, folder: str, host: str) -> None:
        self._path = os.path.join(folder, f"jobs-{hashlib.sha256(host.encode()).hexdigest()[:24]}")
        self._asked = 0.0
        before = self._read()
        self._seen = before.number if before else 0  # what was found before says nothing of a job that begins now

    def look(self, ask: Callable[[Jobs], Jobs]) -> Jobs:
        """The jobs as the next poll finds them, which this process makes if no other one does.

        ``ask``: makes it, told what the poll before has found. Raises what ``ask`` raises; then another process polls.
        """
        while True:
            answer = self._newer()
            if answer:
                return answer.jobs
            with self._turn() as mine:
                if mine:
                    return (self._newer() or self._poll(ask)).jobs
            time.sleep(TURN)

    def _poll(self, ask: Callable[[Jobs], Jobs]) -> Answer:
        before = self._read()
        number, known = before or Answer(0, {})
        time.sleep(max(0.0, self._asked + SPACING * len(known) - time.monotonic()))
        self._asked = time.monotonic()
        answer = Answer(number + 1, ask(known))
        self._write(answer)
        self._seen = answer.number
        return answer

    def _newer(self) -> Answer | None:
        """An answer that this process has not seen yet."""
        answer = self._read()
        if answer is None or answer.number <= self._seen:
            return None
        self._seen = answer.number
        return answer

    def _read(self) -> Answer | None:
        with contextlib.suppress(FileNotFoundError), open(self._path + ".json", encoding="utf-8") as stream:
            return Answer(*json.load(stream))
        return None

    def _write(self, answer: Answer) -> None:
        with open(self._path + ".new", "w", encoding="utf-8") as stream:
            json.dump(answer, stream)
        os.replace(self._path + ".new", self._path + ".json")

    @contextlib.contextmanager
    def _turn(self) -> Iterator[bool]:
        """Yield whether it is this process's turn to poll; the kernel ends it with the process."""
        with open(self._path + ".lock", "a", encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

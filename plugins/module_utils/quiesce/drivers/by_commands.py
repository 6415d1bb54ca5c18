# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common code of drivers that freeze with one command and thaw with another."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Callable, Iterator

from ...host import processes
from ...host.clock import Deadline
from ...host.commands import GRACE, Finished, run
from ...host.errors import DriverError
from ...host.users import as_user, environment_of
from .base import Driver

HELD = "held"
PROCESS = "process"


class CommandsDriver(Driver):
    """Marks: ``held`` (it may be frozen) and ``process`` (the identity of the command that may have frozen it)."""

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self._turn = threading.Lock()

    def freeze_command(self) -> list[str]:
        """The command that freezes."""
        raise NotImplementedError

    def thaw_command(self) -> list[str]:
        """The command that thaws."""
        raise NotImplementedError

    def check_frozen(self, finished: Finished, seconds: float) -> None:
        """Raise DriverError unless the freeze command succeeded."""
        raise NotImplementedError

    def check_thawed(self, finished: Finished, seconds: float) -> None:
        """Raise DriverError if something is still frozen after the thaw command."""
        raise NotImplementedError

    def frozen(self, seconds: float) -> bool | None:
        """Whether it is frozen; None: unknown."""
        raise NotImplementedError

    def paths(self) -> dict[str, str]:
        try:
            environment = self.environment()
        except DriverError:  # ``check`` reports this
            return {}
        return {f"temporary files of {self.name}'s commands": environment.get("TMPDIR", "/tmp")}

    def environment(self) -> dict[str, str]:
        """The environment of the commands."""
        return environment_of(self.values["user"])

    def freeze(self) -> None:
        with self._turn:
            self.stop_if_cancelled()
            self.mark(HELD, True)
            deadline = Deadline(self.timeout)
            try:
                finished = self.call(self.freeze_command(), deadline.left(), self.cancelled, self._mark_process)
            finally:
                # A thaw may have stopped waiting and cleared the marks.
                self.mark(HELD, True)
            self.check_frozen(finished, deadline.left())

    def _mark_process(self, pid: int) -> None:
        self.mark(PROCESS, processes.identity(pid))

    def thaw(self) -> list[str]:
        if HELD not in self.marks:
            return []
        with self._after_the_freeze():
            deadline = Deadline(self.timeout)
            broken = []
            if self.frozen(deadline.left() / 3) is False:
                broken.append(f"{self.name}: it was thawed by somebody else")
            finished = self.call(self.thaw_command(), deadline.left())
            self.check_thawed(finished, deadline.left())
            self.clear_marks()
            return broken

    @contextlib.contextmanager
    def _after_the_freeze(self) -> Iterator[None]:
        """Wait for the end of a freeze that was given up, but not forever: the thaw may be what ends it."""
        turn = self._turn.acquire(timeout=2 * GRACE)
        try:
            if PROCESS in self.marks:
                processes.end(self.marks[PROCESS], GRACE)
            yield
        finally:
            if turn:
                self._turn.release()

    def status(self) -> dict[str, Any]:
        return {"frozen": self.frozen(self.timeout)}

    def call(
        self,
        arguments: list[str],
        seconds: float,
        cancelled: threading.Event | None = None,
        started: Callable[[int], None] | None = None,
    ) -> Finished:
        """Run a command as the driver's user. Raises DriverError."""
        try:
            command = as_user(arguments, self.values["user"])
            return run(command, self.environment(), seconds, cancelled, started, group=True)
        except DriverError as error:
            raise DriverError(f"{self.name}: {error}") from error

    def ask(self, arguments: list[str], seconds: float, answers: dict[int, bool]) -> tuple[bool | None, str]:
        """A command's answer by its exit status (None if that is no answer), and its output."""
        try:
            finished = self.call(arguments, seconds)
        except DriverError as error:
            return None, str(error)
        return answers.get(finished.status), finished.output

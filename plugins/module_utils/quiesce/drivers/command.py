# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes and thaws with the site's own commands."""

from __future__ import annotations

import os

from ...host.clock import Deadline
from ...host.commands import Finished, quoted, told
from ...host.errors import DriverError
from ...host.options import Option
from .base import Surroundings
from .by_commands import CommandsDriver

FREEZE, THAW, STATUS, CHECK = "freeze", "thaw", "status", "check"
ANSWERS = {0: True, 1: False}


class CommandDriver(CommandsDriver):
    """Commands as lists, run without a shell. Each gets the run id in ``OPENISB_RUN_ID``."""

    name = "command"
    options = {
        FREEZE: Option("command", "The command that freezes.", required=True),
        THAW: Option("command", "The command that thaws; also run after a failed freeze, and again.", required=True),
        STATUS: Option("command", "The command that exits with 0 if frozen, 1 if not, anything else if unknown."),
        CHECK: Option("command", "The command that exits with 0 if a freeze would work, else prints why not."),
        "freeze_statuses": Option("statuses", "Exit statuses of a successful freeze.", default=[0]),
        "thaw_statuses": Option("statuses", "Exit statuses of a successful thaw.", default=[0]),
        "environment": Option("dict", "Additional environment variables.", default={}),
        "user": Option("str", "The server's user that runs the commands, if not the holder's."),
    }

    def paths(self) -> dict[str, str]:
        commands = {f"the {kind} command": self.values[kind][0] for kind in (FREEZE, THAW, STATUS) if self.values[kind]}
        return {**super().paths(), **self._home(), **commands}

    def _home(self) -> dict[str, str]:
        try:
            return {"the commands' home; 'environment' can set another HOME": self.environment()["HOME"]}
        except DriverError:  # ``check`` reports this
            return {}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.values["environment"], "OPENISB_RUN_ID": self.run_id}

    def freeze_command(self) -> list[str]:
        return self._command(FREEZE)

    def thaw_command(self) -> list[str]:
        return self._command(THAW)

    def _command(self, kind: str) -> list[str]:
        return list(self.values[kind] or [])

    def check(self, surroundings: Surroundings) -> str:
        deadline = Deadline(self.timeout)
        for kind in (FREEZE, THAW, STATUS, CHECK):
            if self.values[kind]:
                self._check_program(kind, self.values[kind][0], deadline)
        self._check_not_frozen(deadline)
        said = self._check_by_command(deadline)
        return f"can freeze with '{quoted(self.freeze_command())}'{told(said)}"

    def _check_program(self, kind: str, program: str, deadline: Deadline) -> None:
        if not os.path.isfile(program):
            raise DriverError(f"command: there is no file {program}: put it there, or correct '{kind}'")
        if self.call(["test", "-x", program], deadline.left()).status != 0:
            by = f" by {self.values['user']}" if self.values["user"] else ""
            raise DriverError(f"command: {program} cannot be executed{by}: use chmod, or correct '{kind}'")

    def _check_not_frozen(self, deadline: Deadline) -> None:
        if not self.values[STATUS]:
            return
        frozen, said = self._status(deadline.left())
        if frozen is None:
            command = quoted(self.values[STATUS])
            raise DriverError(f"command: '{command}' does not report whether it is frozen{told(said)}")
        if frozen:
            raise DriverError(
                "command: it is already frozen by somebody else: wait until that ends, or thaw it with "
                f"'{quoted(self.thaw_command())}' if nothing needs it"
            )

    def _check_by_command(self, deadline: Deadline) -> str:
        if not self.values[CHECK]:
            return ""
        finished = self.call(self.values[CHECK], deadline.left())
        if finished.status != 0:
            raise DriverError(f"command: {_outcome(self.values[CHECK], finished)}")
        return finished.output

    def check_frozen(self, finished: Finished, seconds: float) -> None:
        if finished.status not in self.values["freeze_statuses"]:
            raise DriverError(f"command: {_outcome(self.freeze_command(), finished)}")
        if self.values[STATUS]:
            frozen, said = self._status(seconds)
            if not frozen:
                raise DriverError(
                    f"command: after the freeze, '{quoted(self.values[STATUS])}' does not report it frozen{told(said)}"
                )

    def check_thawed(self, finished: Finished, seconds: float) -> None:
        if finished.status not in self.values["thaw_statuses"]:
            raise DriverError(f"command: {_outcome(self.thaw_command(), finished)}")
        if self.frozen(seconds):
            raise DriverError(f"command: after the thaw, '{quoted(self.values[STATUS])}' still reports it frozen")

    def frozen(self, seconds: float) -> bool | None:
        return self._status(seconds)[0] if self.values[STATUS] else None

    def _status(self, seconds: float) -> tuple[bool | None, str]:
        return self.ask(self.values[STATUS], seconds, ANSWERS)


def _outcome(arguments: list[str], finished: Finished) -> str:
    return f"'{quoted(arguments)}' failed (exit status {finished.status}){told(finished.output)}"

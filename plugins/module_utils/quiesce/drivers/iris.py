# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Has InterSystems IRIS stop writing to its databases (``ExternalFreeze``), through its command-line session.

Written from InterSystems' documentation of ``Backup.General``; not tested with the product itself.
"""

from __future__ import annotations

import os

from ...host.commands import Finished, quoted, told
from ...host.errors import DriverError
from ...host.options import Option
from .base import Surroundings
from .by_commands import CommandsDriver

YES, NO = 5, 3
"""Exit statuses of IRIS: YES is done or suspended; NO is failed or not suspended."""


class IrisDriver(CommandsDriver):
    """One instance."""

    name = "iris"
    options = {
        "instance": Option("str", "The instance's name.", required=True),
        "iris": Option("path", "The iris program.", default="/usr/bin/iris"),
        "user": Option("str", "The server's user that runs iris, if not the holder's."),
        "external_freeze_timeout": Option(
            "number", "Seconds of a freeze after which IRIS blocks updates; 0 for its default, 600.", default=0
        ),
        "wd_suspend_limit": Option(
            "number", "Seconds after which IRIS ends a freeze on its own; 0 for never.", default=0
        ),
    }

    def paths(self) -> dict[str, str]:
        return {**super().paths(), "iris": self.values["iris"]}

    def _session(self, call: str) -> list[str]:
        return [self.values["iris"], "session", self.values["instance"], "-U%SYS", f"##Class(Backup.General).{call}"]

    def freeze_command(self) -> list[str]:
        """ExternalFreezeTimeOut is the seventh argument, WDSuspendLimit the tenth."""
        arguments = [""] * 10
        for place, option in ((6, "external_freeze_timeout"), (9, "wd_suspend_limit")):
            if self.values[option]:
                arguments[place] = f"{self.values[option]:.0f}"
        return self._session(f"ExternalFreeze({','.join(arguments).rstrip(',')})")

    def thaw_command(self) -> list[str]:
        return self._session("ExternalThaw()")

    def check(self, surroundings: Surroundings) -> str:
        program = self.values["iris"]
        if not os.access(program, os.X_OK):
            raise DriverError(f"iris: there is no program {program}: install IRIS, or correct 'iris'")
        frozen, said = self._suspended(self.timeout)
        if frozen is None:
            raise DriverError(
                f"iris: instance {self.values['instance']} does not report whether it is frozen: make sure that it "
                f"runs and that the user may use it without a password{told(said)}"
            )
        if frozen:
            raise DriverError(
                f"iris: instance {self.values['instance']} is already frozen by somebody else: wait until that ends, "
                f"or thaw it with '{quoted(self.thaw_command())}' if nothing needs it"
            )
        return f"can freeze instance {self.values['instance']} of IRIS"

    def check_frozen(self, finished: Finished, seconds: float) -> None:
        if finished.status != YES:
            raise DriverError(f"iris: the freeze failed (exit status {finished.status}){told(finished.output)}")

    def check_thawed(self, finished: Finished, seconds: float) -> None:
        """A thaw that failed may have found nothing to thaw."""
        if finished.status != YES and self.frozen(seconds) is not False:
            raise DriverError(f"iris: the thaw failed (exit status {finished.status}){told(finished.output)}")

    def frozen(self, seconds: float) -> bool | None:
        return self._suspended(seconds)[0]

    def _suspended(self, seconds: float) -> tuple[bool | None, str]:
        return self.ask(self._session("IsWDSuspendedExt()"), seconds, {YES: True, NO: False})

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the site's own."""

from __future__ import annotations

import json
import os
from typing import Any

from ..quiesce.commands import quoted
from ..quiesce.drivers.base import Option
from ..quiesce.users import environment_of
from .base import Check, Surroundings, telling
from .bench import Bench
from .errors import CheckFailed

ROOT = "root"


class CommandCheck(Check):
    """A command as a list, run without a shell; it is told of all servers of the drill as JSON on its input.

    It finds the drill in ``OPENISB_DRILL``, and in ``OPENISB_SCRATCH`` a folder that is removed after it. It has no
    rights, unless the site names root as its user.
    """

    name = "command"
    options = {
        "argv": Option("command", "The command, which begins with a path of this host.", required=True),
        "environment": Option("dict", "More environment variables.", default={}),
        "user": Option("str", "The user of this host that it runs as; 'root', for a program that needs all rights."),
        "chdir": Option("path", "The folder of this host that it runs in.", default="/"),
        "accept": Option("statuses", "Exit statuses that mean that all is well.", default=[0]),
    }
    network = True  # the site knows what it asks

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        super().__init__(values, surroundings)
        self.confined = values["user"] != ROOT

    def account(self) -> str:
        return str(self.values["user"] or super().account())

    def subject(self) -> str:
        return quoted(self.values["argv"])

    def run(self, bench: Bench) -> str:
        if not self.confined and os.geteuid() != 0:
            raise CheckFailed(
                "the check is to run as root, and is not run by root: have root run it, or correct 'user'"
            )
        drill = str(self.surroundings.context.get("drill", ""))
        own = {"OPENISB_DRILL": drill, "OPENISB_SCRATCH": bench.folder("scratch")}
        environment = {**environment_of(self.account() or None), **self.values["environment"], **own}
        told = json.dumps(self.surroundings.context)
        finished = bench.call(self.values["argv"], environment, told, self.values["chdir"])
        if finished.rc not in self.values["accept"]:
            raise CheckFailed(f"exit status {finished.rc}: {telling(finished.output)}")
        return telling(finished.output) if finished.output else f"exit status {finished.rc}"

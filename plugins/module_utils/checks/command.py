# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A check by the site's own command."""

from __future__ import annotations

import json
import os
from typing import Any

from ..host.commands import quoted
from ..host.options import Option
from ..host.users import environment_of
from .base import Check, Surroundings, telling
from .bench import Bench
from .errors import CheckFailed

ROOT = "root"


class CommandCheck(Check):
    """A command as a list, run without a shell. Its input describes all servers of the drill, as JSON.

    ``OPENISB_DRILL`` is the drill, and ``OPENISB_SCRATCH`` a directory that is removed afterwards. It has no privileges
    unless the site sets root as its user.
    """

    name = "command"
    label = "Command"
    proves = True
    options = {
        "argv": Option("command", "The command; its first item is a path on this host.", required=True),
        "environment": Option("dict", "Additional environment variables.", default={}),
        "user": Option("str", "The user of this host that it runs as; 'root' if it needs all privileges."),
        "chdir": Option("path", "The directory of this host that it runs in.", default="/"),
        "accept": Option("statuses", "Exit statuses of a passed check.", default=[0]),
    }
    network = True  # the site is responsible for its command

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
                "the check must run as root, but this user is not root: have root run it, or correct 'user'"
            )
        drill = str(self.surroundings.context.get("drill", ""))
        own = {"OPENISB_DRILL": drill, "OPENISB_SCRATCH": bench.folder("scratch")}
        environment = {**environment_of(self.account() or None), **self.values["environment"], **own}
        told = json.dumps(self.surroundings.context)
        finished = bench.call(self.values["argv"], environment, told, self.values["chdir"])
        if finished.rc not in self.values["accept"]:
            raise CheckFailed(f"exit status {finished.rc}: {telling(finished.output)}")
        return telling(finished.output) if finished.output else f"exit status {finished.rc}"

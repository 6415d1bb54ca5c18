# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A command of the site's own."""

from __future__ import annotations

import json
import os
import pwd

from ..quiesce.commands import quoted
from ..quiesce.drivers.base import Option
from ..quiesce.users import as_user, environment_of
from .base import Check, telling
from .bench import Bench
from .errors import CheckFailed


class CommandCheck(Check):
    """A command as a list, run without a shell; it is told of all servers of the drill as JSON on its input.

    It finds the drill in ``OPENISB_DRILL``, and in ``OPENISB_SCRATCH`` a folder that is removed after it.
    """

    name = "command"
    options = {
        "argv": Option("command", "The command, which begins with a path of this host.", required=True),
        "environment": Option("dict", "More environment variables.", default={}),
        "user": Option("str", "The user of this host that it runs as, if it is not the module's."),
        "chdir": Option("path", "The folder of this host that it runs in.", default="/"),
        "accept": Option("statuses", "Exit statuses that mean that all is well.", default=[0]),
    }
    network = True  # the site knows what it asks

    def subject(self) -> str:
        return quoted(self.values["argv"])

    def run(self, bench: Bench) -> str:
        drill = str(self.surroundings.context.get("drill", ""))
        own = {"OPENISB_DRILL": drill, "OPENISB_SCRATCH": bench.folder("scratch")}
        user = self.values["user"]
        argv = as_user(self.values["argv"], user)
        environment = {**environment_of(user), **self.values["environment"], **own}
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(own["OPENISB_SCRATCH"], entry.pw_uid, entry.pw_gid)
        told = json.dumps(self.surroundings.context)
        finished = bench.call(argv, environment, told, self.values["chdir"])
        if finished.rc not in self.values["accept"]:
            raise CheckFailed(f"exit status {finished.rc}: {telling(finished.output)}")
        return telling(finished.output) if finished.output else f"exit status {finished.rc}"

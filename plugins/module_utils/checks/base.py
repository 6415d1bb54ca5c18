# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every check is: its options, and how it is run."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ..quiesce.drivers.base import Option
from .bench import Bench
from .places import Places

LINE = 300
"""Characters of a command's words that one line of a result repeats."""

COMMON = {
    "timeout": Option("number", "Seconds that the check may take.", default=600),
    "what": Option("str", "What is checked, for reports, if the check's own words do not suit."),
}


class Surroundings(NamedTuple):
    """What is there on this host.

    ``devices``: volume -> device. ``context``: what checks by commands are told. Both as the drill knows them.
    ``user``: as whom programs work on the copy; empty for a user that owns nothing. ``disposable``: whether what is
    mounted goes with the drill. ``unconfined``: whether a host will do that cannot shut programs off.
    """

    places: Places
    devices: dict[str, str]
    context: dict[str, Any]
    user: str = ""
    disposable: bool = False
    unconfined: bool = False


class Check:
    """Base of the checks. Each is made anew for one run, in the process that does it.

    Paths in the options are production's, unless an option's help says otherwise.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Option]] = {}
    network: ClassVar[bool] = False
    """Whether what it starts may reach the network. A copied database must not: it would talk to production."""
    confined: bool = False
    """Whether it starts programs that read what is in the copy: they have no rights, and nothing to gain."""

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        self.values = values
        self.timeout = float(values["timeout"])
        self.surroundings = surroundings
        self.places = surroundings.places

    @property
    def what(self) -> str:
        """What is checked, in a few words."""
        return str(self.values["what"] or self.subject())

    def subject(self) -> str:
        """What is checked, in the check's own words."""
        raise NotImplementedError

    def account(self) -> str:
        """The user of this host that confined programs run as; empty for one that owns nothing."""
        return self.surroundings.user

    def run(self, bench: Bench) -> str:
        """Check, and return what was found, in one line. Raises CheckFailed, OSError and DriverError where it is not
        as it has to be. Leaves nothing running."""
        raise NotImplementedError


def telling(output: str, *sought: str) -> str:
    """The line of an output that says most: the first with the first of these words that is there; else its last."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    found = [line for word in sought for line in lines if word in line]
    return (found or lines[-1:] or ["it said nothing"])[0][:LINE]


def first_line(output: str) -> str:
    """The first line of an output."""
    return telling(output, "")  # which is in every line

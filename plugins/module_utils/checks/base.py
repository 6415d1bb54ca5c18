# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The base class of checks: their options, and how they run."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ..host.options import Option
from .bench import Bench
from .places import Places

LINE = 300
"""Characters of a command's output that one line of a result repeats."""

COMMON = {
    "timeout": Option("number", "Seconds that the check may take.", default=600),
    "what": Option("str", "What is checked, for reports, instead of the check's own text."),
}


class Surroundings(NamedTuple):
    """What is available on this host.

    ``devices``: volume -> device. ``context``: the input of command checks. Both come from the drill.
    ``user``: the user that programs run as on the copy; empty for a user that owns nothing. ``disposable``: whether the
    mounts are discarded with the drill. ``unconfined``: whether a host that cannot isolate programs is accepted.
    """

    places: Places
    devices: dict[str, str]
    context: dict[str, Any]
    user: str = ""
    disposable: bool = False
    unconfined: bool = False


class Check:
    """Base of the checks. Each is created for one execution, in the process that executes it.

    Paths in the options are production's, unless an option's help says otherwise.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    """Its name in reports."""
    proves: ClassVar[bool] = False
    """Whether a server on which it passes is proven to be usable."""
    options: ClassVar[dict[str, Option]] = {}
    network: ClassVar[bool] = False
    """Whether its programs may use the network. A copied database must not: it would talk to production."""
    confined: bool = False
    """Whether it starts programs that read the content of the copy: they run without privileges."""

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        self.values = values
        self.timeout = float(values["timeout"])
        self.surroundings = surroundings
        self.places = surroundings.places

    @property
    def what(self) -> str:
        """A short name of what is checked."""
        return str(self.values["what"] or self.subject())

    def subject(self) -> str:
        """The check's own name of what is checked."""
        raise NotImplementedError

    def account(self) -> str:
        """The user of this host that confined programs run as; empty for a user that owns nothing."""
        return self.surroundings.user

    def run(self, bench: Bench) -> str:
        """Check, and return the finding in one line. Leaves nothing running.

        Raises CheckFailed, OSError or DriverError if the check fails.
        """
        raise NotImplementedError


def telling(output: str, *sought: str) -> str:
    """The most telling line of an output: the first with the first of these words that occurs; else the last."""
    lines = [" ".join(line.split()) for line in output.split("\n") if line.strip()]
    found = [line for word in sought for line in lines if word in line]
    return (found or lines[-1:] or ["it printed nothing"])[0][:LINE]


def first_line(output: str) -> str:
    """The first line of an output."""
    return telling(output, "")  # every line contains it

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quiesces all servers of a MEDITECH ring through MBF, the vendor's command line, on a machine that has it.

Only an exit code that the site lets pass, with a success of every server in the answer, is a quiesce. After anything
else the ring counts as quiesced: it is unquiesced until MBF says that this has succeeded. Where the listener may still
be at work on the quiesce, as after a timeout, that is done once more later.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ..errors import DriverError
from ..mbf import exposure
from ..mbf.answers import Census
from ..mbf.client import Client
from ..mbf.codes import Verdict
from ..mbf.settings import ARGUMENT, REFUSE, Settings
from .base import Driver, Option, Surroundings

QUIESCED = "quiesced"
SERVERS = "servers"
AGAIN = "again"

CENSUS_TIMEOUT = 20.0
"""Seconds for a census at most: a holder has to be armed in 30."""

MOST_BACKOFF = 60.0
"""Seconds between two unquiesces at most: a wrong password at twice a second would lock the account."""


class MbfDriver(Driver):
    """One ring. Marks: ``quiesced`` (since when, by the wall clock), ``servers`` (that must be unquiesced), ``again``
    (until when, by the wall clock, the listener may still come to quiesce).
    """

    name = "mbf"
    options = {
        "executable": Option("path", "MBF, or the site's own wrapper of it.", required=True),
        "intermediaries": Option("list", "The listeners, each host or host:port.", required=True),
        "user": Option("str", "Who logs in there."),
        "password_file": Option("path", "A file that has the password in its first line."),
        "password_by": Option("str", "How MBF gets the password: argument, stdin or session_file.", default=ARGUMENT),
        "on_exposed_password": Option("str", "refuse or warn where other users could read it.", default=REFUSE),
        "session_file": Option("path", "MBF's own session file (F=)."),
        "mode": Option("str", "force or quiet (M=)."),
        "seconds": Option("number", "What MBF is told as its own timeout (T=); 0: nothing.", default=90),
        "proceed": Option("list", "Exit codes that let a run go on: 0, and of 1, 10 and 11 yours.", default=[0]),
        "timeout": Option("number", "Seconds that one freeze or thaw may take.", default=30),
        "settle": Option("number", "Seconds in which a quiesce of unknown outcome may still hold.", default=30),
        "environment": Option("dict", "More environment variables for MBF.", default={}),
    }

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        exposure.check_policy(values["on_exposed_password"])
        self.settings = Settings(values)
        self.client = Client(self.settings)
        self._servers: list[str] = []
        self._backoff = 0.0
        self._not_before = 0.0
        self._waits_for = ""

    def paths(self) -> dict[str, str]:
        found = {"MBF": self.settings.folder}
        if self.settings.secret_file:
            found["MBF's password"] = self.settings.secret_file
        return found

    def check(self, surroundings: Surroundings) -> str:
        executable = self.settings.executable
        if not (os.path.isfile(executable) and os.access(executable, os.X_OK)):
            raise DriverError(f"mbf: there is no program at {executable}: install MBF there, or correct 'executable'")
        exposed = exposure.problems(self.settings)
        if exposed and self.values["on_exposed_password"] == REFUSE:
            raise DriverError(f"mbf: {'; '.join(exposed)}")
        census = self._census()
        found = f"can quiesce {', '.join(census.servers)} ({len(census.drives)} drives)"
        return f"{found}. WARNING: {'; '.join(exposed)}" if exposed else found

    def prepare(self) -> None:
        """Learn which servers must answer."""
        self._servers = self._census().servers

    def _census(self) -> Census:
        return self.client.census(min(self.timeout, CENSUS_TIMEOUT))[0]

    def freeze(self) -> None:
        self.stop_if_cancelled()
        if not self._servers:
            self.prepare()
        begun = time.time()
        settle = float(self.values["settle"])
        self._mark(begun, self._servers, begun + self.timeout + settle)  # as if this process died before the answer
        verdict = Verdict("mbf: the quiesce has not ended", sure=False)
        try:
            verdict = self.client.quiesce(self._servers, self.timeout, self.cancelled)
        finally:
            # A thaw may have come meanwhile and have cleared the marks, while the listener was about to quiesce.
            must = [name for name in self._servers if name not in verdict.without]
            self._mark(begun, must, 0.0 if verdict.sure else time.time() + settle)
        if verdict.problem:
            raise DriverError(f"mbf: the ring was not quiesced: {verdict.problem}")
        self.degraded = [verdict.degraded] if verdict.degraded else []
        self.without = list(verdict.without)

    def _mark(self, begun: float, servers: list[str], again: float) -> None:
        self.mark(SERVERS, list(servers))
        self.mark(AGAIN, again)
        self.mark(QUIESCED, begun)

    def thaw(self) -> list[str]:
        begun = self.marks.get(QUIESCED)
        if not begun:
            return []
        if time.monotonic() < self._not_before:
            raise DriverError(self._waits_for)
        asked = time.time()
        verdict = self.client.unquiesce(self.marks.get(SERVERS, []), self.timeout)
        if verdict.problem:
            self._backoff = min(max(2 * self._backoff, 0.5), MOST_BACKOFF)
            self._wait(self._backoff, f"mbf: the ring may still be quiesced: {verdict.problem}")
        left = self.marks.get(AGAIN, 0.0) - asked
        if left > 0:
            self._wait(
                left,
                f"mbf: the ring was unquiesced, and will be once more in {left:.0f} s, as the outcome of the quiesce "
                "is not known and the listener may be late",
            )
        self.clear_marks()
        return self._broken(asked - begun)

    def _wait(self, seconds: float, text: str) -> None:
        """Have the next thaw come no earlier than in so many seconds. Raises DriverError."""
        self._not_before = time.monotonic() + seconds
        self._waits_for = text
        raise DriverError(text)

    def _broken(self, held: float) -> list[str]:
        limit = self.settings.seconds
        if limit and held >= limit:
            return [f"mbf: the ring was held for {held:.0f} s, and after T={limit} s MBF may have unquiesced by itself"]
        return []

    def status(self) -> dict[str, Any]:
        """MBF does not tell whether a ring is quiesced, so only what this driver did is known."""
        return {"frozen": bool(self.marks.get(QUIESCED)) or None, SERVERS: list(self.marks.get(SERVERS, []))}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quiesces all servers of a MEDITECH ring through MBF, the vendor's command line, on a machine that has it installed.

A quiesce succeeds only with an exit code that the site accepts and a success of every server in the answer. After
anything else the ring may be quiesced: it is unquiesced until MBF reports success. While MEDITECH's listener may still
carry out the quiesce, as after a timeout, the unquiesce is repeated until that is no longer possible.

A server that is gone at the unquiesce does not hold up its ring: the unquiesce is retried a few times, and then the
server is named.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from ...host.errors import DriverError
from ...host.options import Option
from ..mbf import exposure
from ..mbf.answers import Census
from ..mbf.client import Client
from ..mbf.codes import RELEASED, Verdict
from ..mbf.settings import ARGUMENT, REFUSE, UNQUIESCE_TIMEOUT, Settings
from .base import Driver, Surroundings

QUIESCED = "quiesced"
SERVERS = "servers"
AGAIN = "again"

CENSUS_TIMEOUT = 20.0
"""Maximum seconds for a census: a holder must be armed within 30."""

AGAIN_EVERY = 5.0
"""Seconds between unquiesces while MEDITECH's listener may still quiesce: servers stand no longer than that."""

PATIENCE = (0.5, 1.0, 2.0)
"""Seconds between unquiesces for a server that does not answer while others do: it may be back soon."""

MOST_BACKOFF = 60.0
"""Maximum seconds between unquiesces: a wrong password twice a second would lock the account."""


class MbfDriver(Driver):
    """One ring.

    Marks: ``quiesced`` (since when, by the wall clock), ``servers`` (that must be unquiesced), ``again`` (until when,
    by the wall clock, MEDITECH's listener may still quiesce).
    """

    name = "mbf"
    options = {
        "executable": Option("path", "MBF, or the site's wrapper for it.", required=True),
        "intermediaries": Option("list", "MEDITECH's listeners, each as host or host:port.", required=True),
        "user": Option("str", "The user who logs in there."),
        "password_file": Option("path", "A file with the password in its first line."),
        "password_by": Option("str", "How MBF gets the password: argument, stdin or session_file.", default=ARGUMENT),
        "on_exposed_password": Option("str", "refuse or warn if other users could read it.", default=REFUSE),
        "session_file": Option("path", "MBF's own session file (F=)."),
        "mode": Option("str", "force or quiet (M=)."),
        "seconds": Option("number", "MBF's own timeout (T=); 0: not given.", default=90),
        "proceed": Option("list", "Exit codes with which a run continues: 0, optionally 1, 10, 11.", default=[0]),
        "released": Option(
            "list", "Exit codes of an unquiesce that end a hold: 0, optionally 1, 10, 11.", default=list(RELEASED)
        ),
        "timeout": Option("number", "Seconds that a quiesce may take.", default=30),
        "unquiesce_timeout": Option("number", "Seconds that one unquiesce may take.", default=UNQUIESCE_TIMEOUT),
        "settle": Option(
            "number", "Seconds after timeout and T= in which a late quiesce may still happen.", default=30
        ),
        "environment": Option("dict", "Additional environment variables for MBF.", default={}),
    }

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        exposure.check_policy(values["on_exposed_password"])
        self.settings = Settings(values)
        self.client = Client(self.settings)
        self._servers: list[str] = []
        self._backoff = 0.0
        self._gone_since = 0.0
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
        """Find out which servers must answer."""
        self._servers = self._census().servers

    def _census(self) -> Census:
        return self.client.census(min(self.timeout, CENSUS_TIMEOUT))[0]

    def freeze(self) -> None:
        self.stop_if_cancelled()
        if not self._servers:
            self.prepare()
        begun = time.time()
        late = begun + max(self.timeout, self.settings.seconds) + self._settle
        self._mark(begun, self._servers, late)  # as if this process died before the answer
        verdict = Verdict("mbf: the quiesce has not ended", sure=False)
        try:
            verdict = self.client.quiesce(self._servers, self.timeout, self.cancelled)
        finally:
            # A thaw may have cleared the marks meanwhile, while MEDITECH's listener was about to quiesce.
            must = [name for name in self._servers if name not in verdict.without]
            self._mark(begun, must, 0.0 if verdict.sure else late)
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
        verdict = self._unquiesce()
        if verdict.problem and not self._is_over(verdict):
            self._backoff = min(max(2 * self._backoff, 0.5), MOST_BACKOFF)
            self._wait(self._backoff, f"mbf: the ring may still be quiesced: {verdict.problem}")
        left = self.marks.get(AGAIN, 0.0) - asked
        if left > 0:
            self._wait(
                min(left, AGAIN_EVERY),
                f"mbf: the ring was unquiesced, and this is repeated for {left:.0f} s, because the outcome of the "
                "quiesce is unknown and MEDITECH's listener may be late",
            )
        self._tell_of(self.marks.get(SERVERS, []) if verdict.gone else verdict.without)
        self.clear_marks()
        return self._broken(asked - begun)

    def _unquiesce(self) -> Verdict:
        """Unquiesce all servers, and retry a few times for those that do not answer. Returns the last verdict."""
        verdict = Verdict("mbf: MBF was not asked")
        for pause in (0.0, *PATIENCE):
            time.sleep(pause)
            verdict = self.client.unquiesce(self.marks.get(SERVERS, []), float(self.values["unquiesce_timeout"]))
            if verdict.problem or not verdict.without:
                break
        return verdict

    def _is_over(self, verdict: Verdict) -> bool:
        """Whether a ring has been retried long enough of which no server answers, because all may be gone."""
        if not verdict.gone:
            return False
        self._gone_since = self._gone_since or time.monotonic()
        return time.monotonic() >= self._gone_since + self._settle

    def _tell_of(self, gone: Sequence[str]) -> None:
        """Report the servers that did not answer the unquiesce: nothing proves that they stayed quiesced."""
        if gone:
            names = ", ".join(gone)
            self.without += [name for name in gone if name not in self.without]
            self.degraded.append(
                f"MBF: no success of {names} at the unquiesce, although its exit code counts as released: "
                f"see whether {names} runs, and whether it is still quiesced"
            )

    @property
    def _settle(self) -> float:
        return float(self.values["settle"])

    def _wait(self, seconds: float, text: str) -> None:
        """Postpone the next thaw by that many seconds. Raises DriverError."""
        self._not_before = time.monotonic() + seconds
        self._waits_for = text
        raise DriverError(text)

    def _broken(self, held: float) -> list[str]:
        limit = self.settings.seconds
        if limit and held >= limit:
            return [f"mbf: the ring was held for {held:.0f} s; MBF may have unquiesced it on its own after T={limit} s"]
        return []

    def status(self) -> dict[str, Any]:
        """MBF does not report whether a ring is quiesced, so only what this driver did is known."""
        return {"frozen": bool(self.marks.get(QUIESCED)) or None, SERVERS: list(self.marks.get(SERVERS, []))}

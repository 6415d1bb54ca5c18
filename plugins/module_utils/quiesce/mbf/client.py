# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs MBF's census, quiesce and unquiesce. No text returned from here contains the password."""

from __future__ import annotations

import threading

from ...host.errors import DriverError, HostError
from .answers import Census, parse_census
from .codes import Ended, Verdict, judge, meaning
from .process import run
from .settings import CENSUS, QUIESCE, UNQUIESCE, Settings

HIDDEN = "********"


class Client:
    """Runs MBF as ``settings`` say. The password is read for each call, so a corrected one takes effect at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def census(self, timeout: float) -> tuple[Census, str]:
        """The drives that MBF knows, and its raw output. Raises DriverError if it did not list all of them."""
        ended = self._run(CENSUS, self.settings.bounded(timeout), None)
        if ended.why or ended.status != 0:
            said = " ".join((ended.errors or ended.output).split())[:200]
            reason = f"it was ended: {ended.why}" if ended.why else meaning(ended.status)
            raise DriverError(f"mbf: MBF made no census: {reason}" + (f" ({said})" if said else ""))
        census = parse_census(ended.output)
        if census.unreadable:
            raise DriverError(f"mbf: MBF's census has a line that cannot be parsed: '{census.unreadable[0]}'")
        if not census.drives:
            raise DriverError("mbf: MBF's census has no drive: set up the servers at the intermediary")
        return census, ended.output

    def quiesce(self, wanted: list[str], timeout: float, cancelled: threading.Event | None = None) -> Verdict:
        """Quiesce all ``wanted`` servers, and judge the answer."""
        try:
            ended = self._run(QUIESCE, self.settings.bounded(timeout), cancelled)
        except HostError as error:
            return Verdict(str(error))
        return judge(ended, wanted, self.settings.proceed)

    def unquiesce(self, wanted: list[str], timeout: float) -> Verdict:
        """Unquiesce all servers, and judge the answer: ``wanted`` must succeed, except those that are gone."""
        try:
            ended = self._run(UNQUIESCE, timeout, None)
        except HostError as error:
            return Verdict(str(error))
        return judge(ended, wanted, self.settings.released, others=True)

    def _run(self, command: str, timeout: float, cancelled: threading.Event | None) -> Ended:
        settings = self.settings
        password = settings.read_password()
        try:
            ended = run(
                settings.arguments(command, password),
                settings.folder,
                settings.environment,
                settings.given(password),
                timeout,
                cancelled,
            )
        except OSError as error:
            raise DriverError(f"mbf: {settings.executable} cannot be started: {error.strerror}") from None
        return ended._replace(output=scrub(ended.output, password), errors=scrub(ended.errors, password))


def scrub(text: str, password: str) -> str:
    """``text`` without the password."""
    return text.replace(password, HIDDEN) if password else text

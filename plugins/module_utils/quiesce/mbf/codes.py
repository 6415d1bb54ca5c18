# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MBF's exit codes, and what a site lets pass.

Two public tables contradict each other; this is the one that cites the vendor. Only codes that a site has listed let a
run go on, and of these only those of ``OPTIONAL`` can be listed beside 0.
"""

from __future__ import annotations

from typing import NamedTuple

from .answers import missing, parse_servers, unknown

MEANINGS = {
    0: "success",
    1: "some servers are unavailable",
    2: "partial failure",
    3: "syntax error",
    4: "authentication failed",
    5: "connection failed",
    6: "bad intermediary",
    7: "timeout",
    8: "failed; M=force might succeed",
    9: "failed; M=force might succeed after an unquiesce",
    10: "ready, but some M-AT servers are not at a transaction boundary",
    11: "some servers are unavailable, and some M-AT servers are not at a transaction boundary",
    12: "partial failure",
}
OPTIONAL = (1, 10, 11)
"""Codes that a site may let pass; what is copied then is called degraded."""

WITHOUT_SOME = (1, 11)
"""Codes with which servers may be missing in the answer."""

SURE = (2, 3, 4, 6, 8, 9, 12)
"""Codes after which MBF has given up. After any other failure the listener may still come to quiesce."""


class Ended(NamedTuple):
    """How MBF ended: exit status (negative: by that signal), what it printed, and why it was ended, if it was."""

    status: int
    output: str
    errors: str = ""
    why: str = ""


class Verdict(NamedTuple):
    """What an answer is worth.

    ``problem``: why it is no success; empty: it is one. ``sure``: nothing will happen any more by this call.
    ``degraded``: what is less than whole though the site lets it pass. ``without``: servers that are not quiesced.
    """

    problem: str = ""
    sure: bool = True
    degraded: str = ""
    without: tuple[str, ...] = ()
    statuses: dict[str, str] = {}


def meaning(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"ended by signal {-status}"
    return f"exit code {status}, {MEANINGS.get(status, 'which is not known')}"


def judge(ended: Ended, wanted: list[str], proceed: list[int], others: bool = False) -> Verdict:
    """What MBF's answer to a quiesce or an unquiesce of ``wanted`` is worth where the codes of ``proceed`` pass.

    ``others``: whether other servers may have answered too.
    """
    statuses = parse_servers(ended.output)
    if ended.why:
        return Verdict(f"MBF was ended: {ended.why}", sure=False, statuses=statuses)
    if ended.status not in proceed:
        return Verdict(_failure(ended, statuses), ended.status in SURE, statuses=statuses)
    absent, strange = missing(wanted, statuses), [] if others else unknown(wanted, statuses)
    tolerated = ended.status in WITHOUT_SOME and len(absent) < len(wanted)
    if strange:
        return Verdict(f"MBF answered for {_names(strange)}, not in its census before", False, statuses=statuses)
    if absent and not tolerated:
        return Verdict(_absence(ended, absent, statuses), sure=False, statuses=statuses)
    degraded = "" if ended.status == 0 else f"MBF: {meaning(ended.status)}"
    if absent:
        degraded += f": {_names(absent)}"
    return Verdict("", True, degraded, tuple(absent), statuses)


def _failure(ended: Ended, statuses: dict[str, str]) -> str:
    bad = [f"{server}={status}" for server, status in statuses.items() if status != "SUCCESS"]
    said = ", ".join(bad) or _first_words(ended)
    return f"MBF: {meaning(ended.status)}" + (f" ({said})" if said else "")


def _first_words(ended: Ended) -> str:
    return " ".join((ended.errors or ended.output).split())[:200]


def _absence(ended: Ended, absent: list[str], statuses: dict[str, str]) -> str:
    told = {name.casefold(): status for name, status in statuses.items()}
    each = [f"{name} ({told[name.casefold()] or 'nothing'})" if name.casefold() in told else name for name in absent]
    return f"MBF: {meaning(ended.status)}, but no success of {', '.join(each)} in its answer"


def _names(names: list[str]) -> str:
    return ", ".join(names)

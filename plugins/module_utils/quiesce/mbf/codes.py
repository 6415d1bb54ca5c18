# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MBF's exit codes, and which of them a site accepts.

Two public tables contradict each other; this is the one that cites the vendor. A run continues only after codes that a
site has listed, and besides 0 only those of ``OPTIONAL`` can be listed. The codes that end a quiesce are a separate
list: a server that is gone must not prevent the unquiesce of its ring.
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
"""Codes that a site may accept; the copy then counts as degraded."""

RELEASED = (0, 1, 10, 11)
"""Codes of an unquiesce after which nothing that MBF can reach is quiesced, unless a site says otherwise."""

WITHOUT_SOME = (1, 11)
"""Codes with which servers may be missing from the answer."""

SURE = (2, 3, 4, 6, 8, 9, 12)
"""Codes after which MBF has given up. After any other failure MEDITECH's listener may still quiesce."""


class Ended(NamedTuple):
    """How MBF ended: exit status (negative: the signal), its output, and why it was ended, if it was."""

    status: int
    output: str
    errors: str = ""
    why: str = ""


class Verdict(NamedTuple):
    """The verdict on an answer.

    ``problem``: why it is not a success; empty: it is one. ``sure``: the call can have no further effect.
    ``degraded``: what is incomplete although the site accepts it. ``without``: servers that did not take part.
    ``gone``: the only problem is that no server took part, with a code by which servers may be unavailable.
    """

    problem: str = ""
    sure: bool = True
    degraded: str = ""
    without: tuple[str, ...] = ()
    statuses: dict[str, str] = {}
    gone: bool = False


def meaning(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"ended by signal {-status}"
    return f"exit code {status}, {MEANINGS.get(status, 'which is not known')}"


def judge(ended: Ended, wanted: list[str], passing: list[int], others: bool = False) -> Verdict:
    """Judge MBF's answer to a quiesce or an unquiesce of ``wanted``, accepting the codes in ``passing``.

    ``others``: whether other servers may have answered too.
    """
    statuses = parse_servers(ended.output)
    if ended.why:
        return Verdict(f"MBF was ended: {ended.why}", sure=False, statuses=statuses)
    if ended.status not in passing:
        return Verdict(_failure(ended, statuses), ended.status in SURE, statuses=statuses)
    absent, strange = missing(wanted, statuses), [] if others else unknown(wanted, statuses)
    tolerated = ended.status in WITHOUT_SOME
    if strange:
        return Verdict(f"MBF answered for {_names(strange)}, not listed in its census", False, statuses=statuses)
    nobody = len(absent) == len(wanted)
    if absent and (nobody or not tolerated):
        return Verdict(_absence(ended, absent, statuses), sure=False, statuses=statuses, gone=nobody and tolerated)
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

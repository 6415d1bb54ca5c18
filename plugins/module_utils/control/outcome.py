# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a job ended, for those who did not watch it: its artifacts, and the record of a run that was refused."""

from __future__ import annotations

from typing import Any

from ..host.plain import plain

FAILED, REFUSED = "failed", "refused"
MOST = 20
"""Problems in the record of a refused run; it only counts the others."""
LONGEST = 500
"""Characters of each of them."""


def artifacts(run_id: str, verdict: str, exit_status: int | None = None, report: str = "") -> dict[str, Any]:
    """What set_stats hands on, the dict openisb_result: see "In AWX, and with any callback" in docs/run.md.

    ``exit_status``: by default 1 for 'failed' and 'refused', and 0 for any other verdict. ``report``: <host>:<path>.
    """
    status = int(verdict in (FAILED, REFUSED)) if exit_status is None else int(exit_status)
    return {"openisb_result": {"run_id": run_id, "verdict": verdict, "exit_status": status, "report": report}}


def refusal(problems: list[str]) -> dict[str, Any]:
    """The data of the event 'refused': a dict of problems (plain texts, bounded) and more (how many are left out)."""
    told = [plain(" ".join(str(problem).split())) for problem in problems[:MOST]]
    return {
        "problems": [text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..." for text in told],
        "more": max(0, len(problems) - MOST),
    }

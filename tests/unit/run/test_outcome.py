# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a job ended: the artifacts, and the record of a run that was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control import decision, outcome
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import GENESIS

SOUND: dict[str, Any] = {
    "problem": "",
    "problems": [],
    "kept_problem": "",
    "kept": {"heads": [], "since": None, "problems": []},
    "records": [],
    "count": 0,
    "chain_head": GENESIS,
}


@pytest.mark.parametrize(("verdict", "status"), [("failed", 1), ("refused", 1), ("ready", 0), ("pruned", 0)])
def test_the_exit_status_follows_from_the_verdict(verdict: str, status: int) -> None:
    expected = {"run_id": "", "verdict": verdict, "exit_status": status, "report": ""}
    assert outcome.artifacts("", verdict) == {"openisb_result": expected}


def test_a_report_has_its_own_exit_status() -> None:
    result = outcome.artifacts("isb-1", "crash-consistent", 2, "backup1:/r/reports/isb-1.json")["openisb_result"]
    assert (result["exit_status"], result["report"]) == (2, "backup1:/r/reports/isb-1.json")


def test_a_refusal_is_short_and_plain() -> None:
    problems = ["fs1: \x1b[31mdid\nnot answer", "x" * 10_000, *(f"problem {number}" for number in range(50))]
    data = outcome.refusal(problems)
    assert data["problems"][0] == "fs1: \\x1b[31mdid not answer"
    assert len(data["problems"]) == outcome.MOST and data["more"] == 52 - outcome.MOST
    assert max(map(len, data["problems"])) == outcome.LONGEST and data["problems"][1].endswith(" ...")
    assert outcome.refusal(["one"]) == {"problems": ["one"], "more": 0}


@pytest.mark.parametrize(
    ("listener", "sound"),
    [
        (SOUND, True),
        ({"problem": "no such file"}, False),
        (dict(SOUND, problems=["record 7 is missing"]), False),
        (dict(SOUND, kept=dict(SOUND["kept"], problems=["it was not signed"])), False),
        (dict(SOUND, kept=dict(SOUND["kept"], heads=[{"where": "there", "seq": 1, "hash": "0"}], since=1)), False),
        (None, False),
    ],
)
def test_only_a_sound_journal_gets_a_record_of_a_refusal(listener: Any, sound: bool, tmp_path: Path) -> None:
    """The operator is asked to accept the hash of the newest record of any other."""
    host = {"openisb_host": {"journal": str(tmp_path)}, "isb_backup_server": "backup1"}
    found = {} if listener is None else {"preflight_found": {"listener": listener}}
    assert decision.journal_is_sound({"backup1": {**host, **found}}, {"listeners": ["backup1"]}) is sound

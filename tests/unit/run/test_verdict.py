# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict: nothing but whole proof is called application-consistent."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.verdict import judge

RUN = "isb-20261123T021500Z-4f1c2a"


def hold(start, end, **changes):
    return {
        "ok": True,
        "run_id": RUN,
        "hold_unbroken": True,
        "freeze_started": start,
        "frozen": start + 0.05,
        "thaw_started": end - 0.02,
        "thawed": end,
        "window_ms": (end - start) * 1000,
        "drivers": [],
        **changes,
    }


@pytest.fixture
def evidence():
    servers = {"fs1": hold(100.0, 100.4), "fs2": hold(100.01, 100.41)}
    return {
        "run_id": RUN,
        "servers": ["fs1", "fs2"],
        "storage_hosts": ["storage1"],
        "freeze": {"servers": copy.deepcopy(servers)},
        "thaw": {"servers": copy.deepcopy(servers)},
        "snapshots": [{"storage_host": "storage1", "answer": {"ok": True, "stdout": "100.10\nmade\n100.16\n"}}],
        "problems": [],
    }


def test_whole_proof(evidence):
    verdict = judge(evidence, "abort")
    assert verdict["verdict"] == "application-consistent"
    assert verdict["problems"] == []
    assert verdict["window_ms"] == 410.0
    assert verdict["storage_ms"] == 60.0
    assert verdict["time"] == "1970-01-01T00:01:40.160+00:00"
    assert {entry["verdict"] for entry in verdict["servers"].values()} == {"application-consistent"}


def test_lines_of_a_terminal_may_end_with_carriage_returns(evidence):
    evidence["snapshots"][0]["answer"]["stdout"] = "100.10\r\nmade\r\n100.16\r\n"
    assert judge(evidence, "abort")["storage_ms"] == 60.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda e: e["thaw"]["servers"]["fs2"].update(hold_unbroken=False, reason="ttl"), "fs2: its hold was broken"),
        (
            lambda e: e["thaw"]["servers"]["fs2"].update(hold_unbroken=False, reason="command", error="gtm: it melted"),
            "fs2: its hold was broken before the thaw (command: gtm: it melted)",
        ),
        (lambda e: e["thaw"]["servers"]["fs2"].update(run_id="another"), "fs2: its holder belongs to run another"),
        (lambda e: e["thaw"]["servers"]["fs2"].update(ok=False, error="gone"), "fs2: did not confirm its thaw: gone"),
        (lambda e: e["thaw"]["servers"].pop("fs2"), "fs2: did not confirm its thaw"),
        (lambda e: e["freeze"]["servers"]["fs2"].update(ok=False, error="busy"), "fs2: did not freeze: busy"),
        (lambda e: e["freeze"]["servers"].pop("fs2"), "fs2: was not asked to freeze"),
    ],
)
def test_a_hold_that_proves_nothing(evidence, change, text):
    change(evidence)
    verdict = judge(evidence, "abort")
    assert verdict["verdict"] == "failed"
    assert any(problem.startswith(text) for problem in verdict["problems"])


def test_crash_consistent_only_where_the_site_asked_for_it(evidence):
    evidence["thaw"]["servers"]["fs2"]["hold_unbroken"] = False
    verdict = judge(evidence, "crash_consistent")
    assert verdict["verdict"] == "crash-consistent"
    assert verdict["servers"]["fs1"]["verdict"] == "crash-consistent"


def test_no_snapshot_is_a_failure_under_every_policy(evidence):
    evidence["snapshots"] = []
    for policy in ("abort", "crash_consistent"):
        verdict = judge(evidence, policy)
        assert verdict["verdict"] == "failed"
        assert verdict["time"] == ""


@pytest.mark.parametrize("policy", ["abort", "crash_consistent"])
def test_a_failed_snapshot_is_a_failure_under_every_policy(evidence, policy):
    evidence["snapshots"][0]["answer"] = {"ok": False, "stdout": "100.10\n", "error": "No space left on device"}
    verdict = judge(evidence, policy)
    assert verdict["verdict"] == "failed"
    assert verdict["problems"] == ["storage host storage1 did not take its snapshot: No space left on device"]


def test_every_storage_host_must_have_taken_its_snapshot(evidence):
    evidence["storage_hosts"].append("storage2")
    assert judge(evidence, "abort")["verdict"] == "failed"


def test_a_freeze_that_failed_is_named_and_not_the_missing_snapshot(evidence):
    evidence["snapshots"] = []
    evidence["freeze"]["servers"]["fs2"].update(ok=False, error="busy")
    assert judge(evidence, "abort")["problems"] == ["fs2: did not freeze: busy"]


def test_a_problem_before_the_window_is_a_failure_and_the_only_one_named(evidence):
    evidence.update(snapshots=[], freeze={}, thaw={}, problems=["storage1: cannot be reached"])
    verdict = judge(evidence, "crash_consistent")
    assert verdict["verdict"] == "failed"
    assert verdict["problems"] == ["storage1: cannot be reached"]


def test_nothing_was_frozen():
    verdict = judge(
        {
            "run_id": RUN,
            "servers": ["fs1"],
            "storage_hosts": ["storage1"],
            "freeze": {},
            "thaw": {},
            "snapshots": [],
            "problems": ["not armed"],
        },
        "abort",
    )
    assert verdict["verdict"] == "failed"
    assert verdict["window_ms"] is None


def test_clocks_that_contradict_each_other_do_not_make_the_window(evidence):
    evidence["seconds"] = {"freeze": 0.2, "snapshot": 0.1, "thaw": 0.2}
    evidence["thaw"]["servers"]["fs1"].update(thawed=3700.4, thaw_started=3700.3)
    verdict = judge(evidence, "abort")
    assert verdict["verdict"] == "application-consistent"
    assert verdict["window_ms"] == 500.0


def test_a_clock_that_went_back_does_not_make_the_window(evidence):
    evidence["thaw"]["servers"]["fs1"].update(thawed=40.0, thaw_started=39.0)
    evidence["thaw"]["servers"]["fs2"].update(thawed=40.1, thaw_started=39.1)
    assert judge(evidence, "abort")["window_ms"] == 400.0


def test_what_was_said_of_clocks_is_evidence_and_no_problem(evidence):
    evidence.update(clocks={"fs1": {"ahead": 2.5, "bound": 0.01}}, warnings=["the clock of fs1 is 2.500 s ahead"])
    verdict = judge(evidence, "abort")
    assert (verdict["verdict"], verdict["problems"]) == ("application-consistent", [])
    assert verdict["clocks"] == {"fs1": {"ahead": 2.5, "bound": 0.01}}
    assert verdict["warnings"] == ["the clock of fs1 is 2.500 s ahead"]

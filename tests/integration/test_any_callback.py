# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as AWX starts them, without the project's ansible.cfg: what is shown, and what is handed on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from lab import ROOT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

COLOUR = re.compile(r"\x1b\[[0-9;]*m|\r")
PROGRESS = re.compile(r"^  fs1: \d+ % of .+\(m (?:\d+ %|done|waiting), files ", re.MULTILINE)
"""How far the backup of a server is, as a line of its own."""


@dataclass
class Job:
    """A job that has ended."""

    rc: int
    output: str
    kinds: set[str]
    artifacts: dict[str, Any]

    @property
    def result(self) -> dict[str, Any]:
        """What came of it, by its artifacts."""
        found: dict[str, Any] = self.artifacts["openisb_result"]
        return found


@pytest.fixture
def job(lab: Lab, tmp_path: Path) -> Callable[..., Job]:
    """Runs a playbook of the collection, by its name, with variables."""

    def run(name: str, **variables: Any) -> Job:
        private = tmp_path / "runner"
        (private / "project").mkdir(parents=True, exist_ok=True)
        (private / "project" / "job.yml").write_text(
            json.dumps([{"ansible.builtin.import_playbook": f"openisb.backup.{name}"}])
        )
        (tmp_path / "ansible.cfg").touch()
        done = ansible_runner.run(
            private_data_dir=str(private),
            playbook="job.yml",
            cmdline=f"-i {ROOT}/inventories/lab",
            extravars={"lab_dir": str(lab.folder), **variables},
            envvars={
                "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            },
            quiet=True,
        )
        events = list(done.events)
        stats = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
        artifacts = stats[-1].get("artifact_data", {}) if stats else {}
        return Job(done.rc, COLOUR.sub("", done.stdout.read()), {event["event"] for event in events}, artifacts)

    return run


def test_a_run_is_readable_and_hands_on_what_came_of_it(job: Callable[..., Job], lab: Lab) -> None:
    done = job("isb", isb_changed_extents=False, block_backup_rate_limit=8)  # slow enough for some progress
    assert done.rc == 0, done.output
    assert "RETRYING" not in done.output and "runner_retry" not in done.kinds
    assert PROGRESS.search(done.output), done.output
    # Each line of the report is one of the output, not a part of one string.
    assert re.search(r'^ +"Run isb-[^"]+: APPLICATION-CONSISTENT",$', done.output, re.MULTILINE), done.output
    host, dummy, path = done.result["report"].partition(":")
    report = json.loads(lab.on(host, f"cat {path}"))
    assert done.result == {
        "run_id": report["run_id"],
        "verdict": "application-consistent",
        "exit_status": 0,
        "report": f"backup1:/var/lib/openisb/repository/reports/{report['run_id']}.json",
    }


def test_other_jobs_hand_on_what_came_of_them(job: Callable[..., Job], lab: Lab) -> None:
    done = job("verify", verify_server="fs1")
    assert (done.rc, done.result["verdict"], done.result["exit_status"]) == (0, "verified", 0), done.output
    assert done.result["run_id"].startswith("verify-")
    done = job("verify", verify_server="nonsense")
    assert done.rc != 0
    assert (done.result["verdict"], done.result["exit_status"]) == ("failed", 1), done.output

    done = job("restore", restore_server="fs1", restore_folder="/srv/any-callback")
    lab.on("backup1", "rm -rf /srv/any-callback")
    assert done.rc == 0, done.output
    assert done.result == {"run_id": lab.runs("fs1")[-1], "verdict": "restored", "exit_status": 0, "report": ""}

    done = job("prune", prune_keep_last=3)
    assert (done.rc, done.result["verdict"], done.result["exit_status"]) == (0, "pruned", 0), done.output
    assert done.result["run_id"].startswith("prune-")


def test_a_run_that_is_refused_hands_on_that(job: Callable[..., Job], lab: Lab) -> None:
    done = job("isb", repository_path="/var/lib/openisb/nothing")
    assert done.rc != 0
    refused = {"run_id": "", "verdict": "refused", "exit_status": 1, "report": ""}
    assert done.result == refused, done.output
    done = job("isb", isb_volumes=[{"name": "a b", "serial": "x"}])
    assert done.rc != 0
    assert done.result == refused, done.output
    assert lab.holders() == {}


def test_a_drill_hands_on_what_came_of_it(job: Callable[..., Job], lab: Lab) -> None:
    done = job("idr", idr_servers="fs1")
    assert done.rc == 0, done.output
    assert "RETRYING" not in done.output and "ASYNC POLL" not in done.output
    report = lab.drill_report(done.result["run_id"])
    assert done.result == {
        "run_id": report["drill"],
        "verdict": report["verdict"],
        "exit_status": 0,
        "report": f"backup1:/var/lib/openisb/repository/reports/{report['drill']}.json",
    }

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs against the running lab, driven by ansible-runner, as AWX does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
from lab import ROOT, Lab


@dataclass
class Run:
    """A run that has ended."""

    rc: int
    events: list[dict[str, Any]]
    report: dict[str, Any]

    def of(self, host: str, role: str) -> list[dict[str, Any]]:
        """What a role did for a host, in order; ``role`` without the collection's name."""
        return [
            event
            for event in self.events
            if event["event"] in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
            and event["event_data"].get("resolved_role") == f"openisb.backup.{role}"
            and event["event_data"].get("host") == host
        ]


@pytest.fixture
def run_isb(lab: Lab, tmp_path: Path) -> Callable[..., Run]:
    """Runs isb.yml; called with variables for hosts: ``run_isb(fs3={"block_backup_rate_limit": 20})``."""

    def run(**host_vars: dict[str, Any]) -> Run:
        private = tmp_path / "runner"
        private.mkdir()
        variables = tmp_path / "variables.json"
        variables.write_text(json.dumps({"all": {"hosts": host_vars}}))
        report = tmp_path / "isb.json"
        done = ansible_runner.run(
            private_data_dir=str(private),
            project_dir=str(ROOT),
            playbook="isb.yml",
            cmdline=f"-i {ROOT}/inventories/lab -i {variables}",
            extravars={"lab_dir": str(lab.folder), "isb_report_path": str(report)},
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
            quiet=True,
        )
        assert done.rc == 0, f"isb.yml ended with {done.status}:\n{done.stdout.read()}"
        return Run(done.rc, list(done.events), json.loads(report.read_text()))

    return run

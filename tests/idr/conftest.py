# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills of the running lab, as a DR team starts them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from families import kill_family
from lab import ROOT, Lab

CALLBACKS = ROOT / "tests/faults/callback"
DRILL = re.compile(r"idr-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
REACH = 120  # seconds until a drill is held at its task


@dataclass
class Drill:
    """A drill that has ended, or was refused. ``id`` is empty where none was begun."""

    status: int
    output: str
    id: str
    report: dict[str, Any]

    @property
    def said(self) -> str:
        """The output with one space between words, however Ansible has broken its lines."""
        return " ".join(self.output.split())


class Drills:
    """Starts drills in a lab that has been backed up."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, *options: str, playbook: str = "idr.yml", **more: Any) -> Drill:
        """Run a drill to its end."""
        known = self.opened()
        status, output = self.lab.play(playbook, *options, **more)
        return self.ended(status, output, known)

    def ended(self, status: int, output: str, known: list[str]) -> Drill:
        """What came of it: of the newest drill that was opened since ``known``."""
        new = [drill for drill in self.opened() if drill not in known]
        name = new[-1] if new else ""
        closed = name and [
            r for r in self.lab.drills() if r["run_id"] == name and r["event"] in ("closed", "kept", "failed_over")
        ]
        return Drill(status, output, name, self.lab.drill_report(name) if closed else {})

    def opened(self) -> list[str]:
        """Ids of all drills that were ever opened."""
        return [record["run_id"] for record in self.lab.drills() if record["event"] == "opened"]

    @contextmanager
    def held(self, task: str, folder: Path, *options: str, **more: Any) -> Iterator[Any]:
        """A drill that waits at the start of a task: gives its process. Let it go on with ``let_go``."""
        gate = folder / "gate"
        environment = {
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "fault_gate",
            "OPENISB_FAULT_TASK": task,
            "OPENISB_FAULT_GATE": str(gate),
        }
        process = self.lab.start("idr.yml", *options, environment=environment, **more)
        try:
            deadline = time.monotonic() + REACH
            while not gate.with_name("gate.reached").exists():
                if process.poll() is not None:
                    pytest.fail(f"the drill ended before '{task}': {process.communicate()[0]}")
                assert time.monotonic() < deadline, f"'{task}' was not reached"
                time.sleep(0.05)
            yield process
        finally:
            if process.poll() is None:
                kill_family(process.pid)
                process.communicate()

    def let_go(self, folder: Path) -> None:
        """Let the drill that is held go on."""
        (folder / "gate.open").touch()


@pytest.fixture(scope="session")
def lab(lab_dir: Path) -> Lab:
    """The lab, set up for runs."""
    lab = Lab(lab_dir)
    if not os.environ.get("OPENISB_LAB_READY"):
        status, output = lab.play("setup.yml")
        assert status == 0, output
    return lab


@pytest.fixture(scope="session")
def drills(lab: Lab) -> Drills:
    """A lab with one whole run."""
    if not os.environ.get("OPENISB_LAB_READY"):  # set by who repeats some tests in a lab of his own
        status, output = lab.play("isb.yml")
        assert status == 0, output
    return Drills(lab)


@pytest.fixture
def nothing_left(lab: Lab) -> Iterator[None]:
    """Whatever a test did: nothing is left of it."""
    yield
    assert lab.left_of_drills() == {}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One cell of the matrix: a run is hurt at a step, then the lab recovers, and the next run must be whole."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab import ROOT, Lab

from .controller import Controller, wait_until
from .injections import FAULTS, POOL, Fault, Stage, nothing
from .left import Left
from .machine import PROGRAMS, Machine
from .matrix import Cell
from .observer import Observer
from .steps import STEPS, Step
from .stuck import SERVER

APPLICATION = "application-consistent"
BUDGET = 4  # seconds: the holders' time to live
SLACK = 1.0  # seconds
REACH = 300  # seconds until the run is held at its step, on a busy machine
END = 150  # seconds until it has ended after that
SETTLE = 0.3  # seconds in which what was struck notices

SNAPSHOTS = f"{POOL}/snapshots"
SNAPSHOT = (
    f"date +%s.%N && {PROGRAMS}/gate snapshot && btrfs subvolume snapshot -r {POOL}/luns "
    f"{SNAPSHOTS}/{{{{ isb_run_id }}}} && date +%s.%N"
)


@dataclass
class Outcome:
    """What came of a cell. Seconds by server; what is left by kind; ``problems``: what must not be."""

    step: str
    fault: str
    run_id: str = ""
    verdict: str = ""
    exit_status: int | None = None
    seconds: float = 0.0
    frozen: dict[str, float] = field(default_factory=dict)
    longest_write: dict[str, float] = field(default_factory=dict)
    copies: str = "none claimed"
    left_by_run: dict[str, list[str]] = field(default_factory=dict)
    recover_status: int | None = None
    left_after_recover: dict[str, list[str]] = field(default_factory=dict)
    next_status: int | None = None
    next_verdict: str = ""
    left_by_next: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def host_vars(machine: Machine) -> dict[str, dict[str, Any]]:
    """How the lab's hosts differ for these tests: stand-ins, and one volume a server, so that runs are short."""
    python = {"ansible_python_interpreter": f"{PROGRAMS}/python3"}
    found: dict[str, dict[str, Any]] = {host: dict(python) for host in machine.names}
    for host in machine.lab.file_servers:
        (volume,) = [each for each in host.volumes if each.name == "m"]
        found[host.name].update(
            isb_volumes=[{"name": volume.name, "serial": volume.serial, "mount": volume.mount}],
            isb_drivers=[
                {"name": "gtm", "gtm_dist": f"{PROGRAMS}/gtm", "gbldir": "/srv/m/mumps.gld", "timeout": 2},
                {"name": "filesystem", "mounts": [volume.mount], "timeout": 2},
            ],
        )
    found["backup1"]["repository_python"] = f"{PROGRAMS}/engine"
    return found


class Bench:
    """What all cells share."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.machine = Machine(lab.folder)
        self.machine.install()
        self.host_vars = host_vars(self.machine)
        self.first()
        self.left = Left(self.machine, lab)

    def first(self) -> None:
        """A run that nobody hurts: it leaves the bases, and what every later run leaves as well."""
        status, output = self.play("isb.yml")
        assert status == 0, output

    def play(self, playbook: str, *options: str) -> tuple[int, str]:
        """Run a playbook that nobody hurts; its exit status and output."""
        return self.lab.play(playbook, *options, host_vars=self.host_vars)

    def run(self, cell: Cell) -> Outcome:
        """Hurt a run, and tell what came of it."""
        outcome = Outcome(*cell)
        step, _fault = STEPS[cell[0]], FAULTS[cell[1]]
        known = {record["run_id"] for record in self.lab.journal()}
        stage = Stage(self.machine, None, step)  # type: ignore[arg-type]
        begun = time.monotonic()
        with Observer(self.machine) as observer:
            try:
                self._hurt(stage, outcome)
                observer.wait_until_thawed(BUDGET + 10)
            finally:
                self._mend(stage)
            outcome.frozen, outcome.longest_write = observer.frozen_for(), observer.longest_writes()
        outcome.seconds = round(time.monotonic() - begun, 1)
        outcome.exit_status = stage.controller.status
        (self.folder / f"{cell[0]}-{cell[1]}.log").write_text(stage.controller.output)
        self._read_journal(outcome, known)
        self._check_copies(outcome)
        outcome.left_by_run = self.left.now()
        self._recover(outcome)
        self._next(outcome)
        outcome.problems += problems_of(outcome) + self._pool()
        return outcome

    def _hurt(self, stage: Stage, outcome: Outcome) -> None:
        step, fault = stage.step, FAULTS[outcome.fault]
        gated = fault.holds(step.name)
        task = fault.tasks.get(step.name, step.task) if gated else ""
        inside = gated and not task and not step.job
        if inside:
            self.machine.tell(step.gate_host, f"{step.name}.gate")
        fault.before(stage)
        private = self.folder / f"{step.name}-{outcome.fault}"
        inventory = self.lab._overrides(self._host_vars(fault))
        stage.controller = Controller(private, [ROOT / "inventories/lab", inventory], self._variables(step), task)
        if gated:
            wait_until(lambda: self._reached(stage, task) or not stage.controller.running(), REACH)
            if self._reached(stage, task):
                fault.strike(stage)
                time.sleep(SETTLE)
            else:
                outcome.problems.append(f"the run was not at the step within {REACH} s")
            stage.controller.open()
            if inside:
                self.machine.tell(step.gate_host, f"{step.name}.open")
        if not stage.controller.wait(END):
            outcome.problems.append(f"the run did not end within {END} s")
            stage.controller.end()
        ahead = fault.before is not nothing and not fault.mount
        if ahead and not any(self.machine.told(host, "struck") for host in self.machine.names):
            outcome.problems.append("the fault did not strike")

    def _host_vars(self, fault: Fault) -> dict[str, dict[str, Any]]:
        """How hosts differ in a run with this fault."""
        if not fault.mount:
            return self.host_vars
        variables = dict(self.host_vars[SERVER])
        *others, filesystem = variables["isb_drivers"]
        mounts = [*filesystem["mounts"], fault.mount]
        return {**self.host_vars, SERVER: {**variables, "isb_drivers": [*others, {**filesystem, "mounts": mounts}]}}

    def _reached(self, stage: Stage, task: str) -> bool:
        if task:
            return stage.controller.reached()
        if stage.step.job:
            return self.machine.backs_up(stage.step.host)
        return self.machine.told(stage.step.gate_host, f"{stage.step.name}.reached")

    def _variables(self, step: Step) -> dict[str, Any]:
        slow = {"block_backup_rate_limit": 1, "isb_changed_extents": False} if step.name == "backup" else {}
        return {
            "lab_dir": str(self.lab.folder),
            "isb_freeze_budget": BUDGET,
            "isb_task_timeout": 25,
            "consistency_point_timeout": BUDGET + 2,
            "block_backup_patience": 10,
            "snapshot_command": SNAPSHOT,
            **slow,
        }

    def _mend(self, stage: Stage) -> None:
        """As an operator would: links, daemons and folders are back, and whatever hung is gone."""
        for host in self.machine.names:
            self.machine.join(host)  # first: nothing else reaches a host that is cut off
        for fault in FAULTS.values():
            fault.mend(stage)
        for host in self.machine.names:
            self.machine.forget(host)

    def _read_journal(self, outcome: Outcome, known: set[str]) -> None:
        mine = [record for record in self.lab.journal() if record["run_id"] not in known]
        if not any(record["event"] == "opened" for record in mine):
            outcome.verdict = "no run was opened"
            return
        outcome.run_id = mine[0]["run_id"]
        events = {record["event"]: record["data"] for record in mine}
        point = events.get("thawed", {}).get("verdict", "no verdict")
        closed = events.get("closed")
        outcome.verdict = f"{point}, run {'closed as ' + closed['verdict'] if closed else 'open'}"

    def _check_copies(self, outcome: Outcome) -> None:
        """Copies that are called application-consistent are given to the checker, as they are in the snapshot."""
        if not outcome.verdict.startswith(APPLICATION):
            return
        folder = f"{SNAPSHOTS}/{outcome.run_id}"
        serials = {host.name: host.volumes for host in self.machine.lab.file_servers}
        images = {
            server: {each.name: f"{folder}/{each.serial}.lun" for each in volumes if each.name == "m"}
            for server, volumes in serials.items()
        }
        found = [path for each in images.values() for path in each.values() if self._exists(path)]
        if len(found) < len(images):
            outcome.copies = f"{len(found)} of {len(images)} copies are left"
            if not found:
                return
        asked = {
            "images": {server: paths for server, paths in images.items() if all(map(self._exists, paths.values()))},
            "gtm_dist": self.machine.lab.gtm_dist,
            "routines": "/lab/m/src",
            "scratch": f"{POOL}/check",
        }
        word = self.machine.path("storage1", "/run/faults/check.json")
        word.write_text(json.dumps(asked))
        report = json.loads(
            self.machine.run("storage1", f"python3 /lab/check </run/faults/check.json; rm -f {word.name}")
        )
        good = report["one_point_in_time"] and report["sound"]
        outcome.copies = f"{len(asked['images'])} copies are {'one point in time' if good else 'NOT one point in time'}"
        if not good:
            outcome.problems.append(f"called application-consistent, and the checker says: {report['violations'][:3]}")

    def _pool(self) -> list[str]:
        """A pool that the kernel has made read-only: no run is the cause, and every later cell would fail as well."""
        if os.access(self.machine.path("storage1", POOL), os.W_OK):
            return []
        return [f"the pool is read-only: {self.machine.kernel_said('BTRFS')}"]

    def _exists(self, path: str) -> bool:
        return self.machine.path("storage1", path).exists()

    def _recover(self, outcome: Outcome) -> None:
        outcome.recover_status, output = self.play("recover.yml")
        (self.folder / f"{outcome.step}-{outcome.fault}.recover.log").write_text(output)
        outcome.left_after_recover = self.left.now()

    def _next(self, outcome: Outcome) -> None:
        outcome.next_status, output = self.play("isb.yml")
        (self.folder / f"{outcome.step}-{outcome.fault}.next.log").write_text(output)
        last = self.lab.journal()[-1]
        outcome.next_verdict = last["data"].get("verdict", last["event"])
        outcome.left_by_next = self.left.now()


def problems_of(outcome: Outcome) -> list[str]:
    """What must hold in every cell and does not."""
    found = []
    limit = BUDGET + SLACK
    frozen = dict(outcome.frozen)
    if FAULTS[outcome.fault].mount:
        frozen.pop(SERVER)  # one filesystem stays frozen until it is mended: the write to another one tells
    for what, seconds in (("was frozen", frozen), ("kept a write waiting", outcome.longest_write)):
        found += [f"{server} {what} for {took:.1f} s" for server, took in seconds.items() if took > limit]
    if outcome.exit_status == 0 and not outcome.verdict.endswith(f"closed as {APPLICATION}"):
        found.append(f"exit status {outcome.exit_status} with verdict '{outcome.verdict}'")
    if outcome.recover_status != 0:
        found.append(f"recover.yml ended with {outcome.recover_status}")
    if outcome.left_after_recover:
        found.append(f"left after recover.yml: {outcome.left_after_recover}")
    if outcome.next_status != 0 or outcome.next_verdict != APPLICATION:
        found.append(f"the next run ended with {outcome.next_status}, {outcome.next_verdict}")
    if outcome.left_by_next:
        found.append(f"left by the next run: {outcome.left_by_next}")
    return found

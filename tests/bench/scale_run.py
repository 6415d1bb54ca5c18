# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One whole run in the lab with many servers, measured."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .scale_lab import Site
from .scale_usage import PeakMemory, Usage, adopt_orphans

TIMEOUT = 3600  # seconds
CALLBACKS = Path(__file__).with_name("callback")
#: The phases of a run in their order. Cleanup overlaps with backup: servers are cleaned up one by one.
PHASES = ("preflight", "open", "prepare", "consistency_point", "backup", "cleanup", "report")
JOINT = "backup"
KINDS = {"file_server": "file_servers", "storage": "storage_host", "other": "backup_server"}


class RunFailed(Exception):
    """A run that had to succeed did not; the text has the end of its output."""


@dataclass
class Marks:
    """What the callback has told: the moment and the usage at the begin of each phase; results by phase and host."""

    phases: list[tuple[str, float, dict[str, float]]] = field(default_factory=list)
    results: dict[str, dict[str, int]] = field(default_factory=dict)

    def read(self, stream: IO[str], usage: Usage) -> None:
        """Take in all marks, as they come."""
        for line in stream:
            mark = json.loads(line)
            if "phase" in mark:
                self.phases.append((mark["phase"], time.monotonic(), usage.now()))
            self.results = mark.get("results", self.results)


@dataclass
class Ran:
    """A run that has ended: its marks, the moment and usage at its begin and end, memory, report and output."""

    status: int
    marks: Marks
    begin: tuple[float, dict[str, float]]
    end: tuple[float, dict[str, float]]
    memory: dict[str, float]
    report: dict[str, Any]
    output: str


def run_once(site: Site, *options: str, inventory: Path | None = None) -> Ran:
    """A run of isb.yml.  Its connections to hosts are its own, so that their processor time is counted, too."""
    site.forget_connections()
    usage = Usage(first_processes(site))
    report = site.lab.folder / "report.json"
    report.unlink(missing_ok=True)
    command = site.command("isb.yml", "-e", f"isb_report_path={report}", *options, inventory=inventory)
    marks, log = Marks(), site.lab.folder / "run.log"
    adopt_orphans(True)
    try:
        begin = time.monotonic(), usage.now()
        with PeakMemory(usage) as memory:
            status, largest = _play(site, command, marks, usage, log)
        end = time.monotonic(), usage.now()
    finally:
        adopt_orphans(False)
        _reap()
    found: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    sizes = {"peak_mib": memory.peak, "largest_process_mib": largest, "most_processes": memory.most_processes}
    return Ran(status, marks, begin, end, sizes, found, log.read_text(errors="replace"))


def first_processes(site: Site) -> dict[str, dict[str, int]]:
    """The first process of each host, by kind and name."""
    machine = site.lab.machine()
    found: dict[str, dict[str, int]] = {kind: {} for kind in KINDS.values()}
    for host in machine.lab.hosts:
        found[KINDS[host.kind]][host.name] = machine.pid(host.name)
    return found


def _play(site: Site, command: list[str], marks: Marks, usage: Usage, log: Path) -> tuple[int, float]:
    """Run the playbook; its exit status, and MiB of the largest process."""
    reading, writing = os.pipe()
    environment = {
        **site.environment(),
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "scale_marks",
        "OPENISB_SCALE_MARKS": str(writing),
    }
    with log.open("w") as output, open(reading) as stream:
        process = subprocess.Popen(
            command,
            cwd=site.code.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[writing],
            start_new_session=True,
        )
        os.close(writing)
        reader = threading.Thread(target=marks.read, args=(stream, usage), daemon=True)
        reader.start()
        stuck = threading.Timer(TIMEOUT, process.kill)
        stuck.start()
        _pid, status, resources = os.wait4(process.pid, 0)
        stuck.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        reader.join(10)
    return process.returncode, resources.ru_maxrss / 1024


def _reap() -> None:
    """Take note of the adopted processes that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def figures(ran: Ran, servers: int) -> dict[str, Any]:
    """What a run that had to succeed has cost.  Raises RunFailed."""
    if ran.status or ran.report.get("verdict") != "application-consistent":
        raise RunFailed(f"exit status {ran.status}, verdict {ran.report.get('verdict')}:\n{ran.output[-4000:]}")
    names = list(ran.report["servers"])
    seconds = {kind: ran.end[1][kind] - ran.begin[1][kind] for kind in ran.end[1]}
    window, storage = ran.report["freeze_window_ms"], ran.report["storage_ms"]
    return {
        "run_id": ran.report["run_id"],
        "verdict": ran.report["verdict"],
        "seconds": round(ran.end[0] - ran.begin[0], 2),
        "cpu_seconds": {kind: round(value, 2) for kind, value in seconds.items()},
        "controller_cpu_seconds_per_server": round(seconds["controller"] / servers, 3),
        "controller_memory": {name: round(value, 1) for name, value in ran.memory.items()},
        "freeze_window_ms": window,
        "freeze_window_without_storage_ms": round(window - storage, 1),
        "task_results": task_results(ran.marks.results, names),
        "phases": phases(ran, names),
        "bytes_read": sum(server["bytes_read"] for server in ran.report["servers"].values()),
    }


def task_results(results: dict[str, dict[str, int]], servers: list[str]) -> dict[str, Any]:
    """How many results tasks had: of all hosts, and per file server, in all and by phase."""
    by_phase = {phase: sum(results.get(phase, {}).get(name, 0) for name in servers) for phase in PHASES}
    return {
        "all_hosts": sum(count for by_host in results.values() for count in by_host.values()),
        "per_server": round(sum(by_phase.values()) / len(servers), 1),
        "per_server_by_phase": {phase: round(count / len(servers), 1) for phase, count in by_phase.items() if count},
    }


def phases(ran: Ran, servers: list[str]) -> dict[str, dict[str, float]]:
    """Seconds and processor seconds of each phase.

    Backup lasts until the last saveset is written, cleanup from then on until the last server is cleaned up. The
    processor time of both is divided by their results, of which most processor time is made.
    """
    marks = [*ran.marks.phases, ("", *ran.end)]
    found: dict[str, dict[str, float]] = {}
    for (phase, begin, before), (_next, end, after) in zip(marks, marks[1:], strict=False):
        # What ansible-playbook does before its first play belongs to the first phase.
        begun, used = (begin, before) if found else ran.begin
        found[phase] = {
            "seconds": end - begun,
            "controller_cpu_seconds": after["controller"] - used["controller"],
            "hosts_cpu_seconds": sum(after[kind] - used[kind] for kind in KINDS.values()),
        }
    if JOINT in found:
        found.update(_divided(found.pop(JOINT), ran))
    return {
        phase: {name: round(value, 2) for name, value in found[phase].items()} for phase in PHASES if phase in found
    }


def _divided(joint: dict[str, float], ran: Ran) -> dict[str, dict[str, float]]:
    """Backup and cleanup apart."""
    counts = {phase: sum(ran.marks.results.get(phase, {}).values()) for phase in ("backup", "cleanup")}
    events = {
        kind: max((event["at"] for event in ran.report["timeline"] if event["event"] == kind), default=0.0)
        for kind in ("saveset", "cleaned")
    }
    tail = min(max(events["cleaned"] - events["saveset"], 0.0), joint["seconds"])
    lasts = {"backup": joint["seconds"] - tail, "cleanup": tail}
    cpu = ("controller_cpu_seconds", "hosts_cpu_seconds")
    share = {phase: count / max(sum(counts.values()), 1) for phase, count in counts.items()}
    found = {phase: {"seconds": lasts[phase], **{name: joint[name] * share[phase] for name in cpu}} for phase in lasts}
    found["cleanup"]["seconds_of_a_server"] = statistics.median(
        server["seconds"]["cleanup"] or 0.0 for server in ran.report["servers"].values()
    )
    return found

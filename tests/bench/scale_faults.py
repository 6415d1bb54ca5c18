# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of many servers of which some do not answer and others hang in the freeze: what must hold of it."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from faults.machine import Machine

from .scale_lab import Site
from .scale_run import Ran, run_once

UNREACHABLE, HANGING = 5, 3
FEWEST = UNREACHABLE + HANGING + 2
#: Seconds: the driver's timeout, which ends the freeze that hangs; the freeze budget; what a thaw may take besides.
DRIVER_TIMEOUT, BUDGET, SLACK = 2, 9, 1.0
#: Seconds in which a write to a filesystem that is not frozen is on the disk, on a busy machine.
WRITE = 20
HANG = ["/usr/bin/sleep", "86398"]
LIVE = ("armed", "freezing", "frozen", "thawing")
LEFT_OUT = {
    "backup_server_lost": "the lab has one backup server, which is also the listener: tests/faults covers its loss"
}


@dataclass(frozen=True)
class Roles:
    """Which servers are hurt, and how."""

    unreachable: list[str]
    hanging: list[str]
    healthy: list[str]


def roles_of(servers: list[str]) -> Roles:
    """Spread over all servers, so that they are not all among those that Ansible takes first."""
    step = max(len(servers) // (UNREACHABLE + HANGING), 1)
    hurt = servers[::step][: UNREACHABLE + HANGING]
    unreachable = hurt[:UNREACHABLE]
    hanging = hurt[UNREACHABLE:]
    return Roles(unreachable, hanging, [name for name in servers if name not in hurt])


def run_with_faults(site: Site) -> dict[str, Any]:
    """Such a run, and one without faults after it; ``checks`` says what holds."""
    machine = site.lab.machine()
    roles = roles_of(machine.servers)
    options = ["-e", json.dumps({"isb_on_missing_server": "skip", "isb_on_quiesce_failure": "crash_consistent"})]
    for name in roles.unreachable:
        machine.cut(name)
    try:
        ran = run_once(site, *options, inventory=site.override({name: hanging_drivers() for name in roles.hanging}))
        checks = {**checks_of(ran, roles), **_nothing_frozen(machine)}
    finally:
        for name in roles.unreachable:
            machine.join(name)
    after = run_once(site)
    checks["next_run_is_application_consistent"] = (
        after.status == 0
        and after.report.get("verdict") == "application-consistent"
        and sorted(after.report["servers"]) == sorted(machine.servers)
    )
    return {
        "servers": len(machine.servers),
        "unreachable": roles.unreachable,
        "hanging": roles.hanging,
        "seconds": round(ran.end[0] - ran.begin[0], 1),
        "verdict": ran.report.get("verdict"),
        "freeze_window_ms": ran.report.get("freeze_window_ms"),
        "longest_freeze_ms": max(_freezes(ran).values(), default=None),
        "checks": checks,
        "left_out": LEFT_OUT,
        **({} if all(checks.values()) else {"output": (ran.output + after.output)[-8000:]}),
    }


def hanging_drivers() -> dict[str, Any]:
    """A server whose filesystems are frozen when its next driver hangs."""
    mounts = "{{ isb_volumes | map(attribute='mount') }}"
    hang = {"name": "command", "freeze": HANG, "thaw": ["/usr/bin/true"], "timeout": DRIVER_TIMEOUT}
    return {"isb_drivers": [{"name": "filesystem", "mounts": mounts}, hang]}


def checks_of(ran: Ran, roles: Roles) -> dict[str, bool]:
    """What the report must say: docs/run.md and docs/inventory.md document it."""
    servers = ran.report.get("servers", {})
    verdicts = {server["verdict"] for server in servers.values()}
    freezes = _freezes(ran)
    return {
        "verdict_is_crash_consistent": ran.report.get("verdict") == "crash-consistent"
        and verdicts == {"crash-consistent"},
        "exit_status_is_not_0": ran.status != 0,
        "unreachable_are_left_out_and_named": bool(servers)
        and not set(servers) & set(roles.unreachable)
        and all(f"{name}: did not answer" in ran.output for name in roles.unreachable),
        "hanging_are_named": all(
            any(problem.startswith(f"{name}:") for problem in ran.report.get("problems", [])) for name in roles.hanging
        ),
        "healthy_are_backed_up": _backed_up(servers, roles.healthy),
        "hanging_are_backed_up_too": _backed_up(servers, roles.hanging),
        "all_are_cleaned_up": bool(servers) and all(server["cleaned"] for server in servers.values()),
        "frozen_no_longer_than_the_budget": set(freezes) == {*roles.healthy, *roles.hanging}
        and max(freezes.values(), default=0.0) <= (BUDGET + SLACK) * 1000,
    }


def _freezes(ran: Ran) -> dict[str, float]:
    """How long each server was frozen, in ms, by its holder."""
    servers = ran.report.get("servers", {})
    found = {name: server["freeze_window_ms"] for name, server in servers.items()}
    return {name: window for name, window in found.items() if window is not None}


def _backed_up(servers: dict[str, Any], names: list[str]) -> bool:
    return all(len(servers.get(name, {}).get("volumes", [])) == 2 for name in names)


def _nothing_frozen(machine: Machine) -> dict[str, bool]:
    """On every server, also those that the network does not reach: no live hold, no process of it, and writes pass."""
    return {
        "no_live_hold_is_left": not any(_live_holds(machine, name) for name in machine.servers),
        "no_hanging_process_is_left": not any(
            command == " ".join(HANG) for name in machine.servers for _pid, _comm, command in machine.processes(name)
        ),
        "every_filesystem_can_be_written_to": _writable(machine),
    }


def _live_holds(machine: Machine, server: str) -> list[str]:
    records = [json.loads(path.read_text()) for path in machine.path(server, "/run/openisb").glob("hold-*.json")]
    return [record["status"]["state"] for record in records if record["status"]["state"] in LIVE]


def _writable(machine: Machine) -> bool:
    """Whether a write to each filesystem of each server is on the disk in time; one that waits is not waited for."""
    paths = [
        machine.path(host.name, f"{volume.mount}/probe") for host in machine.lab.file_servers for volume in host.volumes
    ]
    writes = [subprocess.Popen(["sh", "-c", 'echo x >"$0" && sync "$0"', str(path)]) for path in paths]
    deadline = time.monotonic() + WRITE
    while any(write.poll() is None for write in writes) and time.monotonic() < deadline:
        time.sleep(0.05)
    return all(write.poll() == 0 for write in writes)

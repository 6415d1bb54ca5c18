# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark of many servers makes of what it has measured."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from bench import scale, scale_faults, scale_lab, scale_result, scale_usage
from bench.callback import scale_marks
from bench.scale_run import PHASES, Marks, Ran, RunFailed, figures

SERVERS = ["fs001", "fs002"]


def usage(controller: float, servers: float) -> dict[str, float]:
    return {
        "controller": controller,
        "file_servers": servers,
        "storage_host": 0.0,
        "backup_server": 0.0,
        "machine": controller + servers + 1,
    }


def server(**changes: Any) -> dict[str, Any]:
    found = {"verdict": "application-consistent", "cleaned": True, "freeze_window_ms": 90.0, "bytes_read": 100}
    return {**found, "volumes": [{}, {}], "seconds": {"cleanup": 1.5}, **changes}


@pytest.fixture
def ran() -> Ran:
    """A run of 100 s: the controller used 1 s before its first play, then half of each phase."""
    phases = [
        ("preflight", 2.0, usage(1.0, 0.0)),
        ("prepare", 20.0, usage(10.0, 4.0)),
        ("consistency_point", 30.0, usage(15.0, 5.0)),
        ("backup", 40.0, usage(20.0, 6.0)),
        ("report", 90.0, usage(45.0, 16.0)),
    ]
    results = {
        "preflight": {"fs001": 4, "fs002": 4, "backup1": 9},
        "backup": {"fs001": 30, "fs002": 30},
        "cleanup": {"fs001": 10, "fs002": 10},
    }
    report = {
        "run_id": "isb-1",
        "verdict": "application-consistent",
        "freeze_window_ms": 100.0,
        "storage_ms": 10.0,
        "servers": {name: server() for name in SERVERS},
        "problems": [],
        "timeline": [
            {"event": "saveset", "at": 30.0},
            {"event": "saveset", "at": 60.0},
            {"event": "cleaned", "at": 68.0},
        ],
    }
    memory = {"peak_mib": 200.0, "largest_process_mib": 90.0, "most_processes": 12}
    begin, end = (0.0, usage(0.0, 0.0)), (100.0, usage(50.0, 17.0))
    return Ran(0, Marks(phases, results), begin, end, memory, report, "output")


def test_phases_are_told_apart(ran: Ran) -> None:
    phases = figures(ran, 2)["phases"]
    assert list(phases) == [phase for phase in PHASES if phase != "open"]
    assert phases["preflight"] == {"seconds": 20.0, "controller_cpu_seconds": 10.0, "hosts_cpu_seconds": 4.0}
    assert phases["report"] == {"seconds": 10.0, "controller_cpu_seconds": 5.0, "hosts_cpu_seconds": 1.0}
    # 50 s of both; the last server was cleaned up 8 s after the last saveset. A quarter of the results is cleanup's.
    assert phases["backup"] == {"seconds": 42.0, "controller_cpu_seconds": 18.75, "hosts_cpu_seconds": 7.5}
    assert phases["cleanup"]["seconds"] == 8.0
    assert phases["cleanup"]["controller_cpu_seconds"] == 6.25
    assert sum(phase["controller_cpu_seconds"] for phase in phases.values()) == pytest.approx(50.0)
    assert sum(phase["seconds"] for phase in phases.values()) == pytest.approx(100.0)


def test_figures_of_a_run(ran: Ran) -> None:
    found = figures(ran, 2)
    assert found["cpu_seconds"]["controller"] == 50.0
    assert found["controller_cpu_seconds_per_server"] == 25.0
    assert found["freeze_window_without_storage_ms"] == 90.0
    assert found["task_results"] == {
        "all_hosts": 97,
        "per_server": 44.0,
        "per_server_by_phase": {"preflight": 4.0, "backup": 30.0, "cleanup": 10.0},
    }


@pytest.mark.parametrize("change", [{"status": 2}, {"report": {}}, {"report": {"verdict": "crash-consistent"}}])
def test_a_run_that_failed_has_no_figures(ran: Ran, change: dict[str, Any]) -> None:
    for name, value in change.items():
        setattr(ran, name, value)
    with pytest.raises(RunFailed, match="output"):
        figures(ran, 2)


def taken(ran: Ran) -> list[dict[str, Any]]:
    runs = []
    for servers in (2, 20):
        for number in (1, 2, 3):
            found = copy.deepcopy(figures(ran, 2))
            found["seconds"] = 10.0 * servers * number
            found["cpu_seconds"]["controller"] = 20.0 + servers * 2
            runs.append({"servers": servers, "code": "this", "which": "first", "round": number, **found})
    return runs


def test_medians_tables_and_charts(ran: Ran) -> None:
    found = scale_result.medians(taken(ran))
    assert [(entry["servers"], entry["seconds"]) for entry in found] == [(2, 40.0), (20, 400.0)]
    assert found[0]["phases"]["preflight"]["seconds"] == 20.0
    assert len({len(line) for line in scale_result.table(found).splitlines()[1:]}) == 1
    chart = scale_result.chart(found)
    assert [line.count("#") for line in chart.splitlines() if "backup" in line] == [scale_result.WIDTH] * 2
    (grown,) = scale_result.growth(found)
    assert (grown["from"], grown["to"], grown["window"]) == (2, 20, 1.0)
    assert grown["controller_cpu_seconds_of_another_server"] == 2.0


def test_one_number_of_servers_has_no_growth(ran: Ran) -> None:
    assert scale_result.growth(scale_result.medians(taken(ran)[:3])) == []


# The callback


def test_the_plays_of_a_run_are_its_phases(project_root: Path) -> None:
    plays = [
        play["name"]
        for name in ("resolve", "preflight", "isb")
        for play in yaml.safe_load((project_root / f"playbooks/{name}.yml").read_text())
        if "hosts" in play
    ]
    phase, found = "preflight", ["preflight"]
    for name in plays:
        phase = scale_marks.phase_of_play(name, phase)
        found += [phase] if phase != found[-1] else []
    assert found == [phase for phase in PHASES if phase != "cleanup"]


def test_a_task_is_in_the_role_that_includes_its_role() -> None:
    outer = SimpleNamespace(_role=SimpleNamespace(get_name=lambda: "openisb.backup.cleanup"), _parent=None)
    task = SimpleNamespace(_role=SimpleNamespace(get_name=lambda: "openisb.backup.snapshot"), _parent=outer)
    assert scale_marks.roles_of(task) == {"snapshot", "cleanup"}


# Processor time


def test_only_what_descends_from_the_controller_counts() -> None:
    found = {1: (0, 1.0), 10: (1, 2.0), 11: (10, 4.0), 12: (10, 8.0), 13: (12, 16.0), 20: (1, 32.0)}
    assert sorted(scale_usage.descendants(found, 10)) == [11, 12, 13]
    assert sorted(scale_usage.descendants(found, 10, frozenset({12}))) == [11]
    assert scale_usage.host_seconds(found, 10) == 30.0
    assert scale_usage.host_seconds(found, 99) == 0


def test_the_time_of_a_process_counts_while_it_lives_and_after() -> None:
    code = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    before = scale_usage.controller_seconds(scale_usage.processes(), frozenset())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        living = scale_usage.controller_seconds(scale_usage.processes(), frozenset()) - before
        without = scale_usage.controller_seconds(scale_usage.processes(), frozenset({process.pid})) - before
        process.communicate(b"\n")
    ended = scale_usage.controller_seconds(scale_usage.processes(), frozenset()) - before
    assert living >= 0.38
    assert without < 0.2
    assert living <= ended + 0.02
    assert scale_usage.proportional_kibibytes(os.getpid()) > 1000
    assert scale_usage.proportional_kibibytes(process.pid) == 0


# Faults


@pytest.fixture
def roles() -> scale_faults.Roles:
    return scale_faults.roles_of([f"fs{number:03d}" for number in range(1, 31)])


@pytest.mark.parametrize("servers", [10, 11, 30, 100])
def test_some_servers_stay_healthy(servers: int) -> None:
    names = [f"fs{number:03d}" for number in range(servers)]
    roles = scale_faults.roles_of(names)
    assert (len(roles.unreachable), len(roles.hanging)) == (scale_faults.UNREACHABLE, scale_faults.HANGING)
    assert sorted(roles.unreachable + roles.hanging + roles.healthy) == names
    assert len(roles.healthy) >= 2


@pytest.fixture
def hurt(ran: Ran, roles: scale_faults.Roles) -> Ran:
    """A run with faults, as it should end."""
    ran.status = 2
    reached = [*roles.healthy, *roles.hanging]
    ran.report.update(
        verdict="crash-consistent",
        servers={name: server(verdict="crash-consistent") for name in reached},
        problems=[f"{name}: did not freeze: it hangs" for name in roles.hanging],
    )
    ran.output = "Left out: " + "; ".join(f"{name}: did not answer" for name in roles.unreachable)
    return ran


def test_a_run_with_faults_that_ends_as_it_should(hurt: Ran, roles: scale_faults.Roles) -> None:
    checks = scale_faults.checks_of(hurt, roles)
    assert checks and all(checks.values())


@pytest.mark.parametrize(
    ("who", "change", "check"),
    [
        ("healthy", {"volumes": [{}]}, "healthy_are_backed_up"),
        ("hanging", {"volumes": []}, "hanging_are_backed_up_too"),
        ("healthy", {"verdict": "application-consistent"}, "verdict_is_crash_consistent"),
        ("healthy", {"freeze_window_ms": 10_500.0}, "frozen_no_longer_than_the_budget"),
        ("hanging", {"freeze_window_ms": None}, "frozen_no_longer_than_the_budget"),
        ("healthy", {"cleaned": False}, "all_are_cleaned_up"),
    ],
)
def test_what_does_not_hold_is_found(
    hurt: Ran, roles: scale_faults.Roles, who: str, change: dict[str, Any], check: str
) -> None:
    hurt.report["servers"][getattr(roles, who)[0]].update(change)
    assert [name for name, holds in scale_faults.checks_of(hurt, roles).items() if not holds] == [check]


def test_a_run_without_a_report_holds_nothing(hurt: Ran, roles: scale_faults.Roles) -> None:
    hurt.report, hurt.output, hurt.status = {}, "", 0
    assert not any(scale_faults.checks_of(hurt, roles).values())


class OneServer:
    """A machine with one server that has one volume."""

    servers = ("fs001",)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        volume = SimpleNamespace(mount="/srv/home")
        self.lab = SimpleNamespace(file_servers=[SimpleNamespace(name="fs001", volumes=[volume])])
        (folder / "srv/home").mkdir(parents=True)
        (folder / "run/openisb").mkdir(parents=True)

    def path(self, _host: str, path: str) -> Path:
        return self.folder / path.lstrip("/")

    def processes(self, _host: str) -> list[tuple[int, str, str]]:
        return [(7, "sleep", "sleep infinity")]


def test_a_server_that_is_not_frozen(tmp_path: Path) -> None:
    found = scale_faults._nothing_frozen(OneServer(tmp_path))
    assert found and all(found.values())


def test_a_write_that_waits_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = OneServer(tmp_path)
    monkeypatch.setattr(scale_faults, "WRITE", 0.5)
    waiting = tmp_path / "srv/home/probe"
    os.mkfifo(waiting)  # a write waits for a reader, as on a frozen filesystem for the thaw
    try:
        found = scale_faults._nothing_frozen(machine)
    finally:
        os.close(os.open(waiting, os.O_RDONLY))
    assert [name for name, holds in found.items() if not holds] == ["every_filesystem_can_be_written_to"]


@pytest.mark.parametrize(("state", "left"), [("frozen", True), ("thawing", True), ("thawed", False)])
def test_a_live_hold_is_found(tmp_path: Path, state: str, left: bool) -> None:
    machine = OneServer(tmp_path)
    machine.path("fs001", "/run/openisb/hold-isb-1.json").write_text(json.dumps({"status": {"state": state}}))
    found = scale_faults._nothing_frozen(machine)
    assert found["no_live_hold_is_left"] is not left


# Options


def test_numbers_of_servers() -> None:
    assert scale.counts("10,30,100") == [10, 30, 100]
    for text in ("", "0", "3,-1", "ten"):
        with pytest.raises(ValueError):
            scale.counts(text)


def test_a_machine_that_is_too_small_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_lab, "available_mebibytes", lambda: 8000)
    monkeypatch.setattr(scale_lab, "DISK", 0)
    assert scale_lab.too_small(tmp_path, 10) == ""
    assert "has 8000 MiB of memory available, and 100 servers may need 18072 MiB" in scale_lab.too_small(tmp_path, 100)
    monkeypatch.setattr(scale_lab, "DISK", 1 << 40)
    assert "of free disk space, and 10 servers may need" in scale_lab.too_small(tmp_path, 10)

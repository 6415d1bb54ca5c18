# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which runs are dead: those whose playbook is seen to be gone, and those that the operator declares dead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control import controller
from ansible_collections.openisb.backup.plugins.module_utils.control.controller import (
    dead_runs,
    is_alive,
    this_controller,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import processes

RUN = "isb-20261123T021500Z-4f1c2a"
ROOT = Path(__file__).parents[3]
ELSEWHERE = [
    ({"host": "elsewhere"}, "on elsewhere, and"),
    ({"machine": "another"}, "another machine of the same name"),
    ({"boot": "0b7b1dd2-0000-4000-8000-000000000000"}, "before it was rebooted, or on a clone of it"),
    ({"namespace": "pid:[4026532000]"}, "in another container"),
    ({"boot": ""}, "before it was rebooted"),
]


@pytest.fixture
def sleeper() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process.pid
    process.kill()
    process.wait()


def started(pid: int, ticks: int | None = None, **place: Any) -> dict[str, Any]:
    """A controller, as the journal has it; its process runs unless ``ticks`` say otherwise."""
    return {**controller.this_place(), "pid": pid, "ticks": ticks or processes.identity(pid)["ticks"], **place}


def opened(who: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"run_id": RUN, "last_event": "freezing", "last_time": "02:15", "data": {"controller": who}}]


def test_a_controller_is_named_by_all_that_its_process_id_means_something_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    monkeypatch.setattr(controller, "MACHINE_ID", str(tmp_path / "machine-id"))
    named = this_controller()
    assert all(named[name] for name in ("host", "machine", "boot", "namespace", "pid", "ticks")), named
    assert "0123456789abcdef" not in json.dumps(named)


def test_a_run_whose_controller_works_is_alive(sleeper: int) -> None:
    found = dead_runs(opened(started(sleeper)), "")
    assert found["runs"] == []
    assert "still running" in found["problems"][0]
    # Not even the operator's word makes a run dead that can be seen at work.
    assert dead_runs(opened(started(sleeper)), RUN)["runs"] == []


def test_all_hosts_of_dead_runs_are_named_and_of_no_other(sleeper: int) -> None:
    """One of them may stand still, whatever the inventory says by now."""
    plan = {"fs1": {"ring": "", "storage_host": "storage1", "backup_server": "backup1"}, "fs2\x1b": {"ring": "npr"}}
    (run,) = opened(started(sleeper, 1))
    run["data"]["plan"] = plan
    assert dead_runs([run], "")["hosts"] == ["backup1", "fs1", "fs2\\x1b", "npr", "storage1"]
    run["data"]["controller"] = started(sleeper)
    assert dead_runs([run], "")["hosts"] == []


def test_a_run_whose_controller_is_gone_is_dead(sleeper: int) -> None:
    assert dead_runs(opened(started(sleeper, 1)), "") == {"runs": [RUN], "hosts": [], "problems": []}


@pytest.mark.parametrize(("place", "where"), ELSEWHERE)
@pytest.mark.parametrize("ticks", [None, 1], ids=["same process id is taken here", "no such process here"])
def test_a_run_that_cannot_be_seen_is_dead_only_by_name(
    sleeper: int, place: dict[str, str], where: str, ticks: int | None
) -> None:
    """A clone of the controller, another container, a controller that was started anew: a process id says nothing."""
    who = started(sleeper, ticks, **place)
    found = dead_runs(opened(who), "")
    assert found["runs"] == []
    (problem,) = found["problems"]
    assert where in problem and f"-e recover_run_id={RUN}" in problem and "'freezing' at 02:15" in problem
    assert f"process {sleeper}" in problem
    assert is_alive(who)
    assert dead_runs(opened(who), RUN) == {"runs": [RUN], "hosts": [], "problems": []}


@pytest.mark.parametrize("name", ["machine", "boot", "namespace"])
def test_a_record_that_lacks_a_part_is_of_nowhere(sleeper: int, name: str) -> None:
    who = started(sleeper, 1)
    del who[name]
    assert dead_runs(opened(who), "")["runs"] == []
    assert dead_runs(opened({}), "")["runs"] == []


@pytest.mark.parametrize("name", ["BOOT_ID", "NAMESPACE"])
def test_a_system_that_does_not_tell_sees_no_controller(
    sleeper: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither is a run of this very machine dead then: two systems that tell nothing look alike."""
    monkeypatch.setattr(controller, name, "/nonexistent")
    assert dead_runs(opened(started(sleeper, 1)), "")["runs"] == []


def test_a_system_that_hides_processes_sees_no_controller(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with hidepid=2, where a process of somebody else looks like none."""
    monkeypatch.setattr(processes, "identity", lambda pid: {"pid": pid, "ticks": None})
    found = dead_runs(opened(started(sleeper, 5)), "")
    assert found["runs"] == []
    assert "does not show the processes of other users" in found["problems"][0]


def test_a_machine_without_an_id_is_told_by_the_rest(sleeper: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of containers have none."""
    monkeypatch.setattr(controller, "MACHINE_ID", "/nonexistent")
    assert dead_runs(opened(started(sleeper, 1)), "")["runs"] == [RUN]
    assert dead_runs(opened(started(sleeper, 1, namespace="pid:[1]")), "")["runs"] == []


def test_a_name_of_no_open_run_is_told(sleeper: int) -> None:
    other = RUN.replace("4f1c2a", "000000")
    found = dead_runs(opened(started(sleeper, 1)), other)
    assert found["runs"] == [RUN]
    assert f"run {other}, which recover_run_id names, is not open" in found["problems"][0]


@pytest.mark.root
@pytest.mark.parametrize("mount_proc", [True, False], ids=["own /proc", "the host's /proc"])
def test_another_pid_namespace_for_real(sleeper: int, mount_proc: bool) -> None:
    """What opened a run here is at work, and from inside a container none of its processes is seen."""
    inside = (
        "import json, sys; "
        "from ansible_collections.openisb.backup.plugins.module_utils.control.controller import dead_runs; "
        "print(json.dumps(dead_runs(json.load(sys.stdin), '')))"
    )
    unshare = ["unshare", "--pid", "--fork", *(["--mount-proc"] if mount_proc else [])]
    done = subprocess.run(
        [*unshare, sys.executable, "-c", inside],
        input=json.dumps(opened(started(sleeper))),
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["runs"] == []
    assert "in another container" in found["problems"][0]

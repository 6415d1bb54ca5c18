# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a dead run left on a backup server is ended and removed, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs, processes

DEAD, LIVE = "isb-20261123T021500Z-4f1c2a", "isb-20261123T031500Z-000000"
COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
PROGRAM = """
import sys, time
sys.path[:0] = {path!r}
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING, Job
Job({run_dir!r}, sys.argv[1]).tell(RUNNING)
time.sleep(60)
"""
#: Writes a result once its module has ended, however that was.
WRAPPER = """
import pathlib, subprocess, sys, time
subprocess.run([sys.executable, *sys.argv[2:]])
time.sleep(0.2)
pathlib.Path({result!r}).touch()
"""


def start(run_dir: Path, name: str) -> subprocess.Popen[bytes]:
    """A job as Ansible starts it: a module in a folder of its own, below an async wrapper."""
    folder = run_dir / "ansible" / f"ansible-tmp-{name}"
    folder.mkdir(parents=True)
    module = folder / "AnsiballZ_block_backup.py"
    payload = run_dir / f"ansible_block_backup_payload_{name}"
    payload.mkdir()
    path = [str(payload / "ansible_block_backup_payload.zip"), str(COLLECTIONS)]
    module.write_text(PROGRAM.format(path=path, run_dir=str(run_dir)))
    wrapper = folder / "async_wrapper.py"
    result = run_dir / "async" / f"j{name}.42"
    wrapper.write_text(WRAPPER.format(result=str(result)))
    result.parent.mkdir(exist_ok=True)
    result.touch()
    return subprocess.Popen([sys.executable, str(wrapper), f"j{name}", str(module), name])


@pytest.fixture
def started(tmp_path: Path):
    """One job of each run."""
    names = {run: f"{run}.fs1.m" for run in (DEAD, LIVE)}
    running = {run: start(tmp_path, name) for run, name in names.items()}
    for name in names.values():
        while jobs.Job(str(tmp_path), name).read() is None:
            assert all(process.poll() is None for process in running.values())
    yield tmp_path
    for name in names.values():
        jobs.end(str(tmp_path), name)
    for process in running.values():
        process.wait(10)


def test_jobs_of_one_run_are_ended_without_a_trace(started: Path) -> None:
    (name,) = jobs.of_run(str(started), DEAD)
    record = jobs.Job(str(started), name).read()
    assert record["running"]
    assert jobs.end(str(started), name)
    assert not processes.is_running(record)
    time.sleep(0.5)
    assert [path for path in started.rglob("*") if DEAD in str(path)] == []
    assert jobs.of_run(str(started), DEAD) == []


def test_jobs_of_other_runs_are_left_alone(started: Path) -> None:
    before = sorted(path for path in started.rglob("*") if LIVE in str(path))
    jobs.end(str(started), f"{DEAD}.fs1.m")
    (name,) = jobs.of_run(str(started), LIVE)
    assert jobs.Job(str(started), name).read()["running"]
    assert sorted(path for path in started.rglob("*") if LIVE in str(path)) == before
    assert len(before) >= 6


def test_a_job_that_is_gone_already_is_forgotten(tmp_path: Path) -> None:
    job = jobs.Job(str(tmp_path), f"{DEAD}.fs1.m")
    job.tell(jobs.FINISHED)
    record = json.loads(Path(job.path).read_text())
    Path(job.path).write_text(json.dumps({**record, "ticks": 1}))
    assert jobs.end(str(tmp_path), f"{DEAD}.fs1.m")
    assert jobs.end(str(tmp_path), f"{DEAD}.fs1.m")
    assert jobs.of_run(str(tmp_path), DEAD) == []

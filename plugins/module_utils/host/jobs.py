# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state that a long task publishes while it runs: one small file per job below ``run_dir``, replaced atomically."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import sys
import time
from typing import Any, Sequence

from . import processes, records
from .records import Record

INTERVAL = 0.25  # seconds
KEPT = 3600.0  # seconds
PARTS_MAX = 64  # of one job: more are neither recorded nor shown
WAITING, RUNNING, FINISHED = "waiting", "running", "finished"

#: Options of every module that runs as a job. Its action (plugin_utils/jobs.py) reads all, the module the first two.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "job": {"type": "str", "required": True},
    "run_dir": {"type": "path", "default": "/run/openisb"},
    "label": {"type": "str"},
    "poll": {"type": "float", "default": 1.0},
    "timeout": {"type": "int", "default": 86400},
    "grace": {"type": "float", "default": 20.0},
    "patience": {"type": "float", "default": 300.0},
}


class Job:
    """The job ``name`` (letters, digits, ``.``, ``_``, ``-``) of a host."""

    def __init__(self, run_dir: str, name: str) -> None:
        self.name = name
        self.folder = os.path.join(run_dir, "jobs")
        self._written = 0.0
        self._made_by: dict[str, Any] | None = None

    @property
    def path(self) -> str:
        """The job's file."""
        return os.path.join(self.folder, self.name + ".json")

    def tell(self, state: str, progress: dict[str, Any] | None = None) -> None:
        """Record the job's state. ``progress``: as progress_of() makes it, and with it the list of its ``parts``."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        pid = os.getpid()
        if self._made_by is None:
            self._made_by = made_by(pid)
        record = {"state": state, **processes.identity(pid), "progress": progress or {}}
        record.update(self._made_by)
        records.write(self.path, record)
        self._written = time.monotonic()

    def tell_progress(self, done: int, total: int, elapsed: float, parts: Sequence[Record] = ()) -> None:
        """Record progress, at most every INTERVAL seconds. ``done``, ``total``: bytes; ``elapsed``: seconds.

        ``parts``: of a job with several, the progress of each, as progress_of() makes it, with its label and state.
        """
        if time.monotonic() - self._written >= INTERVAL:
            progress = progress_of(done, total, elapsed)
            self.tell(RUNNING, dict(progress, parts=list(parts[:PARTS_MAX])) if parts else progress)

    def read(self) -> dict[str, Any] | None:
        """The job's last record, with ``running``: whether its process is alive. None where there is none yet."""
        record = records.read(self.path)
        if record is not None:
            record["running"] = processes.is_running(record)
        return record

    def sweep(self) -> None:
        """Remove the leftovers of jobs that ended a while ago."""
        for name in os.listdir(self.folder) if os.path.isdir(self.folder) else []:
            path = os.path.join(self.folder, name)
            other = Job(os.path.dirname(self.folder), name.rpartition(".")[0]).read()
            if other and not other["running"] and os.path.getmtime(path) < time.time() - KEPT:
                os.unlink(path)


def read_all(run_dir: str) -> dict[str, dict[str, Any]]:
    """The records of all jobs below ``run_dir``, by name, as Job.read() returns them."""
    paths = sorted(glob.glob(os.path.join(glob.escape(run_dir), "jobs", "*.json")))
    names = [os.path.basename(path)[: -len(".json")] for path in paths]
    found = {name: Job(run_dir, name).read() for name in names}
    return {name: record for name, record in found.items() if record}


def of_run(run_dir: str, run_id: str) -> list[str]:
    """Names of the jobs of a run, running or not."""
    names = glob.glob(os.path.join(glob.escape(run_dir), "jobs", glob.escape(run_id) + ".*.json"))
    return sorted(os.path.basename(name)[: -len(".json")] for name in names)


def end(run_dir: str, name: str) -> bool:
    """End a job, and remove the leftovers of it and of Ansible. Returns whether it is gone."""
    job = Job(run_dir, name)
    record = job.read()
    if record is None:
        return True
    # Ansible's wrapper first: once its module has ended it would write a result, after we have removed that file.
    for process in filter(None, [record.get("wrapper"), record]):
        if not processes.stop(process):
            return False
    for folder in filter(None, [record.get("folder"), record.get("payload")]):
        shutil.rmtree(folder, ignore_errors=True)
    results = os.path.join(glob.escape(run_dir), "async", glob.escape(record.get("async") or "") + ".*")
    for path in glob.glob(results) if record.get("async") else []:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    os.unlink(job.path)
    return True


def made_by(pid: int) -> dict[str, Any]:
    """What Ansible has created for the module that runs as this process; all empty where this is not a module.

    ``folder``: where Ansible has put the module; ``payload``: where the module has unpacked its libraries; ``async``:
    the name of its result file; ``wrapper``: the process that writes the result. Found on the command lines of this
    process and of its parent, Ansible's async wrapper, and in this process's sys.path.
    """
    module = [word for word in processes.command_line(pid) if os.path.basename(word).startswith("AnsiballZ_")]
    wrapper = processes.command_line(os.getppid())
    place = [number for number, word in enumerate(wrapper) if "async_wrapper" in word]
    unpacked = [os.path.dirname(path) for path in sys.path if path.endswith("_payload.zip")]
    return {
        "folder": os.path.dirname(module[0]) if module and "ansible-tmp-" in module[0] else "",
        "payload": unpacked[0] if unpacked and "_payload_" in os.path.basename(unpacked[0]) else "",
        "async": wrapper[place[0] + 1] if place and len(wrapper) > place[0] + 1 else "",
        "wrapper": processes.identity(os.getppid()) if place else None,
    }


def progress_of(done: int, total: int, elapsed: float) -> dict[str, Any]:
    """Progress as a job records it: percent, bytes_done, bytes_total, rate (bytes/s), eta_s (None: unknown)."""
    rate = done / elapsed if elapsed > 0 else 0.0
    return {
        "percent": round(100.0 * done / total, 1) if total else 100.0,
        "bytes_done": done,
        "bytes_total": total,
        "rate": round(rate),
        "eta_s": round((total - done) / rate, 1) if rate else None,
    }

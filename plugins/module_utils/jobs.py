# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a long task tells of itself while it runs: one small file a job below ``run_dir``, replaced as a whole."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import sys
import time

from ansible_collections.openisb.backup.plugins.module_utils import processes

INTERVAL = 0.25  # seconds
KEPT = 3600.0  # seconds
WAITING, RUNNING, FINISHED = "waiting", "running", "finished"


class Job:
    """The job ``name`` (letters, digits, ``.``, ``_``, ``-``) of a host."""

    def __init__(self, run_dir, name):
        self.name = name
        self.folder = os.path.join(run_dir, "jobs")
        self._written = 0.0
        self._made_by = None

    @property
    def path(self):
        """The job's file."""
        return os.path.join(self.folder, self.name + ".json")

    def tell(self, state, progress=None):
        """Say where the job stands. ``progress``: a dict of percent, bytes_done, bytes_total, rate (bytes/s), eta_s."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        pid = os.getpid()
        if self._made_by is None:
            self._made_by = made_by(pid)
        record = {"state": state, "pid": pid, "ticks": processes.start_ticks(pid), "progress": progress or {}}
        record.update(self._made_by)
        with open(self.path + ".new", "w", encoding="utf-8") as stream:
            json.dump(record, stream)
        os.replace(self.path + ".new", self.path)
        self._written = time.monotonic()

    def tell_progress(self, done, total, elapsed):
        """Say how far it is, at most every INTERVAL seconds. ``done``, ``total``: bytes; ``elapsed``: seconds."""
        if time.monotonic() - self._written >= INTERVAL:
            self.tell(RUNNING, progress_of(done, total, elapsed))

    def read(self):
        """What the job said last, with ``running``: whether its process is alive. None where it said nothing yet."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                record = json.load(stream)
        except FileNotFoundError:
            return None
        record["running"] = processes.is_running(record["pid"], record["ticks"])
        return record

    def sweep(self):
        """Remove what jobs that ended a while ago have left."""
        for name in os.listdir(self.folder) if os.path.isdir(self.folder) else []:
            path = os.path.join(self.folder, name)
            other = Job(os.path.dirname(self.folder), name.rpartition(".")[0]).read()
            if other and not other["running"] and os.path.getmtime(path) < time.time() - KEPT:
                os.unlink(path)


def of_run(run_dir, run_id):
    """Names of the jobs of a run, running or not."""
    names = glob.glob(os.path.join(glob.escape(run_dir), "jobs", glob.escape(run_id) + ".*.json"))
    return sorted(os.path.basename(name)[: -len(".json")] for name in names)


def end(run_dir, name):
    """End a job, and remove all that it and Ansible have left of it. Returns whether it is gone."""
    job = Job(run_dir, name)
    record = job.read()
    if record is None:
        return True
    # Ansible's wrapper first: once its module has ended it would write a result, after that was removed here.
    for process in filter(None, [record.get("wrapper"), record]):
        if not processes.stop(process["pid"], process["ticks"]):
            return False
    for folder in filter(None, [record.get("folder"), record.get("payload")]):
        shutil.rmtree(folder, ignore_errors=True)
    results = os.path.join(glob.escape(run_dir), "async", glob.escape(record.get("async") or "") + ".*")
    for path in glob.glob(results) if record.get("async") else []:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    os.unlink(job.path)
    return True


def made_by(pid):
    """What Ansible has made for the module that is this process: all empty where it is none.

    ``folder``: where it has put the module; ``payload``: where that has unpacked its libraries; ``async``: the name of
    its result; ``wrapper``: the process that writes the result. Found on the command lines of this process and of its
    parent, Ansible's async wrapper, and where this process has its modules from.
    """
    module = [word for word in processes.command_line(pid) if os.path.basename(word).startswith("AnsiballZ_")]
    wrapper = processes.command_line(os.getppid())
    place = [number for number, word in enumerate(wrapper) if "async_wrapper" in word]
    unpacked = [os.path.dirname(path) for path in sys.path if path.endswith("_payload.zip")]
    return {
        "folder": os.path.dirname(module[0]) if module and "ansible-tmp-" in module[0] else "",
        "payload": unpacked[0] if unpacked and "_payload_" in os.path.basename(unpacked[0]) else "",
        "async": wrapper[place[0] + 1] if place and len(wrapper) > place[0] + 1 else "",
        "wrapper": {"pid": os.getppid(), "ticks": processes.start_ticks(os.getppid())} if place else None,
    }


def progress_of(done, total, elapsed):
    """Progress as a job tells it: percent, bytes_done, bytes_total, rate (bytes/s), eta_s (None: unknown)."""
    rate = done / elapsed if elapsed > 0 else 0.0
    return {
        "percent": round(100.0 * done / total, 1) if total else 100.0,
        "bytes_done": done,
        "bytes_total": total,
        "rate": round(rate),
        "eta_s": round((total - done) / rate, 1) if rate else None,
    }

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells whether the ansible-playbook that opened a run still works: a live run is never taken for a dead one."""

from __future__ import annotations

import os
import socket

from ansible_collections.openisb.backup.plugins.module_utils import answers, processes


def this_controller():
    """Who runs this playbook: host, pid and ticks of its process (the parent of the worker that templates a task)."""
    pid = os.getppid()
    return {"host": socket.gethostname(), "pid": pid, "ticks": processes.start_ticks(pid)}


def is_alive(controller):
    """Whether a playbook still runs, as far as this host can see: that of another host may well do."""
    here = controller.get("host") == socket.gethostname()
    return not here or processes.is_running(controller.get("pid", 0), controller.get("ticks"))


def dead_runs(open_runs, named):
    """Which of the open runs may be cleaned up: a dict of runs (ids) and problems (texts, about runs that may not).

    ``named``: id of a run that the operator declares dead; needed where its controller is another machine.
    """
    runs, problems = [], []
    for run in open_runs:
        answers.run_id(run["run_id"])
        controller = run["data"].get("controller", {})
        here = controller.get("host") == socket.gethostname()
        if here and processes.is_running(controller.get("pid", 0), controller.get("ticks")):
            problems.append(f"run {run['run_id']} is still at work (process {controller['pid']} on this host)")
        elif here or run["run_id"] == named:
            runs.append(run["run_id"])
        else:
            host = controller.get("host", "another host")
            problems.append(
                f"run {run['run_id']} was started on {host}, where it may still be at work: make sure that it is not, "
                f"and declare it dead with -e recover_run_id={run['run_id']}"
            )
    return {"runs": runs, "problems": problems}

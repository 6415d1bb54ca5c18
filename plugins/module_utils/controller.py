# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells whether the ansible-playbook that opened a run still works: a live run is never taken for a dead one.

A process id means something in one PID namespace of one boot of one machine. A clone of a machine has its name and its
machine id, a container its kernel's boot id, and two containers each a process 1. So a process that is not there says
only that a run is dead where machine, boot and namespace are those that the run was started in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket

from ansible_collections.openisb.backup.plugins.module_utils import answers, processes

MACHINE_ID = "/etc/machine-id"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NAMESPACE = "/proc/self/ns/pid"


def this_controller():
    """Who runs this playbook: its process (the parent of the worker that templates a task), and where that is.

    A dict of host, machine, boot and namespace (texts, empty where this system does not tell), pid and ticks.
    """
    pid = os.getppid()
    return {**this_place(), "pid": pid, "ticks": processes.start_ticks(pid)}


def this_place():
    """Where processes are the same ones by the same ids: a dict of host, machine, boot and namespace."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "boot": _text(BOOT_ID),
        "namespace": _namespace(),
    }


def is_visible(controller):
    """Whether it shows here if that playbook still runs."""
    here = this_place()
    told = here["boot"] and here["namespace"] and _sees_processes()
    return bool(told) and all(controller.get(name) == here[name] for name in here)


def is_alive(controller):
    """Whether a playbook still runs, as far as can be seen from here: one that cannot be seen may well do."""
    return not is_visible(controller) or processes.is_running(controller.get("pid", 0), controller.get("ticks"))


def dead_runs(open_runs, named):
    """Which of the open runs may be cleaned up: a dict of runs (ids) and problems (texts, about runs that may not).

    ``named``: id of a run that the operator declares dead; needed where its controller cannot be seen from here.
    """
    runs, problems = [], []
    for run in open_runs:
        answers.run_id(run["run_id"])
        controller = run["data"].get("controller", {})
        if is_visible(controller) and is_alive(controller):
            problems.append(f"run {run['run_id']} is still at work (process {controller['pid']} on this host)")
        elif is_visible(controller) or run["run_id"] == named:
            runs.append(run["run_id"])
        else:
            problems.append(_unseen_problem(run, controller))
    if named and named not in [run["run_id"] for run in open_runs]:
        problems.append(f"run {named}, which recover_run_id names, is not open: correct it, or leave it out")
    return {"runs": runs, "problems": problems}


def _unseen_problem(run, controller):
    """Why a run is not taken for dead, and how the operator finds out, and says, that it is."""
    last = f"; its last word was '{run['last_event']}' at {run['last_time']}" if "last_event" in run else ""
    return (
        f"run {run['run_id']} was started {_whereabouts(controller)}, where it cannot be seen from here whether it is "
        f"still at work (process {controller.get('pid', 'of unknown id')}){last}. Make sure that no ansible-playbook "
        f"and no AWX job works on it any more, and declare it dead with -e recover_run_id={run['run_id']}"
    )


def _whereabouts(controller):
    """Where a controller is that cannot be seen from here, by what differs."""
    here, host = this_place(), controller.get("host", "another host")
    if controller.get("host") != here["host"] or controller.get("machine") != here["machine"]:
        return f"on {host}" + ("" if controller.get("host") != here["host"] else ", another machine of this one's name")
    if controller.get("boot") != here["boot"]:
        return f"on {host} before it was started anew, or on a clone of it"
    if controller.get("namespace") != here["namespace"]:
        return f"on {host} in another container"
    return f"on {host}, which does not show the processes of others here"


def _machine():
    """What tells this machine from others: made from its id, which itself is not to be told around."""
    machine_id = _text(MACHINE_ID)
    return hmac.new(machine_id.encode(), b"openisb controller", hashlib.sha256).hexdigest()[:32] if machine_id else ""


def _text(path):
    """The content of a small file of the system; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(256).strip()
    except (OSError, ValueError):
        return ""


def _namespace():
    """Which PID namespace this process is in, as ``pid:[4026531836]``; empty where the system has none."""
    try:
        return os.readlink(NAMESPACE)
    except OSError:
        return ""


def _sees_processes():
    """Whether /proc shows all processes of this namespace: it may be mounted to hide them, or from another one."""
    try:
        return os.readlink("/proc/self") == str(os.getpid()) and processes.start_ticks(1) is not None
    except OSError:
        return False

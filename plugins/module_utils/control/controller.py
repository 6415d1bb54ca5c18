# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether the ansible-playbook that opened a run is still running: a live run is never taken for a dead one.

A process id is only meaningful in one PID namespace of one boot of one machine. A clone of a machine has the same name
and machine id, a container has its kernel's boot id, and every container has a process 1. So a missing process proves
that a run is dead only if machine, boot and namespace are those that the run was started in.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
from typing import Any

from ..host import processes
from ..host.plain import plain
from . import answers, inventory
from .entries import Entry

MACHINE_ID = "/etc/machine-id"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NAMESPACE = "/proc/self/ns/pid"


def this_controller() -> Entry:
    """Identify the process that runs this playbook (the parent of the worker that templates a task).

    A dict of host, machine, boot and namespace (texts, empty where this system does not provide it), pid and ticks.
    """
    pid = os.getppid()
    return {**this_place(), **processes.identity(pid)}


def opening(servers: list[str], hostvars: Any) -> Entry:
    """The journal's data when a run is opened: its plan, and who runs it."""
    return dict(inventory.run_plan(servers, hostvars), controller=this_controller())


def this_place() -> dict[str, str]:
    """The place within which a process id is unique: a dict of host, machine, boot and namespace."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "boot": _text(BOOT_ID),
        "namespace": _namespace(),
    }


def is_visible(controller: Entry) -> bool:
    """Whether it can be seen from here if that playbook still runs."""
    here = this_place()
    told = here["boot"] and here["namespace"] and _sees_processes()
    return bool(told) and all(controller.get(name) == here[name] for name in here)


def is_alive(controller: Entry) -> bool:
    """Whether a playbook may still run: True as well where that cannot be seen from here."""
    process = {"pid": controller.get("pid", 0), "ticks": controller.get("ticks")}
    return not is_visible(controller) or processes.is_running(process)


def dead_runs(open_runs: list[Entry], named: str) -> dict[str, list[str]]:
    """Which of the open runs may be cleaned up: a dict of runs (ids), hosts (all that took part in them) and problems
    (texts, about runs that may not).

    ``named``: id of a run that the operator declares dead; needed where its controller cannot be seen from here.
    """
    runs, hosts, problems = [], [], []
    for run in open_runs:
        answers.run_id(run["run_id"])
        controller = run["data"].get("controller", {})
        if is_visible(controller) and is_alive(controller):
            problems.append(f"run {run['run_id']} is still running (process {controller['pid']} on this host)")
        elif is_visible(controller) or run["run_id"] == named:
            runs.append(run["run_id"])
            hosts += hosts_of(run["data"].get("plan", {}))
        else:
            problems.append(_unseen_problem(run, controller))
    if named and named not in [run["run_id"] for run in open_runs]:
        problems.append(f"run {named}, which recover_run_id names, is not open: correct it, or leave it out")
    return {"runs": runs, "hosts": sorted(set(hosts)), "problems": problems}


def hosts_of(plan: dict[str, Entry]) -> list[str]:
    """The names of all hosts that take part in a run, from what was planned for each of its servers."""
    parts = ("ring", "storage_host", "backup_server")
    hosts = [*plan, *(entry.get(part) for entry in plan.values() for part in parts)]
    return [plain(str(host)) for host in hosts if host]


def _unseen_problem(run: Entry, controller: Entry) -> str:
    """Why a run is not taken for dead, and how the operator can make sure and declare it dead."""
    last = f"; its last record is '{run['last_event']}' at {run['last_time']}" if "last_event" in run else ""
    return (
        f"run {run['run_id']} was started {_whereabouts(controller)}, and it cannot be seen from here whether it is "
        f"still running (process {controller.get('pid', 'of unknown id')}){last}. Make sure that no ansible-playbook "
        f"and no AWX job works on it any more, and declare it dead with -e recover_run_id={run['run_id']}"
    )


def _whereabouts(controller: Entry) -> str:
    """Describe a controller that cannot be seen from here by how it differs from this one."""
    here, host = this_place(), controller.get("host", "another host")
    if controller.get("host") != here["host"] or controller.get("machine") != here["machine"]:
        return f"on {host}" + ("" if controller.get("host") != here["host"] else ", another machine of the same name")
    if controller.get("boot") != here["boot"]:
        return f"on {host} before it was rebooted, or on a clone of it"
    if controller.get("namespace") != here["namespace"]:
        return f"on {host} in another container"
    return f"on {host}, which does not show the processes of other users here"


def _machine() -> str:
    """Identifies this machine: derived from its machine id, which itself must stay confidential."""
    machine_id = _text(MACHINE_ID)
    return hmac.new(machine_id.encode(), b"openisb controller", hashlib.sha256).hexdigest()[:32] if machine_id else ""


def _text(path: str) -> str:
    """The content of a small system file; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(256).strip()
    except (OSError, ValueError):
        return ""


def _namespace() -> str:
    """The PID namespace of this process, as ``pid:[4026531836]``; empty where the system has none."""
    try:
        return os.readlink(NAMESPACE)
    except OSError:
        return ""


def _sees_processes() -> bool:
    """Whether /proc shows all processes of this namespace: it may hide them, or belong to another namespace."""
    try:
        return os.readlink("/proc/self") == str(os.getpid()) and processes.identity(1)["ticks"] is not None
    except OSError:
        return False

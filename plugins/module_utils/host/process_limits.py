# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limits of processes on the controller, which talks to all servers at once."""

from __future__ import annotations

import os
import resource

#: What talking to one host takes: a thread, its ssh, and the ssh in the background that keeps the connection open.
#: Limits of processes count threads, too.
OF_A_HOST = 3
#: What Ansible takes besides.
OF_ANSIBLE = 20
CGROUPS = "/sys/fs/cgroup"


def problems(hosts: int) -> list[str]:
    """Why the controller cannot talk to so many hosts at once."""
    needed = OF_ANSIBLE + OF_A_HOST * hosts
    found = []
    if _of_the_user() < needed:
        found.append(
            f"the controller: the user that runs the playbook may have {_of_the_user():.0f} processes, and freezing "
            f"{hosts} hosts at once takes {needed}: raise the hard limit (ulimit -Hu, or nproc in "
            "/etc/security/limits.conf)"
        )
    if _of_the_cgroup() < needed:
        found.append(
            f"the controller: its container or service may have {_of_the_cgroup():.0f} processes, and freezing {hosts} "
            f"hosts at once takes {needed}: raise the limit (TasksMax of the systemd unit, --pids-limit of the "
            "container, podPidsLimit of Kubernetes)"
        )
    return found


def _of_the_user() -> float:
    """How many processes this user may have.  The kernel does not limit those of root."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return float("inf") if hard == resource.RLIM_INFINITY or os.geteuid() == 0 else hard


def _of_the_cgroup() -> float:
    """How many processes the control groups of this process may have: a limit counts for everything below it."""
    limits = [float("inf")]
    for folder in _own_cgroups():
        while folder.startswith(CGROUPS):
            limits.append(_limit(os.path.join(folder, "pids.max")))
            folder = os.path.dirname(folder)
    return min(limits)


def _own_cgroups() -> list[str]:
    """The folders of the control groups that limit processes.  One that a container does not show is skipped."""
    found = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().split("\n")
    except OSError:
        return []
    for line in lines:
        number, _colon, rest = line.partition(":")
        names, _colon, path = rest.partition(":")
        if number == "0":
            found += [f"{CGROUPS}{path}", f"{CGROUPS}/unified{path}"]
        elif "pids" in names.split(","):
            found.append(f"{CGROUPS}/pids{path}")
    return [os.path.normpath(folder) for folder in found]


def _limit(path: str) -> float:
    try:
        with open(path, encoding="ascii") as stream:
            return int(stream.read())
    except (OSError, ValueError):  # there is none, or it says "max"
        return float("inf")

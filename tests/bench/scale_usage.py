# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processor time and memory of a run's controller, apart from those of the lab's hosts on the same machine.

The controller is everything that descends from this process during a run: ansible-playbook, its workers, and the ssh
clients that stay behind to keep connections open, which this process adopts. Hosts are known by their first process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36
#: Seconds between two looks at the controller's memory, which are not cheap.
INTERVAL = 3.0

#: By pid: its parent, and the seconds of processor time that it and its ended children have taken.
Processes = dict[int, tuple[int, float]]


def adopt_orphans(wanted: bool) -> None:
    """Whether processes whose parents end become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel has no PR_SET_CHILD_SUBREAPER")


def processes() -> Processes:
    """All processes of the machine."""
    found: Processes = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = int(fields[1]), sum(int(ticks) for ticks in fields[11:15]) / TICKS
    return found


def descendants(found: Processes, root: int, without: frozenset[int] = frozenset()) -> list[int]:
    """The processes below ``root``, except those in ``without`` and below them."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _seconds) in found.items():
        children.setdefault(parent, []).append(pid)
    below = [pid for pid in children.get(root, []) if pid not in without]
    for each in below:
        below += [pid for pid in children.get(each, []) if pid not in without]
    return below


def controller_seconds(found: Processes, hosts: frozenset[int]) -> float:
    """Processor time of everything below this process, what has ended included; it only grows."""
    ended = os.times()
    below = descendants(found, os.getpid(), hosts)
    return ended.children_user + ended.children_system + sum(found[pid][1] for pid in below)


def host_seconds(found: Processes, first: int) -> float:
    """Processor time of a host: of its first process, which adopts the host's orphans, and everything below it."""
    return sum(found[pid][1] for pid in [first, *descendants(found, first)] if pid in found)


def machine_seconds() -> float:
    """Processor time of the whole machine, its kernel included, but for what other virtual machines took."""
    with open("/proc/stat", encoding="ascii") as stream:
        user, nice, system, _idle, _wait, irq, soft = (int(field) for field in stream.readline().split()[1:8])
    return (user + nice + system + irq + soft) / TICKS


class Usage:
    """What the machine has done up to now: seconds of processor time by who took it."""

    def __init__(self, first_processes: Mapping[str, Mapping[str, int]]) -> None:
        """``first_processes``: by kind of host and its name, the pid of its first process."""
        self._kinds = first_processes
        self._hosts = frozenset(pid for hosts in first_processes.values() for pid in hosts.values())

    def now(self) -> dict[str, float]:
        """The seconds of ``controller``, of each kind of host, and of the ``machine``."""
        found = processes()
        by_kind = {kind: sum(host_seconds(found, pid) for pid in hosts.values()) for kind, hosts in self._kinds.items()}
        return {"controller": controller_seconds(found, self._hosts), **by_kind, "machine": machine_seconds()}

    def controller(self) -> list[int]:
        """The pids of the controller's processes."""
        return descendants(processes(), os.getpid(), self._hosts)


class PeakMemory(threading.Thread):
    """The most memory of the controller's processes at one time, from `with` to its end, in MiB.

    Memory that processes share, as Ansible's workers do with their parent, counts once.
    """

    def __init__(self, usage: Usage) -> None:
        super().__init__(daemon=True)
        self._usage = usage
        self._ending = threading.Event()
        self.peak = 0.0
        self.most_processes = 0

    def __enter__(self) -> PeakMemory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        while not self._ending.wait(INTERVAL):
            pids = self._usage.controller()
            self.most_processes = max(self.most_processes, len(pids))
            self.peak = max(self.peak, sum(map(proportional_kibibytes, pids)) / 1024)


def proportional_kibibytes(pid: int) -> int:
    """A process's share of the memory that it uses; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0

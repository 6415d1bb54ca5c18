# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load: on each file server, one process that moves money, one that receives, and one sender per peer.

A light server has one process that writes to its filesystems.
"""

from __future__ import annotations

import hashlib
import signal

import database
import hosts
import mbf
import processes
from shell import LabError
from spec import Host, Lab

START_TIMEOUT = 30.0


def present(lab: Lab) -> list[str]:
    """Start what is missing, restart what is outdated; return the changes."""
    changes = []
    all_running = _all_running(lab)
    for host in lab.file_servers:
        wanted = {f"{name}@{_version(lab, host, argv)}": argv for name, argv in programs(lab, host).items()}
        running = all_running[host.name]
        if outdated := [each for each in running if _name(each) not in wanted]:
            processes.end(outdated, signal.SIGTERM)
            changes += [f"{host.name}: ended {_name(each)}" for each in outdated]
        present_names = {_name(each) for each in running}
        for name, argv in wanted.items():
            if name not in present_names:
                _start(lab, host, name, argv)
                changes.append(f"{host.name}: {name.partition('@')[0]}")
    if changes:
        _wait_until_moving(lab)
    return changes


def absent(lab: Lab) -> list[str]:
    """End the load, then close the databases; return what was running."""
    changes = end(lab)
    for host in lab.database_servers:
        database.close(lab, host)
    return changes


def end(lab: Lab) -> list[str]:
    """End the processes as `mupip stop` does: each finishes or drops its transaction."""
    running = [each for found in _all_running(lab).values() for each in found]
    processes.end(running, signal.SIGTERM)
    return [f"ended {each.mark}" for each in running]


def programs(lab: Lab, host: Host) -> dict[str, list[str]]:
    """Return the command line of each process of a server, by the process's name."""
    if not host.has_database:
        mounts = [volume.mount for volume in host.volumes]
        return {"write": ["/usr/bin/python3", "-I", "-S", "/lab/light/writer.py", f"{lab.load.light_rate:g}", *mounts]}
    return {name: [f"{lab.gtm_dist}/mumps", "-run", "%XCMD", code] for name, code in _routines(lab, host).items()}


def _routines(lab: Lab, host: Host) -> dict[str, str]:
    load = lab.load
    code = {
        "local": f"do local^LABLOAD({load.local_rate:g})",
        "receive": f"do receive^LABLOAD({lab.port(host)})",
    }
    for peer in lab.database_servers:
        if peer is not host:
            address = f"127.0.0.1:{lab.port(peer)}" if lab.plain else f"{peer.name}:{lab.port(peer)}"
            code[f"send-{peer.name}"] = f'do send^LABLOAD("{peer.name}","{address}",{load.cross_rate:g})'
    return code


def status(lab: Lab) -> dict[str, dict[str, int]]:
    """Return the progress of each server's load: names as LABLOAD's status writes them, to counts."""
    found = {}
    for host in lab.database_servers:
        lines = database.m(lab, host, "do status^LABLOAD").split("\n")
        found[host.name] = {name: int(count) for name, _tab, count in (line.partition("\t") for line in lines if line)}
    return found


def _start(lab: Lab, host: Host, name: str, argv: list[str]) -> None:
    environment = {}
    if host.has_database:
        database.mark_open(lab, host)
        environment = database.environment(lab, host)
    hosts.launch(lab, host, argv, name=name, env=environment, log=lab.host_folder(host) / "load.log")


def _version(lab: Lab, host: Host, argv: list[str]) -> str:
    """Return a hash of the program and its arguments: when it changes, a process must be restarted."""
    program = lab.folder / "shared" / ("m/src/LABLOAD.m" if host.has_database else "light/writer.py")
    return hashlib.sha256(b"\0".join([program.read_bytes(), *(each.encode() for each in argv)])).hexdigest()[:8]


def _all_running(lab: Lab) -> dict[str, list[processes.Process]]:
    """Return the processes of the load of every server, by its name."""
    found: dict[str, list[processes.Process]] = {host.name: [] for host in lab.file_servers}
    for each in processes.marked(lab.id):
        _id, host, name = (*each.mark.split("/", 2), "")[:3]
        if host in found and name and not name.startswith(mbf.PREFIX):
            found[host].append(each)
    return found


def _name(process: processes.Process) -> str:
    return process.mark.split("/", 2)[2]


def _wait_until_moving(lab: Lab) -> None:
    """Wait until every server has moved money and has had a new entry acknowledged by every peer."""
    before = status(lab)

    def moving() -> bool:
        return all(_moved(before[name], after) for name, after in status(lab).items())

    def _moved(old: dict[str, int], new: dict[str, int]) -> bool:
        counted = [key for key in new if key == "moves" or key.startswith("acknowledged")]
        return len(counted) == len(lab.database_servers) and all(new[key] > old.get(key, 0) for key in counted)

    if not processes.wait_for(moving, START_TIMEOUT, interval=0.2):
        logs = ", ".join(str(lab.host_folder(host) / "load.log") for host in lab.database_servers)
        raise LabError(f"the load did not start within {START_TIMEOUT:.0f} s: see {logs}")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for MEDITECH's parts: MEDITECH's listener of each ring on one host, and an agent on each file server.

Their programs are in ``files/mbf``. The password is in a file on the host of MEDITECH's listeners, whose /proc hides
other users' processes, as a site's should if MBF takes the password as an argument.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal

import database
import hosts
import processes
from shell import LabError
from spec import DIRECTORY, Host, Lab

PREFIX = "mbf."
AGENT_PORT = 2900
PASSWORD = "root/mbf-password"
START_TIMEOUT = 10.0


def present(lab: Lab) -> list[str]:
    """Start what is missing or outdated, or end everything if the lab has no rings; return the changes."""
    if not lab.rings:
        return absent(lab)
    if lab.plain:
        raise LabError("lab_mbf needs the profile 'namespaces': plain hosts have no filesystems of their own to freeze")
    changes = _make_password(lab) + _hide_processes(lab)
    for host, name, argv in _programs(lab):
        wanted = f"{PREFIX}{name}@{_version(lab, argv)}"
        running = [each for each in _running(lab, host) if _name(each).startswith(f"{PREFIX}{name}@")]
        if outdated := [each for each in running if _name(each) != wanted]:
            processes.end(outdated, signal.SIGKILL)
        if len(outdated) == len(running):
            log = lab.host_folder(host) / "mbf.log"
            hosts.launch(lab, host, argv, name=wanted, env=database.environment(lab, host), log=log)
            changes.append(f"{host.name}: {name}")
    if changes:
        _wait_until_answering(lab)
    return changes


def absent(lab: Lab) -> list[str]:
    """End all stand-ins; return what was running."""
    running = [each for each in processes.marked(lab.id) if f"/{PREFIX}" in each.mark]
    processes.end(running, signal.SIGKILL)
    return [f"ended {each.mark}" for each in running]


def document(lab: Lab) -> str:
    """Return the configuration of MEDITECH's listeners."""
    servers = {host.name: host for host in lab.file_servers}
    rings = {
        ring.name: {
            "port": ring.port,
            "user": "backup",
            "servers": {name.upper(): _server(servers[name]) for name in ring.servers},
        }
        for ring in lab.rings
    }
    return json.dumps(rings, indent=2) + "\n"


def _server(host: Host) -> dict[str, object]:
    letters = "EFGHIJ"
    volumes = [volume for volume in host.volumes if volume.is_freezable]
    drives = {letters[number]: volume.serial for number, volume in enumerate(volumes)}
    return {"agent": f"{host.name}:{AGENT_PORT}", "drives": drives}


def _programs(lab: Lab) -> list[tuple[Host, str, list[str]]]:
    """Return the host, name and command line of each process."""
    python = ["/usr/bin/python3", "-I", "-S"]
    found = [(_listener_host(lab), ring.name, [*python, "/lab/mbf/listener.py", ring.name]) for ring in lab.rings]
    for host in lab.file_servers:
        mounts = [volume.mount for volume in host.volumes if volume.is_freezable]
        options = [str(AGENT_PORT), lab.gtm_dist, database.path(lab, host, DIRECTORY), *mounts]
        found.append((host, "agent", [*python, "/lab/mbf/agent.py", *options]))
    return found


def _listener_host(lab: Lab) -> Host:
    return next(host for host in lab.hosts if host.name == "backup1")


def _make_password(lab: Lab) -> list[str]:
    path = lab.host_folder(_listener_host(lab)) / PASSWORD
    if path.exists():
        return []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(18) + "\n")
    return ["password for mbf"]


def _hide_processes(lab: Lab) -> list[str]:
    host = _listener_host(lab)
    if "hidepid=" in hosts.enter(lab, host, ["findmnt", "--noheadings", "--output", "OPTIONS", "/proc"]):
        return []
    hosts.enter(lab, host, ["mount", "-o", "remount,nosuid,nodev,noexec,hidepid=2", "/proc"])
    return [f"processes of others hidden on {host.name}"]


def _version(lab: Lab, argv: list[str]) -> str:
    folder = lab.folder / "shared/mbf"
    files = [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.sha256(b"\0".join([*files, json.dumps(argv).encode()])).hexdigest()[:8]


def _running(lab: Lab, host: Host) -> list[processes.Process]:
    prefix = hosts.mark(lab, host, PREFIX)
    return [each for each in processes.marked(hosts.mark(lab, host)) if each.mark.startswith(prefix)]


def _name(process: processes.Process) -> str:
    return process.mark.split("/", 2)[2]


def _wait_until_answering(lab: Lab) -> None:
    code = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=2)"

    def answers(host: Host, port: int) -> bool:
        return hosts.try_on(lab, host, ["/usr/bin/python3", "-I", "-S", "-c", code, str(port)])

    wanted = [(_listener_host(lab), ring.port) for ring in lab.rings]
    wanted += [(host, AGENT_PORT) for host in lab.file_servers]
    for host, port in wanted:
        if not processes.wait_for(lambda host=host, port=port: answers(host, port), START_TIMEOUT, 0.1):  # type: ignore[misc]
            raise LabError(f"{host.name}: nothing answers on port {port}: see {lab.host_folder(host)}/mbf.log")

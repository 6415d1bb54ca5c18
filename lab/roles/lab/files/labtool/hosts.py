# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts: each is a first process in its own namespaces, and everything of the host ends with it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import processes
from network import Network
from processes import MARK
from shell import LabError, attempt, run
from spec import Host, Lab

START_TIMEOUT = 20.0
# How many hosts start at the same time, so that each does so within its timeout, however many there are.
AT_ONCE = 16
# The limit of open files for processes of sshd, as on an ordinary host; they may raise it.
OPEN_FILES = "--nofile=1024:"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


# The first processes that were found last, by mark.
_first: dict[str, int] = {}


def mark(lab: Lab, host: Host, process: str = "") -> str:
    """Return the mark of a host's process: the lab's id, the host and, for a part of the load, its name."""
    return "/".join(filter(None, (lab.id, host.name, process)))


def first_process(lab: Lab, host: Host) -> int | None:
    """Return the PID on the machine of a host's first process; None while the host does not run."""
    wanted = mark(lab, host)
    if not processes.is_first(_first.get(wanted, 0), wanted):
        # One search finds those of all hosts: a search for each would take minutes with a hundred hosts.
        _first.clear()
        _first.update({each.mark: each.pid for each in processes.marked(lab.id) if each.first})
    return _first.get(wanted)


def present(lab: Lab) -> list[str]:
    """Start the hosts that do not run, in parallel; return which."""
    missing = [host for host in lab.hosts if first_process(lab, host) is None]
    for begin in range(0, len(missing), AT_ONCE):
        starting = [(host, _start(lab, host)) for host in missing[begin : begin + AT_ONCE]]
        for host, parent in starting:
            _wait_until_started(lab, host, parent)
    return [f"host {host.name}" for host in missing]


def connect(lab: Lab, network: Network) -> list[str]:
    """Give every host its interface and its sshd; return the changes."""
    changes = []
    for host in lab.hosts:
        pid = _pid(lab, host)
        if network.connect(host, pid):
            changes.append(f"interface of {host.name}")
        if not _ssh_answers(network.address(host)):
            enter(lab, host, ["prlimit", OPEN_FILES, "/usr/sbin/sshd"])
            if not processes.wait_for(lambda host=host: _ssh_answers(network.address(host)), START_TIMEOUT):  # type: ignore[misc]
                raise LabError(f"{host.name}: its sshd does not answer at {network.address(host)}")
            changes.append(f"sshd of {host.name}")
    if changes:
        _check_way_between(lab, network)
    return changes


def absent(lab: Lab) -> list[str]:
    """End the hosts; return those that were running."""
    first = [each for each in processes.marked(lab.id) if each.first]
    # A PID namespace ends with its first process, and the other namespaces and mounts end with their processes.
    processes.end(first, signal.SIGKILL)
    processes.end(processes.marked(lab.id), signal.SIGKILL)
    return [f"host {each.mark}" for each in first]


def enter(lab: Lab, host: Host, argv: Sequence[str], *, text: str = "", env: dict[str, str] | None = None) -> str:
    """Run a command on a host; in the plain profile, on the machine."""
    return run(_on_host(lab, host, argv), text=text, env=_environment(lab, host, env))


def try_on(lab: Lab, host: Host, argv: Sequence[str], *, text: str = "", env: dict[str, str] | None = None) -> bool:
    """Whether a command succeeds on a host."""
    return attempt(_on_host(lab, host, argv), text=text, env=_environment(lab, host, env)).returncode == 0


def launch(lab: Lab, host: Host, argv: Sequence[str], *, name: str, env: dict[str, str], log: Path) -> None:
    """Start a daemon on a host, marked with ``name``. It becomes a child of the host's first process."""
    with log.open("ab") as output:
        subprocess.run(
            _on_host(lab, host, ["setsid", "--fork", *argv]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**_environment(lab, host, env), MARK: mark(lab, host, name)},
            cwd="/",
            check=True,
        )


def seen_from_machine(lab: Lab, host: Host, path: str) -> Path:
    """Return a path of a host, including its mounts, as the machine can open it."""
    if lab.plain:
        return Path(lab.on_host(host, path))
    return Path(f"/proc/{_pid(lab, host)}/root{path}")


def life(lab: Lab, host: Host) -> str:
    """Return an id that differs between two lives of a host, and between two boots of the machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if lab.plain:
        return boot
    pid = _pid(lab, host)
    started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{boot} {pid} {started}"


def _check_way_between(lab: Lab, network: Network) -> None:
    """Verify that hosts reach each other: even if the machine reaches them, a firewall may filter the bridge."""
    asking, asked = lab.hosts[0], lab.hosts[-1]
    code = f"import socket; socket.create_connection(('{network.address(asked)}', 22), timeout=3)"
    if not try_on(lab, asking, ["/usr/bin/python3", "-I", "-S", "-c", code]):
        raise LabError(
            f"{asking.name} does not reach {asked.name}: the machine's firewall drops traffic over the bridge "
            f"{network.bridge}: allow it, or set the sysctl net.bridge.bridge-nf-call-iptables to 0"
        )


def _on_host(lab: Lab, host: Host, argv: Sequence[str]) -> list[str]:
    if lab.plain:
        return list(argv)
    names = ["--mount", "--uts", "--ipc", "--net", "--pid"]
    return ["nsenter", "--target", str(_pid(lab, host)), *names, "--", *argv]


def _environment(lab: Lab, host: Host, more: dict[str, str] | None) -> dict[str, str]:
    home = {"HOME": lab.on_host(host, "/root")}
    return {**ENVIRONMENT, **home, **(more or {})}


def _pid(lab: Lab, host: Host) -> int:
    pid = first_process(lab, host)
    if pid is None:
        raise LabError(f"{host.name}: the host does not run: start the lab again")
    return pid


def _start(lab: Lab, host: Host) -> subprocess.Popen[bytes]:
    namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid"]
    program = [sys.executable, str(Path(__file__).with_name("host_init.py"))]
    binds = [each for each in lab.binds if host.name in each.get("hosts", [host.name])]
    arguments = [host.name, host.kind, str(lab.host_folder(host)), str(lab.folder / "shared"), json.dumps(binds)]
    with _log(lab, host).open("wb") as output:
        return subprocess.Popen(
            ["unshare", *namespaces, "--propagation", "private", "--fork", "--kill-child", *program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**ENVIRONMENT, MARK: mark(lab, host)},
            start_new_session=True,
            cwd="/",
        )


def _wait_until_started(lab: Lab, host: Host, parent: subprocess.Popen[bytes]) -> None:
    def started() -> bool:
        pid = first_process(lab, host)
        return parent.poll() is not None or (pid is not None and _command(pid) == "tini")

    if not processes.wait_for(started, START_TIMEOUT) or parent.poll() is not None:
        said = _log(lab, host).read_text(encoding="utf-8", errors="replace")[-2000:]
        raise LabError(f"{host.name}: the host did not start; its log {_log(lab, host)} ends with: {said}")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _log(lab: Lab, host: Host) -> Path:
    return lab.host_folder(host) / "host.log"


def _ssh_answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False

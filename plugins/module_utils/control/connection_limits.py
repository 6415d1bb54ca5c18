# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of SSH that many servers meet: which one an error comes from, and which one a run will exceed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from .inventory import Groups, HostVars
from .placing import candidates

#: By what ssh or Python prints, the cause and the remedy.
ERRORS = {
    r"kex_exchange_identification|banner exchange|connection (closed|reset) by|MaxStartups|not allowed at this time": (
        "sshd of that host, or of the jump host in front of it, refused one of many logins at once: raise MaxStartups "
        "there (and PerSourceMaxStartups or PerSourcePenalties, where they are set)"
    ),
    r"session open refused by peer|mux_client_request_session": (
        "sshd of that host refused one of many sessions in a connection: raise MaxSessions there"
    ),
    r"too long for Unix domain socket|ControlPath too long|path too long": (
        "the path of the connection's socket is too long on the controller: set ansible_control_path_dir to a folder "
        "with a shorter path"
    ),
    r"too many open files": (
        "a process on the controller has as many files open as it may: raise the hard limit (ulimit -Hn)"
    ),
    r"no answer within": (
        "the host is slow, or the controller is for so many hosts: give it more processors, or raise "
        "preflight_clock_timeout"
    ),
    r"start new thread|resource temporarily unavailable|cannot allocate memory": (
        "the controller may have too few processes or too little memory: raise ulimit -u, the container's limit of "
        "processes, or its memory"
    ),
}
#: What `sshd -T` prints of the two settings, and how long it may be: 20 KB are usual.
SETTINGS = re.compile(r"^(maxsessions|maxstartups) (\d{1,9})(?::\d{1,9}:\d{1,9})?\r?$", re.MULTILINE)
LONGEST = 1 << 20


def explained(error: str) -> str:
    """An error of a connection, with the limit that it comes from and the remedy, where that can be told."""
    causes = [cause for pattern, cause in ERRORS.items() if re.search(pattern, error, re.IGNORECASE)]
    return f"{error.rstrip('. ')}: {causes[0]}" if causes else error


def session_warnings(hostvars: HostVars, groups: Groups, forks: int) -> list[str]:
    """Hosts that work for many servers at once, and whose sshd may refuse some of it.

    Ansible has one connection to a host. A session too many in it gets a connection of its own, and among many of those
    at once sshd refuses some.
    """
    found = []
    for host, servers in users(hostvars, groups).items():
        at_once = min(forks, servers)
        sshd = settings(str((hostvars[host].get("preflight_sshd") or {}).get("stdout", "")))
        sessions, startups = sshd.get("maxsessions"), sshd.get("maxstartups")
        if sessions is not None and startups is not None and sessions + startups < at_once:
            found.append(
                f"{host} works for up to {at_once} servers at the same time, and its sshd accepts only "
                f"{sessions} sessions in a connection (MaxSessions) and {startups} logins at once (MaxStartups): it "
                "may refuse a task, and the backup of that server then fails. Set MaxSessions in its sshd_config to "
                f"{at_once} or more"
            )
    return found


def users(hostvars: HostVars, groups: Groups) -> Mapping[str, int]:
    """How many servers each host of the infrastructure may have to work for in the phases after the freeze."""
    found: Counter[str] = Counter()
    for server in groups["file_servers"]:
        variables = hostvars[server]
        found.update({groups["listeners"][0], variables["isb_storage_host"], *candidates(variables)})
    return found


def settings(text: str) -> dict[str, int]:
    """The settings of a host's sshd in what `sshd -T` printed there; without those that it did not print."""
    return {name: int(number) for name, number in SETTINGS.findall(text[:LONGEST])}

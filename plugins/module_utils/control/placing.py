# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup server backs up which file server, from preflight's findings; and which one takes over from a dead one.

A backup server has either a repository of its own, or shares one with others (``repository_shared``). Only backup
servers with the same repository can stand in for each other: elsewhere, a volume would be stored once more in full, and
restores would have to look for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from .answers import LONGEST_TEXT
from .entries import Entry
from .failures import failure_text
from .inventory import Groups, HostVars, Variables
from .spread import Job, Reading, Work, assign, expected_seconds

SLOTS = 2
#: How the keys begin under which preflight_found has what a backup server can read from a storage host.
WAY = "way to "


def candidates(variables: Variables) -> list[str]:
    """The backup servers that may back up a server: a single one if it is pinned, or if no other has its repository."""
    return list((variables.get("openisb_host") or {}).get("backup_servers") or [variables["isb_backup_server"]])


def repository_hosts(groups: Groups, hostvars: HostVars | None) -> list[str]:
    """The backup servers, but only the first of those that share a repository: what is done once per repository.

    All of them where playbooks are only parsed, and nothing is known of hosts.
    """
    hosts = list(groups.get("backup_servers", []))
    return [host for host in hosts if not hostvars or first_of(host, hostvars) == host]


def first_of(host: str, hostvars: HostVars) -> str:
    """The first backup server with the same repository as ``host``; itself if it shares none."""
    return str((hostvars[host].get("openisb_host") or {}).get("shared_with") or host)


def storage_hosts_of(servers: Iterable[str], hostvars: HostVars, backup_server: str) -> list[str]:
    """The storage hosts that a backup server may have to read from, each once."""
    mine = [server for server in servers if backup_server in candidates(hostvars[server])]
    return list(dict.fromkeys(hostvars[server]["isb_storage_host"] for server in mine))


def host_problems(variables: Variables) -> list[str]:
    """What keeps one host from taking part, but for what a backup server cannot read from: place() goes around that."""
    found = variables.get("preflight_found")
    if not found:
        return ["did not answer"]
    return [check["problem"] for name, check in found.items() if not name.startswith(WAY) and check.get("problem")]


def way_problems(variables: Variables, storage_host: str) -> list[str]:
    """What keeps a backup server from reading the LUNs of a storage host, as texts."""
    problem = (variables.get("preflight_found") or {}).get(WAY + storage_host, {}).get("problem")
    return [problem] if problem else []


def place(servers: Sequence[str], hostvars: HostVars) -> Entry:
    """Assign servers to backup servers: a dict of

    - placed: by server, a dict of host (the backup server), hosts (all that can back it up) and seconds (expected),
    - left_out: by backup server that takes no part, or no part for some servers, why, as text,
    - problems: texts; servers that no backup server can back up, and options that cannot be right.
    """
    usable = {server: _usable(server, hostvars) for server in servers}
    lacking = {server: _obstacles(server, hostvars) for server in servers}
    hosts = list(dict.fromkeys(host for found in usable.values() for host in found))
    slots, problems = _slots(hosts, hostvars)
    problems += [text for server in servers if not usable[server] for text in lacking[server]]
    seconds = expected_seconds({server: _work(server, usable[server], hostvars) for server in servers})
    chosen = assign([Job(server, seconds[server], tuple(usable[server])) for server in servers], slots)
    return {
        "placed": {
            server: {"host": chosen[server], "hosts": usable[server], "seconds": round(seconds[server], 3)}
            for server in servers
            if server in chosen
        },
        "left_out": _left_out(servers, usable, hostvars),
        "problems": list(dict.fromkeys(problems)),
    }


def unused_warnings(groups: Groups, hostvars: HostVars) -> list[str]:
    """The backup servers that no server would ever be backed up on, one text each."""
    servers, hosts = groups["file_servers"], groups.get("backup_servers", [])
    used = {host for server in servers for host in candidates(hostvars[server])}.union(hosts[:1])
    return [
        f"nothing is backed up on {host}: no server names it (isb_backup_server), and it does not share the repository "
        f"of {hosts[0]} (repository_shared)"
        for host in hosts
        if host not in used
    ]


def _usable(server: str, hostvars: HostVars) -> list[str]:
    return [host for host in candidates(hostvars[server]) if not _problems_for(server, host, hostvars)]


def _obstacles(server: str, hostvars: HostVars) -> list[str]:
    return [
        f"{host}: {problem}"
        for host in candidates(hostvars[server])
        for problem in _problems_for(server, host, hostvars)
    ]


def _problems_for(server: str, host: str, hostvars: HostVars) -> list[str]:
    """What keeps a backup server from backing up a server."""
    return host_problems(hostvars[host]) or way_problems(hostvars[host], hostvars[server]["isb_storage_host"])


def _left_out(servers: Iterable[str], usable: dict[str, list[str]], hostvars: HostVars) -> dict[str, str]:
    """By backup server, why it does not back up servers that others back up in its place."""
    found: dict[str, list[str]] = {}
    for server in servers:
        for host in candidates(hostvars[server]):
            if usable[server] and host not in usable[server]:
                found.setdefault(host, []).extend(_problems_for(server, host, hostvars))
    return {host: "; ".join(dict.fromkeys(problems))[:LONGEST_TEXT] for host, problems in found.items()}


def _slots(hosts: Iterable[str], hostvars: HostVars) -> tuple[dict[str, int], list[str]]:
    """By backup server, how many backups it runs at once; and the problems of what the inventory says of that."""
    found, problems = {}, []
    for host in hosts:
        told = hostvars[host].get("block_backup_slots", SLOTS)
        try:
            found[host] = int(told)
        except (TypeError, ValueError):
            found[host] = -1
        if found[host] < 0:
            found[host] = SLOTS
            problems.append(f"{host}: block_backup_slots is '{told}': set a number, or 0 for no limit")
    return found, problems


def _work(server: str, hosts: Sequence[str], hostvars: HostVars) -> Work:
    """What is known of a server's next backup. ``hosts``: those that can do it."""
    variables = hostvars[server]
    volumes = variables.get("isb_volumes") or []
    size = sum(allocated_bytes(server, volume, hostvars) for volume in volumes)
    whole = not variables.get("openisb_host", {}).get("changed_extents", True) or boolean(
        variables.get("isb_paranoid", False)
    )
    names = [f"{server}/{volume['name']}" for volume in volumes]
    savesets = [saveset for host in hosts[:1] for saveset in _savesets(host, hostvars)]
    return Work(size, _readings([saveset for saveset in savesets if saveset.get("volume") in names]), whole)


def _savesets(host: str, hostvars: HostVars) -> list[Entry]:
    found: list[Entry] = (hostvars[host].get("preflight_found") or {}).get("repository", {}).get("savesets", [])
    return found


def _readings(savesets: Iterable[Entry]) -> tuple[Reading, ...]:
    """What each earlier run read of a server, in the order of the catalog; only savesets that the journal vouches for.

    The volumes of a server are read at once, so its backup took as long as that of the slowest one.
    """
    runs: dict[Any, Reading] = {}
    for saveset in savesets:
        stats = saveset.get("stats") or {}
        count, seconds = _number(stats.get("bytes_read")), _number(stats.get("seconds"))
        if saveset.get("aside") or count is None or seconds is None:
            continue
        before = runs.get(saveset.get("run_id"), Reading(0, 0.0))
        runs[saveset.get("run_id")] = Reading(before.bytes_read + int(count), max(before.seconds, seconds))
    return tuple(runs.values())


def _number(value: Any) -> float | None:
    """A figure from a repository, which may be anything; None if it is no amount."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return value if good else None


def allocated_bytes(server: str, volume: Entry, hostvars: HostVars) -> int:
    """The bytes of a volume's LUN that hold data, as the storage has found; otherwise the size of the volume."""
    storage = (hostvars[hostvars[server]["isb_storage_host"]].get("preflight_found") or {}).get("storage", {})
    lun = storage.get("luns", {}).get(volume["serial"], {"allocated": volume.get("size") or 0})
    return int(lun["allocated"])


def next_backup_server(hostvars: HostVars, server: str, listener: str, failed: Entry) -> dict[str, str]:
    """Where the backup of a server is done again: a dict of host (empty: nowhere) and problem (why it failed).

    ``failed``: the result of the task that failed. Only if the host of its job is gone, the backup moves: to the backup
    server that has the least left to do, and never to one that has died in this run. What is left of all servers whose
    backup server has died is spread anew, and always in the same way: each of them comes to the same result by itself.
    """
    why = failure_text(failed)
    if not failed.get("host_gone"):
        return {"host": "", "problem": why}
    placed: dict[str, Entry] = hostvars[listener]["preflight_placed"]
    dead = {_used(hostvars[server])}.union(*(_died(hostvars[each]) for each in placed))
    jobs = [_rest(each, entry, dead, hostvars) for each, entry in placed.items() if not _is_done(hostvars[each])]
    slots, _problems = _slots({host for job in jobs for host in job.hosts}, hostvars)
    host = assign(jobs, slots).get(server, "")
    only = placed[server]["hosts"][1:] == []
    reason = "it is the only one that can back up this server" if only else "all others have died in this run as well"
    return {"host": host, "problem": why if host else f"{why}. No other backup server takes over: {reason}"}


def _used(variables: Variables) -> str:
    """The backup server that backs up a server now: the one that it has moved to, or that preflight has assigned."""
    return str(variables.get("block_backup_backup_server") or variables["isb_backup_server"])


def _died(variables: Variables) -> set[str]:
    """The backup servers that have died during the backup of a server."""
    moved = {move["from"] for move in variables.get("block_backup_moves", [])}
    if (variables.get("block_backup_result") or {}).get("host_gone"):
        moved.add(_used(variables))
    return moved


def _is_done(variables: Variables) -> bool:
    result = variables.get("block_backup_result") or {}
    return bool(result) and not result.get("host_gone")


def _rest(server: str, entry: Entry, dead: set[str], hostvars: HostVars) -> Job:
    """The backup of a server that has not ended: where it is, or, if its backup server is dead, where it can go."""
    here = _used(hostvars[server])
    able = [host for host in entry["hosts"] if host not in dead] if here in dead else [here]
    return Job(server, entry["seconds"], tuple(able))

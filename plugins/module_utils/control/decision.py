# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides from preflight's findings on every host which servers take part in a run, or why it may not start."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ..host import open_files, process_limits
from ..journal.head import continuation_problems
from ..saveset.base.volume import folded
from .census import census_problems
from .clocks import clock_problems
from .entries import Entry
from .inventory import Groups, HostVars, Variables, servers_of
from .options import option_problems
from .placing import allocated_bytes, first_of, host_problems, place

ABORT, SKIP = "abort", "skip"
MEBI = 1024 * 1024


def decide(
    hostvars: HostVars,
    groups: Groups,
    on_missing_server: str,
    pool_reserve: float,
    base_reserve: float,
    metadata_reserve: int,
    repository_reserve: int,
    clocks: dict[str, Entry],
    clock_limit: float,
    journal_accept: str = "",
    report_path: str = "",
) -> dict[str, Any]:
    """The decision: a dict of

    - servers and rings that take part, and quiesced: those of them with drivers of their own,
    - placed: by server, where it is backed up, and left_out: by backup server, why it is not used; as place() returns,
    - skipped and problems: texts; any problem stops the run.

    ``hostvars``: each host's variables, with the fact that the role preflight sets, ``preflight_found``: by part, what
    was found and ``problem`` (a text, or empty). A host without it was not reached. ``pool_reserve`` and
    ``base_reserve`` are fractions of the LUNs' size, ``metadata_reserve`` and ``repository_reserve`` are in bytes.
    ``clocks``: by host, what the action hold returned; no two may differ by more than ``clock_limit`` seconds.
    ``journal_accept``: the hash of the newest record of a journal that the operator accepts although it does not match
    the kept head. ``report_path``: where the report is to be written on this machine, the controller; empty for
    nowhere.
    """
    problems, skipped, servers = [], [], []
    for host in infrastructure(groups, hostvars):
        problems += [f"{host}: {problem}" for problem in host_problems(hostvars[host])]
    problems += clock_problems(clocks, clock_limit)
    problems += journal_problems(groups, hostvars)
    problems += kept_journal_problems(groups, hostvars, journal_accept)
    problems += point_problems(groups, hostvars)
    problems += alike_problems(groups, hostvars)
    problems += option_problems(groups["file_servers"], hostvars)
    problems += report_problems(report_path)
    problems += open_files.problems(len(clocks)) + process_limits.problems(len(clocks))
    rings: dict[Any, list[str]] = {ring: quiesce_problems(ring, "ring", hostvars) for ring in groups.get("rings", [])}
    for ring in rings:
        problems += [] if rings[ring] else coverage_problems(ring, groups, hostvars)
    for server in groups["file_servers"]:
        found = server_problems(server, hostvars) + rings.get(hostvars[server].get("isb_ring"), [])
        servers += [] if found else [server]
        skipped += found
    if skipped and on_missing_server == ABORT:
        problems += skipped
    if not servers:
        problems.append("no file server can take part")
    places = place(servers, hostvars)
    problems += places["problems"]
    if not problems:
        problems += pool_problems(servers, hostvars, pool_reserve, base_reserve)
        problems += metadata_problems(servers, hostvars, metadata_reserve)
        problems += repository_problems(places["placed"], hostvars, repository_reserve)
    taking_part = [ring for ring in rings if servers_of(ring, servers, hostvars)]
    return {
        "servers": servers,
        "rings": taking_part,
        "quiesced": [host for host in [*servers, *taking_part] if hostvars[host].get("isb_drivers")],
        "placed": places["placed"],
        "left_out": places["left_out"],
        "skipped": list(dict.fromkeys(skipped)),
        "problems": list(dict.fromkeys(problems)),
    }


def alike_problems(groups: Groups, hostvars: HostVars) -> list[str]:
    """Volumes that the repository has under a name that differs only in case: the engine would refuse their backup."""
    problems = []
    for server in groups["file_servers"]:
        found = hostvars[hostvars[server]["isb_backup_server"]].get("preflight_found", {}).get("repository", {})
        there = {saveset["volume"] for saveset in found.get("savesets", [])}
        mine = ["{}/{}".format(server, volume["name"]) for volume in hostvars[server].get("isb_volumes", [])]
        problems += [
            f"{volume}: its repository has savesets of {other}, which differs only in upper and lower case, and a "
            "filesystem may not distinguish the two: write it as it is there, or give it another name"
            for volume in mine
            if volume not in there
            for other in sorted(there)
            if folded(other) == folded(volume)
        ]
    return problems


def report_problems(path: str) -> list[str]:
    """Why the report could not be written to ``path`` on the controller; it is written only after everything else."""
    path = os.path.expanduser(path)
    folder = os.path.dirname(os.path.abspath(path))
    if not path or (os.access(path if os.path.exists(path) else folder, os.W_OK) and not os.path.isdir(path)):
        return []
    cause = "is a folder" if os.path.isdir(path) else "is not writable for the user that runs the playbook"
    return [f"the controller: isb_report_path {path} {cause}: name a file in an existing, writable folder"]


def point_problems(groups: Groups, hostvars: HostVars) -> list[str]:
    """Resources that two consistency points share but cannot: storage hosts, and run folders of holders."""
    return storage_sharing_problems(groups, hostvars) + holder_sharing_problems(groups, hostvars)


def storage_sharing_problems(groups: Groups, hostvars: HostVars) -> list[str]:
    """Storage hosts used by several rings: a storage host takes one snapshot per run, and each ring needs its own."""
    users: dict[str | None, dict[str, str]] = {}
    for server in groups["file_servers"]:
        ring = hostvars[server].get("isb_ring") or ""
        users.setdefault(hostvars[server].get("isb_storage_host"), {})[ring] = server
    text = (
        "storage host {} has LUNs of {}, which are not of one ring, and takes only one snapshot per run: give each "
        "ring a storage host of its own (another name for the same array will do), with another snapshot_directory"
    )
    shared = {host: sorted(points.values()) for host, points in users.items() if len(points) > 1}
    return [text.format(host, " and ".join(names)) for host, names in shared.items()]


def holder_sharing_problems(groups: Groups, hostvars: HostVars) -> list[str]:
    """Holders that share a machine and an openisb_run_dir, which two holders of one run cannot."""
    places: dict[tuple[Any, Any], str] = {}
    problems = []
    quiescing = [server for server in groups["file_servers"] if hostvars[server].get("isb_drivers")]
    for host in [*groups.get("rings", []), *quiescing]:
        variables = hostvars[host]
        place = (variables.get("ansible_host") or host, variables.get("openisb_run_dir"))
        other = places.setdefault(place, host)
        if other != host:
            problems.append(
                f"{other} and {host} are one machine ({place[0]}) with the same openisb_run_dir: give {host} another "
                "one"
            )
    return problems


def coverage_problems(ring: str, groups: Groups, hostvars: HostVars) -> list[str]:
    """What is in a ring's census and not in the inventory, or the reverse."""
    census = hostvars[ring]["preflight_found"]["ring"].get("census")
    if census is None:
        return []
    return census_problems(ring, census, servers_of(ring, groups["file_servers"], hostvars), hostvars)


def infrastructure(groups: Groups, hostvars: HostVars) -> list[str]:
    """The hosts without which no run can start, without duplicates.

    Of the backup servers, the first one, which keeps the journal of drills, and the listener's, which keeps the head of
    the run journal and gets the report. Whether there is one for each file server is decided by place().
    """
    listeners = groups["listeners"][:1]
    keepers = groups["backup_servers"][:1] + [hostvars[listener]["isb_backup_server"] for listener in listeners]
    return list(dict.fromkeys(listeners + groups["storage_hosts"] + keepers))


def server_problems(server: str, hostvars: HostVars) -> list[str]:
    """What keeps one file server from taking part."""
    problems = quiesce_problems(server, "server", hostvars)
    if not problems:
        problems = [f"{server}: {problem}" for problem in lun_problems(hostvars[server], hostvars)]
    return problems


def quiesce_problems(host: str, part: str, hostvars: HostVars) -> list[str]:
    """What keeps a host from quiescing; ``part``: the key of its findings in preflight_found."""
    problems = host_problems(hostvars[host])
    if not problems:
        found = hostvars[host]["preflight_found"][part]
        problems += [
            "driver {}: {}".format(check["driver"], check["message"]) for check in found["checks"] if not check["ok"]
        ]
        problems += [holder_problem(holder) for holder in found["holders"] if is_live(holder)]
    return [f"{host}: {problem}" for problem in problems]


def is_live(holder: Entry) -> bool:
    """Whether a holder still freezes, or could still freeze, its server."""
    return bool(holder.get("leftover")) or holder.get("state") in ("armed", "freezing", "frozen", "thawing")


def holder_problem(holder: Entry) -> str:
    """The problem text for a holder that should not be there."""
    return "a holder of run {} is {}: wait until it has ended, or run 'ansible-playbook recover.yml'".format(
        holder.get("run_id"),
        holder.get("state"),
    )


def lun_problems(variables: Variables, hostvars: HostVars) -> list[str]:
    """Volumes whose size on the server differs from the LUN's size on the storage: they are not the same LUN."""
    storage = hostvars[variables["isb_storage_host"]].get("preflight_found", {}).get("storage", {})
    problems = []
    for volume in variables["preflight_found"]["server"]["volumes"]:
        lun = storage.get("luns", {}).get(volume["serial"])
        if lun and volume["size"] is not None and lun["size"] != volume["size"]:
            problems.append(
                f"volume {volume['name']} has {volume['size']} bytes here and {lun['size']} bytes on the storage: "
                f"serial {volume['serial']} does not name the same LUN on both"
            )
    return problems


def journal_problems(groups: Groups, hostvars: HostVars) -> list[str]:
    """What in the journal prevents a new run."""
    listener = groups["listeners"][0]
    journal = hostvars[listener].get("preflight_found", {}).get("listener")
    if not journal or journal.get("problem"):
        return []
    path = hostvars[listener]["openisb_host"]["journal"]
    problems = [f"the chain of the journal {path} is broken: {problem}" for problem in journal["problems"]]
    return problems + [
        f"run {run['run_id']}, opened {run['opened']}, is still open (last: {run['last_event']}, {run['last_time']}): "
        "wait until it has ended, or run 'ansible-playbook recover.yml' if it is no longer running"
        for run in journal["open_runs"]
    ]


def kept_journal_problems(groups: Groups, hostvars: HostVars, accept: str) -> list[str]:
    """Where the journal does not match the heads of it that the repository and the controller keep."""
    listener = groups["listeners"][0]
    journal = hostvars[listener].get("preflight_found", {}).get("listener")
    if not journal or journal.get("problem"):
        return []
    if journal["kept_problem"]:
        # A backup server that lacks something has reported that itself.
        backup_server = hostvars[listener]["isb_backup_server"]
        return [] if host_problems(hostvars[backup_server]) else [f"{backup_server}: {journal['kept_problem']}"]
    path, head = hostvars[listener]["openisb_host"]["journal"], journal["chain_head"]
    found = [
        f"{listener}: the journal {path} does not match its kept head: {problem}"
        for problem in continuation_problems(journal, journal["kept"]["heads"], journal["kept"]["since"])
    ]
    found += [f"{listener}: the kept head of the journal {path}: {problem}" for problem in journal["kept"]["problems"]]
    if accept == head:
        return []
    wrong = f" (not {accept})" if accept else ""
    remedy = (
        "find out what has changed it (docs/run.md, The journal's head) before you accept the journal as it is, which "
        f"is done once with -e isb_journal_accept={head}{wrong}"
    )
    return [f"{text}: {remedy}" for text in found]


def journal_is_sound(hostvars: HostVars, groups: Groups) -> bool:
    """Whether the journal was read, and neither its chain nor a kept head contradicts it."""
    listener = groups["listeners"][0]
    journal = hostvars[listener].get("preflight_found", {}).get("listener")
    if not journal or journal.get("problem") or journal["problems"]:
        return False
    return not kept_journal_problems(groups, hostvars, "")


def pool_problems(servers: list[str], hostvars: HostVars, pool_reserve: float, base_reserve: float) -> list[str]:
    """Storage hosts with too little disk space for the writes while their snapshot, and then the base, exists."""
    problems = []
    for host, storage in storages(servers, hostvars):
        needed = int(pool_reserve * sum(lun["size"] for lun in storage["luns"].values()))
        bases = int(base_reserve * bases_size(host, servers, hostvars))
        free = storage["free_bytes"]
        if free < needed + bases:
            text = (
                f"{host} has {free // MEBI} MiB free for a snapshot and needs {(needed + bases) // MEBI} MiB: "
                "free disk space, or lower preflight_pool_reserve"
            )
            problems.append(text + (bases_text(bases, storage) if bases else ""))
    return problems


def metadata_problems(servers: list[str], hostvars: HostVars, reserve: int) -> list[str]:
    """Storage hosts whose pool has space for data but not for metadata: a snapshot could make the pool read-only."""
    found = {host: storage.get("metadata_free_bytes") for host, storage in storages(servers, hostvars)}
    return [
        f"{host} has {free // MEBI} MiB left for the metadata of its btrfs pool, and with less than "
        f"{reserve // MEBI} MiB a snapshot may make the pool read-only under its servers: run 'btrfs balance start "
        "-dusage=50' on it, which frees what data does not use, enlarge it, or lower preflight_metadata_reserve"
        for host, free in found.items()
        if free is not None and free < reserve
    ]


def storages(servers: Iterable[str], hostvars: HostVars) -> list[tuple[str, Entry]]:
    """The storage hosts of these servers, each with what was found there."""
    hosts = sorted({hostvars[server]["isb_storage_host"] for server in servers})
    return [(host, hostvars[host]["preflight_found"]["storage"]) for host in hosts]


def bases_text(bases: int, storage: Entry) -> str:
    """What to add where part of the disk space is for the base of the next run, and older snapshots may use some."""
    runs = [snapshot["run_id"] for snapshot in storage.get("snapshots", [])]
    return " or preflight_base_reserve ({} MiB are for the base of the next run{}), or keep no base: {}".format(
        bases // MEBI,
        "; there are snapshots of {} now".format(", ".join(runs)) if runs else "",
        "isb_changed_extents: false",
    )


def bases_size(host: str, servers: Iterable[str], hostvars: HostVars) -> int:
    """Bytes of the LUNs on this storage host that stay in a snapshot as the base of the next run."""
    return sum(
        volume["size"]
        or hostvars[host]["preflight_found"]["storage"]["luns"].get(volume["serial"], {"size": 0})["size"]
        for server in servers
        if hostvars[server]["isb_storage_host"] == host and hostvars[server]["openisb_host"]["changed_extents"]
        for volume in hostvars[server]["preflight_found"]["server"]["volumes"]
    )


def repository_problems(placed: Mapping[str, Entry], hostvars: HostVars, reserve: int) -> list[str]:
    """Repositories with too little disk space for what the run is expected to store. ``placed``: as place() returns."""
    users: dict[str, list[str]] = {}
    for server, entry in placed.items():
        users.setdefault(first_of(entry["host"], hostvars), []).append(server)
    problems = []
    for servers in users.values():
        host = min(placed[server]["host"] for server in servers)
        repository = hostvars[host]["preflight_found"]["repository"]
        needed = reserve + sum(
            expected_bytes(server, volume, hostvars, repository["savesets"])
            for server in servers
            for volume in hostvars[server]["preflight_found"]["server"]["volumes"]
        )
        free = repository["free_bytes"]
        if free is not None and free < needed:
            path = hostvars[host]["openisb_host"]["repository"]
            problems.append(
                f"{host}: the repository {path} has {free // MEBI} MiB free and the run may need "
                f"{needed // MEBI} MiB: free disk space, or enlarge it"
            )
    return problems


def expected_bytes(server: str, volume: Entry, hostvars: HostVars, savesets: list[Entry]) -> int:
    """The most bytes that this volume's next saveset should store: twice its last ones' maximum, or all it holds."""
    stored: list[int] = [
        saveset["stats"]["bytes_stored"]
        for saveset in savesets
        if saveset["volume"] == "{}/{}".format(server, volume["name"])
    ]
    if stored[1:]:
        return 2 * max(stored[-3:])
    return allocated_bytes(server, volume, hostvars)

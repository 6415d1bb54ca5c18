# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides, from what preflight found on every host, which servers take part in a run, or why it may not start."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.module_utils.census import census_problems
from ansible_collections.openisb.backup.plugins.module_utils.clocks import clock_problems
from ansible_collections.openisb.backup.plugins.module_utils.inventory import servers_of
from ansible_collections.openisb.backup.plugins.module_utils.journal_head import continuation_problems

ABORT, SKIP = "abort", "skip"
MEBI = 1024 * 1024


def decide(
    hostvars,
    groups,
    on_missing_server,
    pool_reserve,
    base_reserve,
    metadata_reserve,
    repository_reserve,
    clocks,
    clock_limit,
    journal_accept="",
):
    """The decision: a dict of servers and rings (that take part), skipped and problems (texts; any stops the run).

    ``hostvars`` holds of each host the fact that the role preflight sets: ``preflight_found`` with ``problem`` (a text,
    or empty) and what was found. A host without it was not reached. ``pool_reserve`` and ``base_reserve`` are shares of
    the LUNs' size, ``metadata_reserve`` and ``repository_reserve`` are in bytes. ``clocks``: by host, what the action
    hold tells of it; no two may differ by more than ``clock_limit`` seconds. ``journal_accept``: the hash of the newest
    record of a journal that the operator accepts though it is not the one that was kept.
    """
    problems, skipped, servers = [], [], []
    for host in infrastructure(groups):
        problems += [f"{host}: {problem}" for problem in host_problems(hostvars[host])]
    problems += clock_problems(clocks, clock_limit)
    problems += journal_problems(groups, hostvars)
    problems += kept_journal_problems(groups, hostvars, journal_accept)
    problems += point_problems(groups, hostvars)
    rings = {ring: quiesce_problems(ring, "ring", hostvars) for ring in groups.get("rings", [])}
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
    if not problems:
        problems += pool_problems(servers, hostvars, pool_reserve, base_reserve)
        problems += metadata_problems(servers, hostvars, metadata_reserve)
        problems += repository_problems(servers, hostvars, repository_reserve)
    return {
        "servers": servers,
        "rings": [ring for ring in rings if servers_of(ring, servers, hostvars)],
        "skipped": list(dict.fromkeys(skipped)),
        "problems": list(dict.fromkeys(problems)),
    }


def point_problems(groups, hostvars):
    """Hosts that two consistency points share though they cannot: storage hosts, and places of holders."""
    return storage_sharing_problems(groups, hostvars) + holder_sharing_problems(groups, hostvars)


def storage_sharing_problems(groups, hostvars):
    """A storage host takes one snapshot a run, of one moment; rings are of different moments."""
    users = {}
    for server in groups["file_servers"]:
        ring = hostvars[server].get("isb_ring") or ""
        users.setdefault(hostvars[server].get("isb_storage_host"), {})[ring] = server
    text = (
        "storage host {} has LUNs of {}, which are not of one ring, and takes one snapshot a run: give each ring a "
        "storage host of its own (another name for the same array will do), with another snapshot_directory"
    )
    shared = {host: sorted(points.values()) for host, points in users.items() if len(points) > 1}
    return [text.format(host, " and ".join(names)) for host, names in shared.items()]


def holder_sharing_problems(groups, hostvars):
    """Two holders of one run cannot have one openisb_run_dir on one machine."""
    places, problems = {}, []
    quiescing = [server for server in groups["file_servers"] if hostvars[server].get("isb_drivers")]
    for host in [*groups.get("rings", []), *quiescing]:
        variables = hostvars[host]
        place = (variables.get("ansible_host") or host, variables.get("openisb_run_dir"))
        other = places.setdefault(place, host)
        if other != host:
            problems.append(
                f"{other} and {host} are one machine ({place[0]}) with one openisb_run_dir: give {host} another one"
            )
    return problems


def coverage_problems(ring, groups, hostvars):
    """What is in a ring's census and not in the inventory, or the reverse."""
    census = hostvars[ring]["preflight_found"]["ring"].get("census")
    if census is None:
        return []
    return census_problems(ring, census, servers_of(ring, groups["file_servers"], hostvars), hostvars)


def infrastructure(groups):
    """The hosts without which no run can start, each once."""
    hosts = groups["listeners"][:1] + groups["storage_hosts"] + groups["backup_servers"][:1]
    return list(dict.fromkeys(hosts))


def host_problems(variables):
    """What keeps one host from its part."""
    checks = variables.get("preflight_found")
    if not checks:
        return ["did not answer, so it could not be checked"]
    return [check["problem"] for check in checks.values() if check.get("problem")]


def server_problems(server, hostvars):
    """What keeps one file server from taking part."""
    problems = quiesce_problems(server, "server", hostvars)
    if not problems:
        problems = [f"{server}: {problem}" for problem in lun_problems(hostvars[server], hostvars)]
    return problems


def quiesce_problems(host, part, hostvars):
    """What keeps a host from freezing what it is to freeze; ``part``: the name of what preflight found there."""
    problems = host_problems(hostvars[host])
    if not problems:
        found = hostvars[host]["preflight_found"][part]
        problems += [
            "driver {}: {}".format(check["driver"], check["message"]) for check in found["checks"] if not check["ok"]
        ]
        problems += [holder_problem(holder) for holder in found["holders"] if is_live(holder)]
    return [f"{host}: {problem}" for problem in problems]


def is_live(holder):
    """Whether a holder still freezes, or could still freeze, its server."""
    return bool(holder.get("leftover")) or holder.get("state") in ("armed", "freezing", "frozen", "thawing")


def holder_problem(holder):
    """What to say of a holder that should not be there."""
    return "a holder of run {} is {}: wait until it has ended by itself, or run 'ansible-playbook recover.yml'".format(
        holder.get("run_id"),
        holder.get("state"),
    )


def lun_problems(variables, hostvars):
    """Volumes whose size on the server is not the LUN's size on the storage: then it is not the same LUN."""
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


def journal_problems(groups, hostvars):
    """What the journal has against a new run."""
    listener = groups["listeners"][0]
    journal = hostvars[listener].get("preflight_found", {}).get("listener")
    if not journal or journal.get("problem"):
        return []
    path = hostvars[listener]["openisb_host"]["journal"]
    problems = [f"the journal {path} does not hold: {problem}" for problem in journal["problems"]]
    return problems + [
        f"run {run['run_id']}, opened {run['opened']}, is still open (last: {run['last_event']}, {run['last_time']}): "
        "wait for its end, or run 'ansible-playbook recover.yml' if it is no longer running"
        for run in journal["open_runs"]
    ]


def kept_journal_problems(groups, hostvars, accept):
    """Where the journal is not the one of which the repository and the controller keep the head."""
    listener = groups["listeners"][0]
    journal = hostvars[listener].get("preflight_found", {}).get("listener")
    if not journal or journal.get("problem"):
        return []
    if journal["kept_problem"]:
        # A backup server that lacks something has said so itself.
        backup_server = hostvars[listener]["isb_backup_server"]
        return [] if host_problems(hostvars[backup_server]) else [f"{backup_server}: {journal['kept_problem']}"]
    path, head = hostvars[listener]["openisb_host"]["journal"], journal["chain_head"]
    found = [
        f"{listener}: the journal {path} is not the one that was kept: {problem}"
        for problem in continuation_problems(journal, journal["kept"]["heads"], journal["kept"]["since"])
    ]
    found += [f"{listener}: what was kept of the journal {path}: {problem}" for problem in journal["kept"]["problems"]]
    if accept == head:
        return []
    wrong = f" (not {accept})" if accept else ""
    remedy = (
        "find out what has changed it (docs/run.md, The journal's head) before you go on with the journal as it is, "
        f"which is done once with -e isb_journal_accept={head}{wrong}"
    )
    return [f"{text}: {remedy}" for text in found]


def pool_problems(servers, hostvars, pool_reserve, base_reserve):
    """Storage hosts with too little room for what is written while their snapshot, and then the base, lives."""
    problems = []
    for host, storage in storages(servers, hostvars):
        needed = int(pool_reserve * sum(lun["size"] for lun in storage["luns"].values()))
        bases = int(base_reserve * bases_size(host, servers, hostvars))
        free = storage["free_bytes"]
        if free < needed + bases:
            text = (
                f"{host} has {free // MEBI} MiB free for a snapshot and needs {(needed + bases) // MEBI} MiB: "
                "free some, or lower preflight_pool_reserve"
            )
            problems.append(text + (bases_text(bases, storage) if bases else ""))
    return problems


def metadata_problems(servers, hostvars, reserve):
    """Storage hosts whose pool has room for data and not for metadata: a snapshot could make it read-only."""
    found = {host: storage.get("metadata_free_bytes") for host, storage in storages(servers, hostvars)}
    return [
        f"{host} has {free // MEBI} MiB left for the metadata of its btrfs pool, and with less than "
        f"{reserve // MEBI} MiB a snapshot may turn the pool read-only under its servers: run 'btrfs balance start "
        "-dusage=50' on it, which gives back what data does not use, enlarge it, or lower preflight_metadata_reserve"
        for host, free in found.items()
        if free is not None and free < reserve
    ]


def storages(servers, hostvars):
    """The storage hosts of these servers, each with what was found there."""
    hosts = sorted({hostvars[server]["isb_storage_host"] for server in servers})
    return [(host, hostvars[host]["preflight_found"]["storage"]) for host in hosts]


def bases_text(bases, storage):
    """What to add where a part of the room is for the base of the next run, and older ones may take some now."""
    runs = [snapshot["run_id"] for snapshot in storage.get("snapshots", [])]
    return " or preflight_base_reserve ({} MiB are for the base of the next run{}), or do without one: {}".format(
        bases // MEBI,
        "; there are snapshots of {} now".format(", ".join(runs)) if runs else "",
        "isb_changed_extents: false",
    )


def bases_size(host, servers, hostvars):
    """Bytes of the LUNs on this storage host that stay in a snapshot as the base of the next run."""
    return sum(
        volume["size"]
        or hostvars[host]["preflight_found"]["storage"]["luns"].get(volume["serial"], {"size": 0})["size"]
        for server in servers
        if hostvars[server]["isb_storage_host"] == host and hostvars[server]["openisb_host"]["changed_extents"]
        for volume in hostvars[server]["preflight_found"]["server"]["volumes"]
    )


def repository_problems(servers, hostvars, reserve):
    """Backup servers whose repository has too little room for what the run is expected to store."""
    problems = []
    for host in sorted({hostvars[server]["isb_backup_server"] for server in servers}):
        repository = hostvars[host]["preflight_found"]["repository"]
        needed = reserve + sum(
            expected_bytes(server, volume, hostvars, repository["savesets"])
            for server in servers
            if hostvars[server]["isb_backup_server"] == host
            for volume in hostvars[server]["preflight_found"]["server"]["volumes"]
        )
        free = repository["free_bytes"]
        if free is not None and free < needed:
            path = hostvars[host]["openisb_host"]["repository"]
            problems.append(
                f"{host}: the repository {path} has {free // MEBI} MiB free and the run may need "
                f"{needed // MEBI} MiB: free some, or enlarge it"
            )
    return problems


def expected_bytes(server, volume, hostvars, savesets):
    """Most bytes that this volume's next saveset is expected to store: what its last ones did, or else all it holds."""
    stored = [
        saveset["stats"]["bytes_stored"]
        for saveset in savesets
        if saveset["volume"] == "{}/{}".format(server, volume["name"])
    ]
    if stored[1:]:
        return 2 * max(stored[-3:])
    storage = hostvars[hostvars[server]["isb_storage_host"]]["preflight_found"]["storage"]
    return storage["luns"].get(volume["serial"], {"allocated": volume["size"] or 0})["allocated"]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which savesets a drill brings into use, and where: one point in time for all servers that belong together.

``hostvars`` holds the inventory's variables of each server; a catalog is a list of savesets, those of a volume in the
order in which they were made, as `catalog.with_places` returns it.
"""

from __future__ import annotations

import datetime
import posixpath

from .. import answers, controller, moments
from ..catalog import named, set_aside_text
from ..entries import Entry
from ..inventory import HostVars, Variables, servers_of
from ..verdict import APPLICATION

TEST, FAILOVER = "test", "failover"
SOURCES = ("instant", "restore", "storage")
AHEAD = 60
"""Seconds by which the clock behind a declared disaster or a copy's moment may be ahead of the controller's."""


def plan(servers: list[str], hostvars: HostVars, dr_hosts: list[str], points: list[Entry], asked: Entry) -> Entry:
    """The plan: a dict of ``servers`` (see below), ``problems`` (texts with a remedy; any stops the drill) and
    ``remarks`` (texts that the operator must know).

    ``servers``: those of the inventory. ``points``: the catalog, or its equivalent where the storage is the source.
    ``asked``: what the operator wants, a dict of

        servers       names, separated by commas; empty for all
        point         empty (the latest before the disaster), a run id, a moment (ISO 8601, the latest run not after
                      it), or a run id for each server as ``fs1=<run id>,fs2=<run id>``
        any_verdict   whether copies that are not application-consistent may be used
        mode          test or failover
        root          the folder below which a test mounts
        source        instant, restore or storage
        declared      when the disaster was declared (ISO 8601; empty: now)
        now           seconds since the epoch; None where nothing is measured, so that no copy counts as too late
        confirm       the confirmation of a failover
        ttl           seconds that the volumes stay up, if they are kept

    and what only opening() takes.

    For each server the plan has dr_host, ring, rpo_target_s, rto_target_s (None: no target), checks (None: not given)
    and volumes: dicts of volume, name, serial, saveset, run_id, consistency_point, aside (why its moment is not
    reliable, or empty), verdict, size, digest, mount (in production), dr_mount (here; both empty where the inventory
    has none), filesystem (empty where not known), sector_size (of production's disk) and block_size (the smallest that
    its content reads and writes; both 0 where not known), target (where a restore goes) and part (which filesystem of
    the LUN it is, if there are several).
    """
    chosen, problems = _chosen(servers, asked["servers"])
    problems += _wish_problems(asked)
    found, remarks = {}, []
    runs_of_points = _by_run(points)
    for ring in dict.fromkeys(hostvars[server].get("isb_ring") or "" for server in chosen):
        members = servers_of(ring, chosen, hostvars)
        runs, problem = _runs_of(members, hostvars, points, asked)
        ahead = _ahead_text(_of_members(members, hostvars, points), asked)
        problem = problem or _undecided(ahead, asked)
        problems += [problem] if problem else []
        remarks += [ahead] if ahead and not problem else []
        for server in [] if problem else members:
            entries = runs_of_points.get(runs[server], {})
            found[server] = _server_plan(server, hostvars[server], runs[server], entries, dr_hosts, asked)
    problems += _place_problems(found, servers, dr_hosts) + _failover_problems(found, asked)
    return {"servers": found, "problems": problems, "remarks": remarks}


def _by_run(points: list[Entry]) -> dict[str, dict[str, Entry]]:
    """By run, the copies that the journal knows, by volume."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in points:
        if not entry["unknown"]:
            found.setdefault(entry["run_id"], {})[entry["volume"]] = entry
    return found


def plan_summary(servers: dict[str, Entry], source: str, mode: str) -> list[str]:
    """What would be brought up, for --check: one line per volume."""
    lines = [f"{'Failover' if mode == FAILOVER else 'Drill'} from {source}; nothing was done. Would be brought up:"]
    for entry in servers.values():
        lines += [
            "{volume} of run {run_id}, as of {consistency_point} ({verdict}), ".format(**volume)
            + "at {} of {}".format(volume["dr_mount"] or "no mount point (a device only)", entry["dr_host"])
            + (f", on {volume['target']}" if source == "restore" and volume["target"] else "")
            for volume in entry["volumes"]
        ]
    return lines


def opening(servers: dict[str, Entry], asked: Entry) -> Entry:
    """The journal's data when a drill is opened.

    ``servers``: of the plan. ``asked``: as plan() takes it, and who, repository, keep, content (whether every byte is
    read, not only what checks need), fresh_run (the run whose snapshot goes with the drill, or empty), rpo_target_s and
    rto_target_s (None: no target).
    """
    this = controller.this_controller()
    declared = moments.parse(asked["declared"]) if asked["declared"] else _now(asked)
    return {
        **{key: asked[key] for key in ("mode", "source", "root", "repository", "keep")},
        **{key: asked[key] for key in ("fresh_run", "any_verdict", "content")},
        "declared": declared.isoformat(timespec="milliseconds"),
        "who": {"user": asked["who"], "host": this["host"]},
        "controller": this,
        "ttl_s": int(asked["ttl"]),
        "targets": {"rpo_s": asked["rpo_target_s"], "rto_s": asked["rto_target_s"]},
        "dr_hosts": sorted({entry["dr_host"] for entry in servers.values()}),
        "servers": servers,
    }


def _now(asked: Entry) -> datetime.datetime:
    """The controller's time when the drill was planned."""
    return datetime.datetime.fromtimestamp(float(asked["now"]), datetime.UTC)


def _wish_problems(asked: Entry) -> list[str]:
    """What is wrong with the operator's request, independent of the savesets."""
    problems = []
    for name, wish, choices in [
        ("idr_mode", asked["mode"], (TEST, FAILOVER)),
        ("idr_source", asked["source"], SOURCES),
    ]:
        if wish not in choices:
            problems.append(f"{name} is '{wish}': it must be {' or '.join(choices)}")
    if not str(asked["ttl"]).isdigit():
        problems.append(f"idr_ttl is '{asked['ttl']}': it must be a number of seconds, such as 14400")
    if asked["mode"] == FAILOVER and asked["source"] in ("instant", "storage"):
        problems.append(
            f"a failover restores to permanent disks, never from idr_source {asked['source']}: leave that out"
        )
    return problems + _declared_problems(asked)


def _declared_problems(asked: Entry) -> list[str]:
    """What is wrong with the declared moment, from which recovery is measured: a wrong one could prove anything."""
    declared = asked["declared"]
    if not declared or asked["now"] is None:
        return []
    try:
        moment = moments.parse(declared)
    except ValueError:
        return [f"idr_declared '{declared}' is not a time like 2026-11-23T02:15:00+00:00: correct it or leave it out"]
    if moment.timestamp() <= float(asked["now"]) + AHEAD:
        return []
    text = (
        f"idr_declared is {declared}, which is in the future: correct it (UTC where it has no time zone), or leave it "
        "out for now"
    )
    return [text]


def _failover_problems(found: dict[str, Entry], asked: Entry) -> list[str]:
    """Why a failover cannot begin: it must be confirmed by name, and needs real disks as targets."""
    if asked["mode"] != FAILOVER or not found:
        return []
    problems, words = [], "failover " + " ".join(found)
    if asked["confirm"] != words:
        said = f", not '{asked['confirm']}'" if asked["confirm"] else ""
        problems.append(
            "a failover brings servers up permanently: if you want that, confirm it by their names with "
            f"-e \"idr_confirm='{words}'\"{said}"
        )
    without = [volume["volume"] for entry in found.values() for volume in entry["volumes"] if not volume["target"]]
    if without:
        problems.append(
            f"a failover needs permanent disks: give {', '.join(without)} an idr_target in the inventory, a device or "
            "file of the DR host"
        )
    return problems


def _chosen(servers: list[str], named: str) -> tuple[list[str], list[str]]:
    """The requested servers, in the inventory's order, and what is wrong with the request."""
    names = [name.strip() for name in named.split(",") if name.strip()]
    unknown = [name for name in names if name not in servers]
    problems = [
        f"there is no file server {name} in the inventory: correct idr_servers, or leave it out for all servers"
        for name in unknown
    ]
    return [server for server in servers if server in names or not names], problems


def _runs_of(members: list[str], hostvars: HostVars, points: list[Entry], asked: Entry) -> tuple[dict[str, str], str]:
    """The run of each of these servers, which belong together, and a problem (empty if none)."""
    named = _named_runs(asked["point"])
    if named is not None:
        runs = {server: named.get(server, named.get("", "")) for server in members}
        missing = _missing(runs, hostvars, points)
        if missing:
            return {}, "there is no saveset of {}: 'ansible-playbook catalog.yml' lists what there is".format(
                ", ".join(missing)
            )
        return runs, _too_late(runs, hostvars, points, asked)
    return _latest_whole_run(members, hostvars, points, asked)


def _named_runs(point: str) -> dict[str, str] | None:
    """Run ids by server (empty key: for every server); None where no run is named."""
    if point.startswith("isb-"):
        return {"": point}
    if "=" in point:
        pairs = [pair.partition("=") for pair in point.split(",")]
        return {server.strip(): run_id.strip() for server, _equals, run_id in pairs}
    return None


def _missing(runs: dict[str, str], hostvars: HostVars, points: list[Entry]) -> list[str]:
    """Volumes of which their server's run has no saveset, as texts."""
    there = {(entry["volume"], entry["run_id"]) for entry in points if not entry["unknown"]}
    return [
        f"{volume} of run {run_id or '(none named)'}"
        for server, run_id in runs.items()
        for volume in _volumes(server, hostvars[server])
        if (volume, run_id) not in there
    ]


def _too_late(runs: dict[str, str], hostvars: HostVars, points: list[Entry], asked: Entry) -> str:
    """The problem of a named run from after the disaster: it would not exist then, and proves no RPO."""
    limit, said = _disaster(asked)
    mine = {volume: run_id for server, run_id in runs.items() for volume in _volumes(server, hostvars[server])}
    late = [
        named(entry)
        for entry in points
        if mine.get(entry["volume"]) == entry["run_id"] and not entry["unknown"] and _is_after(entry, limit)
    ]
    # In an emergency a run with a wrong time may be used: the report then says that its age is not known.
    if not late or (asked["mode"] == FAILOVER and not asked["declared"]):
        return ""
    return (
        f"these are from after {said}, so they would not exist: {'; '.join(late)}. Name an earlier run (idr_point) or "
        "a later disaster (idr_declared); if a clock was wrong, and so are their times, no drill can prove their age"
    )


def _ahead_text(points: list[Entry], asked: Entry) -> str:
    """The remark on copies from the future of the controller's clock, which are therefore out of order."""
    limit, said = _disaster(dict(asked, declared=""))
    ahead = [named(entry) for entry in points if _is_after(entry, limit) and not entry["aside"]]
    if not ahead:
        return ""
    return f"these are from after {said}, so a clock was wrong, and no drill chooses them: {'; '.join(ahead)}"


def _undecided(ahead: str, asked: Entry) -> str:
    """The problem of a failover with copies from the future: it neither uses them unasked nor skips the newest data."""
    if not ahead or asked["mode"] != FAILOVER or asked["point"]:
        return ""
    return f"{ahead}: a failover does not choose for you, so name the right run (idr_point)"


def _of_members(members: list[str], hostvars: HostVars, points: list[Entry]) -> list[Entry]:
    """The copies of these servers' volumes that the journal knows."""
    wanted = {volume for server in members for volume in _volumes(server, hostvars[server])}
    return [entry for entry in points if entry["volume"] in wanted and not entry["unknown"]]


def _is_after(entry: Entry, limit: datetime.datetime | None) -> bool:
    return limit is not None and moments.parse(entry["time"]) > limit


def _volumes(server: str, variables: Variables) -> list[str]:
    return ["{}/{}".format(server, volume["name"]) for volume in variables["isb_volumes"]]


def _latest_whole_run(
    members: list[str], hostvars: HostVars, points: list[Entry], asked: Entry
) -> tuple[dict[str, str], str]:
    """The latest run that has every volume of these servers, and is not after the requested moment."""
    before, problem = _moment(asked)
    if problem:
        return {}, problem
    wanted = {volume for server in members for volume in _volumes(server, hostvars[server])}
    held: dict[str, dict[str, int]] = {}
    late = []
    for entry in points:
        good = asked["any_verdict"] or entry["verdict"] == APPLICATION
        if entry["aside"] or not good or entry["volume"] not in wanted:
            continue
        if not _is_after(entry, before):
            held.setdefault(entry["run_id"], {})[entry["volume"]] = entry["sequence"]
        else:
            late.append(entry)
    whole = [run_id for run_id, volumes in held.items() if set(volumes) == wanted]
    if not whole:
        aside = [entry for entry in points if entry["aside"] and entry["volume"] in wanted]
        return {}, _no_whole_run(members, held, wanted, asked) + set_aside_text(aside) + _late_text(late)
    # Each of these runs has all volumes of servers that belong together, so any volume determines their order.
    latest = max(whole, key=lambda run_id: [held[run_id][volume] for volume in sorted(wanted)])
    return dict.fromkeys(members, latest), ""


def _late_text(entries: list[Entry]) -> str:
    """What to add where there are copies, but they are from after the latest moment that is allowed."""
    return f"; later ones are {'; '.join(map(named, entries))}" if entries else ""


def _no_whole_run(members: list[str], held: dict[str, dict[str, int]], wanted: set[str], asked: Entry) -> str:
    kind = "" if asked["any_verdict"] else "application-consistent "
    moment = asked["point"] or asked["declared"]
    until = f" until {moment}" if moment else ""
    text = f"no {kind}run{until} has savesets of all volumes of {', '.join(members)}"
    if held:
        best = max(held, key=lambda run_id: len(held[run_id]))
        text += f"; run {best} lacks {', '.join(sorted(wanted - set(held[best])))}"
    way_out = "name fewer servers (idr_servers), another moment (idr_point)"
    return f"{text}: {way_out}" + ("" if asked["any_verdict"] else ", or allow any verdict (idr_any_verdict=true)")


def _moment(asked: Entry) -> tuple[datetime.datetime | None, str]:
    """The latest moment that copies may be from, as a datetime (None: any), and a problem.

    This is the requested moment, or that of the disaster if it is earlier.
    """
    point, (limit, _said) = asked["point"], _disaster(asked)
    if not point:
        return limit, ""
    try:
        wanted = moments.parse(point)
        return (wanted if limit is None else min(wanted, limit)), ""
    except ValueError:
        return None, (
            f"idr_point '{point}' is neither a run id, nor a time like 2026-11-23T02:15:00+00:00, nor a list like "
            "fs1=<run id>,fs2=<run id>"
        )


def _disaster(asked: Entry) -> tuple[datetime.datetime | None, str]:
    """The moment of the disaster, which no copy may be after (None: any), and its name: idr_declared, or now.

    A tolerance is added to now, since a copy's time may come from another clock; a declared time is exact.
    """
    if asked["now"] is None or _declared_problems(asked):
        return None, ""
    if asked["declared"]:
        return moments.parse(asked["declared"]), "idr_declared, {}".format(asked["declared"])
    now = _now(asked)
    return now + datetime.timedelta(seconds=AHEAD), f"now, {now:%Y-%m-%dT%H:%M:%SZ} by the controller's clock"


def _server_plan(
    server: str, variables: Variables, run_id: str, entries: dict[str, Entry], dr_hosts: list[str], asked: Entry
) -> Entry:
    """The plan of a server. ``entries``: the copies of its run, by volume."""
    return {
        "dr_host": variables.get("idr_host") or (dr_hosts[0] if dr_hosts else ""),
        "ring": variables.get("isb_ring") or "",
        "run_id": run_id,
        "rpo_target_s": variables.get("idr_rpo_target"),
        "rto_target_s": variables.get("idr_rto_target"),
        "volumes": [
            _volume_plan(server, volume, entries["{}/{}".format(server, volume["name"])], asked)
            for volume in variables["isb_volumes"]
        ],
    }


def _volume_plan(server: str, volume: Entry, entry: Entry, asked: Entry) -> Entry:
    mount = volume.get("mount") or ""
    return {
        "volume": entry["volume"],
        "name": volume["name"],
        "serial": volume["serial"],
        "saveset": entry["id"],
        "run_id": entry["run_id"],
        "consistency_point": entry["time"],
        "aside": entry["aside"],
        "verdict": entry["verdict"],
        "size": entry["size"],
        "digest": entry.get("digest", ""),
        "mount": mount,
        "filesystem": (entry.get("metadata") or {}).get("filesystem") or "",
        **answers.disk_blocks(entry.get("metadata")),
        **({"sector_size": volume["idr_sector_size"]} if volume.get("idr_sector_size") else {}),
        "dr_mount": _dr_mount(server, volume, mount, asked),
        "target": volume.get("idr_target") or "",
        "part": volume.get("idr_part") or "",
    }


def _dr_mount(server: str, volume: Entry, mount: str, asked: Entry) -> str:
    """Where a volume is mounted on the DR host: in a failover as in production, in a test below the drill's root."""
    own: str = volume.get("idr_mount") or ""
    if own:
        return own
    if asked["mode"] == FAILOVER or not mount:
        return mount
    return posixpath.join(asked["root"], server) + mount


def _sector_problems(found: dict[str, Entry]) -> list[str]:
    """What is wrong with the sector sizes in the inventory."""
    return [
        "{}: idr_sector_size is {!r}: it must be 512, 1024, 2048 or 4096, or left out".format(
            volume["volume"], volume["sector_size"]
        )
        for entry in found.values()
        for volume in entry["volumes"]
        if volume["sector_size"] not in (0, 512, 1024, 2048, 4096)
    ]


def _place_problems(found: dict[str, Entry], servers: list[str], dr_hosts: list[str]) -> list[str]:
    """What is wrong with where the volumes would go."""
    problems = _sector_problems(found)
    owners: dict[tuple[str, ...], str] = {}
    if not dr_hosts:
        return ["the inventory has no host in the group dr_hosts: add one (docs/inventory.md has an example)"]
    for server, entry in found.items():
        host = entry["dr_host"]
        if host not in dr_hosts:
            problems.append(f"{server}: idr_host is {host}, which is not in the group dr_hosts: add it or correct it")
        if host in servers:
            problems.append(f"{server}: {host} is a file server, so nothing is mounted there: name another DR host")
        for volume in entry["volumes"]:
            place = (host, volume["dr_mount"])
            if volume["dr_mount"] and place in owners:
                problems.append(
                    "{} and {} would both be mounted at {} of {}: give one an idr_mount of its own".format(
                        owners[place], volume["volume"], volume["dr_mount"], host
                    )
                )
            owners[place] = volume["volume"]
            target = (host, "target", volume["target"])
            if volume["target"] and target in owners:
                problems.append(
                    "{} and {} have the same idr_target {} on {}: give each its own".format(
                        owners[target], volume["volume"], volume["target"], host
                    )
                )
            owners[target] = volume["volume"]
    return problems

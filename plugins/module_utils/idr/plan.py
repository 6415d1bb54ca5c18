# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which savesets a drill brings into use, and where: one point in time for all servers that belong together.

What the inventory says of a server comes in ``hostvars``; a catalog is a list of savesets, those of a volume in the
order in which they came, as `catalog.with_places` makes it.
"""

from __future__ import annotations

import posixpath

from ansible_collections.openisb.backup.plugins.module_utils import controller
from ansible_collections.openisb.backup.plugins.module_utils.catalog import set_aside_text
from ansible_collections.openisb.backup.plugins.module_utils.idr import moments
from ansible_collections.openisb.backup.plugins.module_utils.inventory import servers_of
from ansible_collections.openisb.backup.plugins.module_utils.verdict import APPLICATION

TEST, FAILOVER = "test", "failover"
SOURCES = ("instant", "restore", "storage")
AHEAD = 60
"""Seconds that the clock of whoever declared the disaster may be ahead of the controller's."""


def plan(servers, hostvars, dr_hosts, points, asked):
    """The plan: a dict of ``servers`` (see below) and ``problems`` (texts with their way out; any stops the drill).

    ``servers``: those that the inventory has. ``points``: the catalog, or what stands for it where the storage is the
    source. ``asked``: what the operator wants, a dict of

        servers       names with commas; empty for all
        point         empty (the latest before the disaster), a run id, a moment (ISO 8601, the latest run not after
                      it), or a run id for each server as ``fs1=<run id>,fs2=<run id>``
        any_verdict   whether copies that are not application-consistent may be used
        mode          test or failover
        root          the folder below which a test mounts
        source        instant, restore or storage
        declared      when the disaster was declared (ISO 8601; empty: now)
        now           seconds since the epoch
        confirm       what a failover is confirmed with
        ttl           seconds that it stays up, where it does

    Of each server the plan has dr_host, ring, rpo_target_s, rto_target_s (None: no target), checks (None: not said) and
    volumes: dicts of volume, name, serial, saveset, run_id, consistency_point, verdict, size, digest, mount (in
    production), dr_mount (here; both empty where the inventory names none), filesystem (empty where it is not known),
    target (where a restore goes) and part (which filesystem of the LUN it is, where there are several).
    """
    chosen, problems = _chosen(servers, asked["servers"])
    problems += _wish_problems(asked)
    found = {}
    for ring in dict.fromkeys(hostvars[server].get("isb_ring") or "" for server in chosen):
        members = servers_of(ring, chosen, hostvars)
        runs, problem = _runs_of(members, hostvars, points, asked)
        problems += [problem] if problem else []
        for server in [] if problem else members:
            found[server] = _server_plan(server, hostvars[server], runs[server], points, dr_hosts, asked)
    problems += _place_problems(found, servers, dr_hosts) + _failover_problems(found, asked)
    return {"servers": found, "problems": problems}


def plan_summary(servers, source, mode):
    """What would be brought up, for who asks with --check: a line a volume."""
    lines = [f"{'Failover' if mode == FAILOVER else 'Drill'} from {source}; nothing was done. Would be brought up:"]
    for entry in servers.values():
        lines += [
            "{volume} of run {run_id}, as of {consistency_point} ({verdict}), ".format(**volume)
            + "at {} of {}".format(volume["dr_mount"] or "no place, as a device alone,", entry["dr_host"])
            + (f", on {volume['target']}" if source == "restore" and volume["target"] else "")
            for volume in entry["volumes"]
        ]
    return lines


def opening(servers, told):
    """What goes into the journal when a drill is opened.

    ``servers``: of the plan. ``told``: mode, source, declared, root, who, repository, keep, ttl_s, fresh_run (the run
    whose snapshot goes with the drill, or empty), any_verdict, content (whether every byte is read, not only what
    checks need), rpo_target_s, rto_target_s.
    """
    this = controller.this_controller()
    return {
        "mode": told["mode"],
        "source": told["source"],
        "declared": moments.parse(told["declared"]).isoformat(timespec="milliseconds"),
        "root": told["root"],
        "who": {"user": told["who"], "host": this["host"]},
        "controller": this,
        "repository": told["repository"],
        "keep": told["keep"],
        "ttl_s": told["ttl_s"],
        "fresh_run": told["fresh_run"],
        "any_verdict": told["any_verdict"],
        "content": told["content"],
        "targets": {"rpo_s": told["rpo_target_s"], "rto_s": told["rto_target_s"]},
        "dr_hosts": sorted({entry["dr_host"] for entry in servers.values()}),
        "servers": servers,
    }


def _wish_problems(asked):
    """What is wrong with what the operator asked for, whatever there is to bring up."""
    problems = []
    for name, wish, choices in [
        ("idr_mode", asked["mode"], (TEST, FAILOVER)),
        ("idr_source", asked["source"], SOURCES),
    ]:
        if wish not in choices:
            problems.append(f"{name} is '{wish}': it can be {' or '.join(choices)}")
    if not str(asked["ttl"]).isdigit():
        problems.append(f"idr_ttl is '{asked['ttl']}': it is a number of seconds, such as 14400")
    if asked["mode"] == FAILOVER and asked["source"] in ("instant", "storage"):
        problems.append(
            f"a failover restores to disks that stay, never from idr_source {asked['source']}: leave that out"
        )
    return problems + _declared_problems(asked["declared"], float(asked["now"]))


def _declared_problems(declared, now):
    """Recovery is measured from when the disaster was declared: a wrong moment would prove whatever one likes."""
    if not declared:
        return []
    try:
        moment = moments.parse(declared)
    except ValueError:
        return [f"idr_declared '{declared}' is no moment like 2026-11-23T02:15:00+00:00: correct it or leave it out"]
    if moment.timestamp() <= now + AHEAD:
        return []
    text = (
        f"idr_declared is {declared}, which is in the future: what has yet to come cannot be recovered from; "
        "correct it (UTC where it names no zone), or leave it out for now"
    )
    return [text]


def _failover_problems(found, asked):
    """A failover is confirmed by name, and has real disks to go to."""
    if asked["mode"] != FAILOVER or not found:
        return []
    problems, words = [], "failover " + " ".join(found)
    if asked["confirm"] != words:
        said = f", not '{asked['confirm']}'" if asked["confirm"] else ""
        problems.append(
            "a failover brings servers up for good: if you mean it, confirm it by their names with "
            f"-e \"idr_confirm='{words}'\"{said}"
        )
    without = [volume["volume"] for entry in found.values() for volume in entry["volumes"] if not volume["target"]]
    if without:
        problems.append(
            f"a failover needs disks that stay: give {', '.join(without)} an idr_target in the inventory, a device or "
            "file of the DR host"
        )
    return problems


def _chosen(servers, named):
    """The servers that were asked for, in the inventory's order, and what is wrong with what was asked."""
    names = [name.strip() for name in named.split(",") if name.strip()]
    unknown = [name for name in names if name not in servers]
    problems = [
        f"there is no file server {name} in the inventory: correct idr_servers, or leave it out for all servers"
        for name in unknown
    ]
    return [server for server in servers if server in names or not names], problems


def _runs_of(members, hostvars, points, asked):
    """The run of each of these servers, which belong together, and a problem (empty where there is none)."""
    named = _named_runs(asked["point"])
    if named is not None:
        runs = {server: named.get(server, named.get("", "")) for server in members}
        missing = _missing(runs, hostvars, points)
        if missing:
            return {}, "there is no saveset of {}: 'ansible-playbook catalog.yml' lists what there is".format(
                ", ".join(missing)
            )
        return runs, ""
    return _latest_whole_run(members, hostvars, points, asked)


def _named_runs(point):
    """Run ids by server (key empty: of every server); None where no run is named."""
    if point.startswith("isb-"):
        return {"": point}
    if "=" in point:
        pairs = [pair.partition("=") for pair in point.split(",")]
        return {server.strip(): run_id.strip() for server, _equals, run_id in pairs}
    return None


def _missing(runs, hostvars, points):
    """Volumes of which their server's run has no saveset, as texts."""
    there = {(entry["volume"], entry["run_id"]) for entry in points if not entry["unknown"]}
    return [
        f"{volume} of run {run_id or '(none named)'}"
        for server, run_id in runs.items()
        for volume in _volumes(server, hostvars[server])
        if (volume, run_id) not in there
    ]


def _volumes(server, variables):
    return ["{}/{}".format(server, volume["name"]) for volume in variables["isb_volumes"]]


def _latest_whole_run(members, hostvars, points, asked):
    """The latest run that has every volume of these servers, not after the moment that was asked for."""
    before, problem = _moment(asked)
    if problem:
        return {}, problem
    wanted = {volume for server in members for volume in _volumes(server, hostvars[server])}
    held = {}
    for entry in points:
        good = asked["any_verdict"] or entry["verdict"] == APPLICATION
        if entry["aside"] or not good or entry["volume"] not in wanted:
            continue
        if before is None or moments.parse(entry["time"]) <= before:
            held.setdefault(entry["run_id"], {})[entry["volume"]] = entry["sequence"]
    whole = [run_id for run_id, volumes in held.items() if set(volumes) == wanted]
    if not whole:
        aside = [entry for entry in points if entry["aside"] and entry["volume"] in wanted]
        return {}, _no_whole_run(members, held, wanted, asked) + set_aside_text(aside)
    # All volumes of servers that belong together are in each of these runs, so any of them tells their order.
    latest = max(whole, key=lambda run_id: [held[run_id][volume] for volume in sorted(wanted)])
    return dict.fromkeys(members, latest), ""


def _no_whole_run(members, held, wanted, asked):
    kind = "" if asked["any_verdict"] else "application-consistent "
    moment = asked["point"] or asked["declared"]
    until = f" until {moment}" if moment else ""
    text = f"no {kind}run{until} has savesets of all volumes of {', '.join(members)}"
    if held:
        best = max(held, key=lambda run_id: len(held[run_id]))
        text += f"; run {best} lacks {', '.join(sorted(wanted - set(held[best])))}"
    way_out = "name fewer servers (idr_servers), another moment (idr_point)"
    return f"{text}: {way_out}" + ("" if asked["any_verdict"] else ", or allow any verdict (idr_any_verdict=true)")


def _moment(asked):
    """The moment that the copies may not be after as a datetime, None for any; and a problem.

    That is the one that was asked for, or else that of the disaster: no copy is from after it.
    """
    point = asked["point"]
    if not point and (not asked["declared"] or _declared_problems(asked["declared"], float(asked["now"]))):
        return None, ""
    try:
        return moments.parse(point or asked["declared"]), ""
    except ValueError:
        return None, (
            f"idr_point '{point}' is no run id, no moment like 2026-11-23T02:15:00+00:00, and no list like "
            "fs1=<run id>,fs2=<run id>"
        )


def _server_plan(server, variables, run_id, points, dr_hosts, asked):
    entries = {entry["volume"]: entry for entry in points if entry["run_id"] == run_id and not entry["unknown"]}
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


def _volume_plan(server, volume, entry, asked):
    mount = volume.get("mount") or ""
    return {
        "volume": entry["volume"],
        "name": volume["name"],
        "serial": volume["serial"],
        "saveset": entry["id"],
        "run_id": entry["run_id"],
        "consistency_point": entry["time"],
        "verdict": entry["verdict"],
        "size": entry["size"],
        "digest": entry.get("digest", ""),
        "mount": mount,
        "filesystem": (entry.get("metadata") or {}).get("filesystem") or "",
        "dr_mount": _dr_mount(server, volume, mount, asked),
        "target": volume.get("idr_target") or "",
        "part": volume.get("idr_part") or "",
    }


def _dr_mount(server, volume, mount, asked):
    """Where a volume is mounted on the DR host: in a failover as in production, in a test below the drill's root."""
    if volume.get("idr_mount"):
        return volume["idr_mount"]
    if asked["mode"] == FAILOVER or not mount:
        return mount
    return posixpath.join(asked["root"], server) + mount


def _place_problems(found, servers, dr_hosts):
    """What is wrong with where the volumes would go."""
    problems, owners = [], {}
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

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of a drill from its journal records alone, so that anyone can reproduce it at any time.

This module gathers what the records say; proof.py decides what of it keeps the drill from being a proof.
"""

from __future__ import annotations

from ..entries import Entry, Record
from ..moments import seconds_from
from ..report import ReportError, one
from . import phases, proof

PASSED, FAILED = "passed", "failed"


def idr_report(
    records: list[Record],
    any_verdict: bool = False,
    journal_problems: list[str] | None = None,
    versions: dict[str, str] | None = None,
) -> Entry:
    """The report, a dict of plain values: see "The report of a drill" in docs/idr.md.

    ``records``: those of one drill, oldest first. ``any_verdict``: whether savesets that are not application-consistent
    may be used, in which case they are reported but do not fail the drill; the drill's own record may also allow it.
    ``journal_problems``: where the journal's hash chain is broken; None where it was not verified. ``versions``: those
    of the programs that made it.
    """
    opened = one(records, "opened")
    if opened is None:
        raise ReportError("the journal has no drill with this id: correct the id or the path of the journal")
    plan = opened["data"]
    declared = plan.get("declared") or opened["time"]
    mine = by_server(records)
    servers = {name: server_report(name, plan, declared, opened, mine.get(name, [])) for name in plan["servers"]}
    report: Entry = {
        "format": 1,
        "drill": opened["run_id"],
        "mode": plan["mode"],
        "source": plan["source"],
        "who": plan["who"],
        "controller": plan.get("controller", {}),
        "dr_hosts": list(plan["dr_hosts"]),
        "keep": bool(plan.get("keep")),
        "ttl_s": plan.get("ttl_s"),
        "any_verdict": bool(any_verdict or plan.get("any_verdict")),
        "content": bool(plan.get("content", True)),
        "declared": declared,
        "started": opened["time"],
        "ended": records[-1]["time"],
        "seconds": seconds_from(opened["time"], records[-1]["time"]),
        "servers": servers,
        "group": group_report(plan, declared, servers, records),
        "torn_down": torn_down(records),
        "timeline": phases.timeline(records),
        "records": len(records),
        "journal_head": records[-1]["hash"],
        "journal_seq": records[-1]["seq"],
        "journal_whole": None if journal_problems is None else not journal_problems,
        "repository": plan.get("repository", ""),
        "versions": {**plan.get("versions", {}), **(versions or {})},
    }
    judge(report, records, journal_problems or [])
    return report


def judge(report: Entry, records: list[Record], journal_problems: list[str]) -> None:
    """Add to the report whether it is a proof: verdict, problems, remarks, left, exit_status, and all that follow."""
    report["left"] = proof.left_behind(report)
    report["remarks"] = proof.remarks(report)
    failures = proof.failures(records)
    for server, entry in report["servers"].items():
        entry["problems"] = proof.server_problems(server, entry, failures.get(server, []), report)
        missed = proof.target_problems(server, entry)
        targets_met(entry, not entry["problems"])
        entry["problems"] += missed
        entry["verdict"] = FAILED if entry["problems"] else PASSED
    group = report["group"]
    problems = proof.group_problems(group)
    sound = not problems and not any(entry["problems"] for entry in report["servers"].values())
    missed = proof.target_problems("all servers together", group)
    targets_met(group, sound)
    group["ok"] = sound and not missed
    texts = proof.drill_problems(report, records, journal_problems)
    texts += [text for entry in report["servers"].values() for text in entry["problems"]]
    report["problems"] = texts + problems + missed + [f"{text}; run 'recover.yml'" for text in report["left"]]
    report["verdict"] = FAILED if report["problems"] else PASSED
    report["exit_status"] = 2 if report["problems"] else 0


def targets_met(entry: Entry, sound: bool) -> None:
    """Add rpo_ok and rto_ok: None where there is no target. What did not recover has met no target."""
    for name in ("rpo", "rto"):
        target = entry[f"{name}_target_s"]
        entry[f"{name}_ok"] = None if target is None else sound and proof.within(entry[f"{name}_s"], target)


def by_server(records: list[Record]) -> dict[str, list[Record]]:
    """The records of each server."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["data"].get("server") or "", []).append(record)
    return found


def server_report(server: str, plan: Entry, declared: str, first: Record, mine: list[Record]) -> Entry:
    """What the drill did for one server. ``first``: the drill's first record; ``mine``: those of the server."""
    planned = plan["servers"][server]
    ready = one(mine, "ready")
    volumes = [volume_report(volume, plan["source"], mine) for volume in planned["volumes"]]
    points = [volume["consistency_point"] for volume in volumes]
    return {
        "dr_host": planned["dr_host"],
        "ring": planned.get("ring") or "",
        "consistency_point": min(points) if points and all(points) else "",
        "run_ids": sorted({volume["run_id"] for volume in volumes}),
        "rpo_s": lost(points, declared),
        "rto_s": seconds_from(declared, ready["time"]) if ready else None,
        "rpo_target_s": planned.get("rpo_target_s"),
        "rto_target_s": planned.get("rto_target_s"),
        "ready": ready["time"] if ready else "",
        "volumes": volumes,
        "checks": checks_of(mine),
        "phases": phases.server_phases(first, mine),
    }


def lost(points: list[str], declared: str) -> float | None:
    """The seconds of work that are lost, from the oldest copy to the disaster; None where a moment is missing.

    Negative where, by their times, all copies are from after the disaster: then a clock was wrong.
    """
    if not points or not all(points):
        return None
    return max(seconds_from(point, declared) for point in points)


def volume_report(planned: Entry, source: str, mine: list[Record]) -> Entry:
    """One volume: its source, and the outcome on the DR host."""
    lun = one_of_volume(mine, "lun", planned)
    restored = one_of_volume(mine, "restored", planned)
    return {
        **{key: planned.get(key) or "" for key in ("volume", "name", "saveset", "run_id", "consistency_point")},
        **{key: planned.get(key) or "" for key in ("aside", "verdict", "digest", "mount")},
        "size": planned.get("size") or 0,
        "dr_mount": lun.get("dr_mount") or planned.get("dr_mount") or "",
        "up": bool(lun) and (source != "restore" or bool(restored)),
        **{key: lun.get(key) or "" for key in ("device", "type", "method")},
        "seconds": lun.get("seconds"),
        "restored": {"seconds": restored.get("seconds"), "stats": restored.get("stats", {})} if restored else None,
    }


def one_of_volume(mine: list[Record], event: str, planned: Entry) -> Entry:
    """The data of the last record of an event about a volume; empty where there is none."""
    names = (planned["volume"], planned.get("name"))
    about = [record for record in mine if record["data"].get("volume") in names]
    data: Entry = (one(about, event) or {"data": {}})["data"]
    return data


def checks_of(records: list[Record]) -> list[Entry]:
    """All checks, in the order in which they ended."""
    return [
        {"volume": record["data"].get("volume") or "", "ended": phases.ended(record), **record["data"]["check"]}
        for record in records
        if record["event"] == "check"
    ]


def group_report(plan: Entry, declared: str, servers: dict[str, Entry], records: list[Record]) -> Entry:
    """All servers together: the worst measures, and the checks over all of them."""
    group_checks = checks_of([record for record in records if not record["data"].get("server")])
    rpos = [entry["rpo_s"] for entry in servers.values()]
    readies = [entry["rto_s"] for entry in servers.values()]
    ends = [seconds_from(declared, check["ended"]) for check in group_checks]
    targets = plan.get("targets") or {}
    rings = [ring_report(ring, servers) for ring in dict.fromkeys(entry["ring"] for entry in servers.values())]
    return {
        "rpo_s": None if not rpos or None in rpos else max(rpos),
        "rto_s": None if not readies or None in readies else max(readies + ends),
        "rpo_target_s": targets.get("rpo_s"),
        "rto_target_s": targets.get("rto_s"),
        "one_consistency_point": bool(rings) and all(ring["ok"] for ring in rings),
        "rings": rings,
        "checks": group_checks,
        "phases": phases.group_phases(records),
    }


def ring_report(ring: str, servers: dict[str, Entry]) -> Entry:
    """Whether the copies of servers that belong together are of one moment. Those of no ring also belong together."""
    members = {name: entry for name, entry in servers.items() if entry["ring"] == ring}
    volumes = [volume for entry in members.values() for volume in entry["volumes"]]
    runs = sorted({volume["run_id"] for volume in volumes})
    points = sorted({volume["consistency_point"] for volume in volumes})
    return {
        "ring": ring,
        "servers": list(members),
        "run_ids": runs,
        "consistency_points": points,
        "ok": len(runs) == len(points) == 1 and all(runs) and all(points),
    }


def torn_down(records: list[Record]) -> dict[str, list[str]]:
    """By host that was torn down, the leftovers that were last found there."""
    return {
        record["data"]["host"]: list(record["data"].get("left") or [])
        for record in records
        if record["event"] == "torn_down"
    }

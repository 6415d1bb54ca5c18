# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of a run from its journal alone, so that it can be made again at any time, by anybody."""

from __future__ import annotations

import datetime

from ansible_collections.openisb.backup.plugins.module_utils.verdict import APPLICATION, CRASH, FAILED


def run_report(records, repository):
    """The report, a dict of plain values: see "The report" in docs/run.md. ``records``: the run's, oldest first."""
    opened = one(records, "opened")
    points = [record["data"] for record in records if record["event"] == "thawed"]
    with_savesets = opened["data"].get("savesets", True)  # not in journals of earlier versions
    servers = {server: server_report(server, records, with_savesets) for server in opened["data"]["servers"]}
    rings = [ring_report(point) for point in points if point.get("ring")]
    unclean = [ring["ring"] for ring in rings if not cleaned(records, "ring", ring["ring"])]
    problems = problems_of(records, points, servers) + [not_cleaned(ring) for ring in unclean]
    good = not problems and all(entry["verdict"] == APPLICATION for entry in servers.values())
    return {
        "format": 1,
        "run_id": opened["run_id"],
        "started": opened["time"],
        "ended": records[-1]["time"],
        "seconds": seconds_between(opened, records[-1]),
        "verdict": worst([point["verdict"] for point in points]),
        "degraded": sorted({text for entry in servers.values() for text in entry["degraded"]}),
        "consistency_point": min((point["time"] for point in points if point["time"]), default=""),
        "freeze_window_ms": longest(points, "window_ms"),
        "storage_ms": longest(points, "storage_ms"),
        "exit_status": 0 if good else 2,
        "problems": problems,
        "clocks": clocks_of(points),
        "warnings": list(dict.fromkeys(text for point in points for text in point.get("warnings", []))),
        "left": [server for server, entry in servers.items() if not entry["cleaned"]] + unclean,
        "repository": repository,
        "rings": rings,
        "servers": servers,
        "timeline": timeline(records),
        "journal_head": records[-1]["hash"],
    }


def worst(verdicts):
    """The least of the verdicts of a run's consistency points."""
    order = [APPLICATION, CRASH, FAILED]
    return max(verdicts, key=order.index) if verdicts else FAILED


def longest(points, key):
    """The largest of a measure of the consistency points; None where none has it."""
    return max((point[key] for point in points if point.get(key) is not None), default=None)


def clocks_of(points):
    """How far each host's clock was from the listener's, as compared last."""
    return {host: clock for point in points for host, clock in point.get("clocks", {}).items()}


def ring_report(point):
    """One ring's consistency point."""
    return {
        "ring": point["ring"],
        "verdict": point["verdict"],
        "degraded": point["degraded"],
        "consistency_point": point["time"],
        "freeze_window_ms": point["window_ms"],
        "storage_ms": point["storage_ms"],
        "servers": list(point["servers"]),
    }


def server_report(server, records, with_savesets=True):
    """What the run did for one server. ``with_savesets``: whether it was to write any, or only to take a snapshot."""
    mine = [record for record in records if record["data"].get("server") == server]
    point = next((record["data"] for record in records if is_point_of(server, record)), {})
    hold = point.get("servers", {}).get(server, {})
    savesets = [volume_report(record["data"]) for record in mine if record["event"] == "saveset"]
    return {
        "verdict": hold.get("verdict", FAILED) if savesets or not with_savesets else FAILED,
        "ring": point.get("ring", ""),
        "degraded": hold.get("degraded") or [],
        "freeze_window_ms": hold.get("window_ms"),
        "bytes_size": total(savesets, "bytes_size"),
        "bytes_read": total(savesets, "bytes_read"),
        "bytes_new": total(savesets, "bytes_new"),
        "bytes_stored": total(savesets, "bytes_stored"),
        "seconds": phases(records, mine, hold),
        "cleaned": cleaned(records, "server", server),
        "volumes": savesets,
    }


def is_point_of(server, record):
    """Whether a record is of a server's consistency point."""
    return record["event"] == "thawed" and server in record["data"]["servers"]


def cleaned(records, kind, name):
    """Whether a server or a ring was cleaned up."""
    return any(record["event"] == "cleaned" and record["data"].get(kind) == name for record in records)


def not_cleaned(name):
    """What to say of a server or a ring that was not cleaned up."""
    return f"{name} was not cleaned up: run 'ansible-playbook recover.yml'"


def volume_report(data):
    """One saveset of a server."""
    stats = data["saveset"]["stats"]
    origin = data["saveset"]["origin"]
    seconds = stats["seconds"]
    return {
        "volume": data["saveset"]["volume"],
        "saveset": data["saveset"]["id"],
        "bytes_size": data["saveset"]["size"],
        "bytes_read": stats["bytes_read"],
        "bytes_new": stats["bytes_new"],
        "bytes_stored": stats["bytes_stored"],
        "seconds": round(seconds, 3),
        "read_rate": round(stats["bytes_read"] / seconds) if seconds else None,
        "slow_reads": stats.get("slow_reads", 0),  # not in journals of earlier versions
        "seconds_paused": stats.get("seconds_paused", 0.0),
        "origin": {
            "method": origin["method"],
            "source_id": origin.get("source_id", ""),
            "since": origin.get("since", ""),
            "reason": origin.get("reason", ""),
            "missed": origin.get("missed", 0),
        },
    }


def phases(records, mine, hold):
    """Seconds that each phase took for one server; None for a phase that it did not reach."""
    begun, cleaned = one(mine, "backup"), one(mine, "cleaned")
    ended = [record for record in mine if record["event"] in ("saveset", "failed")]
    return {
        "prepare": between(one(records, "opened"), one(records, "freezing")),
        "freeze_window": round(hold["window_ms"] / 1000, 3) if hold.get("window_ms") else None,
        "backup": between(begun, ended[-1] if ended else None),
        "cleanup": between(ended[-1] if ended else begun, cleaned),
    }


def problems_of(records, points, servers):
    """Everything that keeps the run from being good, each as a text."""
    problems = [problem for point in points for problem in point["problems"]]
    if not points:
        problems = ["the run ended before its consistency point"]
    elif untaken := [server for server in servers if not any(server in point["servers"] for point in points)]:
        problems.append(f"no consistency point was taken of {', '.join(untaken)}")
    problems += [
        "{}: {}".format(record["data"]["server"], record["data"]["problem"])
        for record in records
        if record["event"] == "failed"
    ]
    for server, entry in servers.items():
        problems += [
            "{}: the storage did not tell all that had changed: {}. Savesets of the volume since its last full read "
            "may be wrong; this one is right".format(volume["volume"], volume["origin"]["reason"])
            for volume in entry["volumes"]
            if volume["origin"]["missed"]
        ]
        if not entry["cleaned"]:
            problems.append(not_cleaned(server))
    return problems


def timeline(records):
    """When what happened, in seconds since the run was opened: dicts of at, event, server and ring (or empty)."""
    first = records[0]
    return [
        {
            "at": seconds_between(first, record),
            "event": record["event"],
            "server": record["data"].get("server", ""),
            "ring": record["data"].get("ring", ""),
        }
        for record in records
    ]


def one(records, event):
    """The last record of an event, or None."""
    found = [record for record in records if record["event"] == event]
    return found[-1] if found else None


def between(first, second):
    """Seconds between two records, or None where one of them is missing."""
    return seconds_between(first, second) if first and second else None


def seconds_between(first, second):
    """Seconds between two records."""
    start, end = (datetime.datetime.fromisoformat(record["time"]) for record in (first, second))
    return round((end - start).total_seconds(), 3)


def total(volumes, key):
    """Sum over the savesets of a server."""
    return sum(volume[key] for volume in volumes)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of a run from its journal alone, so that it can be made again at any time, by anybody."""

from __future__ import annotations

import datetime

from ansible_collections.openisb.backup.plugins.module_utils.verdict import APPLICATION, FAILED


def run_report(records, repository):
    """The report, a dict of plain values: see "The report" in docs/run.md. ``records``: the run's, oldest first."""
    opened = one(records, "opened")
    point = one(records, "thawed")
    servers = {server: server_report(server, records) for server in opened["data"]["servers"]}
    problems = problems_of(records, point, servers)
    good = not problems and all(entry["verdict"] == APPLICATION for entry in servers.values())
    data = point["data"] if point else {}
    return {
        "format": 1,
        "run_id": opened["run_id"],
        "started": opened["time"],
        "ended": records[-1]["time"],
        "seconds": seconds_between(opened, records[-1]),
        "verdict": data.get("verdict", FAILED) if not problems or point else FAILED,
        "consistency_point": data.get("time", ""),
        "freeze_window_ms": data.get("window_ms"),
        "storage_ms": data.get("storage_ms"),
        "exit_status": 0 if good else 2,
        "problems": problems,
        "clocks": data.get("clocks", {}),
        "warnings": data.get("warnings", []),
        "left": [server for server, entry in servers.items() if not entry["cleaned"]],
        "repository": repository,
        "servers": servers,
        "timeline": timeline(records),
        "journal_head": records[-1]["hash"],
    }


def server_report(server, records):
    """What the run did for one server."""
    mine = [record for record in records if record["data"].get("server") == server]
    point = one(records, "thawed")
    hold = point["data"]["servers"].get(server, {}) if point else {}
    savesets = [volume_report(record["data"]) for record in mine if record["event"] == "saveset"]
    return {
        "verdict": hold.get("verdict", FAILED) if savesets else FAILED,
        "freeze_window_ms": hold.get("window_ms"),
        "bytes_size": total(savesets, "bytes_size"),
        "bytes_read": total(savesets, "bytes_read"),
        "bytes_new": total(savesets, "bytes_new"),
        "bytes_stored": total(savesets, "bytes_stored"),
        "seconds": phases(records, mine, hold),
        "cleaned": one(mine, "cleaned") is not None,
        "volumes": savesets,
    }


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


def problems_of(records, point, servers):
    """Everything that keeps the run from being good, each as a text."""
    problems = list(point["data"]["problems"]) if point else ["the run ended before its consistency point"]
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
            problems.append(f"{server} was not cleaned up: run 'ansible-playbook recover.yml'")
    return problems


def timeline(records):
    """When what happened, in seconds since the run was opened: dicts of at, event and, where it has one, server."""
    first = records[0]
    return [
        {"at": seconds_between(first, record), "event": record["event"], "server": record["data"].get("server", "")}
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

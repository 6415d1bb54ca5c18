# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the report of a run from its journal alone, so that anyone can reproduce it at any time."""

from __future__ import annotations

import datetime
from typing import Any

from .entries import Entry, Record
from .verdict import APPLICATION, CRASH, FAILED


class ReportError(ValueError):
    """There is nothing to report on; the text says why, and what to do."""


def run_report(records: list[Record], repository: str) -> Entry:
    """The report, a dict of plain values: see "The report" in docs/run.md. ``records``: the run's, oldest first.

    Raises ReportError if the record ``opened`` is missing.
    """
    opened = one(records, "opened")
    if opened is None:
        raise ReportError(_not_opened(records))
    points = [record["data"] for record in records if record["event"] == "thawed"]
    with_savesets = opened["data"].get("savesets", True)  # not in journals of earlier versions
    servers = {server: server_report(server, records, with_savesets) for server in opened["data"]["servers"]}
    for server, entry in servers.items():
        entry.update(place_report(server, records, opened["data"].get("plan", {}).get(server, {})))
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
        "degraded": sorted({text for entry in servers.values() for text in entry["degraded"]})
        + backup_servers_lost(opened["data"], servers),
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


def _not_opened(records: list[Record]) -> str:
    """The problem text for a journal that lacks the beginning of a run, or all of it."""
    if not records:
        return "the journal has no run with this id: correct the id or the path of the journal"
    run_id, first = records[0]["run_id"], records[0]["event"]
    return (
        f"the journal does not say what run {run_id} was to do: its first record is '{first}', not 'opened', so the "
        "journal was cut or replaced during the run. Keep a copy of it as evidence, and restore the journal from a "
        "backup of the listener"
    )


def worst(verdicts: list[str]) -> str:
    """The worst verdict of a run's consistency points."""
    order = [APPLICATION, CRASH, FAILED]
    return max(verdicts, key=order.index) if verdicts else FAILED


def longest(points: list[Entry], key: str) -> float | None:
    """The largest value of a measure over the consistency points; None where none has it."""
    return max((point[key] for point in points if point.get(key) is not None), default=None)


def clocks_of(points: list[Entry]) -> Entry:
    """How far each host's clock was from the listener's at the last comparison."""
    return {host: clock for point in points for host, clock in point.get("clocks", {}).items()}


def ring_report(point: Entry) -> Entry:
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


def server_report(server: str, records: list[Record], with_savesets: bool = True) -> Entry:
    """What the run did for one server. ``with_savesets``: whether it should write savesets, or only take a snapshot."""
    mine = [record for record in records if record["data"].get("server") == server]
    point: Entry = next((record["data"] for record in records if is_point_of(server, record)), {})
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


def place_report(server: str, records: list[Record], plan: Entry) -> Entry:
    """Where a server was backed up in the end, and from where it had moved because a backup server died."""
    moves = [
        {key: record["data"][key] for key in ("from", "to", "problem")}
        for record in records
        if record["event"] == "moved" and record["data"]["server"] == server
    ]
    return {"backup_server": moves[-1]["to"] if moves else plan.get("backup_server", ""), "moves": moves}


def backup_servers_lost(opened: Entry, servers: dict[str, Entry]) -> list[str]:
    """The backup servers that a run had to do without, and the servers that moved away from them, as texts."""
    left_out = [
        f"backup server {host} was not used as it should be: {problem}"
        for host, problem in opened.get("left_out", {}).items()
    ]
    return left_out + [
        f"{server} moved from backup server {move['from']} to {move['to']}: {move['problem']}"
        for server, entry in servers.items()
        for move in entry["moves"]
    ]


def is_point_of(server: str, record: Record) -> bool:
    """Whether a record is that of a server's consistency point."""
    return record["event"] == "thawed" and server in record["data"]["servers"]


def cleaned(records: list[Record], kind: str, name: str) -> bool:
    """Whether a server or a ring was cleaned up."""
    return any(record["event"] == "cleaned" and record["data"].get(kind) == name for record in records)


def not_cleaned(name: str) -> str:
    """The problem text for a server or ring that was not cleaned up."""
    return f"{name} was not cleaned up: run 'ansible-playbook recover.yml'"


def volume_report(data: Entry) -> Entry:
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


def phases(records: list[Record], mine: list[Record], hold: Entry) -> dict[str, float | None]:
    """Seconds that each phase took for one server; None for a phase that it did not reach."""
    begun, cleaned = one(records, "backup"), one(mine, "cleaned")
    ended = [record for record in mine if record["event"] in ("saveset", "failed")]
    return {
        "prepare": between(one(records, "opened"), one(records, "freezing")),
        "freeze_window": round(hold["window_ms"] / 1000, 3) if hold.get("window_ms") else None,
        "backup": between(begun, ended[-1] if ended else None),
        "cleanup": between(ended[-1] if ended else begun, cleaned),
    }


def problems_of(records: list[Record], points: list[Entry], servers: dict[str, Entry]) -> list[str]:
    """Everything that keeps the run from being good, as texts."""
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
            "{}: the storage did not report all changes: {}. Savesets of the volume since its last full read may be "
            "wrong; this one is right".format(volume["volume"], volume["origin"]["reason"])
            for volume in entry["volumes"]
            if volume["origin"]["missed"]
        ]
        if not entry["cleaned"]:
            problems.append(not_cleaned(server))
    return problems


def timeline(records: list[Record]) -> list[Entry]:
    """The events in order: dicts of at (seconds since the run was opened), event, server and ring (or empty)."""
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


def one(records: list[Record], event: str) -> Any:
    """The last record of an event, or None."""
    found = [record for record in records if record["event"] == event]
    return found[-1] if found else None


def between(first: Record | None, second: Record | None) -> float | None:
    """Seconds between two records, or None where one of them is missing."""
    return seconds_between(first, second) if first and second else None


def seconds_between(first: Record, second: Record) -> float:
    """Seconds between two records."""
    start, end = (datetime.datetime.fromisoformat(record["time"]) for record in (first, second))
    return round((end - start).total_seconds(), 3)


def total(volumes: list[Entry], key: str) -> int:
    """Sum over the savesets of a server."""
    return sum(volume[key] for volume in volumes)

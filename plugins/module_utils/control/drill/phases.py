# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases of a drill and their times, in seconds since it was opened."""

from __future__ import annotations

import datetime

from ..entries import Entry, Record
from ..moments import parse, seconds_from

RESTORE, ATTACH, CHECK, TEARDOWN = "restore", "attach", "check", "teardown"
PHASES = {"restored": RESTORE, "lun": ATTACH, "check": CHECK}
"""The phase that ends with an event."""


def ended(record: Record) -> str:
    """When that ended which a record tells of (ISO 8601).

    Results that one task has gathered are recorded together; ``ago`` is how many seconds before its end each ended.
    """
    ago = record["data"].get("ago") or 0.0
    if not ago:
        return str(record["time"])
    return (parse(record["time"]) - datetime.timedelta(seconds=ago)).isoformat(timespec="microseconds")


def server_phases(first: Record, mine: list[Record]) -> list[Entry]:
    """The phases of one server: dicts of phase, what, start, end and ok, in the order of their ends.

    A record says when its phase has ended, and how long the phase took.
    """
    return [phase_of(first, record) for record in mine if record["event"] in PHASES]


def phase_of(first: Record, record: Record) -> Entry:
    """The phase that ends with a record."""
    data, end = record["data"], seconds_from(first["time"], ended(record))
    check = data.get("check", {})
    seconds = check.get("seconds", data.get("seconds")) or 0.0
    what = f"{check['kind']}: {check['what']}" if check else data.get("volume", "")
    return {
        "phase": PHASES[record["event"]],
        "what": what,
        "start": round(max(0.0, end - seconds), 3),
        "end": end,
        "ok": bool(check.get("ok", True)),
    }


def group_phases(records: list[Record]) -> list[Entry]:
    """The phases of all servers together: the checks over all of them, and the teardown of each host."""
    first = records[0]
    shared = [record for record in records if record["event"] == "check" and not record["data"].get("server")]
    return server_phases(first, shared) + [
        {
            "phase": TEARDOWN,
            "what": record["data"]["host"],
            "start": teardown_start(records, record),
            "end": seconds_from(first["time"], record["time"]),
            "ok": not record["data"].get("left"),
        }
        for record in records
        if record["event"] == "torn_down"
    ]


def teardown_start(records: list[Record], torn_down: Record) -> float:
    """When the teardown of a host began: by its recorded duration, else at the last record before any teardown."""
    first = records[0]
    seconds: float | None = torn_down["data"].get("seconds")
    if seconds is not None:
        return round(max(0.0, seconds_from(first["time"], torn_down["time"]) - seconds), 3)
    before = [
        record
        for record in records
        if record["event"] not in ("torn_down", "closed") and record["seq"] < torn_down["seq"]
    ]
    return seconds_from(first["time"], (before or [first])[-1]["time"])


def timeline(records: list[Record]) -> list[Entry]:
    """All records in short form: dicts of at, event, server and what (or empty)."""
    first = records[0]
    return [
        {
            "at": seconds_from(first["time"], record["time"]),
            "event": record["event"],
            "server": record["data"].get("server") or "",
            "what": record["data"].get("volume") or record["data"].get("host") or "",
        }
        for record in records
    ]

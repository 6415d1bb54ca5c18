# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life cycle of drills: which open ones must be torn down, and what the closed ones have proven.

A drill is open from its record ``opened`` to ``closed``. Its record ``kept`` says that its LUNs stay up from then on
for the time in ``opened``, ``failed_over`` that they stay permanently.
"""

from __future__ import annotations

import datetime

from .. import answers, controller, moments
from ..entries import Entry, Record

AHEAD = 60
"""Seconds by which the clock behind a recorded proof may be ahead."""

LIVE, DEAD, KEPT, EXPIRED, FAILED_OVER = "live", "dead", "kept", "expired", "failed over"


def ending(
    open_runs: list[Entry],
    now: float,
    drill: str = "",
    stays: bool = False,
    sweep: bool = False,
    named: str = "",
    kept: bool = False,
) -> Entry:
    """Which open drills a playbook takes down: a dict of drills (dicts of drill, died: whether its playbook is gone,
    and opened: the data of that record), left_alone and problems (texts).

    ``open_runs``: of the drills' journal. ``now``: seconds since the epoch. ``drill``: that of this playbook, or empty;
    ``stays``: whether that is left to a later playbook. ``sweep``: whether only drills are ended that died or expired.
    ``named`` and ``kept``: as drills_to_end takes them.
    """
    if sweep:
        drill, named, kept = "", "", False
    drills = [entry for entry in open_drills(open_runs, now) if not (stays and entry["drill"] == drill)]
    found = drills_to_end(drills, [drill] if drill and not stays else [], named, kept)
    data = {run["run_id"]: run["data"] for run in open_runs}
    return {
        "drills": [{"drill": name, "died": name in found["died"], "opened": data[name]} for name in found["drills"]],
        "left_alone": [] if sweep else found["left_alone"],
        "problems": found["problems"],
    }


def open_drills(open_runs: list[Entry], now: float) -> list[Entry]:
    """Every open drill with its state: dicts of drill, state, opened, expires (both ISO 8601) and dr_hosts.

    ``open_runs``: of the drills' journal. ``now``: seconds since the epoch.
    """
    found = []
    for run in open_runs:
        since = run["last_time"] if run["last_event"] == "kept" else run["opened"]
        expires = moments.parse(since) + datetime.timedelta(seconds=run["data"].get("ttl_s", 0))
        found.append(
            {
                "drill": answers.drill_id(run["run_id"]),
                "state": _state(run, expires.timestamp() <= now),
                "opened": run["opened"],
                "expires": expires.isoformat(timespec="seconds"),
                "dr_hosts": run["data"].get("dr_hosts", []),
            }
        )
    return found


def _state(run: Entry, is_over: bool) -> str:
    if run["last_event"] == "failed_over":
        return FAILED_OVER
    if run["last_event"] == "kept":
        return EXPIRED if is_over else KEPT
    return LIVE if controller.is_alive(run["data"].get("controller", {})) else DEAD


def drills_to_end(drills: list[Entry], current: list[str], named: str = "", kept: bool = False) -> dict[str, list[str]]:
    """Which open drills are torn down: a dict of drills (ids), died (those of them whose playbook is gone), left_alone
    and problems (texts).

    ``current``: drills that end now in any case. ``named``: a drill that the operator wants to end, whatever its state.
    ``kept``: whether kept drills are ended before their time is over.
    """
    ends = {EXPIRED, DEAD} | ({KEPT} if kept and not named else set())
    chosen = [entry for entry in drills if entry["drill"] in [*current, named] or entry["state"] in ends]
    problems = []
    if named and named not in [entry["drill"] for entry in chosen]:
        problems.append(f"there is no open drill {named}: leave idr_end out to end all that are kept")
    return {
        "drills": [entry["drill"] for entry in chosen],
        "died": [
            entry["drill"]
            for entry in chosen
            if entry["state"] == DEAD or (entry["state"] == LIVE and entry["drill"] not in current)
        ],
        "left_alone": [_why_left_alone(entry) for entry in drills if entry not in chosen],
        "problems": problems,
    }


def _why_left_alone(entry: Entry) -> str:
    """Why an open drill is not torn down, and how to end it."""
    why = {
        LIVE: "its playbook is running, as far as can be seen from here",
        KEPT: "it is kept until {}".format(entry["expires"]),
        FAILED_OVER: "it was a failover, and stays permanently",
    }[entry["state"]]
    return "drill {0} on {1}: {2}; 'idr.yml --tags teardown -e idr_end={0}' ends it".format(
        entry["drill"], ", ".join(entry["dr_hosts"]) or "no host", why
    )


def closing(report: Entry) -> Entry:
    """The journal's data when a drill is closed: verdict, exit_status, and the servers that it has proven.

    A server is proven when the drill passed for it, and what only shows on all servers together is right as well.
    """
    together = report["group"]["ok"]
    proven = [name for name, entry in report["servers"].items() if together and entry["verdict"] == "passed"]
    return {"verdict": report["verdict"], "exit_status": report["exit_status"], "proven": proven}


def proven_savesets(records: list[Record]) -> dict[str, Entry]:
    """By saveset id, the last drill that proved it: dicts of drill, time and server.

    ``records``: those of the events ``opened`` and ``closed``.
    """
    opened, proven = {}, {}
    for record in records:
        if record["event"] == "opened":
            opened[record["run_id"]] = record["data"].get("servers", {})
        elif record["event"] == "closed":
            for server in record["data"].get("proven", []):
                for volume in opened.get(record["run_id"], {}).get(server, {}).get("volumes", []):
                    proven[volume["saveset"]] = {
                        "drill": record["run_id"],
                        "time": record["time"],
                        "server": server,
                    }
    return proven


def with_proof(savesets: list[Entry], records: list[Record]) -> list[Entry]:
    """The savesets, each with ``proven``: the last drill that proved it, or an empty dict."""
    proven = proven_savesets(records)
    return [dict(saveset, proven=proven.get(saveset["id"], {})) for saveset in savesets]


def last_proof(records: list[Record]) -> dict[str, str]:
    """By server, when a drill last proved it (ISO 8601)."""
    times: dict[str, str] = {}
    for record in records:
        if record["event"] == "closed":
            times.update(dict.fromkeys(record["data"].get("proven", []), record["time"]))
    return times


def due(servers: list[str], records: list[Record], within_days: float, every_days: float, now: float) -> dict[str, str]:
    """When each server that is due was last proven (ISO 8601, or empty), in the order of due_servers().

    ``records``: those of the event ``closed``.
    """
    proofs = last_proof(records)
    return {server: proofs.get(server, "") for server in due_servers(servers, proofs, within_days, every_days, now)}


def due_servers(
    servers: list[str], proofs: dict[str, str], within_days: float, every_days: float, now: float
) -> list[str]:
    """The servers that are due, those with the oldest proof first, so that every server is proven in time.

    ``proofs``: by server, when it was last proven. ``within_days``: the days within which each server must be proven.
    ``every_days``: the days between two drills. ``now``: seconds since the epoch. As many servers as needed to get
    through all of them in time, and at least those whose proof would be too old at the next drill. A proof from the
    future is ignored, because a clock is or was wrong: it must not postpone the next one for years.
    """
    proofs = {server: time for server, time in proofs.items() if moments.parse(time).timestamp() <= now + AHEAD}
    order = sorted(servers, key=lambda server: (proofs.get(server, ""), servers.index(server)))
    turns = max(1, int(within_days / every_days))
    limit = now + 86400 * (every_days - within_days)
    overdue = [server for server in order if server not in proofs or moments.parse(proofs[server]).timestamp() < limit]
    return order[: max(-(-len(servers) // turns), len(overdue))]


def due_summary(proofs: dict[str, str]) -> list[str]:
    """The servers chosen for a drill, and when each was last proven."""
    return [f"{server}: {f'last proven on {time}' if time else 'never proven'}" for server, time in proofs.items()]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of drills: which of those that are open have to be taken down, and what was proven by those that ended.

A drill is open from its record ``opened`` to ``closed``. Its record ``kept`` says that its LUNs stay up from then on
for as long as ``opened`` says, ``failed_over`` that they stay for good.
"""

from __future__ import annotations

import datetime

from ansible_collections.openisb.backup.plugins.module_utils import answers, controller
from ansible_collections.openisb.backup.plugins.module_utils.idr import moments

AHEAD = 60
"""Seconds that the clock of whoever recorded a proof may be ahead."""

LIVE, DEAD, KEPT, EXPIRED, FAILED_OVER = "live", "dead", "kept", "expired", "failed over"


def open_drills(open_runs, now):
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


def _state(run, is_over):
    if run["last_event"] == "failed_over":
        return FAILED_OVER
    if run["last_event"] == "kept":
        return EXPIRED if is_over else KEPT
    return LIVE if controller.is_alive(run["data"].get("controller", {})) else DEAD


def drills_to_end(drills, current, named="", kept=False):
    """Which of the open drills are taken down: a dict of drills (ids), died (those among them that nobody works on any
    more), left_alone and problems (texts).

    ``current``: drills that end now in any case. ``named``: one that the operator wants ended, whatever its state.
    ``kept``: whether those that are kept, and whose time is not over, are ended too.
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


def _why_left_alone(entry):
    """Why an open drill is not taken down, and how it would be."""
    why = {
        LIVE: "its playbook is at work, as far as can be told from here",
        KEPT: "it is kept until {}".format(entry["expires"]),
        FAILED_OVER: "it was a failover, and stays for good",
    }[entry["state"]]
    return "drill {0} on {1}: {2}; 'idr.yml --tags teardown -e idr_end={0}' ends it".format(
        entry["drill"], ", ".join(entry["dr_hosts"]) or "no host", why
    )


def closing(report):
    """What goes into the journal when a drill is closed: verdict, exit_status, and the servers that are proven by it.

    A server is proven by a drill that passed for it, and where what shows only on all servers together is right, too.
    """
    together = report["group"]["ok"]
    proven = [name for name, entry in report["servers"].items() if together and entry["verdict"] == "passed"]
    return {"verdict": report["verdict"], "exit_status": report["exit_status"], "proven": proven}


def proven_savesets(records):
    """By id of a saveset, the last drill that proved it: dicts of drill, time and server.

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


def with_proof(savesets, records):
    """The savesets, each with ``proven``: the last drill that proved it, or an empty dict."""
    proven = proven_savesets(records)
    return [dict(saveset, proven=proven.get(saveset["id"], {})) for saveset in savesets]


def last_proof(records):
    """By server, when a drill proved it last (ISO 8601)."""
    times = {}
    for record in records:
        if record["event"] == "closed":
            times.update(dict.fromkeys(record["data"].get("proven", []), record["time"]))
    return times


def due_servers(servers, proofs, within_days, every_days, now):
    """The servers whose turn it is, those first whose last proof is oldest, so that every one is proven in time.

    ``proofs``: by server, when it was proven last. ``within_days``: within how many days each server is to be proven.
    ``every_days``: how many days are between two drills. ``now``: seconds since the epoch. As many as it takes to come
    round in time, and at least those whose proof would be too old at the next drill. A proof from the future counts for
    nothing, as a clock was wrong or is: it must not put off the next one for years.
    """
    proofs = {server: time for server, time in proofs.items() if moments.parse(time).timestamp() <= now + AHEAD}
    order = sorted(servers, key=lambda server: (proofs.get(server, ""), servers.index(server)))
    turns = max(1, int(within_days / every_days))
    limit = now + 86400 * (every_days - within_days)
    overdue = [server for server in order if server not in proofs or moments.parse(proofs[server]).timestamp() < limit]
    return order[: max(-(-len(servers) // turns), len(overdue))]


def due_summary(servers, proofs):
    """Which servers a drill was chosen for, and when each was proven last."""
    return [
        "{}: {}".format(server, "proven last on " + proofs[server] if server in proofs else "never proven")
        for server in servers
    ]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows the report of a drill as text that fits a terminal."""

from __future__ import annotations

from ...host.plain import plain_all
from ..entries import Entry
from ..moments import duration, moment
from ..text import BAR, WIDTH, table

MODES = {"test": "Drill", "failover": "Failover"}


def idr_summary(report: Entry) -> str:
    """What a drill has shown, for the person who started it; safe for a terminal, whatever was found."""
    report = plain_all(report)
    parts = [headline(report), server_table(report), check_lines(report), chart(report), way_back(report)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def headline(report: Entry) -> list[str]:
    """The verdict first, then the measures, and what went wrong."""
    group = report["group"]
    lines = [
        f"{MODES[report['mode']]} {report['drill']}: {report['verdict'].upper()}",
        f"Declared           {moment(report['declared'])}",
        f"RPO, all servers   {measure(group, 'rpo')}",
        f"RTO, all servers   {measure(group, 'rto')}",
        f"One moment         {'yes' if group['one_consistency_point'] else 'no'}",
        f"Journal's head     {report['journal_head']}",
    ]
    lines += [f"Problem            {problem}" for problem in report["problems"]]
    return lines + [f"Remark             {remark}" for remark in report["remarks"]]


def way_back(report: Entry) -> list[str]:
    """What to do after a failover that stays: how to work from now on, and how production comes back."""
    if report["mode"] != "failover" or report["torn_down"]:
        return []
    places = [
        f"  {volume['volume']} is at {volume['dr_mount'] or volume['device']} of {entry['dr_host']}"
        for entry in report["servers"].values()
        for volume in entry["volumes"]
        if volume["up"]
    ]
    return [
        "These servers run on the DR hosts from now on:",
        *places,
        "The way back (docs/idr.md, Failover):",
        "  1. Keep production's servers off the network: two with the same data must never run at the same time.",
        "  2. Back these disks up as production: name the DR hosts in the inventory, then setup.yml and isb.yml.",
        "  3. Once production is repaired, stop the applications here and take a last run of isb.yml.",
        f"  4. ansible-playbook idr.yml --tags teardown -e idr_end={report['drill']}",
        "     unmounts and releases the disks, which keep their content.",
        "  5. Restore that last run to production's LUNs with restore.yml; then production may come back.",
    ]


def measure(entry: Entry, kind: str) -> str:
    """A measure and its target: ``41.2 s of 4 h``."""
    target = entry[f"{kind}_target_s"]
    text = duration(entry[f"{kind}_s"])
    return text if target is None else f"{text} of {duration(target)}"


def server_table(report: Entry) -> list[str]:
    """One row per server."""
    rows = [["server", "verdict", "on", "consistency point", "RPO", "RTO", "checks"]]
    for server, entry in report["servers"].items():
        passed = sum(check["ok"] for check in entry["checks"])
        rows.append(
            [
                server,
                entry["verdict"],
                entry["dr_host"],
                moment(entry["consistency_point"]),
                measure(entry, "rpo"),
                measure(entry, "rto"),
                f"{passed} of {len(entry['checks'])}",
            ]
        )
    return table(rows, right=(4, 5, 6)) if rows[1:] else []


def check_lines(report: Entry) -> list[str]:
    """One line per check over all servers; those of one server are counted in its row."""
    return [
        f"{check['kind']} over all servers: {'passed' if check['ok'] else 'failed'} in {duration(check['seconds'])}"
        for check in report["group"]["checks"]
    ]


def chart(report: Entry) -> list[str]:
    """The drill's timeline: one row per phase and server, drawn to scale, from its first start to its last end."""
    rows = [
        (f"{server} {phase}", min(item["start"] for item in items), max(item["end"] for item in items))
        for server, entry in [*report["servers"].items(), ("all", report["group"])]
        for phase, items in by_phase(entry["phases"]).items()
    ]
    scale = WIDTH / max(report["seconds"], 0.001)
    width = max((len(name) for name, dummy, dummy in rows), default=0)
    lines = [f"Timeline, {duration(report['seconds'])}"]
    for name, start, end in rows:
        column = min(int(start * scale), WIDTH - 1)
        row = (" " * column + BAR * max(1, round((end - start) * scale)))[:WIDTH].ljust(WIDTH)
        lines.append(f"{name.ljust(width)} │{row}│ {duration(end - start)}")
    return lines


def by_phase(phases: list[Entry]) -> dict[str, list[Entry]]:
    """The phases by name, in the order of their first occurrence."""
    found: dict[str, list[Entry]] = {}
    for phase in phases:
        found.setdefault(phase["phase"], []).append(phase)
    return found

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Computes what the page of a drill's report shows: its texts, and the positions of the bars in its charts.

The template (roles/idr_report/templates) only lays out what this module returns, and sees nothing else. Ansible's
templates do not escape HTML, so all texts are escaped here, in one place: no name and no output of a check can become
markup, or reverse the text direction.
"""

from __future__ import annotations

import html
import math
from typing import Any

from ...checks.known import CHECKS
from ...host.plain import plain
from ..entries import Entry
from ..moments import DAY, HOUR, MINUTE, duration, moment, seconds_from
from ..text import size
from .proof import not_looked_at, ring_name

MODES = {
    "test": "Test: production was not contacted",
    "failover": "Failover: the volumes went into real use",
}
SOURCES = {
    "instant": "Savesets, used at once without restoring them first",
    "restore": "Savesets, restored in full",
    "storage": "A snapshot, cloned on the storage",
}
KINDS = {**{name: check.label for name, check in CHECKS.items()}, "content": "Saveset"}
JOURNAL = {
    True: "intact: when this report was made, each record followed the one before",
    False: "broken: see the problems",
    None: "not verified when this report was made",
}
NO_PROOF = "This drill is no proof that the servers can be"
LEGEND = {
    "restore": "restore",
    "attach": "bring up a LUN",
    "check": "check",
    "bad": "failed",
    "teardown": "tear down",
    "ready": "a server's last check ended: its RTO",
    "failed": "a server was given up",
}
STEPS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30]
STEPS += [minutes * MINUTE for minutes in (1, 2, 5, 10, 20, 30)]
STEPS += [hours * HOUR for hours in (1, 2, 4, 8, 12)] + [DAY, 2 * DAY, 7 * DAY]
NO_BREAK = "\N{NO-BREAK SPACE}"
TICKS = 6
"""The most ticks on an axis, so that their labels are readable on a phone."""
LANE = 14
"""Height of a row of bars, in pixels of the page."""


def idr_page(report: Entry, site: str = "", backup_server: str = "", fingerprint: str = "", journal: str = "") -> Entry:
    """What the page shows: dicts and lists of texts (escaped for HTML), numbers and booleans.

    ``site``: whose report it is. ``backup_server``: where it is signed. ``fingerprint``: of the public key.
    ``journal``: the path of the journal of drills.
    """
    entries = [*report["servers"].values(), report["group"]]
    checks = [check for entry in entries for check in entry["checks"]]
    span = max(report["seconds"], 0.001)
    page = {
        "drill": report["drill"],
        "site": site,
        "title": "Failover report" if report["mode"] == "failover" else "Recovery drill report",
        "kind": "failover" if report["mode"] == "failover" else "recovery drill",
        "passed": report["verdict"] == "passed",
        "verdict": report["verdict"],
        "headline": headline(report, checks),
        "figures": figures(report, checks),
        "facts": facts(report),
        "problems": report["problems"],
        "remarks": report["remarks"],
        "servers": [server_row(name, entry) for name, entry in report["servers"].items()],
        "together": {**measures(report["group"]), **counted(checks)},
        "one_moment": report["group"]["one_consistency_point"],
        "rings": [ring_row(ring, report) for ring in report["group"]["rings"]],
        "ticks": ticks(span),
        "charts": charts(report, span),
        "legend": legend(report),
        "late": late(report),
        "checks": check_groups(report),
        "volumes": [volume_facts(volume, entry) for entry in report["servers"].values() for volume in entry["volumes"]],
        "teardown": teardown(report),
        "evidence": evidence(report, fingerprint, journal),
        "journal_seq": report["journal_seq"],
        "backup_server": backup_server,
        "ended": moment(report["ended"]),
    }
    shown: Entry = escaped(page)
    return shown


def escaped(value: Any) -> Any:
    """The same with every text in it escaped for HTML."""
    if isinstance(value, dict):
        return {key: escaped(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(item) for item in value]
    return html.escape(plain(value, "\n\t")) if isinstance(value, str) else value


def evidence(report: Entry, fingerprint: str, journal: str) -> list[Entry]:
    """What the report can be verified with: dicts of label, text and exact (whether every character matters)."""
    programs = ", ".join(f"{name} {version}" for name, version in sorted(report["versions"].items()))
    rows = [
        ("Public key's SHA-256", fingerprint, True),
        ("Journal's chain head", report["journal_head"], True),
        ("Journal of drills", journal, False),
        ("Journal's hash chain", JOURNAL[report["journal_whole"]], False),
        (
            "Records of the drill",
            f"{report['records']}, the last one number {report['journal_seq']} of the journal",
            False,
        ),
        ("Made with", programs, False),
    ]
    return [{"label": label, "text": text, "exact": exact} for label, text, exact in rows if text]


def headline(report: Entry, checks: list[Entry]) -> str:
    """The outcome in a sentence."""
    count, hosts = len(report["servers"]), " and ".join(report["dr_hosts"])
    if report["verdict"] == "passed":
        servers = f"All {count} servers were" if count != 1 else "The server was"
        every = f"all {len(checks)} checks of them" if len(checks) != 1 else "the check of it"
        point = "one consistency point" if len(report["group"]["rings"]) == 1 else "one consistency point a ring"
        return f"{servers} brought into use on {hosts} from copies of {point}, and {every} passed."
    failed = [name for name, entry in report["servers"].items() if entry["verdict"] != "passed"]
    which = (
        f"{len(failed)} of {count} servers failed ({shortened(failed)})" if failed else "Each server on its own passed"
    )
    problems = f"{len(report['problems'])} problems" if len(report["problems"]) != 1 else "one problem"
    drill = "This failover is no proof that the servers were" if report["mode"] == "failover" else NO_PROOF
    return f"{drill} recovered. {which}; {problems} in all, listed below."


def lasting(seconds: float | None) -> str:
    """A duration that never wraps onto another line."""
    return duration(seconds).replace(" ", NO_BREAK)


def figures(report: Entry, checks: list[Entry]) -> list[Entry]:
    """The key figures, each with a note."""
    names = [name for name, entry in report["servers"].items() if entry["verdict"] != "passed"]
    failed = sum(not check["ok"] for check in checks)
    return [
        {
            "label": "Servers proven",
            "value": f"{len(report['servers']) - len(names)} of {len(report['servers'])}",
            "note": f"{shortened(names)} failed" if names else "came up completely and passed their checks",
            "ok": bool(report["servers"]) and not names,
        },
        {
            "label": "Checks passed",
            "value": "{passed_checks} of {checks}".format(**counted(checks)),
            "note": f"{failed} failed" if failed else "none failed" if checks else "none was made",
            "ok": bool(checks) and not failed,
        },
        {"label": "RPO: work that would be lost", **figure(report["group"], "rpo")},
        {"label": "RTO: time until usable", **figure(report["group"], "rto")},
    ]


def figure(group: Entry, kind: str) -> Entry:
    """A measure of all servers together as a key figure."""
    taken = measure(group, kind)
    return {"value": taken["measured"], "note": taken["against"], "ok": taken["ok"]}


def shortened(names: list[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def facts(report: Entry) -> list[tuple[str, str]]:
    """Who, when, what and where, as labels and texts."""
    points = sorted({point for ring in report["group"]["rings"] for point in ring["consistency_points"]})
    controller = report["controller"].get("host", "")
    return [
        ("Drill", report["drill"]),
        ("Kind", MODES[report["mode"]]),
        ("Source", SOURCES[report["source"]]),
        ("Run by", "{} on {}".format(report["who"].get("user", "–"), report["who"].get("host") or controller or "–")),
        ("Declared", moment(report["declared"])),
        ("Began", moment(report["started"])),
        ("Ended", f"{moment(report['ended'])}, after {lasting(report['seconds'])}"),
        ("Consistency point" + ("s" if len(points) > 1 else ""), ", ".join(moment(point) for point in points) or "–"),
        ("DR hosts" if len(report["dr_hosts"]) != 1 else "DR host", ", ".join(report["dr_hosts"]) or "–"),
        ("Repository", report["repository"] or "–"),
    ]


def counted(checks: list[Entry]) -> dict[str, int]:
    """How many checks there were, and how many of them passed."""
    return {"checks": len(checks), "passed_checks": sum(check["ok"] for check in checks)}


def measures(entry: Entry) -> Entry:
    """RPO and RTO of a server, or of all, each a dict of measured, against (its target, in words) and ok."""
    return {kind: measure(entry, kind) for kind in ("rpo", "rto")}


def measure(entry: Entry, kind: str) -> Entry:
    """A measure against its target."""
    measured, target, met = (entry[f"{kind}_{what}"] for what in ("s", "target_s", "ok"))
    if target is None:
        against = "no target is set"
    elif met:
        against = f"within the target of {lasting(target)}"
    elif measured is not None and measured <= target:
        against = f"not recovered (target {lasting(target)})"
    elif measured is None:
        against = f"not reached (target {lasting(target)})"
    else:
        against = f"{lasting(measured - target)} over the target of {lasting(target)}"
    return {"measured": lasting(measured), "against": against, "ok": met}


def server_row(name: str, entry: Entry) -> Entry:
    """A server's row in the table of all servers."""
    return {
        "name": name,
        "passed": entry["verdict"] == "passed",
        "dr_host": entry["dr_host"],
        "ring": ring_name(entry["ring"]),
        "point": moment(entry["consistency_point"]),
        **measures(entry),
        **counted(entry["checks"]),
    }


def ring_row(ring: Entry, report: Entry) -> Entry:
    """Servers that belong together, and the moment that their copies show."""
    return {
        "name": ring_name(ring["ring"]) or "Servers" + (" of no ring" if many(report) else ""),
        "servers": ", ".join(ring["servers"]),
        "runs": [run or "unknown" for run in ring["run_ids"]],
        "points": [moment(point) for point in ring["consistency_points"]],
        "ok": ring["ok"],
    }


def many(report: Entry) -> bool:
    """Whether there is more than one group of servers that belong together."""
    return len(report["group"]["rings"]) > 1


def ticks(span: float) -> list[Entry]:
    """The ticks of the axis: dicts of x (percent) and label."""
    step = next((step for step in STEPS if span / step <= TICKS), math.ceil(span / TICKS / DAY) * DAY)
    count = int(span / step + 1e-9)
    return [{"x": percent(number * step, span), "label": tick_label(number * step)} for number in range(count + 1)]


def tick_label(seconds: float) -> str:
    """A tick's label, as short as possible: ``20 s``, ``1 h 20 min``."""
    return f"{round(seconds, 2):g} s" if seconds < MINUTE else lasting(seconds)


def percent(seconds: float, span: float) -> float:
    """The position of a moment on the axis, in percent, clamped to the axis."""
    return round(min(100.0, max(0.0, 100 * seconds / span)), 3)


def charts(report: Entry, span: float) -> list[Entry]:
    """One chart per server, and one for all together: dicts of name, passed, bars, marks, height and told (text)."""
    drawn = [server_chart(name, entry, report, span) for name, entry in report["servers"].items()]
    if report["group"]["phases"]:
        drawn.append({**chart("all servers", report["group"]["phases"], span), "passed": None, "marks": []})
    return drawn


def server_chart(name: str, entry: Entry, report: Entry, span: float) -> Entry:
    """A server's chart, with marks where its last check ended and where it was given up."""
    moments = [("ready", seconds_from(report["started"], entry["ready"]))] if entry["ready"] else []
    moments += [
        ("failed", record["at"])
        for record in report["timeline"]
        if record["event"] == "failed" and record["server"] == name
    ]
    drawn = chart(name, entry["phases"], span)
    words = {"ready": "last check ended", "failed": "given up"}
    titles = [f"{words[kind]} after {lasting(at)}" for kind, at in moments]
    marks = [
        {"x": percent(at, span), "kind": kind, "title": title}
        for (kind, at), title in zip(moments, titles, strict=True)
    ]
    told = "; ".join([drawn["told"], *titles])
    return {**drawn, "passed": entry["verdict"] == "passed", "marks": marks, "told": told}


def chart(name: str, phases: list[Entry], span: float) -> Entry:
    """The bars of one chart; overlapping ones are in separate rows."""
    bars: list[Entry] = []
    ends: list[float] = []
    for phase in sorted(phases, key=lambda phase: (phase["start"], phase["end"])):
        row = next((row for row, end in enumerate(ends) if end <= phase["start"]), len(ends))
        ends[row : row + 1] = [phase["end"]]
        x = percent(phase["start"], span)
        bars.append(
            {
                "x": x,
                "width": round(max(0.5, percent(phase["end"], span) - x), 3),
                "y": row * LANE,
                "phase": phase["phase"],
                "ok": phase["ok"],
                "title": title_of(phase),
            }
        )
    told = "; ".join(drawn["title"] for drawn in bars) or "nothing was done"
    return {"name": name, "bars": bars, "height": max(1, len(ends)) * LANE, "told": told}


def title_of(phase: Entry) -> str:
    """The text of a bar."""
    spent = lasting(phase["end"] - phase["start"])
    outcome = "" if phase["ok"] else ", failed"
    return f"{phase['phase']} {phase['what']}: from {lasting(phase['start'])}, {spent} long{outcome}"


def legend(report: Entry) -> list[Entry]:
    """The legend of the colours and marks that occur: dicts of kind, mark (a line, not a bar) and text."""
    entries = [*report["servers"].values(), report["group"]]
    phases = [phase for entry in entries for phase in entry["phases"]]
    kinds = {phase["phase"] if phase["ok"] else "bad" for phase in phases}
    kinds |= {"ready" for entry in report["servers"].values() if entry["ready"]}
    kinds |= {"failed" for record in report["timeline"] if record["event"] == "failed"}
    marks = ("ready", "failed")
    return [{"kind": kind, "mark": kind in marks, "text": text} for kind, text in LEGEND.items() if kind in kinds]


def late(report: Entry) -> str:
    """How long before the drill's beginning the disaster was declared; empty if less than a second."""
    seconds = seconds_from(report["declared"], report["started"])
    return lasting(seconds) if seconds >= 1 else ""


def check_groups(report: Entry) -> list[Entry]:
    """The checks of each server, then those over all servers: dicts of name and checks."""
    groups = [{"name": name, "checks": entry["checks"]} for name, entry in report["servers"].items()]
    groups.append({"name": "All servers together", "checks": report["group"]["checks"]})
    return [
        {**counted(group["checks"]), "name": group["name"], "checks": [check_facts(check) for check in group["checks"]]}
        for group in groups
        if group["checks"] or group["name"] in report["servers"]
    ]


def check_facts(check: Entry) -> Entry:
    """One check as the page shows it."""
    output = check.get("output") or ""
    return {
        "kind": KINDS.get(check["kind"], check["kind"]),
        "what": check["what"],
        "ok": bool(check["ok"]),
        "detail": check.get("detail") or "",
        "seconds": lasting(check.get("seconds")),
        "ended": moment(check["ended"]),
        "output": output,
        "sha256": check.get("output_sha256") or "",
        "commands": [
            {"argv": " ".join(command["argv"]), "rc": told(command["rc"]), "seconds": lasting(command.get("seconds"))}
            for command in check.get("commands") or []
        ],
        "files": [
            {"path": item["path"], "size": size(item["size"]), "sha256": item["sha256"]}
            for item in check.get("files") or []
        ],
    }


def told(status: int | None) -> str:
    """The exit status of a command; a dash where it has none, because it was killed."""
    return "–" if status is None else str(status)


def volume_facts(volume: Entry, entry: Entry) -> Entry:
    """One volume: its source, and the outcome."""
    restored = volume["restored"]
    return {
        "name": volume["volume"],
        "up": volume["up"],
        "size": size(volume["size"]),
        "digest": volume["digest"],
        "facts": [
            ("Saveset", volume["saveset"] or "–"),
            ("Run", volume["run_id"] or "–"),
            ("Consistency point", moment(volume["consistency_point"])),
            ("Saveset's verdict", volume["verdict"] or "unknown"),
            ("Content", content(volume)),
            ("Mounted", mounted(volume, entry)),
            ("Device", device(volume, entry)),
            ("Restored", f"in {lasting(restored['seconds'])}{written(restored['stats'])}" if restored else ""),
        ],
    }


def content(volume: Entry) -> str:
    """A volume's size, and the type of its content."""
    return size(volume["size"]) + (f", {volume['type']}" if volume["type"] else "")


def mounted(volume: Entry, entry: Entry) -> str:
    """Where a volume was mounted, and where it is mounted in production."""
    if not volume["dr_mount"]:
        return "not mounted"
    here = f"{entry['dr_host']}:{volume['dr_mount']}"
    return here + (f", in production at {volume['mount']}" if volume["mount"] else "")


def device(volume: Entry, entry: Entry) -> str:
    """The block device, how it was created, and how long that took."""
    if not volume["up"]:
        return f"did not come up on {entry['dr_host']}"
    by = f"by {volume['method']}" if volume["method"] and volume["method"] not in SOURCES else ""
    took = f"up in {lasting(volume['seconds'])}" if volume["seconds"] is not None else "up"
    made = " ".join(part for part in (volume["device"], by) if part)
    return ", ".join(part for part in (made, took) if part)


def written(stats: Entry) -> str:
    """How much a restore wrote; empty where it is not recorded."""
    return f", {size(stats['bytes_written'])} written" if stats.get("bytes_written") is not None else ""


def teardown(report: Entry) -> list[Entry]:
    """What was found on each host after the teardown: dicts of host, ok and text."""
    rows = [
        {"host": host, "ok": not left, "text": "; ".join(left) or "nothing was left behind"}
        for host, left in report["torn_down"].items()
    ]
    kept = report["keep"] or report["mode"] == "failover"
    why = "the volumes stay in use" if kept else "was not torn down"
    return rows + [{"host": host, "ok": None if kept else False, "text": why} for host in not_looked_at(report)]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows reports and catalogs as text that fits a terminal."""

from __future__ import annotations

import datetime

WIDTH = 60
BAR = "█"


def size(count):
    """Bytes for people: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def rate(count):
    """Bytes a second for people; a dash where there is none."""
    return "-" if not count else f"{size(count)}/s"


def table(rows, right=()):
    """Lines of a table. ``rows``: lists of texts, the first one the heading; ``right``: columns set flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines


def run_summary(report):
    """What a run did, for the person who started it."""
    parts = [
        headline(report),
        ring_table(report),
        server_table(report),
        how_it_was_read(report),
        chart(report),
        where_to_go(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def headline(report):
    """Verdict first, then when, and what went wrong."""
    window, storage = report["freeze_window_ms"], report["storage_ms"]
    frozen = (
        "no server was frozen" if window is None else f"{window:.0f} ms, of it {storage or 0:.0f} ms in the storage"
    )
    lines = [
        "Run {}: {}".format(report["run_id"], report["verdict"].upper()),
        f"Consistency point  {report['consistency_point'] or 'none'}",
        f"Freeze window      {frozen}",
    ]
    lines += [f"Degraded           {text}" for text in report.get("degraded", [])]
    lines += [f"Problem            {problem}" for problem in report["problems"]]
    return lines + [f"Warning            {warning}" for warning in report.get("warnings", [])]


def ring_table(report):
    """A row a ring; nothing where there are none."""
    rows = [["ring", "verdict", "frozen", "storage", "consistency point"]]
    for ring in report.get("rings", []):
        times = ["-" if ring[key] is None else f"{ring[key]:.0f} ms" for key in ("freeze_window_ms", "storage_ms")]
        rows.append([ring["ring"], verdict_text(ring), *times, ring["consistency_point"] or "none"])
    return table(rows, right=(2, 3)) if rows[1:] else []


def verdict_text(entry):
    """A verdict, and whether the site has let pass that it is less than whole."""
    return entry["verdict"] + (" (degraded)" if entry.get("degraded") else "")


def server_table(report):
    """A row a volume."""
    rows = [["volume", "verdict", "frozen", "size", "read", "new", "stored", "rate"]]
    for server, entry in report["servers"].items():
        frozen = "-" if entry["freeze_window_ms"] is None else "{:.0f} ms".format(entry["freeze_window_ms"])
        for volume in entry["volumes"]:
            sizes = [size(volume["bytes_" + key]) for key in ("size", "read", "new", "stored")]
            rows.append([volume["volume"], verdict_text(entry), frozen, *sizes, rate(volume["read_rate"])])
        if not entry["volumes"]:
            rows.append([server, entry["verdict"], frozen, "-", "-", "-", "-", "-"])
    return table(rows, right=(2, 3, 4, 5, 6, 7))


def how_it_was_read(report):
    """A line a volume: what was read of it, and why no less."""
    volumes = [volume for entry in report["servers"].values() for volume in entry["volumes"]]
    width = max((len(volume["volume"]) for volume in volumes), default=0)
    return ["{}  {}{}".format(volume["volume"].ljust(width), reading(volume), pacing(volume)) for volume in volumes]


def reading(volume):
    """How one volume was read. The id of a base begins with the run that it is of."""
    origin = volume["origin"]
    if origin["method"] == "full":
        return "full read: {}".format(origin["reason"] or "no reason given")
    return "read {} of {}: changed extents since {}".format(
        size(volume["bytes_read"]), size(volume["bytes_size"]), origin["since"].partition("/")[0]
    )


def pacing(volume):
    """How much the guard on read latency held the backup back; nothing where no read was slow."""
    if not volume["slow_reads"]:
        return ""
    return "; held back for {:.1f} s of {:.1f} s, as {} reads took longer than block_backup_read_latency".format(
        volume["seconds_paused"], volume["seconds"], volume["slow_reads"]
    )


def chart(report):
    """The run's timeline: a row a phase and server, drawn to scale."""
    phases = [phase for phase in phases_of(report) if phase[1] is not None and phase[2] is not None]
    scale = WIDTH / max(report["seconds"], 0.001)
    width = max((len(name) for name, dummy, dummy in phases), default=0)
    lines = ["Timeline, {:.1f} s".format(report["seconds"])]
    for name, start, end in phases:
        column, length = int(start * scale), max(1, round((end - start) * scale))
        row = (" " * column + BAR * length)[:WIDTH].ljust(WIDTH)
        lines.append(f"{name.ljust(width)} │{row}│ {end - start:.2f} s")
    return lines


def phases_of(report):
    """Name, start and end (seconds since the run was opened, None where it was not reached) of each phase."""
    moments = {}
    for entry in report["timeline"]:
        moments.setdefault((entry["event"], entry["server"]), []).append(entry["at"])
    begun = [entry for entry in report["timeline"] if entry["event"] == "freezing"]
    phases = [("prepare", 0.0, begun[0]["at"] if begun else None)]
    for entry in begun:
        ring = entry.get("ring", "")
        ends = [e["at"] for e in report["timeline"] if e["event"] == "thawed" and e.get("ring", "") == ring]
        phases.append((f"ring {ring}" if ring else "consistency point", entry["at"], ends[-1] if ends else None))
    for server in report["servers"]:
        saved = last(moments, "saveset", server) or last(moments, "failed", server)
        phases.append((f"back up {server}", last(moments, "backup", server), saved))
        phases.append((f"clean up {server}", saved, last(moments, "cleaned", server)))
    return phases


def last(moments, event, server=""):
    """When an event happened for the last time; None where it did not."""
    return moments.get((event, server), [None])[-1]


def where_to_go(report):
    """Where the savesets are, and how to use them."""
    command = f"ansible-playbook restore.yml -e restore_run_id={report['run_id']}"
    lines = ["Savesets are in {} on the backup server. To restore one server:".format(report["repository"])]
    for server, entry in report["servers"].items():
        if entry["volumes"]:
            lines.append(f"  {command} -e restore_server={server} -e restore_folder=/path")
    return lines if lines[1:] else ["No saveset was written."]


def catalog_table(savesets):
    """The savesets of a repository, a row each."""
    if not savesets:
        return "There is no saveset."
    rows = [["volume", "consistency point", "verdict", "size", "stored", "proven", "run id"]]
    for saveset in savesets:
        sizes = [size(saveset["size"]), size(saveset["stats"]["bytes_stored"])]
        verdict = verdict_text(dict(saveset.get("metadata", {}), verdict=saveset["verdict"]))
        proven = saveset["proven"]["time"].partition("T")[0] if saveset.get("proven") else "never"
        rows.append([saveset["volume"], moment_of(saveset), verdict, *sizes, proven, saveset["run_id"]])
    lines = table(rows, right=(3, 4))
    lines += [
        "Set aside: saveset {id} of {volume}, run {run_id}: {aside}".format(**saveset)
        for saveset in savesets
        if saveset.get("aside")
    ]
    return "\n".join(lines)


def prune_summary(result, dry_run=False):
    """What pruning did, or would do: a row a saveset and why it stays, then what was freed and what waits for whom."""
    rows = [["volume", "consistency point", "verdict", "run id", "stays as"]]
    for saveset in result["savesets"]:
        reasons = ", ".join(saveset["reasons"]) or ("nothing: would be forgotten" if dry_run else "nothing: forgotten")
        rows.append(
            [saveset["volume"], moment_of(saveset), saveset["verdict"], saveset["run_id"], reasons],
        )
    lines = table(rows) if rows[1:] else ["There is no saveset."]
    lines += [
        "",
        "{} of {} savesets {}".format(
            len(result["forgotten"]), len(result["savesets"]), "would be forgotten" if dry_run else "were forgotten"
        ),
    ]
    lines.append(
        "{}: {}; {} packs and {} maps removed, {} packs punched".format(
            "Room that this would give back" if dry_run else "Room given back",
            size(result["bytes_freed"]),
            result["packs_deleted"],
            result["maps_deleted"],
            result["packs_punched"],
        )
    )
    if result.get("stopped"):
        lines.append(
            "But this stops: {}. To go on: -e prune_confirm={}".format(result["stopped"], len(result["forgotten"]))
        )
    for waiting in result["waiting"]:
        lines.append(
            "{} more wait for: {}. The next prune removes them".format(
                size(waiting["bytes"]), "; ".join(waiting["leases"])
            )
        )
    return "\n".join(lines)


def dead_runs_summary(found):
    """What recover.yml found in the journal; ``found`` as `dead_runs` returns it."""
    lines = ["Dead: " + (", ".join(found["runs"]) or "no run")]
    return "\n".join(lines + [f"Left alone: {problem}" for problem in found["problems"]])


def recover_summary(hostvars, hosts, unclean, dry_run):
    """What recover.yml did, or would do, a line an action; and the hosts that it could not clean up."""
    lines = ["What would be done; nothing was:" if dry_run else "What was done:"]
    actions = [f"  {host}: {action}" for host in hosts for action in hostvars[host].get("recover_done", [])]
    lines += actions or ["  nothing, as nothing of these runs was left"]
    return "\n".join(lines + [f"  {host}: not reached, or not cleaned up; see above" for host in unclean])


def moment_of(saveset):
    """A saveset's consistency point for people."""
    return datetime.datetime.fromisoformat(saveset["time"]).strftime("%Y-%m-%d %H:%M:%S UTC")

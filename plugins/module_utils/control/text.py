# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows reports and catalogs as text that fits a terminal."""

from __future__ import annotations

import datetime
from collections.abc import Container, Iterable, Mapping
from typing import Any, TypeAlias

from ..host.plain import plain
from .entries import Entry
from .moments import duration

Phase: TypeAlias = "tuple[str, float | None, float | None]"
Moments = dict[tuple[str, str], list[float]]

WIDTH = 60
#: Parts of a job in a line of progress, characters of the name of each, and of the whole line.
PARTS_SHOWN, LABEL_MAX, LINE_MAX = 16, 40, 400
BAR = "█"


def size(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def rate(count: float | None) -> str:
    """Bytes per second for people; a dash where there is none."""
    return "-" if not count else f"{size(count)}/s"


def progress_line(progress: Entry) -> str:
    """One line that shows a job's progress; ``progress`` as job_info returns it."""
    label = progress["label"]
    if "percent" not in progress:
        return f"  {label:<18} waiting"
    parts = progress.get("parts", [])
    if len(parts) > 1:
        return progress_of_parts(progress, parts)
    left = progress.get("eta_s")
    eta = "" if left is None else f"{left:.0f} s left"
    return f"  {label:<18} {progress['percent']:5.1f} %  {rate(progress['rate']):>12}  {eta}".rstrip()


def progress_of_parts(progress: Entry, parts: list[Entry]) -> str:
    """One line that shows the progress of a job with several parts, and of each. Its host may report anything."""
    done = [f"{percent(progress['percent'])} of {size(progress['bytes_total'])}"]
    done += [rate(progress["rate"])] if progress["rate"] else []
    done += [] if progress.get("eta_s") is None else [f"{duration(progress['eta_s'])} left"]
    shown = [part_text(part) for part in parts[:PARTS_SHOWN]] + ["..."] * (len(parts) > PARTS_SHOWN)
    return plain("  {}: {} ({})".format(progress["label"], ", ".join(done), ", ".join(shown)))[:LINE_MAX]


def part_text(part: Entry) -> str:
    """A part of a job, and how far it is."""
    words = {"waiting": "waiting", "finished": "done", "failed": "failed"}
    return "{} {}".format(str(part["label"])[:LABEL_MAX], words.get(str(part["state"])) or percent(part["percent"]))


def percent(count: float) -> str:
    """A percentage for people."""
    return f"{min(max(float(count), 0.0), 100.0):.0f} %"


def table(rows: list[list[str]], right: Container[int] = ()) -> list[str]:
    """Lines of a table. ``rows``: lists of texts, the first one the heading; ``right``: right-aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines


def run_summary(report: Entry) -> str:
    """What a run did, for the person who started it."""
    parts = [
        headline(report),
        ring_table(report),
        server_table(report),
        where_it_was_backed_up(report),
        how_it_was_read(report),
        chart(report),
        where_to_go(report),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def headline(report: Entry) -> list[str]:
    """The verdict first, then the times, and what went wrong."""
    window, storage = report["freeze_window_ms"], report["storage_ms"]
    frozen = (
        "no server was frozen" if window is None else f"{window:.0f} ms, {storage or 0:.0f} ms of it in the storage"
    )
    lines = [
        "Run {}: {}".format(report["run_id"], report["verdict"].upper()),
        f"Consistency point  {report['consistency_point'] or 'none'}",
        f"Freeze window      {frozen}",
    ]
    lines += [f"Degraded           {text}" for text in report.get("degraded", [])]
    lines += [f"Problem            {problem}" for problem in report["problems"]]
    return lines + [f"Warning            {warning}" for warning in report.get("warnings", [])]


def ring_table(report: Entry) -> list[str]:
    """One row per ring; empty where there are none."""
    rows = [["ring", "verdict", "frozen", "storage", "consistency point"]]
    for ring in report.get("rings", []):
        times = ["-" if ring[key] is None else f"{ring[key]:.0f} ms" for key in ("freeze_window_ms", "storage_ms")]
        rows.append([ring["ring"], verdict_text(ring), *times, ring["consistency_point"] or "none"])
    return table(rows, right=(2, 3)) if rows[1:] else []


def verdict_text(entry: Entry) -> str:
    """A verdict, and whether it is degraded: less than complete, as the site allows."""
    verdict: str = entry["verdict"]
    return verdict + (" (degraded)" if entry.get("degraded") else "")


def server_table(report: Entry) -> list[str]:
    """One row per volume."""
    rows = [["volume", "verdict", "frozen", "size", "read", "new", "stored", "rate"]]
    for server, entry in report["servers"].items():
        frozen = "-" if entry["freeze_window_ms"] is None else "{:.0f} ms".format(entry["freeze_window_ms"])
        for volume in entry["volumes"]:
            sizes = [size(volume["bytes_" + key]) for key in ("size", "read", "new", "stored")]
            rows.append([volume["volume"], verdict_text(entry), frozen, *sizes, rate(volume["read_rate"])])
        if not entry["volumes"]:
            rows.append([server, entry["verdict"], frozen, "-", "-", "-", "-", "-"])
    return table(rows, right=(2, 3, 4, 5, 6, 7))


def where_it_was_backed_up(report: Entry) -> list[str]:
    """One line per backup server, if there were several."""
    servers: dict[str, list[str]] = {}
    for server, entry in report["servers"].items():
        servers.setdefault(entry.get("backup_server", ""), []).append(server)
    if len(servers) < 2:
        return []
    return [f"Backed up on {host or 'an unknown host'}: {', '.join(servers[host])}" for host in sorted(servers)]


def how_it_was_read(report: Entry) -> list[str]:
    """One line per volume: how much of it was read, and why not less."""
    volumes = [volume for entry in report["servers"].values() for volume in entry["volumes"]]
    width = max((len(volume["volume"]) for volume in volumes), default=0)
    return ["{}  {}{}".format(volume["volume"].ljust(width), reading(volume), pacing(volume)) for volume in volumes]


def reading(volume: Entry) -> str:
    """How one volume was read. The id of a base begins with its run id."""
    origin = volume["origin"]
    if origin["method"] == "full":
        return "full read: {}".format(origin["reason"] or "no reason given")
    return "read {} of {}: changed extents since {}".format(
        size(volume["bytes_read"]), size(volume["bytes_size"]), origin["since"].partition("/")[0]
    )


def pacing(volume: Entry) -> str:
    """How much the limit on read latency held the backup back; empty where no read was slow."""
    if not volume["slow_reads"]:
        return ""
    return "; held back for {:.1f} s of {:.1f} s: {} reads took longer than block_backup_read_latency".format(
        volume["seconds_paused"], volume["seconds"], volume["slow_reads"]
    )


def chart(report: Entry) -> list[str]:
    """The run's timeline: one row per phase and server, drawn to scale."""
    phases = [(name, start, end) for name, start, end in phases_of(report) if start is not None and end is not None]
    scale = WIDTH / max(report["seconds"], 0.001)
    width = max((len(name) for name, dummy, dummy in phases), default=0)
    lines = ["Timeline, {:.1f} s".format(report["seconds"])]
    for name, start, end in phases:
        column, length = int(start * scale), max(1, round((end - start) * scale))
        row = (" " * column + BAR * length)[:WIDTH].ljust(WIDTH)
        lines.append(f"{name.ljust(width)} │{row}│ {end - start:.2f} s")
    return lines


def phases_of(report: Entry) -> list[Phase]:
    """The name, start and end of each phase (in seconds since the run was opened; None where not reached)."""
    moments: Moments = {}
    for entry in report["timeline"]:
        moments.setdefault((entry["event"], entry["server"]), []).append(entry["at"])
    begun = [entry for entry in report["timeline"] if entry["event"] == "freezing"]
    phases: list[Phase] = [("prepare", 0.0, begun[0]["at"] if begun else None)]
    for entry in begun:
        ring = entry.get("ring", "")
        ends = [e["at"] for e in report["timeline"] if e["event"] == "thawed" and e.get("ring", "") == ring]
        phases.append((f"ring {ring}" if ring else "consistency point", entry["at"], ends[-1] if ends else None))
    for server in report["servers"]:
        saved = last(moments, "saveset", server) or last(moments, "failed", server)
        phases.append((f"back up {server}", last(moments, "backup"), saved))
        phases.append((f"clean up {server}", saved, last(moments, "cleaned", server)))
    return phases


def last(moments: Moments, event: str, server: str = "") -> float | None:
    """When an event last happened; None where it did not."""
    return moments.get((event, server), [None])[-1]


def where_to_go(report: Entry) -> list[str]:
    """Where the savesets are, and how to use them."""
    command = f"ansible-playbook restore.yml -e restore_run_id={report['run_id']}"
    lines = ["Savesets are in {} on the backup server. To restore one server:".format(report["repository"])]
    for server, entry in report["servers"].items():
        if entry["volumes"]:
            lines.append(f"  {command} -e restore_server={server} -e restore_folder=/path")
    return lines if lines[1:] else ["No saveset was written."]


def catalog_table(savesets: list[Entry]) -> str:
    """The savesets of a repository, one row each."""
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
        f"{what}: saveset {saveset['id']} of {saveset['volume']}, run {saveset['run_id']}: {saveset[key]}"
        for what, key in (("Set aside", "aside"), ("Ahead of the clock", "ahead"))
        for saveset in savesets
        if saveset.get(key)
    ]
    return "\n".join(lines)


def prune_summary(result: Entry, dry_run: bool = False) -> str:
    """What pruning did or would do: per saveset why it stays, then what was freed and what waits for which lease."""
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
            "Space that this would free" if dry_run else "Space freed",
            size(result["bytes_freed"]),
            result["packs_deleted"],
            result["maps_deleted"],
            result["packs_punched"],
        )
    )
    if result.get("stopped"):
        lines.append(
            "But this stops: {}. To continue: -e prune_confirm={}".format(result["stopped"], len(result["forgotten"]))
        )
    for waiting in result["waiting"]:
        lines.append(
            "{} more wait for: {}. The next prune removes them".format(
                size(waiting["bytes"]), "; ".join(waiting["leases"])
            )
        )
    return "\n".join(lines)


def dead_runs_summary(found: dict[str, list[str]]) -> str:
    """What recover.yml found in the journal; ``found`` as `dead_runs` returns it."""
    lines = ["Dead: " + (", ".join(found["runs"]) or "no run")]
    return "\n".join(lines + [f"Left alone: {problem}" for problem in found["problems"]])


def recover_summary(
    hostvars: Mapping[str, Mapping[str, Any]], hosts: Iterable[str], unclean: Iterable[str], dry_run: bool
) -> str:
    """What recover.yml did or would do, one line per action; and the hosts that it could not clean up."""
    lines = ["What would be done (nothing was done):" if dry_run else "What was done:"]
    actions = [f"  {host}: {action}" for host in hosts for action in hostvars[host].get("recover_done", [])]
    lines += actions or ["  nothing, because nothing of these runs was left"]
    return "\n".join(lines + [f"  {host}: not reached, or not cleaned up; see above" for host in unclean])


def moment_of(saveset: Entry) -> str:
    """A saveset's consistency point for people."""
    return datetime.datetime.fromisoformat(saveset["time"]).strftime("%Y-%m-%d %H:%M:%S UTC")

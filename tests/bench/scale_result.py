# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The measured runs of many servers as medians, a table, and a chart of text bars."""

from __future__ import annotations

import statistics
import typing as t
from collections.abc import Iterable

from .scale_run import PHASES

Figures = dict[str, t.Any]
WIDTH = 40  # characters of the longest bar
KEYS = ("servers", "code", "which")
#: What the table shows of each kind of run: heading, and where it is in the figures.
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("seconds", ("seconds",)),
    ("controller", ("cpu_seconds", "controller")),
    ("a server", ("controller_cpu_seconds_per_server",)),
    ("servers", ("cpu_seconds", "file_servers")),
    ("storage", ("cpu_seconds", "storage_host")),
    ("backup", ("cpu_seconds", "backup_server")),
    ("MiB", ("controller_memory", "peak_mib")),
    ("results", ("task_results", "per_server")),
    ("window", ("freeze_window_ms",)),
    ("own", ("freeze_window_without_storage_ms",)),
)


def medians(runs: Iterable[Figures]) -> list[Figures]:
    """The median of every number, over the rounds: one entry for each number of servers, code, and kind of run."""
    groups: dict[tuple[t.Any, ...], list[Figures]] = {}
    for run in runs:
        groups.setdefault(tuple(run[key] for key in KEYS), []).append(run)
    return [
        {**dict(zip(KEYS, group, strict=True)), **_median([_numbers(run) for run in taken])}
        for group, taken in groups.items()
    ]


def _numbers(run: Figures) -> Figures:
    return {name: value for name, value in run.items() if name not in (*KEYS, "round", "run_id", "verdict")}


def _median(entries: list[Figures]) -> Figures:
    found: Figures = {}
    for name in entries[0]:
        values = [entry[name] for entry in entries if name in entry]
        found[name] = _median(values) if isinstance(values[0], dict) else round(statistics.median(values), 3)
    return found


def table(found: list[Figures]) -> str:
    """One line for each kind of run."""
    over = f"{'':>8} {'processor seconds':<46} {'memory':>8} {'task':>8} {'freeze, ms':>17}"
    lines = [
        f"{'servers':>7} {'code':<12} {'run':<6} {over}",
        f"{'':>7} {'':<12} {'':<6} " + " ".join(f"{heading:>{_wide(heading)}}" for heading, _path in COLUMNS),
    ]
    for entry in found:
        cells = (f"{_at(entry, path):>{_wide(heading)}.{_digits(path)}f}" for heading, path in COLUMNS)
        lines.append(f"{entry['servers']:>7} {entry['code']:<12} {entry['which']:<6} " + " ".join(cells))
    return "\n".join(lines)


def _wide(heading: str) -> int:
    return max(8, len(heading))


def _digits(path: tuple[str, ...]) -> int:
    return 2 if path[0] == "controller_cpu_seconds_per_server" else 1 if path[0] != "controller_memory" else 0


def _at(entry: Figures, path: tuple[str, ...]) -> float:
    for name in path:
        entry = entry[name]
    return t.cast("float", entry)


def chart(found: list[Figures]) -> str:
    """The phases of each kind of run, with a bar for their seconds."""
    longest = max((phase["seconds"] for entry in found for phase in entry["phases"].values()), default=0.0)
    lines = [f"{'':<18} {'seconds':>8} {'controller':>10} {'hosts':>8}  processor seconds; the bar shows seconds"]
    for entry in found:
        lines.append(f"{entry['servers']} servers, {entry['which']} run, {entry['code']}")
        for name in PHASES:
            if name not in entry["phases"]:
                continue
            phase = entry["phases"][name]
            drawn = "#" * round(WIDTH * phase["seconds"] / longest) if longest else ""
            numbers = (
                f"{phase['seconds']:8.1f} {phase['controller_cpu_seconds']:10.1f} {phase['hosts_cpu_seconds']:8.1f}"
            )
            lines.append(f"  {name:<16} {numbers}  {drawn}".rstrip())
    return "\n".join(lines)


def growth(found: list[Figures]) -> list[Figures]:
    """By code and kind of run: what each server more costs the controller, from the fewest servers to the most."""
    grown = []
    for code, which in dict.fromkeys((entry["code"], entry["which"]) for entry in found):
        mine = sorted(
            (entry for entry in found if (entry["code"], entry["which"]) == (code, which)), key=lambda e: e["servers"]
        )
        fewest, most = mine[0], mine[-1]
        if fewest["servers"] == most["servers"]:
            continue
        more = most["cpu_seconds"]["controller"] - fewest["cpu_seconds"]["controller"]
        grown.append(
            {
                "code": code,
                "which": which,
                "from": fewest["servers"],
                "to": most["servers"],
                "controller_cpu_seconds_of_another_server": round(more / (most["servers"] - fewest["servers"]), 2),
                "window": round(most["freeze_window_ms"] / fewest["freeze_window_ms"], 2),
            }
        )
    return grown

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what everybody answered to where the time of a freeze window goes.  Milliseconds everywhere."""

from __future__ import annotations

import math
import statistics
import typing as t

from ansible_collections.openisb.backup.plugins.module_utils.control import verdict

Sample = dict[str, float]
#: What is told of each sample, and in words what it is.
PARTS = {
    "window": "first freeze to last thaw, without the storage's call",
    "storage_call": "the storage's own call",
    "storage_way": "reaching the storage host and coming back",
    "freeze": "all servers asked, all frozen",
    "thaw": "all servers asked, all thawed",
    "freeze_poke": "one server asked and frozen, median of the servers",
    "freeze_poke_max": "the same, the slowest server",
    "thaw_poke": "one server asked and thawed, median",
    "thaw_poke_max": "the same, the slowest server",
    "server": "how long one server was frozen, median, storage's call included",
}
#: The most that is allowed: by servers, the median of ``window``; p95 may be P95_FACTOR times the median.
TARGETS = {"3": 300.0, "30": 800.0}
P95_FACTOR = 2.0


class NotProven(Exception):
    """A sample that was no application-consistent point; its window says nothing."""


def sample(answer: dict[str, t.Any], run_id: str, servers: list[str]) -> Sample:
    """One consistency point, told apart.  ``answer``: what the action returned.  Raises NotProven."""
    hosts = [entry["storage_host"] for entry in answer["snapshots"]]
    judged = verdict.judge(
        {**answer, "run_id": run_id, "servers": servers, "storage_hosts": hosts, "problems": answer["problems"]},
        "abort",
    )
    if judged["verdict"] != verdict.APPLICATION:
        raise NotProven(f"run {run_id} is {judged['verdict']}: {'; '.join(judged['problems'])}")
    freeze, thaw = answer["freeze"]["servers"].values(), answer["thaw"]["servers"].values()
    seconds, call = answer["seconds"], judged["storage_ms"]
    found = {
        "window": judged["window_ms"] - call,
        "storage_call": call,
        "storage_way": seconds["snapshot"] * 1000 - call,
        "freeze": seconds["freeze"] * 1000,
        "thaw": seconds["thaw"] * 1000,
        "freeze_poke": statistics.median(each["poke_ms"] for each in freeze),
        "freeze_poke_max": max(each["poke_ms"] for each in freeze),
        "thaw_poke": statistics.median(each["poke_ms"] for each in thaw),
        "thaw_poke_max": max(each["poke_ms"] for each in thaw),
        "server": statistics.median(each["window_ms"] for each in thaw),
    }
    found.update(_drivers(thaw))
    return {name: round(value, 3) for name, value in found.items()}


def _drivers(answers: t.Iterable[dict[str, t.Any]]) -> Sample:
    """Median over the servers of what each driver took, as driver_<name>_freeze and _thaw."""
    took: dict[str, list[float]] = {}
    for answer in answers:
        for driver in answer["drivers"]:
            for step in ("freeze", "thaw"):
                took.setdefault(f"driver_{driver['name']}_{step}", []).append(driver[f"{step}_ms"])
    return {name: statistics.median(values) for name, values in took.items()}


def summary(samples: t.Mapping[str, list[Sample]]) -> dict[str, t.Any]:
    """The flat figures, and which targets they miss.  ``samples``: by number of servers."""
    ratios: dict[str, float] = {}
    missed: list[str] = []
    for servers, taken in samples.items():
        windows = [each["window"] for each in taken]
        median, high = statistics.median(windows), percentile(windows, 95)
        ratios[f"window_ms_{servers}_median"], ratios[f"window_ms_{servers}_p95"] = round(median, 1), round(high, 1)
        if servers in TARGETS and median > TARGETS[servers]:
            missed.append(f"{servers} servers: the median is {median:.0f} ms, more than {TARGETS[servers]:.0f} ms")
        if high > P95_FACTOR * median:
            missed.append(f"{servers} servers: p95 is {high:.0f} ms, more than {P95_FACTOR:g} times the median")
    return {"ratios": ratios, "targets_missed": missed}


def percentile(values: t.Sequence[float], percent: float) -> float:
    """The smallest value that is not smaller than ``percent`` per cent of all of them (nearest rank)."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def table(samples: t.Mapping[str, list[Sample]]) -> str:
    """Median and p95 of each part, a column pair for each number of servers."""
    names = list(dict.fromkeys(name for taken in samples.values() for each in taken for name in each))
    width = max(len(name) for name in names)
    heading = "".join(f"  {'median':>9} {'p95':>9}" for _servers in samples)
    lines = [
        "ms".ljust(width) + "".join(f"  {servers + ' servers':>19}" for servers in samples),
        " " * width + heading,
    ]
    for name in names:
        cells = ""
        for taken in samples.values():
            values = [each[name] for each in taken if name in each]
            cells += (
                f"  {statistics.median(values):9.1f} {percentile(values, 95):9.1f}" if values else "  " + " " * 18 + "-"
            )
        lines.append(f"{name.ljust(width)}{cells}  {PARTS.get(name, '')}".rstrip())
    return "\n".join(lines)

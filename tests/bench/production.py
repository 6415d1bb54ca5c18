# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the transactions of the lab's databases notice of a run (make production-view).

python -m bench.production LAB_DIR [--rate 20] [--runs 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import signal
import subprocess
import time
import typing as t
from pathlib import Path

from families import children
from faults.machine import Machine
from lab import Lab

#: Seconds: how long the load is watched before a run, by how much a stall may exceed the freeze window.
BEFORE, SLACK = 15.0, 0.2
END = 10.0  # seconds until a process that counts has ended
#: The least throughput while the backup reads, as a share of that before.
THROUGHPUT = 0.8
#: Tells, a hundred times a second, the time (us since 1970) and how many transactions there have been; 0 at first.
WATCH = (
    'set n=0 for  write $zut,$char(9),n,! hang .01 set n=$get(^MOVE),p="" '
    'for  set p=$order(^OUT(p)) quit:p=""  set n=n+^OUT(p)+$get(^IN(p))'
)
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root"}
Points = list[tuple[float, int]]


class Watch:
    """The count of transactions of every server, read by a process of the database itself, from `with` to its end."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder

    def __enter__(self) -> Watch:
        self.processes = {}
        for host in self.machine.lab.file_servers:
            names = ["--mount", "--uts", "--ipc", "--net", "--pid"]
            command = ["nsenter", "--target", str(self.machine.pid(host.name)), *names, "--"]
            with (self.folder / f"{host.name}.tsv").open("wb") as output:
                self.processes[host.name] = subprocess.Popen(
                    [*command, f"{self.machine.lab.gtm_dist}/mumps", "-run", "%XCMD", WATCH],
                    env={**ENVIRONMENT, **self.machine.database.environment(self.machine.lab, host)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            # nsenter passes no signal on, and ends with what it has started.
            for child in children(process.pid):
                os.kill(child, signal.SIGTERM)
            process.wait(END)

    def points(self) -> dict[str, Points]:
        """By server, seconds since 1970 and count."""
        found = {}
        for server in self.processes:
            whole, _end, _cut_off = (self.folder / f"{server}.tsv").read_text().rpartition("\n")
            lines = whole.splitlines()
            pairs = [line.split("\t") for line in lines if line.count("\t") == 1]
            found[server] = [(int(when) / 1e6, int(count)) for when, count in pairs if count != "0"]
        return found


def longest_stall(points: Points, begin: float, end: float) -> float:
    """Seconds of the longest time without a transaction that touches the time from ``begin`` to ``end``."""
    longest, since = 0.0, None
    for (_before, old), (when, new) in zip(points, points[1:], strict=False):
        if new == old:
            continue
        if since is not None and when > begin and since < end:
            longest = max(longest, when - since)
        since = when
    return longest


def throughput(points: Points, begin: float, end: float) -> float:
    """Transactions a second between two moments."""
    inside = [point for point in points if begin <= point[0] <= end]
    if len(inside) < 2:
        raise SystemExit(f"the load was not seen between {begin} and {end}")
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


def seconds_of(records: list[dict[str, t.Any]], *events: str) -> list[float]:
    """When these events of a run happened, in seconds since 1970."""
    return [datetime.datetime.fromisoformat(each["time"]).timestamp() for each in records if each["event"] in events]


def one_run(lab: Lab, machine: Machine, folder: Path, rate: float) -> dict[str, t.Any]:
    """A run that reads everything, watched from before to after it."""
    options = ["-e", f"block_backup_rate_limit={rate}", "-e", "isb_changed_extents=false"]
    with Watch(machine, folder) as watch:
        time.sleep(BEFORE)
        begun = time.time()
        status, output = lab.play("isb.yml", *options)
        ended = time.time()
        time.sleep(1)
    if status:
        raise SystemExit(output[-4000:])
    records = lab.journal()
    records = [record for record in records if record["run_id"] == records[-1]["run_id"]]
    (point,) = [record["data"] for record in records if record["event"] == "thawed"]
    reading = min(seconds_of(records, "backup")), max(seconds_of(records, "saveset"))
    found: dict[str, t.Any] = {"run_id": records[0]["run_id"], "window_s": point["window_ms"] / 1000, "servers": {}}
    for server, points in watch.points().items():
        before = throughput(points, begun - BEFORE + 1, begun)
        found["servers"][server] = {
            "stall_before_s": round(longest_stall(points, begun - BEFORE + 1, begun), 3),
            "stall_s": round(longest_stall(points, begun, ended), 3),
            "window_s": round(point["servers"][server]["window_ms"] / 1000, 3),
            "before_per_s": round(before, 1),
            "reading_per_s": round(throughput(points, *reading), 1),
            "share": round(throughput(points, *reading) / before, 3),
        }
    return found


def problems(run: dict[str, t.Any]) -> list[str]:
    """What production noticed more of than it may."""
    found = []
    for server, each in run["servers"].items():
        if each["stall_s"] > run["window_s"] + SLACK:
            found.append(f"{server}: no transaction for {each['stall_s']} s, the window was {run['window_s']:.3f} s")
        if each["share"] < THROUGHPUT:
            found.append(f"{server}: {each['share']:.0%} of the transactions while the backup read")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab", type=Path)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("build/production.json"))
    given = parser.parse_args()
    lab, machine = Lab(given.lab.resolve()), Machine(given.lab.resolve())
    runs = [one_run(lab, machine, given.lab.resolve(), given.rate) for _run in range(given.runs)]
    wrong = [text for run in runs for text in problems(run)]
    given.json.write_text(json.dumps({"rate": given.rate, "runs": runs, "problems": wrong}, indent=2) + "\n")
    print(f"{'server':<8} {'window':>8} {'stall':>8} {'stall before':>13} {'before':>9} {'reading':>9} {'share':>7}")
    for run in runs:
        for server, each in run["servers"].items():
            print(
                f"{server:<8} {run['window_s']:7.3f}s {each['stall_s']:7.3f}s {each['stall_before_s']:12.3f}s "
                f"{each['before_per_s']:7.1f}/s {each['reading_per_s']:7.1f}/s {each['share']:7.0%}"
            )
    print(*(wrong or ["stalls are the freeze window, and production goes on while the backup reads"]), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run journal of many records costs who appends to it and who reads it, as JSON: medians in seconds.

Of each there are two: by the clock, and the processor's, which says what it costs on a busy machine, too.

    journal.py [RECORDS] [CHECKOUT]

``RECORDS``: 100000 by default. ``CHECKOUT``: whose modules are measured; this one by default. Runs have 25 records of
about 500 bytes, as those of three servers have. The file is on the disk of TMPDIR, and in the page cache.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import tempfile
import time
import typing as t
from pathlib import Path

RECORDS_OF_A_RUN = 25
ROUNDS = 3


def write_journal(path: Path, count: int) -> str:
    """Write a journal whose runs are all closed; returns the hash of its newest record."""
    previous = "0" * 64
    with open(path, "w", encoding="utf-8") as stream:
        for number in range(count):
            last = number % RECORDS_OF_A_RUN == RECORDS_OF_A_RUN - 1 or number == count - 1
            event = "opened" if number % RECORDS_OF_A_RUN == 0 else "closed" if last else "saveset"
            record = {
                "seq": number + 1,
                "time": "2026-11-23T02:15:00.000000+00:00",
                "run_id": f"isb-20251123T021500Z-{number // RECORDS_OF_A_RUN:06x}",
                "event": event,
                "data": {"server": "fs1", "filler": "x" * 180},
                "previous": previous,
            }
            text = json.dumps(record, sort_keys=True, separators=(",", ":"))
            record["hash"] = previous = hashlib.sha256(text.encode()).hexdigest()
            stream.write(json.dumps(record, sort_keys=True) + "\n")
    return previous


class Seconds(t.NamedTuple):
    """How long something takes, and how long of it the processor works."""

    clock: float
    processor: float


def seconds_of(work: t.Callable[..., object], *arguments: t.Any) -> Seconds:
    """How long one call takes."""
    begun, worked = time.perf_counter(), time.process_time()
    work(*arguments)
    return Seconds(time.perf_counter() - begun, time.process_time() - worked)


def measure(path: Path, count: int, checkout: Path) -> dict[str, t.Any]:
    """Open a run, append to it, close it, and read all, some times each."""
    sys.path.insert(0, str(checkout / "collections"))
    from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
        Journal,
        chain_problems,
        open_runs,
    )

    journal = Journal(str(path))
    found: dict[str, list[Seconds]] = {}
    for number in range(ROUNDS):
        run_id = f"isb-20261123T021500Z-{number:06x}"
        for event in ("opened", "saveset", "closed"):
            found.setdefault(f"append_{event}", []).append(seconds_of(journal.append, run_id, event, {"n": 1}))
        if hasattr(journal, "tail"):
            found.setdefault("read_tail_of_3", []).append(seconds_of(journal.tail, count + 3 * number + 1))
        found.setdefault("read_all", []).append(seconds_of(journal.records))
        records = journal.records()
        found.setdefault("check_chain", []).append(seconds_of(chain_problems, records))
        assert open_runs(records) == [] and chain_problems(records) == []
    return {
        name: {kind: round(statistics.median(getattr(time, kind) for time in times), 5) for kind in Seconds._fields}
        for name, times in found.items()
    }


def main() -> None:
    """Make a journal, measure, and print."""
    count = int(sys.argv[1]) if sys.argv[1:] else 100_000
    checkout = Path(sys.argv[2]) if sys.argv[2:] else Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        write_journal(path, count)
        result = {"records": count, "bytes": path.stat().st_size, **measure(path, count, checkout)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

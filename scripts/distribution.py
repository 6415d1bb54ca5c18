"""Summarises the runs of scripts/consistency: how long servers were frozen, and what the checkers found.

Usage: distribution.py RECORDS.jsonl SUMMARY.json. Exits with 1 if any run was not proven.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def distribution(values: list[float]) -> dict[str, float]:
    """Minimum, median, 95th percentile and maximum of values in ms."""
    ordered = sorted(values)
    return {
        "min": ordered[0],
        "median": statistics.median(ordered),
        "p95": ordered[max(0, -(-len(ordered) * 95 // 100) - 1)],
        "max": ordered[-1],
    }


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of all runs; windows in ms."""
    return {
        "runs": len(records),
        "proven": sum(
            record["verdict"] == "application-consistent" and record["one_point_in_time"] and record["sound"]
            for record in records
        ),
        "window_ms": distribution([record["window_ms"] for record in records]),
        "storage_ms": distribution([record["storage_ms"] for record in records]),
        "window_without_storage_ms": distribution([record["window_ms"] - record["storage_ms"] for record in records]),
    }


def main() -> int:
    """Read the records, write and print the summary."""
    records = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    summary = summarise(records)
    Path(sys.argv[2]).write_text(json.dumps(dict(summary, records=records), indent=2) + "\n", encoding="utf-8")
    for name, label in (
        ("window_ms", "freeze window, first freeze to last thaw"),
        ("storage_ms", "of it the storage call"),
        ("window_without_storage_ms", "freeze window without the storage call"),
    ):
        figures = "  ".join(f"{key} {value:.0f}" for key, value in summary[name].items())
        print(f"{label + ' (ms)':48} {figures}")
    print(f"{summary['proven']} of {summary['runs']} runs proven: application-consistent, one point in time, all clean")
    return 0 if summary["proven"] == summary["runs"] else 1


if __name__ == "__main__":
    sys.exit(main())

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples to medians, ratios and a table."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t

from .contender import FULL, RESTORE, VERIFY
from .measure import Sample

OURS = "openisb"
COMPACT = "openisb_compact"
ONE_PERCENT = "incremental_1pct"
MIB = 1 << 20

#: Ratios of wall seconds: name, (contender, operation) above the line, and below it.  Above 1 is better.
_SPEED: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "full_vs_restic": (("restic", FULL), (OURS, FULL)),
    "full_vs_borg": (("borg", FULL), (OURS, FULL)),
    "full_vs_benji": (("benji", FULL), (OURS, FULL)),
    "full_vs_zstd_openssl": (("zstd_openssl", FULL), (OURS, FULL)),
    "compact_vs_restic": (("restic", FULL), (COMPACT, FULL)),
    "incremental_1pct_vs_restic": (("restic", ONE_PERCENT), (OURS, ONE_PERCENT)),
    "incremental_1pct_vs_borg": (("borg", ONE_PERCENT), (OURS, ONE_PERCENT)),
    "restore_vs_restic": (("restic", RESTORE), (OURS, RESTORE)),
    "restore_vs_borg": (("borg", RESTORE), (OURS, RESTORE)),
    "verify_vs_restic": (("restic", VERIFY), (OURS, VERIFY)),
}
#: Ratios of stored bytes after the full backup: ours above, theirs below the line.  Smaller is better.
_STORED: dict[str, tuple[str, str]] = {
    "stored_vs_borg": (OURS, "borg"),
    "stored_compact_vs_restic": (COMPACT, "restic"),
}

Ratios = dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class Row:
    """Medians over the rounds; see Sample."""

    contender: str
    operation: str
    rounds: int
    wall_s: float
    cpu_s: float
    peak_bytes: int
    read_bytes: int
    stored_bytes: int
    source_read_bytes: int | None


def medians(samples: t.Sequence[Sample]) -> list[Row]:
    """A row for each operation and contender, in the order in which they first came."""
    rows = []
    keys = sorted(
        dict.fromkeys((sample.operation, sample.contender) for sample in samples),
        key=lambda key: [sample.operation for sample in samples].index(key[0]),
    )
    for operation, contender in keys:
        same = [sample for sample in samples if (sample.operation, sample.contender) == (operation, contender)]
        told = [sample.source_read_bytes for sample in same if sample.source_read_bytes is not None]
        rows.append(
            Row(
                contender,
                operation,
                len(same),
                statistics.median(sample.wall_s for sample in same),
                statistics.median(sample.cpu_s for sample in same),
                round(statistics.median(sample.peak_bytes for sample in same)),
                round(statistics.median(sample.read_bytes for sample in same)),
                round(statistics.median(sample.stored_bytes for sample in same)),
                round(statistics.median(told)) if told else None,
            )
        )
    return rows


def ratios(
    rows: t.Sequence[Row], limits_s: t.Sequence[float], changed_bytes: int, left_out: t.Collection[str]
) -> tuple[Ratios, dict[str, str]]:
    """The flat object ``ratios``, and why those that are None are.

    :param limits_s: seconds that the primitives allow for a full backup, one a round.
    :param changed_bytes: bytes of the 1 % of changed blocks.
    :param left_out: contenders that were left out on purpose; any other that is missing raises KeyError.
    """
    table = {(row.contender, row.operation): row for row in rows}
    result: Ratios = {}
    reasons: dict[str, str] = {}
    for name, (above, below) in _SPEED.items():
        if above[0] in left_out:
            result[name], reasons[name] = None, f"{above[0]} was left out by PEERS="
        else:
            result[name] = table[above].wall_s / table[below].wall_s
    for name, (ours, theirs) in _STORED.items():
        if theirs in left_out:
            result[name], reasons[name] = None, f"{theirs} was left out by PEERS="
        else:
            result[name] = table[ours, FULL].stored_bytes / table[theirs, FULL].stored_bytes
    result["full_vs_limit"] = statistics.median(limits_s) / table[OURS, FULL].wall_s
    result["incremental_1pct_read_amplification"] = (table[OURS, ONE_PERCENT].source_read_bytes or 0) / changed_bytes
    return result, reasons


def table(rows: t.Sequence[Row], data_bytes: int) -> str:
    """The rows for people; MiB/s are of the image's data, zeros and holes left out."""
    columns = ("operation", "contender", "wall s", "CPU s", "MiB/s", "peak MiB", "read MiB", "stored MiB")
    lines = [_line(*columns)]
    last = ""
    for row in rows:
        lines.append(
            _line(
                row.operation if row.operation != last else "",
                row.contender,
                f"{row.wall_s:.2f}",
                f"{row.cpu_s:.2f}",
                f"{data_bytes / MIB / row.wall_s:.0f}",
                *(f"{value / MIB:.1f}" for value in (row.peak_bytes, row.read_bytes, row.stored_bytes)),
            )
        )
        last = row.operation
    return "\n".join(lines)


def _line(operation: str, contender: str, *figures: str) -> str:
    return f"{operation:19} {contender:16}" + "".join(f" {figure:>10}" for figure in figures)


def ratio_lines(values: Ratios, reasons: t.Mapping[str, str]) -> str:
    """The ratios for people."""
    return "\n".join(
        f"{name:36} {'-':>8}   {reasons[name]}" if value is None else f"{name:36} {value:8.2f}"
        for name, value in values.items()
    )

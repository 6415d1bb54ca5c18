# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instant LUN's samples come to: medians, ratios, targets, a table."""

from __future__ import annotations

import statistics
import typing as t

#: The least rate of reading the LUN in order, as a share of a plain restore's to a LUN of the same DR host.
SEQUENTIAL = 0.5
#: By how much the first query of the largest volume may take longer than that of the smallest.
FIRST_QUERY = 1.5
VOLUMES = (1, 10, 100)  # GiB
MIB = 1 << 20

Samples = t.Mapping[str, t.Sequence[float]]
Queries = t.Mapping[str, t.Mapping[str, float]]
Figures = dict[str, t.Any]


def summary(samples: Samples, size: int, queries: Queries, apart: bool) -> Figures:
    """What came of it, and which targets were missed.

    :param samples: seconds, by what took them; those of single reads are called ``..._random`` and ``..._random_nbd``.
    :param queries: by the volume's GiB, the seconds until each step to the first query.
    :param apart: whether the repository was not touched by what was written to the LUN.
    """
    medians = {name: statistics.median(taken) for name, taken in samples.items()}
    single = [name for name in samples if name.endswith(("_random", "_random_nbd"))]
    ratios = {
        "instant_vs_restore_to_lun": medians["restore_to_lun"] / medians["instant_in_order"],
        "instant_vs_restore": medians["restore"] / medians["instant_in_order"],
        "instant_vs_file": medians["file_in_order"] / medians["instant_in_order"],
        "file_vs_restore": medians["restore"] / medians["file_in_order"],
        "random_vs_file": medians["instant_random"] / medians["file_random"],
        "first_query_largest_vs_smallest": _answered(queries, max(VOLUMES)) / _answered(queries, min(VOLUMES)),
    }
    if "before_in_order" in medians:
        ratios["instant_vs_before"] = medians["before_in_order"] / medians["instant_in_order"]
        ratios["random_vs_before"] = medians["instant_random"] / medians["before_random"]
    return {
        "ratios": ratios,
        "mib_per_s": {name: size / MIB / seconds for name, seconds in medians.items() if name not in single},
        "random_ms": {name: {"median": 1000 * medians[name], "p95": 1000 * _p95(samples[name])} for name in single},
        "first_query_s": queries,
        "writes_stay_apart": apart,
        "targets_missed": _missed(ratios, queries, apart),
    }


def _missed(ratios: t.Mapping[str, float], queries: Queries, apart: bool) -> list[str]:
    missed = []
    if ratios["instant_vs_restore_to_lun"] < SEQUENTIAL:
        missed.append(
            f"the LUN is read in order at {ratios['instant_vs_restore_to_lun']:.0%} of the rate of a restore to a LUN, "
            f"not {SEQUENTIAL:.0%}"
        )
    if ratios["first_query_largest_vs_smallest"] > FIRST_QUERY:
        missed.append(
            f"the first query of {max(VOLUMES)} GiB takes {_answered(queries, max(VOLUMES)):.2f} s, that of "
            f"{min(VOLUMES)} GiB {_answered(queries, min(VOLUMES)):.2f} s"
        )
    if not apart:
        missed.append("writing to the LUN changed the repository")
    return missed


def table(found: Figures) -> str:
    """The result for people."""
    lines = [f"{'in order':22} {'MiB/s':>8}"]
    lines += [f"{name:22} {rate:8.0f}" for name, rate in found["mib_per_s"].items()]
    lines += ["", f"{'4 KiB at random, cold':22} {'median ms':>10} {'p95 ms':>10}"]
    lines += [f"{name:22} {each['median']:10.2f} {each['p95']:10.2f}" for name, each in found["random_ms"].items()]
    steps = list(next(iter(found["first_query_s"].values())))
    lines += ["", f"{'seconds until':22}" + "".join(f" {step:>10}" for step in steps)]
    for gib, each in found["first_query_s"].items():
        lines.append(f"{gib + ' GiB sparse':22}" + "".join(f" {each[step]:10.2f}" for step in steps))
    lines += ["", *(f"{name:32} {ratio:8.2f}" for name, ratio in found["ratios"].items())]
    return "\n".join(lines)


def _answered(queries: Queries, gib: int) -> float:
    return queries[str(gib)]["answered"]


def _p95(taken: t.Sequence[float]) -> float:
    return sorted(taken)[int(0.95 * len(taken))]

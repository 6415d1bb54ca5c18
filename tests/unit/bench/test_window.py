# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the freeze window's benchmark makes of the answers."""

from __future__ import annotations

import copy

import pytest
from bench import window_result

RUN = "isb-20261123T021500Z-4f1c2a"


def hold(start: float, end: float, poke: float) -> dict:
    return {
        "ok": True,
        "run_id": RUN,
        "hold_unbroken": True,
        "freeze_started": start,
        "frozen": start + 0.05,
        "thaw_started": end - 0.02,
        "thawed": end,
        "window_ms": (end - start) * 1000,
        "poke_ms": poke,
        "drivers": [{"name": "filesystem", "freeze_ms": 20.0, "thaw_ms": 4.0}],
    }


def answer() -> dict:
    servers = {"a": hold(100.0, 100.4, 60.0), "b": hold(100.01, 100.41, 80.0)}
    return {
        "freeze": {"servers": copy.deepcopy(servers)},
        "thaw": {"servers": copy.deepcopy(servers)},
        "snapshots": [{"storage_host": "s", "answer": {"ok": True, "stdout": "100.10\n100.16\n"}}],
        "seconds": {"freeze": 0.2, "snapshot": 0.1, "thaw": 0.15},
        "problems": [],
    }


def test_the_storages_call_is_told_apart() -> None:
    found = window_result.sample(answer(), RUN, ["a", "b"])
    assert (found["window"], found["storage_call"], found["storage_way"]) == (350.0, 60.0, 40.0)
    assert (found["freeze_poke"], found["freeze_poke_max"]) == (70.0, 80.0)
    assert found["driver_filesystem_freeze"] == 20.0


def test_a_point_that_proves_nothing_is_no_sample() -> None:
    broken = answer()
    broken["thaw"]["servers"]["b"]["hold_unbroken"] = False
    with pytest.raises(window_result.NotProven, match="b: its hold was broken"):
        window_result.sample(broken, RUN, ["a", "b"])


def test_targets() -> None:
    samples = {"3": [{"window": 100.0}] * 19 + [{"window": 500.0}] * 2, "30": [{"window": 900.0}] * 3}
    found = window_result.summary(samples)
    assert found["ratios"] == {
        "window_ms_3_median": 100.0,
        "window_ms_3_p95": 500.0,
        "window_ms_30_median": 900.0,
        "window_ms_30_p95": 900.0,
    }
    assert [text.partition(":")[0] for text in found["targets_missed"]] == ["3 servers", "30 servers"]


def test_percentiles_are_values_that_were_measured() -> None:
    assert window_result.percentile([3.0, 1.0, 2.0], 95) == 3.0
    assert window_result.percentile(list(range(1, 101)), 95) == 95

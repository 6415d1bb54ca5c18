# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the instant LUN's benchmark makes of its samples."""

from __future__ import annotations

import pytest
from bench import instant_result

SAMPLES = {
    "restore": [1.0, 1.0, 9.0],
    "restore_to_lun": [2.0, 2.2, 2.1],
    "instant_in_order": [3.0, 2.0, 2.5],
    "file_in_order": [1.25],
    "instant_random": [0.002] * 94 + [0.010] * 6,
    "file_random": [0.0005],
}
QUERIES = {str(gib): {"served": 0.5, "answered": 0.8} for gib in instant_result.VOLUMES}


def test_medians_ratios_and_targets() -> None:
    found = instant_result.summary(SAMPLES, 1 << 30, QUERIES, apart=True)
    assert found["ratios"]["instant_vs_restore_to_lun"] == pytest.approx(2.1 / 2.5)
    assert found["ratios"]["instant_vs_restore"] == pytest.approx(0.4)
    assert found["ratios"]["random_vs_file"] == pytest.approx(4.0)
    assert found["mib_per_s"]["restore"] == 1024 and "instant_random" not in found["mib_per_s"]
    assert found["random_ms"]["instant_random"] == pytest.approx({"median": 2.0, "p95": 10.0})
    assert found["targets_missed"] == [] and "instant_vs_before" not in found["ratios"]
    assert "100 GiB sparse" in instant_result.table(found)


def test_what_was_there_before() -> None:
    before = {"before_in_order": [5.0], "before_random": [0.008]}
    ratios = instant_result.summary({**SAMPLES, **before}, 1 << 30, QUERIES, apart=True)["ratios"]
    assert (ratios["instant_vs_before"], ratios["random_vs_before"]) == pytest.approx((2.0, 0.25))


def test_missed_targets_are_told() -> None:
    slow = {**SAMPLES, "instant_in_order": [4.3]}
    queries = {**QUERIES, "100": {"served": 0.5, "answered": 1.3}}
    missed = instant_result.summary(slow, 1 << 30, queries, apart=False)["targets_missed"]
    assert [text.split(" ")[0:3] for text in missed] == [
        ["the", "LUN", "is"],
        ["the", "first", "query"],
        ["writing", "to", "the"],
    ]
    assert "49%" in missed[0] and "1.30 s" in missed[1]

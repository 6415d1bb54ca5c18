# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Medians and ratios."""

from __future__ import annotations

import pytest
from bench import result
from bench.contender import FULL, RESTORE, VERIFY
from bench.measure import Sample

RATIOS = {
    "full_vs_restic",
    "full_vs_borg",
    "full_vs_benji",
    "full_vs_zstd_openssl",
    "full_vs_limit",
    "stored_vs_borg",
    "stored_compact_vs_restic",
    "compact_vs_restic",
    "incremental_1pct_vs_restic",
    "incremental_1pct_vs_borg",
    "incremental_1pct_read_amplification",
    "restore_vs_restic",
    "restore_vs_borg",
    "verify_vs_restic",
}
CONTENDERS = ("openisb", "openisb_compact", "restic", "borg", "benji", "casync", "zstd_openssl", "dd")


def sample(contender: str, operation: str, wall: float, stored: int = 100, read: int | None = None) -> Sample:
    """A sample of which only this matters."""
    return Sample(contender, operation, 0, wall, wall, 1, 1, stored, read)


def samples(without: tuple[str, ...] = ()) -> list[Sample]:
    """One round in which the engine takes 2 s, its compact setting 5 s, all others 10 s."""
    made = []
    for operation in (FULL, "incremental_1pct", RESTORE, VERIFY):
        for contender in CONTENDERS:
            if contender not in without:
                wall = {"openisb": 2.0, "openisb_compact": 5.0}.get(contender, 10.0)
                stored = {"openisb": 80, "openisb_compact": 60}.get(contender, 100)
                made.append(sample(contender, operation, wall, stored, 1200 if contender == "openisb" else None))
    return made


def test_all_ratios_and_which_way_they_go() -> None:
    ratios, reasons = result.ratios(result.medians(samples()), [1.8], 1000, set())
    assert set(ratios) == RATIOS
    assert reasons == {}
    assert ratios["full_vs_restic"] == pytest.approx(5)
    assert ratios["compact_vs_restic"] == pytest.approx(2)
    assert ratios["restore_vs_borg"] == pytest.approx(5)
    assert ratios["stored_vs_borg"] == pytest.approx(0.8)
    assert ratios["stored_compact_vs_restic"] == pytest.approx(0.6)
    assert ratios["full_vs_limit"] == pytest.approx(0.9)
    assert ratios["incremental_1pct_read_amplification"] == pytest.approx(1.2)


def test_left_out_peers_have_no_ratio_but_a_reason() -> None:
    rows = result.medians(samples(without=("borg", "benji")))
    ratios, reasons = result.ratios(rows, [1.8], 1000, {"borg", "benji"})
    assert set(ratios) == RATIOS
    missing = {name for name, value in ratios.items() if value is None}
    assert missing == {
        "full_vs_borg",
        "full_vs_benji",
        "incremental_1pct_vs_borg",
        "restore_vs_borg",
        "stored_vs_borg",
    }
    assert set(reasons) == missing
    assert "benji" in reasons["full_vs_benji"]


def test_a_peer_that_is_missing_for_no_reason_is_an_error() -> None:
    with pytest.raises(KeyError):
        result.ratios(result.medians(samples(without=("restic",))), [1.8], 1000, set())


def test_read_amplification_needs_what_was_read() -> None:
    rows = result.medians([item for item in samples() if item.contender != "openisb"])
    with pytest.raises(KeyError):
        result.ratios(rows, [1.8], 1000, set())


def test_medians_are_taken_over_the_rounds() -> None:
    rows = result.medians([sample("restic", FULL, wall, stored) for wall, stored in ((9, 5), (1, 7), (4, 6))])
    assert [(row.wall_s, row.stored_bytes, row.rounds) for row in rows] == [(4, 6, 3)]


def test_rows_of_one_operation_are_together() -> None:
    made = [sample(name, operation, 1) for name in ("a", "b") for operation in (FULL, RESTORE)]
    rows = result.medians(made)
    assert [(row.operation, row.contender) for row in rows] == [
        (FULL, "a"),
        (FULL, "b"),
        (RESTORE, "a"),
        (RESTORE, "b"),
    ]


def test_the_table_names_every_row_and_missing_ratios_their_reason() -> None:
    rows = result.medians(samples())
    text = result.table(rows, 100 << 20)
    assert len(text.splitlines()) == 1 + len(rows)
    assert result.ratio_lines({"x": None, "y": 2.0}, {"x": "left out"}).splitlines()[0].endswith("left out")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What production notices of a run, from the counts that were watched."""

from __future__ import annotations

import pytest
from bench import production

#: A transaction every 10 ms, but for half a second from 2.0 s on.
POINTS = [(each / 100, each) for each in range(1, 201)] + [(2.5 + each / 100, 200 + each) for each in range(1, 101)]


def test_the_longest_stall_is_the_one_that_touches_the_time_asked_for():
    assert production.longest_stall(POINTS, 1.0, 3.0) == pytest.approx(0.51)
    assert production.longest_stall(POINTS, 2.2, 2.3) == pytest.approx(0.51)
    assert production.longest_stall(POINTS, 0.0, 1.0) == pytest.approx(0.01)


def test_throughput_of_a_part():
    assert production.throughput(POINTS, 0.0, 2.0) == pytest.approx(100)
    assert production.throughput(POINTS, 1.0, 3.5) == pytest.approx(80, rel=0.01)
    with pytest.raises(SystemExit, match="the load was not seen"):
        production.throughput(POINTS, 7.0, 8.0)


def test_a_line_that_was_cut_off_and_a_database_that_is_not_read_yet_do_not_count(tmp_path):
    (tmp_path / "fs1.tsv").write_text("1000000\t0\n2000000\t700\n%GTM-I-TEXT\n3000000\t701\n4000000\t7")
    watch = production.Watch(None, tmp_path)
    watch.processes = {"fs1": None}
    assert watch.points() == {"fs1": [(2.0, 700), (3.0, 701)]}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stall_s": 0.41}, "fs1: no transaction for 0.41 s, the window was 0.200 s"),
        ({"share": 0.79}, "fs1: 79% of the transactions while the backup read"),
        ({}, ""),
    ],
)
def test_what_production_may_not_notice(changes, text):
    run = {"window_s": 0.2, "servers": {"fs1": {"stall_s": 0.39, "share": 0.81, **changes}}}
    assert production.problems(run) == ([text] if text else [])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clock that is off stops a run before anything is armed, and is named."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.clocks import clock_problems, hosts_with_clocks


def told(ahead, bound=0.1):
    return {"ok": True, "ahead": ahead, "bound": bound}


RIGHT = {"fs1": told(0.0), "storage1": told(-0.3), "backup1": told(0.0)}


def test_clocks_that_are_about_right_are_no_problem():
    assert clock_problems(RIGHT, 60) == []
    assert clock_problems({**RIGHT, "fs2": told(59.0)}, 60) == []
    assert clock_problems({}, 60) == []


@pytest.mark.parametrize(("ahead", "says"), [(3600.0, "ahead of"), (-315360000.0, "behind")])
def test_the_host_whose_clock_is_off_is_named_with_offset_cause_and_way_out(ahead, says):
    (text,) = clock_problems({**RIGHT, "storage1": told(ahead)}, 60)
    assert text.startswith(f"storage1: its clock is {abs(ahead - 0.0):.1f} s {says} most hosts' (give or take 0.1 s)")
    assert "clocks may differ by 60 s" in text
    assert "chronyc makestep" in text and "preflight_clock_limit" in text


def test_the_bound_can_be_widened():
    assert clock_problems({**RIGHT, "storage1": told(100.0)}, 60) != []
    assert clock_problems({**RIGHT, "storage1": told(100.0)}, 200) == []


def test_where_the_controllers_own_clock_is_off_it_is_the_one_that_is_named():
    (text,) = clock_problems({name: told(-3600.0) for name in ("fs1", "fs2", "storage1", "backup1")}, 60)
    assert text.startswith("the controller: its clock is 3600.0 s ahead of most hosts'")


def test_only_what_is_wrong_beyond_doubt_stops_a_run():
    """An answer that took two minutes says nothing of a minute."""
    assert clock_problems({**RIGHT, "fs2": told(70.0, bound=60.0)}, 60) == []
    assert clock_problems({**RIGHT, "fs2": told(200.0, bound=60.0)}, 60) != []


def test_a_clock_that_cannot_be_read_is_told():
    (text,) = clock_problems({**RIGHT, "fs2": {"ok": False, "error": "no answer within 30 s"}}, 60)
    assert text.startswith("fs2: its clock could not be read: no answer within 30 s: ")
    assert text.endswith("raise preflight_clock_timeout")


def test_the_hosts_that_a_run_reaches_are_asked():
    groups = {
        "file_servers": ["fs1", "fs2", "fs3"],
        "storage_hosts": ["storage1", "storage2"],
        "backup_servers": ["backup1"],
        "listeners": ["backup1"],
        "rings": ["ring1"],
    }
    reached = {"isb_drivers": [{"name": "filesystem"}], "preflight_found": {"server": {"checks": []}}}
    hostvars = {name: dict(reached) for name in ("fs1", "storage1", "backup1", "ring1")}
    hostvars["fs2"] = dict(reached, isb_drivers=[])  # its ring freezes it
    hostvars["fs3"] = {"isb_drivers": [{"name": "filesystem"}]}  # did not answer, and is told of as such
    hostvars["storage2"] = {"preflight_found": {"storage": {"problem": "no pool"}}}
    assert hosts_with_clocks(hostvars, groups) == ["backup1", "storage1", "fs1", "ring1"]

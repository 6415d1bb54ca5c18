# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks are compared with the listener's, and told only where they are wrong beyond doubt."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.action.consistency_point import clocks, skews

ANSWERS = {
    "listener": {"ok": True, "ahead": 10.0, "bound": 0.1},
    "fs1": {"ok": True, "ahead": 10.05, "bound": 0.2},
    "fs2": {"ok": True, "ahead": 8.0, "bound": 0.1},
    "fs3": {"ok": False, "error": "cannot be reached"},
}


def test_each_clock_is_compared_with_the_listeners():
    found = clocks(ANSWERS, "listener")
    assert found == {"fs1": {"ahead": 0.05, "bound": 0.3}, "fs2": {"ahead": -2.0, "bound": 0.2}}


def test_nothing_is_told_without_the_listener():
    assert clocks({"fs1": ANSWERS["fs1"], "listener": {"ok": False, "error": "gone"}}, "listener") == {}


def test_only_what_is_wrong_beyond_doubt_is_told():
    found = clocks(ANSWERS, "listener")
    (text,) = skews(found, 1.0)
    assert text.startswith("the clock of fs2 is 2.000 s behind the listener's (give or take 0.200 s)")
    assert skews(found, 1.9) == []

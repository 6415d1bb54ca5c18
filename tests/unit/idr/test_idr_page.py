# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page of a drill's report shows, before it is laid out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.page import (
    LANE,
    NO_BREAK,
    TICKS,
    idr_page,
    ticks,
)
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.report import idr_report

from . import drill_records as drills
from .drill_records import records


def page_of(events: list[drills.Event]) -> dict[str, Any]:
    """The page of a drill of these events, without what only keeps spans of time in one line."""
    text = json.dumps(idr_page(idr_report(records(events))), ensure_ascii=False)
    page: dict[str, Any] = json.loads(text.replace(NO_BREAK, " "))
    return page


def test_a_good_drill_in_a_sentence() -> None:
    page = page_of(drills.good())
    assert page["headline"] == (
        "All 3 servers were brought into use on dr1 from copies of one consistency point, "
        "and all 11 checks of them passed."
    )
    assert [figure["value"] for figure in page["figures"]] == ["3 of 3", "11 of 11", "4 min 41 s", "16.8 s"]
    assert [figure["ok"] for figure in page["figures"]] == [True] * 4


def test_a_bad_drill_in_a_sentence() -> None:
    page = page_of(drills.bad())
    assert "no proof" in page["headline"] and "3 of 3 servers failed (fs1, fs2, fs3); " in page["headline"]
    assert [figure["ok"] for figure in page["figures"]] == [False] * 4
    assert page["teardown"] == [{"host": "dr1", "ok": False, "text": "the mount /idr/fs3/m; process 48113: nbdfuse"}]
    fs3 = next(server for server in page["servers"] if server["name"] == "fs3")
    assert fs3["rto"] == {"measured": "–", "against": "not reached (target 5 min)", "ok": False}
    assert page["servers"][0]["rto"]["against"] == "not recovered (target 5 min)"


def test_a_failover_is_called_one() -> None:
    events = drills.bad()
    events[0][2]["mode"] = "failover"
    page = page_of(events)
    assert (page["title"], page["kind"]) == ("Failover report", "failover")
    assert page["headline"].startswith("This failover is no proof that the servers were recovered. ")


def test_rings_are_called_so_once() -> None:
    assert [ring["name"] for ring in page_of(drills.large(2))["rings"]] == ["ring-b", "ring-a"]
    events = drills.good()
    events[0][2]["servers"]["fs2"]["ring"] = "b"
    assert [ring["name"] for ring in page_of(events)["rings"]] == ["Servers of no ring", "ring b"]


def test_a_kept_drill_is_not_torn_down_and_that_is_no_fault() -> None:
    events = drills.without(drills.good(), "torn_down")
    events[0][2]["keep"] = True
    assert page_of(events)["teardown"] == [{"host": "dr1", "ok": None, "text": "the volumes stay in use"}]


def test_a_disaster_that_was_declared_long_before() -> None:
    assert page_of(drills.good())["late"] == ""
    assert page_of(drills.large(2))["late"] == "2 h 37 min"


@pytest.mark.parametrize("span", [0.001, 0.7, 1, 5.9, 41.2, 61, 600, 3601, 40000, 86400, 10 * 86400, 400 * 86400])
def test_ticks_fit_a_phone_and_can_be_read(span: float) -> None:
    marks = ticks(span)
    assert 1 <= len(marks) <= TICKS + 1
    assert marks[0]["x"] == 0 and max(mark["x"] for mark in marks) <= 100
    assert len({mark["label"] for mark in marks}) == len(marks)


def test_bars_are_to_scale_and_never_cover_each_other() -> None:
    events = drills.good()
    report = idr_report(records(events))
    chart = idr_page(report)["charts"][0]
    phases = sorted(report["servers"]["fs1"]["phases"], key=lambda phase: phase["start"])
    for shape, phase in zip(chart["bars"], phases, strict=True):
        assert shape["x"] == pytest.approx(100 * phase["start"] / report["seconds"], abs=0.01)
        assert shape["width"] == pytest.approx(
            max(0.5, 100 * (phase["end"] - phase["start"]) / report["seconds"]), abs=0.01
        )
    assert chart["height"] == LANE
    for item in report["servers"]["fs1"]["phases"]:
        item["start"] = 0.0
    lanes = idr_page(report)["charts"][0]
    assert lanes["height"] == len(phases) * LANE
    assert len({shape["y"] for shape in lanes["bars"]}) == len(phases)


def test_marks_tell_when_a_server_was_ready_and_when_it_was_given_up() -> None:
    charts = {chart["name"]: chart for chart in page_of(drills.bad())["charts"]}
    assert [mark["kind"] for mark in charts["fs1"]["marks"]] == ["ready"]
    assert [mark["title"] for mark in charts["fs3"]["marks"]] == ["given up after 9.2 s"]
    assert [shape["ok"] for shape in charts["fs1"]["bars"]].count(False) == 1
    assert "failed" in charts["fs1"]["told"] and charts["fs3"]["told"].startswith("nothing was done")
    assert [shape["phase"] for shape in charts["all servers"]["bars"]] == ["check", "teardown"]


def test_the_legend_names_what_is_drawn_and_nothing_else() -> None:
    assert [entry["kind"] for entry in page_of(drills.good())["legend"]] == ["attach", "check", "teardown", "ready"]
    assert [entry["kind"] for entry in page_of(drills.bad())["legend"]] == ["attach", "check", "bad", "ready", "failed"]


def test_long_lists_of_servers_are_cut_in_the_head() -> None:
    events = [event for event in drills.large(6) if event[1] != "ready"]
    figure = page_of(events)["figures"][0]
    assert figure["value"] == "0 of 6" and figure["note"].endswith("-04 and 2 more failed")


def test_texts_are_escaped_all_the_way_down() -> None:
    events = drills.good()
    events[0][2]["who"]["user"] = "<b>&"
    drills.find(events, "check", volume="fs1/m")["check"].update(output="<script>", files=[], what="\"'")
    page = page_of(events)
    assert ["Run by", "&lt;b&gt;&amp; on awx-3.example.org"] in page["facts"]
    check = page["checks"][0]["checks"][0]
    assert (check["output"], check["what"]) == ("&lt;script&gt;", "&quot;&#x27;")


def test_no_text_turns_a_line_around() -> None:
    events = drills.good()
    drills.find(events, "check", volume="fs1/m")["check"].update(output="a\nb\u202e\x1b[2J", files=[], what="c\u202e")
    check = page_of(events)["checks"][0]["checks"][0]
    assert (check["output"], check["what"]) == ("a\nb\\u202e\\x1b[2J", "c\\u202e")


def test_a_command_that_was_ended_has_no_status() -> None:
    events = drills.good()
    drills.find(events, "check", volume="fs1/m")["check"]["commands"][0].update(rc=None, seconds=None)
    commands = page_of(events)["checks"][0]["checks"][0]["commands"]
    assert commands == [{"argv": "e2fsck -fn /dev/loop7", "rc": "–", "seconds": "–"}]


def test_how_a_volume_came_up() -> None:
    events = drills.good()
    drills.find(events, "lun", volume="fs1/files")["method"] = "instant"
    facts = [dict(volume["facts"]) for volume in page_of(events)["volumes"]]
    assert [fact["Device"] for fact in facts][:2] == ["/dev/loop7 by nbdfuse, up in 1.1 s", "/dev/loop7, up in 1.1 s"]

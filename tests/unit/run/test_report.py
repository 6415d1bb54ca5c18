# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves in the journal, as report and as text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.catalog import bases, choose_savesets
from ansible_collections.openisb.backup.plugins.module_utils.control.report import ReportError, run_report
from ansible_collections.openisb.backup.plugins.module_utils.control.text import (
    catalog_table,
    dead_runs_summary,
    rate,
    recover_summary,
    run_summary,
    size,
)

RUN = "isb-20261123T021500Z-4f1c2a"
MIB = 1024**2


def id_of(server, volume="m"):
    return f"{server}-{volume}".encode().hex().ljust(32, "0")[:32]


def saveset(server, volume="m", **changes):
    stats = {"bytes_read": 20 * MIB, "bytes_new": 3 * MIB, "bytes_stored": MIB, "seconds": 2.0}
    return {
        "id": id_of(server, volume),
        "volume": f"{server}/{volume}",
        "server": server,
        "run_id": RUN,
        "time": "2026-11-23T02:15:03+00:00",
        "sequence": 1,
        "verdict": "application-consistent",
        "size": 384 * MIB,
        "stats": stats,
        "metadata": {},
        "origin": {"method": "full", "source_id": f"{RUN}/6000/u", "reason": "there is no base snapshot of run isb-x"},
        **changes,
    }


def records(*events):
    """Records of a run, one second apart."""
    return [
        {
            "seq": number,
            "time": f"2026-11-23T02:15:{number:02d}.000000+00:00",
            "run_id": RUN,
            "event": event,
            "data": data,
            "hash": f"hash-{number}",
        }
        for number, (event, data) in enumerate(events)
    ]


def thawed(verdict="application-consistent", problems=()):
    servers = {name: {"verdict": verdict, "window_ms": 80.0} for name in ("fs1", "fs2")}
    return {
        "verdict": verdict,
        "time": "2026-11-23T02:15:02.500+00:00",
        "window_ms": 90.0,
        "storage_ms": 10.0,
        "servers": servers,
        "problems": list(problems),
    }


@pytest.fixture
def good():
    return records(
        ("opened", {"servers": ["fs1", "fs2"]}),
        ("freezing", {"servers": ["fs1", "fs2"]}),
        ("thawed", thawed()),
        ("backup", {"servers": ["fs1", "fs2"]}),
        ("saveset", {"server": "fs1", "saveset": saveset("fs1")}),
        ("cleaned", {"server": "fs1"}),
        ("saveset", {"server": "fs2", "saveset": saveset("fs2")}),
        ("cleaned", {"server": "fs2"}),
    )


def test_a_good_run(good):
    report = run_report(good, "/repository")
    assert report["verdict"] == "application-consistent"
    assert report["exit_status"] == 0
    assert report["problems"] == []
    assert report["left"] == []
    assert report["seconds"] == 7.0
    assert report["freeze_window_ms"] == 90.0
    fs1 = report["servers"]["fs1"]
    assert (fs1["bytes_read"], fs1["bytes_new"], fs1["bytes_stored"]) == (20 * MIB, 3 * MIB, MIB)
    assert fs1["seconds"] == {"prepare": 1.0, "freeze_window": 0.08, "backup": 1.0, "cleanup": 1.0}
    assert report["timeline"][5] == {"at": 5.0, "event": "cleaned", "server": "fs1", "ring": ""}
    assert report["journal_head"] == "hash-7"


def test_a_clock_that_is_wrong_is_told_and_keeps_no_run_from_being_good(good):
    point = good[2]["data"]
    point.update(clocks={"fs1": {"ahead": 2.5, "bound": 0.01}}, warnings=["the clock of fs1 is 2.500 s ahead"])
    report = run_report(good, "/repository")
    assert (report["exit_status"], report["clocks"]["fs1"]["ahead"]) == (0, 2.5)
    assert "Warning            the clock of fs1 is 2.500 s ahead" in run_summary(report)


def test_a_server_that_moved_and_a_backup_server_that_was_left_out_are_told(good):
    """All is backed up, and yet the site is not what it should be."""
    plan = {"fs1": {"backup_server": "b1"}, "fs2": {"backup_server": "b2"}}
    opened = {"servers": ["fs1", "fs2"], "plan": plan, "left_out": {"b3": "did not answer"}}
    why = "fs2: its host has not answered for 300 s: timed out"
    moved = {"server": "fs2", "from": "b2", "to": "b1", "problem": why}
    told = [(record["event"], record["data"]) for record in good]
    report = run_report(records(("opened", opened), *told[1:6], ("moved", moved), *told[6:]), "/repository")
    assert (report["exit_status"], report["problems"]) == (0, [])
    assert report["degraded"] == [
        "backup server b3 was not used as it should be: did not answer",
        f"fs2 moved from backup server b2 to b1: {why}",
    ]
    assert report["servers"]["fs1"]["backup_server"] == report["servers"]["fs2"]["backup_server"] == "b1"
    assert report["servers"]["fs2"]["moves"] == [{"from": "b2", "to": "b1", "problem": why}]
    text = run_summary(report)
    assert f"Degraded           fs2 moved from backup server b2 to b1: {why}" in text
    assert "Backed up on" not in text
    report["servers"]["fs2"]["backup_server"] = "b2"
    assert "Backed up on b1: fs1\nBacked up on b2: fs2\n" in run_summary(report)


def test_a_run_of_which_the_journal_lacks_the_beginning(good):
    with pytest.raises(ReportError, match=rf"what run {RUN} was to do: its first record is 'freezing', .*restore"):
        run_report(good[1:], "/repository")
    with pytest.raises(ReportError, match="no run with this id: correct the id or the path"):
        run_report([], "/repository")


def test_what_recover_did_is_told_by_host():
    hostvars = {"fs1": {"recover_done": ["thaw, and end the holder of run isb-x"]}, "storage1": {}}
    text = recover_summary(hostvars, ["fs1", "storage1"], ["storage1"], False)
    assert text.splitlines() == [
        "What was done:",
        "  fs1: thaw, and end the holder of run isb-x",
        "  storage1: not reached, or not cleaned up; see above",
    ]
    assert recover_summary({"fs1": {}}, ["fs1"], [], True).startswith(
        "What would be done (nothing was done):\n  nothing"
    )


def test_dead_runs_and_those_left_alone_are_told():
    assert dead_runs_summary({"runs": [], "problems": []}) == "Dead: no run"
    told = dead_runs_summary({"runs": ["isb-x"], "problems": ["run isb-y is still running"]})
    assert told == "Dead: isb-x\nLeft alone: run isb-y is still running"


def test_a_server_whose_backup_failed(good):
    good[6]["event"] = "failed"
    good[6]["data"] = {"server": "fs2", "problem": "the network is gone"}
    report = run_report(good, "/repository")
    assert report["exit_status"] == 2
    assert report["problems"] == ["fs2: the network is gone"]
    assert report["servers"]["fs2"]["verdict"] == "failed"
    assert report["servers"]["fs1"]["verdict"] == "application-consistent"
    assert "fs2: the network is gone" in run_summary(report)


def test_a_server_that_was_not_cleaned_up_keeps_the_run_open(good):
    report = run_report(good[:-1], "/repository")
    assert report["left"] == ["fs2"]
    assert report["exit_status"] == 2
    assert "recover.yml" in report["problems"][0]


def test_a_crash_consistent_run_is_not_a_success(good):
    good[2]["data"] = thawed("crash-consistent", ["fs2: its hold was broken before the thaw (ttl)"])
    report = run_report(good, "/repository")
    assert report["verdict"] == "crash-consistent"
    assert report["exit_status"] == 2


def test_a_run_that_ended_before_its_consistency_point(good):
    report = run_report(good[:2], "/repository")
    assert report["verdict"] == "failed"
    assert report["freeze_window_ms"] is None
    assert "no server was frozen" in run_summary(report)


def test_summary_tells_what_a_person_wants_to_know(good):
    text = run_summary(run_report(good, "/repository"))
    assert text.startswith(f"Run {RUN}: APPLICATION-CONSISTENT")
    assert "90 ms, 10 ms of it in the storage" in text
    row = next(line for line in text.splitlines() if line.startswith("fs1/m"))
    for cell in ("application-consistent", "80 ms", "384.0 MiB", "20.0 MiB", "3.0 MiB", "1.0 MiB", "10.0 MiB/s"):
        assert cell in row
    assert "clean up fs2" in text
    assert f"restore.yml -e restore_run_id={RUN} -e restore_server=fs1" in text


def test_summary_tells_how_each_volume_was_read(good):
    origin = {"method": "changed", "since": "isb-20261122T021500Z-90be12/6000/v", "missed": 0}
    good[6]["data"]["saveset"] = saveset("fs2", "files", origin=origin)
    report = run_report(good, "/repository")
    assert report["servers"]["fs2"]["volumes"][0]["origin"] == {"source_id": "", "reason": "", **origin}
    lines = run_summary(report).splitlines()
    assert "fs1/m      full read: there is no base snapshot of run isb-x" in lines
    assert "fs2/files  read 20.0 MiB of 384.0 MiB: changed extents since isb-20261122T021500Z-90be12" in lines


def test_summary_tells_where_reading_was_held_back(good):
    stats = {**saveset("fs2")["stats"], "slow_reads": 41, "seconds_paused": 0.73}
    good[6]["data"]["saveset"] = saveset("fs2", stats=stats)
    report = run_report(good, "/repository")
    volumes = [report["servers"][name]["volumes"][0] for name in ("fs1", "fs2")]
    assert [(item["slow_reads"], item["seconds_paused"]) for item in volumes] == [(0, 0.0), (41, 0.73)]
    read = "full read: there is no base snapshot of run isb-x"
    held = "held back for 0.7 s of 2.0 s: 41 reads took longer than block_backup_read_latency"
    lines = run_summary(report).splitlines()
    assert f"fs1/m  {read}" in lines and f"fs2/m  {read}; {held}" in lines


def test_a_storage_that_tells_too_little_is_a_problem(good):
    good[6]["data"]["saveset"]["origin"].update(reason="the changed extents are wrong: 1 of 9", missed=1)
    report = run_report(good, "/repository")
    assert report["exit_status"] == 2
    (problem,) = report["problems"]
    assert problem.startswith("fs2/m: the storage did not report all changes: the changed extents are wrong")


def test_bars_never_leave_the_chart(good):
    for line in run_summary(run_report(good, "/repository")).splitlines():
        if "│" in line:
            assert len(line.split("│")[1]) == 60


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * MIB // 2, "1.5 MiB"), (2**50, "1024.0 TiB")],
)
def test_sizes_for_people(count, text):
    assert size(count) == text


def test_no_rate_is_a_dash():
    assert rate(None) == "-"
    assert rate(1024) == "1.0 KiB/s"


def fitting(*savesets):
    """Savesets in order, none of them set aside."""
    return [dict(entry, aside="", unknown=False) for entry in savesets]


def test_latest_saveset_of_each_volume_is_chosen():
    older, newer = saveset("fs1", id="0" * 32), saveset("fs1", id="1" * 32)
    other = saveset("fs1", "files")
    chosen = choose_savesets(fitting(older, newer, other, saveset("fs2")), "fs1", "")
    assert [item["id"] for item in chosen["savesets"]] == [id_of("fs1", "files"), "1" * 32]
    assert chosen["problem"] == ""


def test_one_volume_is_chosen():
    chosen = choose_savesets(fitting(saveset("fs1"), saveset("fs1", "files")), "fs1", "files")
    assert [item["volume"] for item in chosen["savesets"]] == ["fs1/files"]


@pytest.mark.parametrize(("servers", "volume"), [("fs9", ""), ("fs1", "nothing"), ("fs1,fs9", "")])
def test_what_is_not_there_is_named(servers, volume):
    problem = choose_savesets(fitting(saveset("fs1")), servers, volume)["problem"]
    assert "There is no saveset" in problem
    assert servers.split(",")[-1] in problem
    assert volume in problem


def test_the_base_of_a_volume_is_of_its_latest_saveset():
    savesets = fitting(
        saveset("fs1", run_id="older"), saveset("fs1", run_id="newer"), saveset("fs2", "files", run_id="o")
    )
    volumes = [{"name": "m", "serial": "6001"}, {"name": "files", "serial": "6002"}]
    assert bases(volumes, "fs1", savesets) == {"6001": "newer", "6002": ""}


def test_catalog():
    lines = catalog_table([saveset("fs1")]).splitlines()
    assert len(lines) == 3
    assert "2026-11-23 02:15:03 UTC" in lines[2]
    assert lines[2].split()[-2:] == ["never", RUN]
    proven = saveset("fs1", proven={"drill": "idr-1", "time": "2026-11-24T06:00:00+00:00", "server": "fs1"})
    assert catalog_table([proven]).splitlines()[2].split()[-2:] == ["2026-11-24", RUN]
    aside = catalog_table([saveset("fs1", aside="its time is wrong")]).splitlines()
    assert len(aside) == 4 and aside[3].startswith("Set aside: saveset ") and aside[3].endswith(": its time is wrong")
    ahead = catalog_table([saveset("fs1", ahead="its time is in the future")]).splitlines()
    assert ahead[-1].startswith("Ahead of the clock: saveset ") and RUN in ahead[-1]
    assert catalog_table([]) == "There is no saveset."


def test_the_summary_that_make_isb_shows(good, tmp_path):
    report = tmp_path / "isb.json"
    report.write_text(json.dumps(run_report(good, "/repository")))
    script = Path(__file__).parents[3] / "scripts/summary.py"
    done = subprocess.run([sys.executable, script, report], capture_output=True, text=True, check=True)
    assert done.stdout == run_summary(json.loads(report.read_text())) + "\n"

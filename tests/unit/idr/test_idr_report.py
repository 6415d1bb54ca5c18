# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill's journal proves, and all that keeps it from being a proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.report import ReportError, idr_report
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.summary import idr_summary
from ansible_collections.openisb.backup.plugins.module_utils.control.moments import duration, moment

from . import drill_records as drills
from .drill_records import DRILL, OTHER_RUN, RUN, Event, find, records, without

Change = Callable[[list[Event]], list[Event] | None]


def report_of(events: list[Event], **options: Any) -> dict[str, Any]:
    """The report of a drill of these events."""
    return idr_report(records(events), **options)


def server_of(events: list[Event], server: str = "fs1") -> dict[str, Any]:
    """What the record `opened` plans for a server."""
    return events[0][2]["servers"][server]


def test_a_drill_that_passes() -> None:
    chain = records(drills.good())
    report = idr_report(chain, versions={"ansible-core": "2.19.14"})
    assert (report["verdict"], report["exit_status"], report["problems"], report["left"]) == ("passed", 0, [], [])
    assert report["drill"] == DRILL
    assert report["who"] == {"user": "m.okafor", "host": "awx-3.example.org"}
    assert (report["journal_head"], report["journal_seq"], report["records"]) == (
        chain[-1]["hash"],
        len(chain),
        len(chain),
    )
    assert report["versions"] == {"ansible-core": "2.19.14"}
    assert report["torn_down"] == {"dr1": []}
    assert [entry["verdict"] for entry in report["servers"].values()] == ["passed"] * 3
    assert report["timeline"][0] == {"at": 0.0, "event": "opened", "server": "", "what": ""}
    assert report["timeline"][-1]["event"] == "torn_down"


def test_rpo_and_rto_are_measured_from_the_declaration() -> None:
    events = drills.good()
    report = report_of(events)
    fs2 = report["servers"]["fs2"]
    # Of the latest consistency point at 20:55:19.412 to 21:00:00, and from there to the record `ready`.
    assert fs2["rpo_s"] == 280.588
    (ready,) = [at for at, event, data in events if event == "ready" and data["server"] == "fs2"]
    assert fs2["rto_s"] == pytest.approx(ready, abs=0.001)
    assert (fs2["rpo_ok"], fs2["rto_ok"]) == (True, True)
    events[0][2]["declared"] = "2026-11-28T20:58:00+00:00"
    earlier = report_of(events)["servers"]["fs2"]
    assert earlier["rpo_s"] == 160.588
    assert earlier["rto_s"] == pytest.approx(ready + 120, abs=0.001)


def test_the_group_is_its_worst_server_and_what_was_checked_over_all() -> None:
    events = drills.good()
    server_of(events, "fs3")["volumes"][0]["consistency_point"] = "2026-11-28T20:50:00+00:00"
    group = report_of(events)["group"]
    assert group["rpo_s"] == 600.0
    (checked,) = [at for at, event, data in events if event == "check" and not data["server"]]
    assert group["rto_s"] == pytest.approx(checked, abs=0.001)
    assert [check["kind"] for check in group["checks"]] == ["command"]


def dated(events: list[Event], time: str) -> list[Event]:
    """All copies are of that moment; the disaster was declared at 21:00:00."""
    for server in events[0][2]["servers"].values():
        for volume in server["volumes"]:
            volume["consistency_point"] = time
    return events


@pytest.mark.parametrize(("time", "ahead"), [("2027-11-28T21:00:00+00:00", 365 * 86400), ("2026-11-28T21:01:01Z", 61)])
def test_a_copy_from_after_the_disaster_proves_no_rpo(time: str, ahead: int) -> None:
    """It passed, with an RPO of 0 s."""
    report = report_of(dated(drills.good(), time))
    assert (report["verdict"], report["exit_status"]) == ("failed", 2)
    assert (report["group"]["rpo_s"], report["group"]["rpo_ok"]) == (-ahead, False)
    assert report["servers"]["fs1"]["rpo_ok"] is False
    (told,) = [text for text in report["problems"] if text.startswith("fs2/m: ")]
    assert f"run {RUN}" in told and time in told and "no RPO is proven" in told
    assert "RPO, all servers   -" in idr_summary(report)


def test_one_copy_of_many_from_after_the_disaster_fails_it() -> None:
    events = drills.good()
    server_of(events, "fs2")["volumes"][0]["consistency_point"] = "2027-11-28T20:55:19+00:00"
    report = report_of(events)
    assert [name for name, entry in report["servers"].items() if entry["verdict"] == "failed"] == ["fs2"]
    assert report["verdict"] == "failed" and report["servers"]["fs2"]["rpo_s"] < 0


def test_clocks_may_be_a_little_apart_and_no_measure_is_made_nicer_for_it() -> None:
    report = report_of(dated(drills.good(), "2026-11-28T21:00:05+00:00"))
    assert report["verdict"] == "passed"
    assert report["group"]["rpo_s"] == -5.0
    assert "RPO, all servers   -5.0 s" in idr_summary(report)


def test_a_server_that_was_ready_before_the_disaster_proves_no_rto() -> None:
    """The journal's host is behind the controller."""
    events = drills.good()
    events[0][2]["declared"] = "2026-11-28T22:00:00+00:00"
    report = report_of(events)
    assert report["verdict"] == "failed" and report["servers"]["fs1"]["rto_ok"] is False
    assert [text for text in report["problems"] if text.startswith("fs1: it was ready 59 min")]


def test_a_copy_out_of_order_proves_no_rpo() -> None:
    events = drills.good()
    why = "its time is before that of saveset 17 (2026-11-28T20:00:00Z), which came earlier"
    server_of(events, "fs2")["volumes"][0]["aside"] = why
    report = report_of(events)
    assert report["servers"]["fs2"]["volumes"][0]["aside"] == why
    (told,) = report["problems"]
    assert why in told and f"run {RUN}" in told and report["servers"]["fs2"]["verdict"] == "failed"


def test_no_target_is_neither_met_nor_missed() -> None:
    events = drills.good()
    server_of(events).update(rpo_target_s=None, rto_target_s=None)
    events[0][2]["targets"] = {}
    report = report_of(events)
    assert report["verdict"] == "passed"
    assert [report["servers"]["fs1"][key] for key in ("rpo_ok", "rto_ok")] == [None, None]
    assert [report["group"][key] for key in ("rpo_ok", "rto_ok")] == [None, None]


def test_volumes_name_what_they_are_made_of_and_where_they_are() -> None:
    volume = report_of(drills.good())["servers"]["fs1"]["volumes"][1]
    assert volume["volume"] == "fs1/files"
    assert volume["digest"] == drills.hexed("digest fs1/files")
    assert (volume["run_id"], volume["verdict"], volume["size"]) == (RUN, "application-consistent", 4 * 1024**3)
    assert (volume["mount"], volume["dr_mount"]) == ("/srv/files", "/idr/fs1/files")
    assert (volume["up"], volume["device"], volume["type"], volume["method"]) == (True, "/dev/loop7", "ext4", "nbdfuse")
    assert volume["restored"] is None


def test_phases_end_with_their_records_and_last_as_long_as_these_say() -> None:
    events = drills.good()
    phases = report_of(events)["servers"]["fs1"]["phases"]
    assert [phase["phase"] for phase in phases] == ["attach", "attach", "check", "check", "check", "check"]
    (first,) = [at for at, event, data in events if event == "lun" and data["volume"] == "fs1/m"]
    assert phases[0] == {
        "phase": "attach",
        "what": "fs1/m",
        "start": pytest.approx(first - 1.05, abs=0.001),
        "end": pytest.approx(first, abs=0.001),
        "ok": True,
    }
    group = report_of(events)["group"]["phases"]
    assert [(phase["phase"], phase["what"]) for phase in group] == [
        ("check", "command: /lab/check --mounted"),
        ("teardown", "dr1"),
    ]
    assert group[1]["start"] == group[0]["end"]


def test_results_that_are_recorded_together_keep_their_own_moments() -> None:
    """One task records the checks of a server, when the last of them has ended."""
    alone = drills.good()
    last = max(at for at, event, data in alone if event == "check" and data["server"] == "fs1")
    together = []
    for at, event, data in alone:
        mine = event == "check" and data["server"] == "fs1"
        together.append((last, event, {**data, "ago": round(last - at, 6)}) if mine else (at, event, data))
    together.sort(key=lambda event: event[0])
    expected, report = (report_of(events)["servers"]["fs1"] for events in (alone, together))
    assert [phase for phase in report["phases"] if phase["phase"] == "check"] == [
        phase for phase in expected["phases"] if phase["phase"] == "check"
    ]
    assert [check["ended"] for check in report["checks"]] == [check["ended"] for check in expected["checks"]]
    assert "ago" not in report["checks"][0]
    assert report["rto_s"] == expected["rto_s"]


def test_a_restore_that_ended_before_its_volume_was_mounted() -> None:
    report = report_of(drills.large(4))
    assert (report["verdict"], report["problems"]) == ("passed", [])
    entry = report["servers"]["meditech-file-server-02"]
    assert [phase["phase"] for phase in entry["phases"]] == ["restore", "attach", "check", "check"]
    assert entry["volumes"][0]["restored"]["seconds"] == 1025.0
    assert [ring["ring"] for ring in report["group"]["rings"]] == ["ring-b", "ring-a"]


def missing_lun(events: list[Event]) -> list[Event]:
    return without(events, "lun", volume="fs1/files")


def not_restored(events: list[Event]) -> None:
    events[0][2]["source"] = "restore"


def failed_check(events: list[Event]) -> None:
    find(events, "check", volume="fs1/m")["check"].update(ok=False, detail="e2fsck found errors")


def failed_check_without_a_reason(events: list[Event]) -> None:
    find(events, "check", volume="fs1/m")["check"].update(ok=False, detail="")


def failed_group_check(events: list[Event]) -> None:
    find(events, "check", server="")["check"].update(ok=False, detail="not one point in time")


def no_check(events: list[Event]) -> list[Event]:
    return without(events, "check", server="fs2")


def only_files(events: list[Event]) -> list[Event]:
    for _at, event, data in events:
        if event == "check" and data["server"] == "fs2":
            data["check"]["kind"] = "files"
    return events


def never_ready(events: list[Event]) -> list[Event]:
    return without(events, "ready", server="fs2")


def other_run(events: list[Event]) -> None:
    server_of(events, "fs2")["volumes"][0]["run_id"] = OTHER_RUN


def other_run_within_a_server(events: list[Event]) -> None:
    server_of(events, "fs1")["volumes"][1]["run_id"] = OTHER_RUN


def other_moment(events: list[Event]) -> None:
    server_of(events, "fs2")["volumes"][0]["consistency_point"] = "2026-11-28T20:55:20.000+00:00"


def crash_consistent(events: list[Event]) -> None:
    server_of(events, "fs2")["volumes"][0]["verdict"] = "crash-consistent"


def no_verdict(events: list[Event]) -> None:
    del server_of(events, "fs2")["volumes"][0]["verdict"]


def no_point(events: list[Event]) -> None:
    for server in events[0][2]["servers"].values():
        for volume in server["volumes"]:
            volume["consistency_point"] = ""


def rpo_missed(events: list[Event]) -> None:
    server_of(events, "fs2")["rpo_target_s"] = 240


def rto_missed(events: list[Event]) -> None:
    server_of(events, "fs2")["rto_target_s"] = 5


def group_rto_missed(events: list[Event]) -> None:
    events[0][2]["targets"]["rto_s"] = 10


def left_behind(events: list[Event]) -> None:
    find(events, "torn_down")["left"] = ["the mount /idr/fs1/m"]


def not_torn_down(events: list[Event]) -> list[Event]:
    return without(events, "torn_down")


def one_host_not_torn_down(events: list[Event]) -> None:
    events[0][2]["dr_hosts"].append("dr2")


def server_failed(events: list[Event]) -> list[Event]:
    return [*events, (40.0, "failed", {"server": "fs3", "problem": "the network is gone"})]


def drill_failed(events: list[Event]) -> list[Event]:
    return [*events, (40.0, "failed", {"server": "", "problem": "the backup server does not answer"})]


def mended(events: list[Event]) -> list[Event]:
    return [*events, (99.0, "closed", {"verdict": "failed", "recovered": True})]


def no_server(events: list[Event]) -> None:
    events[0][2]["servers"] = {}


def no_volume(events: list[Event]) -> None:
    server_of(events, "fs2")["volumes"] = []


@pytest.mark.parametrize(
    ("change", "server", "told"),
    [
        (missing_lun, "fs1", "fs1/files: it did not come up on dr1"),
        (not_restored, "fs1", "fs1/m: it did not come up on dr1"),
        (failed_check, "fs1", "fs1: the check filesystem of fs1/m ext4 failed: e2fsck found errors"),
        (failed_check_without_a_reason, "fs1", "fs1/m ext4 failed: it gave no reason"),
        (
            failed_group_check,
            "",
            "all servers together: the check command of /lab/check --mounted failed: not one point",
        ),
        (no_check, "fs2", "fs2: none of its filesystems and applications was checked"),
        (only_files, "fs2", "fs2: none of its filesystems and applications was checked"),
        (never_ready, "fs2", "fs2: it was never ready to be used"),
        (other_run, "", f"their copies are not of one consistency point but of the runs {OTHER_RUN}, {RUN}"),
        (other_run_within_a_server, "", f"not of one consistency point but of the runs {OTHER_RUN}, {RUN}"),
        (other_moment, "", "but of the moments 2026-11-28T20:55:19.412+00:00, 2026-11-28T20:55:20.000+00:00"),
        (crash_consistent, "fs2", "is crash-consistent, not application-consistent"),
        (no_verdict, "fs2", "is of an unknown verdict, not application-consistent"),
        (no_point, "fs1", "fs1/m: its consistency point is not known"),
        (rpo_missed, "fs2", "fs2: the RPO is 4 min 41 s, 40.6 s over its target of 4 min"),
        (rto_missed, "fs2", "over its target of 5.0 s"),
        (group_rto_missed, "", "all servers together: the RTO is"),
        (left_behind, "", "dr1: left behind: the mount /idr/fs1/m; run 'recover.yml'"),
        (not_torn_down, "", "dr1: it was not torn down; run 'recover.yml'"),
        (one_host_not_torn_down, "", "dr2: it was not torn down"),
        (server_failed, "fs3", "fs3: the network is gone"),
        (drill_failed, "", "the drill: the backup server does not answer"),
        (mended, "", "was cleaned up by recover.yml"),
        (no_server, "", "no server was in the drill"),
        (no_volume, "fs2", "fs2: none of its volumes was in the drill"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_fails_a_drill(change: Change, server: str, told: str) -> None:
    """Each of these alone, in a drill that is good otherwise, is told, and fails the server that it is about."""
    events = drills.good()
    report = report_of(change(events) or events)
    assert (report["verdict"], report["exit_status"]) == ("failed", 2)
    assert [problem for problem in report["problems"] if told in problem], report["problems"]
    failed = [name for name, entry in report["servers"].items() if entry["verdict"] == "failed"]
    assert failed == [server] if server and change not in (not_restored, no_point) else not failed or server in failed
    assert f"{DRILL}: FAILED" in idr_summary(report)
    assert told.splitlines()[0] in idr_summary(report)


def test_a_terminal_obeys_nothing_of_what_was_found() -> None:
    told = idr_summary(report_of(drills.good(), journal_problems=["record 7 of \x1b]0;you\x07\nDrill x: PASSED"]))
    assert "record 7 of \\x1b]0;you\\x07\\nDrill x: PASSED" in told
    assert not any(sign in told for sign in "\x1b\x07")


def test_a_broken_journal_fails_the_drill() -> None:
    report = report_of(drills.good(), journal_problems=["record 7 was changed after it was written"])
    assert report["problems"] == ["the journal cannot be trusted: record 7 was changed after it was written"]
    assert report["verdict"] == "failed"


def test_what_did_not_recover_has_met_no_target() -> None:
    events = drills.good()
    failed_check(events)
    report = report_of(events)
    fs1 = report["servers"]["fs1"]
    assert fs1["rto_s"] < fs1["rto_target_s"]
    assert (fs1["rto_ok"], fs1["rpo_ok"], report["group"]["rto_ok"], report["group"]["ok"]) == (
        False,
        False,
        False,
        False,
    )
    assert report["servers"]["fs2"]["rto_ok"] is True
    assert not [problem for problem in report["problems"] if "RTO" in problem]


@pytest.mark.parametrize("by_record", [True, False])
def test_less_than_application_consistent_is_told_where_it_is_allowed(by_record: bool) -> None:
    events = drills.good()
    crash_consistent(events)
    events[0][2]["any_verdict"] = by_record
    report = report_of(events, any_verdict=not by_record)
    assert (report["verdict"], report["any_verdict"]) == ("passed", True)
    (remark,) = report["remarks"]
    assert remark.startswith("fs2/m: its saveset") and "crash-consistent" in remark
    assert f"Remark             {remark}" in idr_summary(report)


def test_a_drill_that_is_kept_or_a_failover_is_not_torn_down() -> None:
    events = not_torn_down(drills.good())
    events[0][2].update(keep=True, ttl_s=7200)
    report = report_of(events)
    assert (report["verdict"], report["left"]) == ("passed", [])
    assert report["remarks"] == [
        "the volumes were kept in use for 2 h when this report was made, so no teardown is proven"
    ]
    events[0][2].update(keep=False, mode="failover")
    report = report_of(events)
    assert (report["verdict"], report["left"]) == ("passed", [])
    assert "this was a failover" in report["remarks"][0]
    assert idr_summary(report).startswith(f"Failover {DRILL}: PASSED")


def test_one_record_may_be_of_several_hosts() -> None:
    events = drills.good()
    events[0][2]["dr_hosts"] = ["dr1", "dr2"]
    find(events, "torn_down")["host"] = "dr1, dr2"
    assert report_of(events)["verdict"] == "passed"


def test_the_last_look_at_a_host_counts() -> None:
    events = drills.good()
    left_behind(events)
    assert report_of([*events, (60.0, "torn_down", {"host": "dr1", "left": []})])["verdict"] == "passed"


def test_rings_are_moments_of_their_own() -> None:
    events = drills.good()
    server_of(events, "fs2")["ring"] = "b"
    other_run(events)
    other_moment(events)
    report = report_of(events)
    assert report["verdict"] == "passed"
    assert report["group"]["one_consistency_point"] is True
    assert [(ring["ring"], ring["servers"]) for ring in report["group"]["rings"]] == [
        ("", ["fs1", "fs3"]),
        ("b", ["fs2"]),
    ]


def test_a_drill_that_died_at_once() -> None:
    report = report_of(drills.good()[:1])
    assert report["verdict"] == "failed"
    assert [report["servers"]["fs1"][key] for key in ("rto_s", "rto_ok", "ready", "phases")] == [None, False, "", []]
    assert report["group"]["rto_s"] is None
    assert "Timeline" in idr_summary(report)


def test_there_must_be_a_drill() -> None:
    with pytest.raises(ReportError, match="the journal has no drill"):
        idr_report([])


def test_the_summary_tells_what_a_person_wants_to_know() -> None:
    lines = idr_summary(report_of(drills.good())).splitlines()
    assert lines[0] == f"Drill {DRILL}: PASSED"
    assert "RPO, all servers   4 min 41 s of 15 min" in lines
    row = next(line for line in lines if line.startswith("fs1 "))
    for cell in ("passed", "dr1", "2026-11-28 20:55:19 UTC", "4 min 41 s of 15 min", "4 of 4"):
        assert cell in row
    assert any(line.startswith("command over all servers: passed in 3.4 s") for line in lines)
    bars = [line.split("│")[1] for line in lines if "│" in line]
    assert len(bars) == 8 and {len(line) for line in bars} == {60}
    assert all("█" in line for line in bars)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (0.844, "0.84 s"),
        (9.04, "9.0 s"),
        (41.26, "41.3 s"),
        (59.7, "1 min"),
        (60, "1 min"),
        (243.4, "4 min 03 s"),
        (3599.7, "1 h"),
        (18120, "5 h 02 min"),
        (86686.1, "24 h 04 min"),
        (180000, "2 d 02 h"),
        (86400 * 12 + 60, "12 d"),
    ],
)
def test_spans_for_people(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_moments_for_people_are_in_utc() -> None:
    assert moment("2026-11-28T22:00:03.5+01:00") == "2026-11-28 21:00:03 UTC"
    assert moment("") == "–"

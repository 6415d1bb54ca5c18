# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which savesets a drill brings into use, and where."""

from __future__ import annotations

from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.control.catalog import with_places
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.plan import opening, plan
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.volumes import snapshot_points

GOOD = "application-consistent"
SERVERS = ["fs1", "fs2"]
NOW = 1795953600.0  # 2026-11-29T12:00:00Z
FIRST, SECOND, THIRD = (f"isb-2026112{day}T021500Z-4f1c2a" for day in "123")


def hostvars(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Two servers, of which fs1 has two volumes."""
    volumes = {
        "fs1": [{"name": "m", "serial": "a" * 16, "mount": "/srv/m"}, {"name": "raw", "serial": "b" * 16}],
        "fs2": [{"name": "m", "serial": "c" * 16, "mount": "/srv/m"}],
    }
    return {server: {"isb_volumes": volumes[server], **changes.get(server, {})} for server in SERVERS}


def saveset(volume: str, run_id: str, verdict: str = GOOD) -> dict[str, Any]:
    return {
        "id": f"{volume}@{run_id}",
        "volume": volume,
        "server": volume.split("/")[0],
        "run_id": run_id,
        "sequence": int(run_id[10:12]),
        "time": f"2026-11-{run_id[10:12]}T02:15:03+00:00",
        "verdict": verdict,
        "size": 1 << 20,
        "digest": "d" * 64,
    }


def run_of(run_id: str, verdict: str = GOOD) -> list[dict[str, Any]]:
    return [saveset(volume, run_id, verdict) for volume in ("fs1/m", "fs1/raw", "fs2/m")]


def planned(points: list[dict[str, Any]], variables: dict[str, Any] | None = None, **asked: Any) -> dict[str, Any]:
    defaults = {"servers": "", "point": "", "any_verdict": False, "mode": "test", "root": "/srv/idr"}
    defaults |= {"source": "instant", "declared": "", "now": NOW, "confirm": "", "ttl": 14400}
    dr_hosts = asked.pop("dr_hosts", ["dr1"])
    known = asked.pop("known", None)
    in_order = with_places(points, known)
    found: dict[str, Any] = plan(SERVERS, variables or hostvars(), dr_hosts, in_order, {**defaults, **asked})
    return found


def runs(found: dict[str, Any]) -> dict[str, str]:
    assert found["problems"] == []
    return {server: entry["run_id"] for server, entry in found["servers"].items()}


def test_the_latest_whole_run_is_taken_for_all() -> None:
    points = run_of(FIRST) + run_of(SECOND) + [saveset("fs1/m", THIRD)]
    found = planned(points)
    assert runs(found) == {"fs1": SECOND, "fs2": SECOND}
    first, raw = found["servers"]["fs1"]["volumes"]
    assert first["saveset"] == f"fs1/m@{SECOND}"
    assert (first["mount"], first["dr_mount"]) == ("/srv/m", "/srv/idr/fs1/srv/m")
    assert (raw["mount"], raw["dr_mount"]) == ("", "")
    assert first["consistency_point"] == "2026-11-22T02:15:03+00:00"


def test_a_moment_takes_the_last_run_before_it() -> None:
    points = run_of(FIRST) + run_of(SECOND)
    assert runs(planned(points, point="2026-11-22T00:00:00Z")) == {"fs1": FIRST, "fs2": FIRST}
    assert runs(planned(points, point="2026-11-22T02:15:03")) == {"fs1": SECOND, "fs2": SECOND}
    assert "until 2020-01-01" in planned(points, point="2020-01-01")["problems"][0]


def test_a_run_is_taken_by_its_id_for_all_or_for_each() -> None:
    points = run_of(FIRST) + run_of(SECOND)
    assert runs(planned(points, point=FIRST)) == {"fs1": FIRST, "fs2": FIRST}
    assert runs(planned(points, point=f"fs1={FIRST}, fs2={SECOND}")) == {"fs1": FIRST, "fs2": SECOND}
    missing = planned(points, point=f"fs1={FIRST}")["problems"]
    assert missing == [
        "there is no saveset of fs2/m of run (none named): 'ansible-playbook catalog.yml' lists what there is"
    ]


def test_what_is_not_application_consistent_is_passed_over_unless_allowed() -> None:
    points = run_of(FIRST) + run_of(SECOND, "crash-consistent")
    assert runs(planned(points)) == {"fs1": FIRST, "fs2": FIRST}
    assert runs(planned(points, any_verdict=True)) == {"fs1": SECOND, "fs2": SECOND}
    problem = planned(run_of(SECOND, "crash-consistent"))["problems"][0]
    assert problem.startswith("no application-consistent run has savesets of all volumes of fs1, fs2")
    assert "idr_any_verdict=true" in problem


def test_rings_have_moments_of_their_own() -> None:
    variables = hostvars(fs1={"isb_ring": "npr"}, fs2={"isb_ring": "mat"})
    points = run_of(FIRST) + [saveset("fs2/m", SECOND)]
    assert runs(planned(points, variables)) == {"fs1": FIRST, "fs2": SECOND}


def test_what_a_run_lacks_is_named() -> None:
    problem = planned([saveset("fs1/m", FIRST), saveset("fs2/m", FIRST)])["problems"][0]
    assert f"run {FIRST} lacks fs1/raw" in problem
    assert planned([])["problems"][0].startswith("no application-consistent run has savesets")


def test_only_the_servers_that_are_asked_for() -> None:
    assert list(runs(planned(run_of(FIRST), servers="fs2"))) == ["fs2"]
    assert planned(run_of(FIRST), servers="fs2,fs9")["problems"] == [
        "there is no file server fs9 in the inventory: correct idr_servers, or leave it out for all servers"
    ]


def test_a_point_that_is_none_is_refused() -> None:
    assert planned(run_of(FIRST), point="yesterday")["problems"][0].startswith(
        "idr_point 'yesterday' is neither a run id"
    )


def test_places_that_cannot_be_are_refused() -> None:
    assert "group dr_hosts" in planned(run_of(FIRST), dr_hosts=[])["problems"][0]
    away = planned(run_of(FIRST), hostvars(fs1={"idr_host": "dr9"}))["problems"]
    assert away == ["fs1: idr_host is dr9, which is not in the group dr_hosts: add it or correct it"]
    production = planned(run_of(FIRST), hostvars(fs1={"idr_host": "fs2"}), dr_hosts=["dr1", "fs2"])["problems"]
    assert production == ["fs1: fs2 is a file server, so nothing is mounted there: name another DR host"]


def with_targets(**changes: Any) -> dict[str, dict[str, Any]]:
    """Every volume has a disk to go to."""
    variables = hostvars(**changes)
    for server, entry in variables.items():
        entry["isb_volumes"] = [
            dict(volume, idr_target=f"/dev/dr/{server}-{volume['name']}") for volume in entry["isb_volumes"]
        ]
    return variables


def test_a_failover_mounts_as_production_does_and_two_cannot_be_at_one_place() -> None:
    asked = {"mode": "failover", "source": "restore", "confirm": "failover fs1 fs2"}
    found = planned(run_of(FIRST), with_targets(fs2={"idr_host": "dr2"}), dr_hosts=["dr1", "dr2"], **asked)
    assert found["problems"] == []
    assert found["servers"]["fs2"]["volumes"][0]["dr_mount"] == "/srv/m"
    together = planned(run_of(FIRST), with_targets(), **asked)["problems"]
    assert together == ["fs1/m and fs2/m would both be mounted at /srv/m of dr1: give one an idr_mount of its own"]


def test_a_failover_is_confirmed_by_name_and_has_disks_that_stay() -> None:
    asked = {"mode": "failover", "source": "restore", "servers": "fs2"}
    confirm, disks = planned(run_of(FIRST), **asked)["problems"]
    assert "-e \"idr_confirm='failover fs2'\"" in confirm
    assert disks.startswith("a failover needs permanent disks: give fs2/m an idr_target")
    (other,) = planned(run_of(FIRST), with_targets(), confirm="failover fs1", **asked)["problems"]
    assert other.endswith("\"idr_confirm='failover fs2'\", not 'failover fs1'")
    assert planned(run_of(FIRST), with_targets(), confirm="failover fs2", **asked)["problems"] == []


def test_two_volumes_never_go_to_one_target() -> None:
    variables = hostvars()
    for volume in variables["fs1"]["isb_volumes"]:
        volume["idr_target"] = "/dev/dr"
    (problem,) = planned(run_of(FIRST), variables)["problems"]
    assert problem == "fs1/m and fs1/raw have the same idr_target /dev/dr on dr1: give each its own"


def test_what_cannot_be_is_refused() -> None:
    mode, source, ttl = planned(run_of(FIRST), mode="fail-over", source="tape", ttl="4h")["problems"]
    assert mode == "idr_mode is 'fail-over': it must be test or failover"
    assert source == "idr_source is 'tape': it must be instant or restore or storage"
    assert ttl == "idr_ttl is '4h': it must be a number of seconds, such as 14400"


def test_a_disaster_is_a_moment_that_has_come() -> None:
    (future,) = planned(run_of(FIRST), declared="2026-11-29T13:00:00+00:00")["problems"]
    assert "which is in the future" in future
    (none,) = planned(run_of(FIRST), declared="at noon")["problems"]
    assert none.startswith("idr_declared 'at noon' is not a time like")
    assert planned(run_of(FIRST), declared="2026-11-29T13:00:00+01:00")["problems"] == []
    assert planned(run_of(FIRST), declared="2026-11-29T12:00:30")["problems"] == []


def test_nothing_from_after_the_disaster_is_used_even_where_it_is_named() -> None:
    points, declared = run_of(FIRST) + run_of(SECOND), "2026-11-22T00:00:00+00:00"
    assert runs(planned(points, declared=declared)) == {"fs1": FIRST, "fs2": FIRST}
    for point in (SECOND, f"fs1={FIRST}, fs2={SECOND}"):
        (problem,) = planned(points, declared=declared, point=point)["problems"]
        assert f"from after idr_declared, {declared}" in problem and f"run {SECOND}, saveset fs2/m@{SECOND}" in problem
        assert ("fs1/m" in problem) == (point == SECOND)
    # Of two moments the earlier one counts.
    assert runs(planned(points, declared=declared, point="2026-11-28T00:00:00Z")) == {"fs1": FIRST, "fs2": FIRST}
    assert planned(points, declared=declared)["remarks"] == []
    assert f"until {declared}" in planned(run_of(SECOND), declared=declared)["problems"][0]


def test_the_inventory_names_place_part_and_target() -> None:
    volume = {
        "name": "m",
        "serial": "c" * 16,
        "mount": "/srv/m",
        "idr_mount": "/dr/m",
        "idr_part": 2,
        "idr_target": "/dev/x",
    }
    found = planned(run_of(FIRST), hostvars(fs2={"isb_volumes": [volume], "idr_rto_target": 60}))
    entry = found["servers"]["fs2"]
    assert entry["rto_target_s"] == 60
    assert entry["rpo_target_s"] is None
    (got,) = entry["volumes"]
    assert (got["dr_mount"], got["part"], got["target"]) == ("/dr/m", 2, "/dev/x")


def test_what_savesets_tell_of_sectors_is_taken_where_it_can_be() -> None:
    points = run_of(FIRST)
    points[0]["metadata"] = {"sector_size": 4096, "block_size": 4096}
    points[1]["metadata"] = {"sector_size": "4096; reboot", "block_size": -1}
    volumes = [volume for entry in planned(points)["servers"].values() for volume in entry["volumes"]]
    assert [(each["sector_size"], each["block_size"]) for each in volumes] == [(4096, 4096), (0, 0), (0, 0)]


def test_the_inventory_tells_of_sectors_where_no_saveset_does() -> None:
    volume = {"name": "m", "serial": "c" * 16, "mount": "/srv/m", "idr_sector_size": 4096}
    found = planned(run_of(FIRST), hostvars(fs2={"isb_volumes": [volume]}))
    assert found["servers"]["fs2"]["volumes"][0]["sector_size"] == 4096
    wrong = planned(run_of(FIRST), hostvars(fs2={"isb_volumes": [{**volume, "idr_sector_size": "4k"}]}))
    assert wrong["problems"] == ["fs2/m: idr_sector_size is '4k': it must be 512, 1024, 2048 or 4096, or left out"]


def test_what_the_journal_is_told_at_the_opening() -> None:
    asked = {
        "mode": "test",
        "source": "instant",
        "declared": "2026-11-28T21:00:00",
        "root": "/srv/idr",
        "who": "root",
        "repository": "/r",
        "keep": False,
        "ttl": 60,
        "fresh_run": "",
        "any_verdict": False,
        "content": True,
        "rpo_target_s": None,
        "rto_target_s": 600,
    }
    data = opening(planned(run_of(FIRST))["servers"], asked)
    assert data["dr_hosts"] == ["dr1"]
    assert data["declared"] == "2026-11-28T21:00:00.000+00:00"
    assert data["targets"] == {"rpo_s": None, "rto_s": 600}
    assert data["who"]["user"] == "root"
    assert data["controller"]["pid"]


def test_the_order_in_which_savesets_came_tells_the_latest_whatever_their_times() -> None:
    """A clock was ten years ahead at the second run, and right again at the third."""
    ahead = [dict(entry, time="2036-11-22T02:15:03+00:00") for entry in run_of(SECOND)]
    assert runs(planned(run_of(FIRST) + ahead + run_of(THIRD))) == {"fs1": THIRD, "fs2": THIRD}


def test_savesets_that_the_journal_does_not_know_are_never_used() -> None:
    known = run_of(FIRST) + run_of(SECOND)
    thief = [dict(entry, id=f"x{entry['id']}", verdict=GOOD) for entry in run_of(THIRD)]
    assert runs(planned(known + thief, known=known)) == {"fs1": SECOND, "fs2": SECOND}
    (problem, *_more) = planned(known + thief, known=known, point=THIRD)["problems"]
    assert f"there is no saveset of fs1/m of run {THIRD}" in problem
    # Of a run that it knows, under that run's name: the journal's own is taken.
    forged = [dict(entry, id=f"z{entry['id']}", sequence=99) for entry in run_of(SECOND)]
    found = planned(known + forged, known=known, point=SECOND)
    assert found["servers"]["fs1"]["volumes"][0]["saveset"] == f"fs1/m@{SECOND}"
    # Where it knows none, that is said with the way out.
    (problem, *_more) = planned(thief, known=[])["problems"]
    assert "set aside are" in problem and "adopt.yml" in problem and "isb_without_journal" in problem


def later(run_id: str, time: str) -> list[dict[str, Any]]:
    """A run whose moment a wrong clock has named."""
    return [dict(entry, time=time) for entry in run_of(run_id)]


YEAR_AHEAD = later(THIRD, "2027-11-23T02:15:03+00:00")


def test_a_run_dated_ahead_that_came_last_proves_no_rpo() -> None:
    """It was taken without a word, and its RPO was 0 s."""
    found = planned(run_of(FIRST) + run_of(SECOND) + YEAR_AHEAD)
    assert runs(found) == {"fs1": SECOND, "fs2": SECOND}
    (remark,) = found["remarks"]
    assert remark.startswith("these are from after now, 2026-11-29T12:00:00Z by the controller's clock")
    assert f"fs1/m of 2027-11-23T02:15:03+00:00, run {THIRD}, saveset fs1/m@{THIRD}" in remark
    (problem,) = planned(run_of(FIRST) + YEAR_AHEAD, point=THIRD)["problems"]
    assert "from after now" in problem and f"run {THIRD}" in problem
    (problem,) = planned(YEAR_AHEAD)["problems"]
    assert "later ones are fs1/m of 2027-11-23" in problem


def test_clocks_may_be_a_little_apart() -> None:
    soon = later(THIRD, "2026-11-29T12:00:59+00:00")
    assert runs(planned(run_of(FIRST) + soon)) == {"fs1": THIRD, "fs2": THIRD}
    assert runs(planned(run_of(FIRST) + later(THIRD, "2026-11-29T12:01:01+00:00"))) == {"fs1": FIRST, "fs2": FIRST}


def test_a_failover_neither_loses_nor_takes_a_run_dated_ahead_unasked() -> None:
    """It may be the newest data that there is."""
    asked = {"mode": "failover", "source": "restore", "confirm": "failover fs1 fs2", "dr_hosts": ["dr1", "dr2"]}
    variables = with_targets(fs2={"idr_host": "dr2"})
    points = run_of(FIRST) + YEAR_AHEAD
    problem = planned(points, variables, **asked)["problems"][0]
    assert f"run {THIRD}" in problem and problem.endswith("so name the right run (idr_point)")
    assert runs(planned(points, variables, point=FIRST, **asked)) == {"fs1": FIRST, "fs2": FIRST}
    found = planned(points, variables, point=THIRD, **asked)
    assert runs(found) == {"fs1": THIRD, "fs2": THIRD} and f"run {THIRD}" in found["remarks"][0]


def test_a_standby_goes_by_the_order_alone() -> None:
    """A controller's clock that is behind must not roll it back."""
    assert runs(planned(run_of(FIRST) + YEAR_AHEAD, now=None)) == {"fs1": THIRD, "fs2": THIRD}


def test_a_run_dated_back_hides_none_that_was_before_it() -> None:
    behind = later(SECOND, "2020-11-22T02:15:03+00:00")
    before = run_of(FIRST.replace("20261121", "20261120")) + run_of(FIRST)
    found = planned(before + behind + run_of(THIRD), point="2026-11-22T00:00:00Z")
    assert runs(found) == {"fs1": FIRST, "fs2": FIRST}
    # By its name it can be had, and that its moment is wrong goes with it.
    volume = planned(before + behind + run_of(THIRD), point=SECOND)["servers"]["fs1"]["volumes"][0]
    assert "is before that of saveset" in volume["aside"]


def snapshots_of(times: list[str]) -> list[dict[str, Any]]:
    """Snapshots of fs2, one a run, of the moments that the journal tells."""
    ids = [f"isb-2026110{number}T021500Z-4f1c2a" for number in range(1, len(times) + 1)]
    variables = {"fs2": {**hostvars()["fs2"], "isb_storage_host": "storage1"}}
    thawed = [
        {"run_id": run_id, "data": {"time": time, "servers": {"fs2": {"verdict": GOOD}}}}
        for run_id, time in zip(ids, times, strict=True)
    ]
    there = {"storage1": [{"run_id": run_id, "luns_bytes": {"c" * 16: 4096}} for run_id in ids]}
    return snapshot_points(["fs2"], variables, there, thawed)


def test_snapshots_that_a_wrong_clock_has_dated_are_out_of_order_as_savesets_are() -> None:
    days = ["2026-11-01", "2026-11-02", "2027-11-03", "2026-11-04"]
    points = snapshots_of([f"{day}T02:15:03+00:00" for day in days])
    assert [bool(entry["aside"]) for entry in points] == [False, False, True, False]
    asked = {"servers": "fs2", "point": "", "any_verdict": False, "mode": "test", "root": "/srv/idr"}
    asked |= {"source": "storage", "declared": "", "now": NOW, "confirm": "", "ttl": 1}
    assert runs(plan(SERVERS, hostvars(), ["dr1"], points, asked)) == {"fs2": points[3]["run_id"]}
    # The one dated ahead came last: nothing tells but the clock.
    found = plan(SERVERS, hostvars(), ["dr1"], snapshots_of([f"{day}T02:15:03+00:00" for day in days[:3]]), asked)
    assert runs(found) == {"fs2": points[1]["run_id"]} and points[2]["run_id"] in found["remarks"][0]
    declared = dict(asked, declared="2026-11-02T00:00:00Z")
    assert runs(plan(SERVERS, hostvars(), ["dr1"], points, declared)) == {"fs2": points[0]["run_id"]}
    named = dict(declared, point=points[3]["run_id"])
    assert "from after idr_declared" in plan(SERVERS, hostvars(), ["dr1"], points, named)["problems"][0]

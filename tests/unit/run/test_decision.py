# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight's decision: every problem is named before anything is frozen."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.belonging import belonging_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.decision import decide
from ansible_collections.openisb.backup.plugins.module_utils.control.inventory import (
    alike_problems,
    inventory_problems,
    volumes_by_storage,
    volumes_to_find,
)

GIB = 1024**3
SERIALS = {"fs1": "6000000000000001", "fs2": "6000000000000002"}
EMPTY_JOURNAL = {"records": [], "count": 0, "chain_head": "0" * 64}
NOTHING_KEPT = {"heads": [], "problems": [], "after": 0, "since": None}
GROUPS = {
    "file_servers": ["fs1", "fs2"],
    "storage_hosts": ["storage1"],
    "backup_servers": ["backup1"],
    "listeners": ["backup1"],
}


def server(name):
    volume = {"name": "m", "serial": SERIALS[name], "size": GIB}
    return {
        "isb_storage_host": "storage1",
        "isb_backup_server": "backup1",
        "openisb_host": {"changed_extents": True},
        "isb_drivers": [{"name": "filesystem"}],
        "isb_volumes": [{"name": "m", "serial": SERIALS[name], "mount": "/srv/m"}],
        "preflight_found": {"server": {"checks": [], "holders": [], "volumes": [volume]}},
    }


@pytest.fixture
def hostvars():
    return {
        "fs1": server("fs1"),
        "fs2": server("fs2"),
        "storage1": {
            "preflight_found": {
                "storage": {
                    "luns": {serial: {"size": GIB, "allocated": GIB // 4} for serial in SERIALS.values()},
                    "free_bytes": 4 * GIB,
                    "metadata_free_bytes": GIB,
                }
            }
        },
        "backup1": {
            "isb_backup_server": "backup1",
            "openisb_host": {"journal": "/j", "repository": "/r"},
            "preflight_found": {
                "listener": {"open_runs": [], "problems": [], "kept_problem": "", "kept": NOTHING_KEPT} | EMPTY_JOURNAL,
                "repository": {"savesets": [], "free_bytes": 10 * GIB},
            },
        },
    }


def decided(hostvars, policy="abort", clocks=None):
    return decide(hostvars, GROUPS, policy, 0.1, 0.2, 256 * 1024**2, 64 * 1024**2, clocks or {}, 60.0)


def test_all_is_well(hostvars):
    assert decided(hostvars) == {
        "servers": ["fs1", "fs2"],
        "rings": [],
        "quiesced": ["fs1", "fs2"],
        "placed": {name: {"host": "backup1", "hosts": ["backup1"], "seconds": 4.684} for name in ("fs1", "fs2")},
        "left_out": {},
        "skipped": [],
        "problems": [],
    }


def test_a_clock_that_is_off_stops_the_run(hostvars):
    right = {name: {"ok": True, "ahead": 0.0, "bound": 0.1} for name in ("fs1", "fs2", "backup1")}
    found = decided(hostvars, "skip", {**right, "storage1": {"ok": True, "ahead": 86400.0, "bound": 0.1}})
    (problem,) = found["problems"]
    assert problem.startswith("storage1: its clock is 86400.0 s ahead")


def test_a_server_that_did_not_answer_stops_the_run(hostvars):
    del hostvars["fs2"]["preflight_found"]
    assert decided(hostvars)["problems"] == ["fs2: did not answer"]


def test_a_server_that_did_not_answer_is_left_out_where_the_site_asked_for_it(hostvars):
    del hostvars["fs2"]["preflight_found"]
    decision = decided(hostvars, "skip")
    assert decision["servers"] == ["fs1"]
    assert decision["problems"] == []
    assert decision["skipped"] == ["fs2: did not answer"]


def test_no_server_is_left(hostvars):
    del hostvars["fs1"]["preflight_found"], hostvars["fs2"]["preflight_found"]
    assert "no file server can take part" in decided(hostvars, "skip")["problems"]


@pytest.mark.parametrize(
    ("host", "part", "changes", "text"),
    [
        ("fs1", "server", {"problem": "volume m: no LUN with serial 1"}, "fs1: volume m: no LUN with serial 1"),
        ("fs1", "server", {"checks": [{"driver": "gtm", "ok": False, "message": "bad"}]}, "fs1: driver gtm: bad"),
        ("fs1", "server", {"holders": [{"run_id": "isb-x", "state": "frozen"}]}, "fs1: a holder of run isb-x is"),
        ("storage1", "storage", {"problem": "no LUN"}, "storage1: no LUN"),
        (
            "storage1",
            "storage",
            {"free_bytes": GIB // 10},
            "storage1 has 102 MiB free for a snapshot and needs 614 MiB",
        ),
        (
            "storage1",
            "storage",
            {"metadata_free_bytes": GIB // 5},
            "storage1 has 204 MiB left for the metadata of its btrfs pool, and with less than 256 MiB",
        ),
        ("backup1", "repository", {"problem": "wrong passphrase"}, "backup1: wrong passphrase"),
        ("backup1", "repository", {"free_bytes": GIB // 2}, "backup1: the repository /r has 512 MiB free"),
        ("backup1", "listener", {"problem": "unreadable"}, "backup1: unreadable"),
        (
            "backup1",
            "listener",
            {"problems": ["record 2 was changed"]},
            "the chain of the journal /j is broken: record 2",
        ),
        (
            "backup1",
            "listener",
            {"open_runs": [{"run_id": "isb-x", "opened": "t", "last_event": "freezing", "last_time": "t"}]},
            "run isb-x, opened t, is still open",
        ),
    ],
)
def test_each_problem_stops_the_run(hostvars, host, part, changes, text):
    hostvars[host]["preflight_found"][part].update(changes)
    problems = decided(hostvars)["problems"]
    assert len(problems) == 1
    assert problems[0].startswith(text)


def test_a_lun_of_another_size_is_not_the_same_lun(hostvars):
    hostvars["fs1"]["preflight_found"]["server"]["volumes"][0]["size"] = GIB - 1
    assert "does not name the same LUN on both" in decided(hostvars)["problems"][0]


def test_a_thawed_holder_is_no_obstacle(hostvars):
    hostvars["fs1"]["preflight_found"]["server"]["holders"] = [{"run_id": "isb-x", "state": "thawed"}]
    assert decided(hostvars)["problems"] == []


def test_a_freeze_that_a_dead_holder_left_is_one(hostvars):
    hostvars["fs1"]["preflight_found"]["server"]["holders"] = [
        {"run_id": "isb-x", "state": "absent", "alive": False, "leftover": True}
    ]
    assert "recover.yml" in decided(hostvars)["problems"][0]


def test_known_volumes_need_only_the_room_of_their_last_savesets(hostvars):
    repository = hostvars["backup1"]["preflight_found"]["repository"]
    repository["free_bytes"] = 256 * 1024**2
    assert decided(hostvars)["problems"]
    repository["savesets"] = [
        {"volume": f"{name}/m", "stats": {"bytes_stored": stored}} for name in SERIALS for stored in (4096, 8192)
    ]
    assert decided(hostvars)["problems"] == []


def test_room_is_needed_for_the_base_where_there_is_one(hostvars):
    storage = hostvars["storage1"]["preflight_found"]["storage"]
    storage.update(free_bytes=GIB // 2, snapshots=[{"run_id": "isb-x", "luns": []}])
    (problem,) = decided(hostvars)["problems"]
    assert "409 MiB are for the base of the next run; there are snapshots of isb-x now" in problem
    hostvars["fs2"]["openisb_host"]["changed_extents"] = False
    assert decided(hostvars)["problems"] == []
    storage["free_bytes"] = GIB // 10
    hostvars["fs1"]["openisb_host"]["changed_extents"] = False
    (problem,) = decided(hostvars)["problems"]
    assert problem.endswith("needs 204 MiB: free disk space, or lower preflight_pool_reserve")


def test_storage_other_than_btrfs_needs_no_room_for_metadata(hostvars):
    hostvars["storage1"]["preflight_found"]["storage"]["metadata_free_bytes"] = None
    assert decided(hostvars)["problems"] == []


def test_a_second_backup_server_that_is_used_is_looked_at(hostvars):
    hostvars["fs2"]["isb_backup_server"] = "backup2"
    hostvars["backup2"] = {"preflight_found": {"way to storage1": {"problem": "no way"}}}
    assert decided(hostvars, "skip")["problems"] == ["backup2: no way"]


@pytest.fixture
def shared(hostvars):
    """The same with a second backup server, which shares the repository of the first."""
    repository = {"savesets": [], "free_bytes": GIB}
    hostvars["backup1"]["preflight_found"]["repository"] = repository
    hostvars["backup2"] = {"preflight_found": {"repository": repository}}
    hosts = {"backup_servers": ["backup1", "backup2"]}
    for name in ("backup1", "backup2"):
        hostvars[name]["openisb_host"] = {"journal": "/j", "repository": "/r", "shared_with": "backup1"}
    for name in ("fs1", "fs2"):
        hostvars[name]["openisb_host"].update(hosts)
    return hostvars


def test_servers_are_placed_on_backup_servers_that_share_a_repository(shared):
    found = decided(shared)
    assert found["problems"] == []
    assert {name: entry["host"] for name, entry in found["placed"].items()} == {"fs1": "backup1", "fs2": "backup2"}


def test_a_shared_repository_needs_room_for_all(shared):
    """The same space must not be counted once for each backup server."""
    shared["backup1"]["preflight_found"]["repository"]["free_bytes"] = 512 * 1024**2
    (problem,) = decided(shared)["problems"]
    assert problem.startswith("backup1: the repository /r has 512 MiB free and the run may need 576 MiB")


def test_a_run_goes_on_without_a_backup_server_that_others_stand_in_for(shared):
    del shared["backup2"]["preflight_found"]
    found = decided(shared)
    assert (found["problems"], found["left_out"]) == ([], {"backup2": "did not answer"})


def test_a_run_does_not_start_without_the_backup_server_that_keeps_the_journals_head(shared):
    shared["backup1"]["preflight_found"]["repository"] = {"problem": "wrong passphrase"}
    assert decided(shared)["problems"] == ["backup1: wrong passphrase"]


def test_a_report_that_could_not_be_written_is_told_before(hostvars, tmp_path):
    def problems(path):
        limits = (0.1, 0.2, 256 * 1024**2, 64 * 1024**2)
        return decide(hostvars, GROUPS, "abort", *limits, {}, 60.0, report_path=str(path))["problems"]

    assert problems(tmp_path / "isb.json") == problems("") == []
    (text,) = problems(tmp_path / "nothing" / "isb.json")
    assert text.startswith(f"the controller: isb_report_path {tmp_path}/nothing/isb.json is not writable")
    (text,) = problems(tmp_path)
    assert "is a folder" in text


def test_inventory_without_problems(hostvars):
    assert inventory_problems(GROUPS["file_servers"], hostvars) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"isb_drivers": []}, "fs1 has no isb_drivers"),
        ({"isb_drivers": [{"mounts": ["/srv/m"]}]}, "a driver in isb_drivers has no name"),
        ({"isb_volumes": []}, "fs1 has no isb_volumes"),
        ({"isb_volumes": [{"name": "a b", "serial": SERIALS["fs1"]}]}, "'a b' cannot name a volume"),
        ({"isb_volumes": [{"name": "m", "serial": "XYZ"}]}, "serial 'XYZ' is not 16 to 32"),
        ({"isb_volumes": [{"name": "m", "serial": SERIALS["fs2"]}]}, "belongs to fs1/m and to fs2/m"),
        (
            {"isb_volumes": [{"name": "m", "serial": SERIALS["fs1"]}, {"name": "m", "serial": "6000000000000009"}]},
            "two volumes with the name m",
        ),
        (
            {"isb_volumes": [{"name": "m", "serial": SERIALS["fs1"]}, {"name": "M", "serial": "6000000000000009"}]},
            "the volumes fs1/m and fs1/M differ only in upper and lower case",
        ),
        (
            {"isb_volumes": [{"name": "m", "serial": SERIALS["fs1"], "mout": "/srv/m"}]},
            "fs1/m: a volume has no key 'mout': correct it (name, serial, mount, ",
        ),
    ],
)
def test_inventory_problems_are_named(hostvars, changes, text):
    hostvars["fs1"].update(changes)
    problems = inventory_problems(GROUPS["file_servers"], hostvars)
    assert len(problems) == 1
    assert text in problems[0]


@pytest.mark.parametrize("other", ["FS1", "Fs1"])
def test_two_servers_whose_names_differ_in_case_alone_are_named(hostvars, other):
    hostvars[other] = {**hostvars["fs1"], "isb_volumes": [{"name": "m", "serial": "6000000000000009"}]}
    (problem,) = inventory_problems([*GROUPS["file_servers"], other], hostvars)
    assert problem.startswith(f"the file servers fs1 and {other} differ only in upper and lower case")


def test_two_servers_whose_names_are_two_forms_of_one_are_named():
    composed, decomposed = "praxis-m\u00fcller", "praxis-mu\u0308ller"
    (problem,) = alike_problems("file servers", [composed, decomposed, "praxis-muller"])
    assert composed in problem and decomposed in problem


def test_a_volume_that_the_repository_has_in_another_case_stops_the_run_before_it_freezes(hostvars):
    found = hostvars["backup1"]["preflight_found"]["repository"]
    assert decided(hostvars)["problems"] == []
    found["savesets"].append({"volume": "FS1/m", "stats": {"bytes_stored": 0}})
    (problem,) = decided(hostvars)["problems"]
    assert problem.startswith("fs1/m: its repository has savesets of FS1/m")
    # Where there are savesets of both already, each goes on as it was.
    found["savesets"].append({"volume": "fs1/m", "stats": {"bytes_stored": 0}})
    assert decided(hostvars)["problems"] == []


def belonging(hostvars, **groups):
    everyone = {"all": list(hostvars), **GROUPS, **groups}
    return belonging_problems(everyone, hostvars)


def test_hosts_in_their_groups_are_no_problem(hostvars):
    assert belonging(hostvars) == []


def test_a_server_whose_group_is_misspelt_is_missed(hostvars):
    (problem,) = belonging(hostvars, file_servers=["fs1"], file_server=["fs2"])
    assert "fs2 has isb_volumes and is not in the group file_servers" in problem


def test_a_storage_host_that_is_in_no_such_group_is_named(hostvars):
    hostvars["fs1"].update(isb_storage_host="storage9", isb_backup_server="backup9")
    storage, backup = belonging(hostvars)
    assert "fs1: isb_storage_host is storage9, which is not in the group storage_hosts" in storage
    assert "fs1: isb_backup_server is backup9, which is not in the group backup_servers" in backup


def test_what_only_drills_need_is_no_problem_and_not_asked_of_the_server(hostvars):
    """What docs/idr.md says of a volume."""
    found_by = {"name": "m", "serial": SERIALS["fs1"], "mount": "/srv/m"}
    volume = {**found_by, "idr_target": "/srv/standby/m.img", "idr_mount": "/srv/m", "idr_part": "1", "census": False}
    hostvars["fs1"]["isb_volumes"] = [volume]
    assert inventory_problems(GROUPS["file_servers"], hostvars) == []
    assert volumes_to_find([volume]) == [found_by]


def test_volumes_by_storage(hostvars):
    found = volumes_by_storage(["fs1", "fs2"], hostvars)
    assert found == {
        "storage1": [
            {"name": "m", "serial": SERIALS["fs1"], "server": "fs1"},
            {"name": "m", "serial": SERIALS["fs2"], "server": "fs2"},
        ]
    }

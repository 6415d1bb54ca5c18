# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rings: a consistency point each, their census against the inventory, their verdicts, and the report of all."""

from __future__ import annotations

import copy
from unittest import mock

import pytest
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.manager import VariableManager
from ansible_collections.openisb.backup.plugins.action import consistency_point
from ansible_collections.openisb.backup.plugins.module_utils.control.census import census_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.decision import decide
from ansible_collections.openisb.backup.plugins.module_utils.control.inventory import (
    consistency_points,
    inventory_problems,
)
from ansible_collections.openisb.backup.plugins.module_utils.control.lun_names import name_warnings
from ansible_collections.openisb.backup.plugins.module_utils.control.report import run_report
from ansible_collections.openisb.backup.plugins.module_utils.control.text import run_summary
from ansible_collections.openisb.backup.plugins.module_utils.control.verdict import judge

from .test_report import records, saveset
from .test_verdict import RUN, hold

GIB = 1024**3
SERIALS = {"fs1": "6000000000000001", "fs2": "6000000000000002", "fs3": "6000000000000003", "fs4": "6000000000000004"}
EMPTY_JOURNAL = {"records": [], "count": 0, "chain_head": "0" * 64}
NOTHING_KEPT = {"heads": [], "problems": [], "after": 0, "since": None}
GROUPS = {
    "file_servers": ["fs1", "fs2", "fs3", "fs4"],
    "rings": ["npr", "mat"],
    "storage_hosts": ["array-npr", "array-mat", "array"],
    "backup_servers": ["backup1"],
    "listeners": ["backup1"],
}
DRIVER = {"isb_drivers": [{"name": "mbf"}]}


def drive(server, name, serial, wwn=""):
    return {"server": server, "name": name, "serial": serial, "wwn": wwn}


def file_server(name, ring=None, storage="array", size=None, **more):
    found = {"checks": [], "holders": [], "volumes": [{"name": "e", "serial": SERIALS[name], "size": size}]}
    variables = {
        "isb_storage_host": storage,
        "isb_backup_server": "backup1",
        "openisb_host": {"changed_extents": True},
        "openisb_run_dir": "/run/openisb",
        "isb_volumes": [{"name": "e", "serial": SERIALS[name]}],
        "preflight_found": {"server": found},
        **more,
    }
    return dict(variables, isb_ring=ring) if ring else variables


def ring_host(*drives):
    found = {"checks": [{"driver": "mbf", "ok": True, "message": ""}], "holders": [], "census": list(drives)}
    return {**DRIVER, "ansible_host": "backup1", "preflight_found": {"ring": found}}


def storage(*servers):
    luns = {SERIALS[name]: {"size": GIB, "allocated": GIB // 4} for name in servers}
    return {"preflight_found": {"storage": {"luns": luns, "free_bytes": 9 * GIB}}}


@pytest.fixture
def hostvars():
    return {
        "fs1": file_server("fs1", "npr", "array-npr"),
        "fs2": file_server("fs2", "npr", "array-npr", isb_mbf_name="MTFS2"),
        "fs3": file_server("fs3", "mat", "array-mat"),
        "fs4": file_server("fs4", size=GIB, isb_drivers=[{"name": "filesystem"}]),
        "npr": dict(
            ring_host(drive("FS1", "E", SERIALS["fs1"]), drive("MTFS2", "E", "99", "624a9370" + SERIALS["fs2"])),
            openisb_run_dir="/run/npr",
        ),
        "mat": dict(ring_host(drive("FS3", "E", SERIALS["fs3"])), openisb_run_dir="/run/mat"),
        "array-npr": storage("fs1", "fs2"),
        "array-mat": storage("fs3"),
        "array": storage("fs4"),
        "backup1": {
            "isb_backup_server": "backup1",
            "openisb_host": {"journal": "/j", "repository": "/r"},
            "preflight_found": {
                "listener": {"open_runs": [], "problems": [], "kept_problem": "", "kept": NOTHING_KEPT} | EMPTY_JOURNAL,
                "repository": {"savesets": [], "free_bytes": 10 * GIB},
            },
        },
    }


def decided(hostvars, policy="abort"):
    return decide(hostvars, GROUPS, policy, 0.1, 0.2, 256 * 1024**2, 64 * 1024**2, {}, 60.0)


# The inventory


def test_one_point_a_ring_and_one_of_the_rest(hostvars):
    points = consistency_points(GROUPS["file_servers"], hostvars, GROUPS["rings"])
    assert [(point["ring"], point["leaders"], point["servers"], point["holders"]) for point in points] == [
        ("npr", ["npr"], ["fs1", "fs2"], []),
        ("mat", ["mat"], ["fs3"], []),
        ("", [], ["fs4"], ["fs4"]),
    ]
    assert points[0]["names"] == {"fs1": "fs1", "fs2": "MTFS2"}
    assert [list(point["volumes"]) for point in points] == [["array-npr"], ["array-mat"], ["array"]]
    assert [point["ring"] for point in consistency_points(["fs3"], hostvars, GROUPS["rings"])] == ["mat"]


def test_an_inventory_with_rings_is_whole(hostvars):
    assert inventory_problems(GROUPS["file_servers"], hostvars, GROUPS["rings"]) == []


@pytest.mark.parametrize("name", ["example", "example_meditech", "lab", "lab_mbf"])
def test_the_inventories_of_the_collection_are_whole(project_root, name, monkeypatch):
    monkeypatch.setenv("LAB_DIR", "/nowhere")
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(project_root / "inventories" / name)])
    variables = VariableManager(loader=loader, inventory=manager)
    known = {host.name: variables.get_vars(host=host) for host in manager.get_hosts()}
    groups = {name: [host.name for host in group.get_hosts()] for name, group in manager.groups.items()}
    rings = groups.get("rings", [])
    assert inventory_problems(groups["file_servers"], known, rings) == []
    assert {known[server].get("isb_ring") for server in groups["file_servers"]} == (set(rings) or {None})


@pytest.mark.parametrize(
    ("host", "change", "text"),
    [
        ("fs1", {"isb_ring": "xyz"}, "fs1: isb_ring is 'xyz', and the group rings has no such host"),
        ("fs3", {"isb_ring": None}, "fs3 has no isb_drivers"),
        ("fs3", {"isb_ring": "npr"}, "ring mat has no file server"),
        ("npr", {"isb_drivers": []}, "npr has no isb_drivers"),
    ],
)
def test_what_is_wrong_with_rings(hostvars, host, change, text):
    hostvars[host].update(change)
    assert [
        True for problem in inventory_problems(GROUPS["file_servers"], hostvars, GROUPS["rings"]) if text in problem
    ]


# The census


def test_a_census_that_the_inventory_covers(hostvars):
    drives = hostvars["npr"]["preflight_found"]["ring"]["census"]
    assert census_problems("npr", drives, ["fs1", "fs2"], hostvars) == []


@pytest.mark.parametrize(
    ("drives", "text"),
    [
        ([drive("FS1", "F", "6000000000000009")], "has the drive FS1:F (serial 6000000000000009), and fs1 has no such"),
        ([drive("FS9", "E", "6000000000000009"), drive("FS9", "F", "6000000000000008")], "names the server FS9, which"),
        ([drive("MTFS2", "G", "6000000000000001")], "is the drive MTFS2:G by MBF's census, and belongs to fs1/e"),
    ],
)
def test_what_is_in_the_census_and_not_in_the_inventory(hostvars, drives, text):
    known = hostvars["npr"]["preflight_found"]["ring"]["census"]
    (problem,) = census_problems("npr", known + drives, ["fs1", "fs2"], hostvars)
    assert text in problem
    hostvars["npr"]["isb_census_ignore"] = ["fs9", "FS1:F", "mtfs2:g"]
    assert census_problems("npr", known + drives, ["fs1", "fs2"], hostvars) == []


def test_what_is_in_the_inventory_and_not_in_the_census(hostvars):
    (problem,) = census_problems("npr", [drive("FS1", "E", SERIALS["fs1"])], ["fs1", "fs2"], hostvars)
    assert "fs2/e: the LUN with serial 6000000000000002 is not in the census of ring npr" in problem
    hostvars["fs2"]["isb_volumes"][0]["census"] = False
    assert census_problems("npr", [drive("FS1", "E", SERIALS["fs1"])], ["fs1", "fs2"], hostvars) == []


HEX_OF_DIGITS = SERIALS["fs1"].upper().encode().hex()


@pytest.mark.parametrize(
    ("told", "fits"),
    [
        ((HEX_OF_DIGITS, ""), True),
        ((HEX_OF_DIGITS + "2020", ""), True),  # padded with blanks, as serials are
        (("99", HEX_OF_DIGITS), True),
        ((HEX_OF_DIGITS[2:], ""), False),
        ((HEX_OF_DIGITS[:-1], ""), False),
        (("3031", ""), False),
        (("00" * 16, ""), False),
    ],
)
def test_a_serial_may_be_told_in_hex_of_its_digits(hostvars, told, fits):
    assert (census_problems("npr", [drive("FS1", "E", *told)], ["fs1"], hostvars) == []) is fits


@pytest.mark.parametrize(
    ("name", "server", "letter", "text"),
    [
        ("MTFS05E", "MTFS05", "E", ""),
        ("mtfs5e", "MTFS05", "E", ""),
        ("HOSPFS0005E", "FS5", "DISK2-E", ""),
        ("MTFS04E", "MTFS05", "E", "it is drive E of host 04, and by MBF's census it is MTFS05:E"),
        ("MTFS05F", "MTFS05", "E", "it is drive F of host 05, and by MBF's census it is MTFS05:E"),
        ("MTFS04E", "MAIN", "E", ""),
        ("LUN_7", "MTFS05", "E", ""),
        (SERIALS["fs1"], "MTFS05", "E", ""),
        ("MTFS04E\x1b[2J", "MTFS05", "E", ""),
        (None, "MTFS05", "E", ""),
    ],
)
def test_a_name_that_contradicts_the_census_is_told_and_stops_nothing(hostvars, name, server, letter, text):
    hostvars["fs1"]["isb_mbf_name"] = server
    census = hostvars["npr"]["preflight_found"]["ring"]["census"]
    census[0] = drive(server, letter, SERIALS["fs1"])
    if name:
        hostvars["array-npr"]["preflight_found"]["storage"]["luns"][SERIALS["fs1"]]["name"] = name
    warnings = name_warnings(GROUPS, hostvars)
    assert [text in warning for warning in warnings] == ([True] if text else [])
    assert decided(hostvars)["problems"] == []


def test_names_are_not_compared_without_a_census(hostvars):
    del hostvars["npr"]["preflight_found"], hostvars["array-mat"]["preflight_found"]
    assert name_warnings(GROUPS, hostvars) == []
    assert name_warnings({"file_servers": ["fs4"]}, hostvars) == []


# Preflight


def test_all_is_well(hostvars):
    assert decided(hostvars) == {
        "servers": ["fs1", "fs2", "fs3", "fs4"],
        "rings": ["npr", "mat"],
        "quiesced": ["fs4", "npr", "mat"],
        "placed": {
            name: {"host": "backup1", "hosts": ["backup1"], "seconds": 4.684} for name in ("fs1", "fs2", "fs3", "fs4")
        },
        "left_out": {},
        "skipped": [],
        "problems": [],
    }


def test_a_census_that_is_not_covered_stops_whatever_the_policy(hostvars):
    hostvars["mat"]["preflight_found"]["ring"]["census"] += [drive("FS9", "E", "6000000000000009")]
    for policy in ("abort", "skip"):
        (problem,) = decided(hostvars, policy)["problems"]
        assert "FS9" in problem


def test_a_ring_that_cannot_be_quiesced(hostvars):
    hostvars["mat"]["preflight_found"]["ring"]["checks"] = [{"driver": "mbf", "ok": False, "message": "no program"}]
    assert decided(hostvars)["problems"] == ["mat: driver mbf: no program"]
    left = decided(hostvars, "skip")
    assert (left["servers"], left["rings"], left["problems"]) == (["fs1", "fs2", "fs4"], ["npr"], [])
    assert left["skipped"] == ["mat: driver mbf: no program"]
    del hostvars["mat"]["preflight_found"]
    assert "mat: did not answer" in decided(hostvars)["problems"][0]


def test_two_rings_on_one_storage_host(hostvars):
    hostvars["fs3"]["isb_storage_host"] = "array-npr"
    hostvars["array-npr"] = storage("fs1", "fs2", "fs3")
    (problem,) = decided(hostvars)["problems"]
    assert "storage host array-npr has LUNs of fs2 and fs3, which are not of one ring" in problem


def test_two_rings_on_one_machine_need_folders_of_their_own(hostvars):
    hostvars["mat"]["openisb_run_dir"] = "/run/npr"
    (problem,) = decided(hostvars)["problems"]
    assert problem == "npr and mat are one machine (backup1) with the same openisb_run_dir: give mat another one"


def test_room_is_needed_by_the_storage_s_own_sizes(hostvars):
    hostvars["array-mat"]["preflight_found"]["storage"]["free_bytes"] = GIB // 4
    (problem,) = decided(hostvars)["problems"]
    assert problem.startswith("array-mat has 256 MiB free for a snapshot and needs 307 MiB")


# The verdict


@pytest.fixture
def evidence():
    answers = {"npr": hold(100.0, 100.4)}
    return {
        "run_id": RUN,
        "ring": "npr",
        "leaders": ["npr"],
        "servers": ["fs1", "fs2"],
        "holders": [],
        "names": {"fs1": "FS1", "fs2": "MTFS2"},
        "storage_hosts": ["array-npr"],
        "freeze": {"servers": copy.deepcopy(answers)},
        "thaw": {"servers": copy.deepcopy(answers)},
        "snapshots": [{"storage_host": "array-npr", "answer": {"ok": True, "stdout": "100.10\n100.16\n"}}],
        "problems": [],
    }


def verdicts(judged):
    return {server: hold["verdict"] for server, hold in judged["servers"].items()}


def test_the_hold_of_a_ring_is_that_of_its_servers(evidence):
    judged = judge(evidence, "abort")
    assert (judged["verdict"], judged["ring"], judged["degraded"], judged["problems"]) == (
        "application-consistent",
        "npr",
        [],
        [],
    )
    assert judged["window_ms"] == 400.0
    assert judged["servers"]["fs2"]["window_ms"] == pytest.approx(400.0)
    assert judged["servers"]["fs1"]["time"] == judged["time"] == "1970-01-01T00:01:40.160+00:00"


def test_a_ring_that_failed_is_named_once(evidence):
    evidence["freeze"]["servers"]["npr"] = {"ok": False, "error": "mbf: the ring was not quiesced: MBF: exit code 9"}
    evidence["snapshots"] = []
    judged = judge(evidence, "abort")
    assert judged["problems"] == ["npr: did not freeze: mbf: the ring was not quiesced: MBF: exit code 9"]
    assert verdicts(judged) == {"fs1": "failed", "fs2": "failed"}


def test_what_the_site_lets_pass_is_degraded(evidence):
    evidence["thaw"]["servers"]["npr"]["degraded"] = ["MBF: exit code 10"]
    judged = judge(evidence, "abort")
    assert judged["verdict"] == "application-consistent"
    assert judged["degraded"] == judged["servers"]["fs1"]["degraded"] == ["MBF: exit code 10"]


def test_a_server_that_the_ring_was_quiesced_without_is_not_called_consistent(evidence):
    evidence["thaw"]["servers"]["npr"].update(degraded=["MBF: exit code 1"], without=["mtfs2"])
    judged = judge(evidence, "abort")
    assert verdicts(judged) == {"fs1": "application-consistent", "fs2": "crash-consistent"}
    assert judged["problems"] == ["fs2: its ring was quiesced or unquiesced without it"]


def test_a_server_with_drivers_of_its_own_needs_both_holds(evidence):
    evidence["holders"] = ["fs1"]
    for answers in (evidence["freeze"], evidence["thaw"]):
        answers["servers"]["fs1"] = hold(100.05, 100.35)
    assert judge(evidence, "abort")["verdict"] == "application-consistent"
    evidence["thaw"]["servers"]["fs1"].update(hold_unbroken=False, reason="ttl")
    judged = judge(evidence, "crash_consistent")
    assert verdicts(judged) == {"fs1": "crash-consistent", "fs2": "crash-consistent"}
    assert judged["problems"] == ["fs1: its hold was broken before the thaw (ttl)"]


# The report


def point(ring, servers, verdict="application-consistent", degraded=(), problems=()):
    holds = {name: {"verdict": verdict, "window_ms": 80.0, "degraded": list(degraded)} for name in servers}
    return {
        "verdict": verdict,
        "time": f"2026-11-23T02:15:0{len(servers)}.500+00:00",
        "ring": ring,
        "degraded": list(degraded),
        "window_ms": 90.0 + len(servers),
        "storage_ms": 10.0,
        "servers": holds,
        "problems": list(problems),
    }


def run_of(*points, saved=("fs1", "fs2", "fs3"), clean=("npr", "mat")):
    events = [("opened", {"servers": ["fs1", "fs2", "fs3"]})]
    for each in points:
        events += [("freezing", {"ring": each["ring"], "servers": []}), ("thawed", each)]
    events += [("saveset", {"server": name, "saveset": saveset(name)}) for name in saved]
    events += [("cleaned", {"server": name}) for name in ("fs1", "fs2", "fs3")]
    events += [("cleaned", {"ring": name}) for name in clean]
    return run_report(records(*events), "/repository")


def test_a_good_run_of_two_rings():
    report = run_of(point("npr", ["fs1", "fs2"], degraded=["MBF: exit code 10"]), point("mat", ["fs3"]))
    assert (report["verdict"], report["exit_status"], report["left"]) == ("application-consistent", 0, [])
    assert report["degraded"] == report["servers"]["fs1"]["degraded"] == ["MBF: exit code 10"]
    assert report["consistency_point"] == "2026-11-23T02:15:01.500+00:00"
    assert report["freeze_window_ms"] == 92.0
    assert [(ring["ring"], ring["servers"]) for ring in report["rings"]] == [("npr", ["fs1", "fs2"]), ("mat", ["fs3"])]
    text = run_summary(report)
    assert "Degraded           MBF: exit code 10" in text
    assert "application-consistent (degraded)" in text
    assert "ring npr" in text


def test_a_ring_that_failed_fails_its_servers_alone():
    failed = point("mat", ["fs3"], "failed", problems=["mat: did not freeze"])
    report = run_of(point("npr", ["fs1", "fs2"]), failed, saved=("fs1", "fs2"))
    assert (report["verdict"], report["exit_status"]) == ("failed", 2)
    found = {name: entry["verdict"] for name, entry in report["servers"].items()}
    assert found == {"fs1": "application-consistent", "fs2": "application-consistent", "fs3": "failed"}
    assert report["problems"] == ["mat: did not freeze"]


def test_a_ring_that_was_not_taken_or_not_cleaned_up_is_a_problem():
    report = run_of(point("npr", ["fs1", "fs2"]), saved=("fs1", "fs2"), clean=())
    assert report["problems"] == [
        "no consistency point was taken of fs3",
        "npr was not cleaned up: run 'ansible-playbook recover.yml'",
    ]
    assert report["left"] == ["npr"]


# The action


class Recorded(consistency_point.ActionModule):
    """Asks nobody; records who would be asked for what."""

    def __init__(self, failing=()):
        self.failing = failing
        self.asked = []

    def _prepare_all(self, args, command, hostvars):
        return {server: (command, server) for server in args["servers"]}

    def _poke_all(self, prepared, timeout):
        self.asked += list(prepared.values())
        return {server: {"ok": server not in self.failing or task[0] == "thaw"} for server, task in prepared.items()}

    def ask_all(self, tasks, timeout):
        self.asked.append(("snapshot", *tasks))
        return dict.fromkeys(tasks, {"ok": True})

    def _storage_tasks(self, commands, hostvars):
        return dict(commands)


def take(action, leaders, servers, needs_all=True):
    action._stages = [stage for stage in (leaders, servers) if stage]
    args = {"servers": leaders + servers, "snapshots": {"a": "x"}, "needs_all": needs_all}
    with mock.patch.object(consistency_point, "ask_all", action.ask_all):
        return action._take(dict(args, timeout=1, storage_timeout=1), {})


def test_leaders_freeze_first_and_thaw_last():
    action = Recorded()
    taken = take(action, ["npr"], ["fs1", "fs2"])
    assert action.asked == [
        ("freeze", "npr"),
        ("freeze", "fs1"),
        ("freeze", "fs2"),
        ("snapshot", "a"),
        ("thaw", "fs1"),
        ("thaw", "fs2"),
        ("thaw", "npr"),
    ]
    assert list(taken["freeze"]["servers"]) == ["npr", "fs1", "fs2"]


def test_no_server_freezes_after_a_leader_that_failed():
    action = Recorded(failing=["npr"])
    assert take(action, ["npr"], ["fs1"])["snapshots"] == []
    assert action.asked == [("freeze", "npr"), ("thaw", "fs1"), ("thaw", "npr")]
    action = Recorded(failing=["npr"])
    take(action, ["npr"], ["fs1"], needs_all=False)
    assert ("snapshot", "a") in action.asked

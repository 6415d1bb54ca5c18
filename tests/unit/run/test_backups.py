# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup of a server is told: the sources of its volumes, and what the run knows of earlier savesets."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.backups import backups, saveset_records
from ansible_collections.openisb.backup.plugins.module_utils.control.findings import server_findings
from ansible_collections.openisb.backup.plugins.module_utils.control.hosts import host_facts, taking_part
from ansible_collections.openisb.backup.plugins.module_utils.control.options import option_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.sources import sources
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import pack

RUN = "isb-20261123T021500Z-4f1c2a"
STORAGE = {"address": "storage1", "tls": True}
KEYS = {"6001": "ab" * 32, "6002": "cd" * 32}
VOLUMES = [{"name": "m", "serial": "6001", "size": 8192}, {"name": "data", "serial": "6002", "size": 4096}]


def lun(serial: str, **more: Any) -> dict[str, Any]:
    """What lun_map answers of one LUN."""
    export = {"name": f"{RUN}.{serial}", "port": 40001, "uri": "nbd://evil:1/x"}
    told = {"id": f"{RUN}/{serial}/u", "since": f"{RUN}/{serial}/v", "reason": "", "size": 8192}
    return {**told, "extents": pack([(0, 4096)]), "export": export, "problem": "", **more}


def found(mapped: Any) -> dict[str, Any]:
    return sources(mapped, "fs1", VOLUMES, STORAGE, {"ring": "north"}, {"6001": "a" * 32})


def test_each_volume_has_its_source_its_key_and_its_changes() -> None:
    told = found({"luns": {"6001": lun("6001"), "6002": lun("6002")}, "psks": KEYS})
    first, second = told["volumes"]
    assert first["volume"] == "fs1/m"
    assert first["source"] == f"nbds://openisb@storage1:40001/{RUN}.6001"
    assert first["host"] == "storage1"
    assert first["metadata"] == {"name": "m", "serial": "6001", "size": 8192, "ring": "north"}
    assert first["changes"]["since"] == f"{RUN}/6001/v" and first["changes"]["extents"]
    assert (first["parent"], second["parent"]) == ("a" * 32, "")
    assert told["psks"] == {"fs1/m": KEYS["6001"], "fs1/data": KEYS["6002"]}


def test_a_volume_whose_changes_were_not_asked_says_why() -> None:
    mapped = {"luns": {"6001": lun("6001"), "6002": lun("6002")}, "psks": KEYS}
    told = sources(mapped, "fs1", VOLUMES, STORAGE, {}, {}, "isb_changed_extents is off")
    assert [each["changes"] for each in told["volumes"]] == [{"reason": "isb_changed_extents is off"}] * 2


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"luns": {"6001": lun("6001")}, "psks": KEYS}, "the storage host's answer does not contain it"),
        ({"luns": {"6001": lun("6001"), "6002": "x"}, "psks": KEYS}, "the storage host's answer does not contain it"),
        (
            {"luns": {"6001": lun("6001"), "6002": lun("6002", problem="no\x1b[2J nbdkit")}, "psks": KEYS},
            "no\\x1b[2J nbdkit",
        ),
        (
            {"luns": {"6001": lun("6001"), "6002": lun("6002", export={"name": "x", "port": "22/x"})}, "psks": KEYS},
            "the port of the export is '22/x', and must be a number from 1 to 65535",
        ),
        (
            {"luns": {"6001": lun("6001"), "6002": lun("6002")}, "psks": {"6001": KEYS["6001"]}},
            "the key of the export is not 64 hex digits",
        ),
    ],
)
def test_a_lun_that_is_not_mapped_is_a_problem_of_its_volume_alone(answer: Any, problem: str) -> None:
    good, bad = found(answer)["volumes"]
    assert good["source"].startswith("nbds://") and "problem" not in good
    assert bad["problem"] == f"its LUN was not mapped to the backup server: {problem}"
    assert bad["source"] == ""
    assert found(answer)["psks"] == {"fs1/m": KEYS["6001"]}


@pytest.mark.parametrize(
    "answer", [{"unreachable": True, "msg": "no route"}, {}, {"luns": 7}, {"luns": {}, "psks": []}]
)
def test_a_storage_host_without_an_answer_is_a_problem_of_all(answer: Any) -> None:
    told = found(answer)
    assert all(
        "its LUN was not mapped to the backup server: the storage host" in each["problem"] for each in told["volumes"]
    )
    assert told["psks"] == {}


def saveset(volume: str, number: int, aside: str = "") -> dict[str, Any]:
    return {"volume": volume, "id": f"{number}" * 32, "run_id": f"run-{number}", "aside": aside}


def test_what_a_run_knows_of_earlier_savesets_is_derived_for_all_servers_at_once() -> None:
    there = [saveset("fs1/m", 1), saveset("fs1/m", 2), saveset("fs1/m", 3, "unknown"), saveset("fs2/m", 4)]
    common = {"isb_backup_server": "backup1", "isb_storage_host": "storage1"}
    hostvars: dict[str, Any] = {
        "fs1": {**common, "isb_volumes": [{"name": "m", "serial": "6001"}]},
        "fs2": {**common, "isb_volumes": [{"name": "m", "serial": "6002"}, {"name": "new", "serial": "6003"}]},
        "backup1": {"preflight_found": {"repository": {"savesets": there}}},
    }
    told = backups(["fs1", "fs2"], hostvars)
    assert told["fs1"]["parents"] == {"6001": "2" * 32}
    assert told["fs2"]["bases"] == {"6002": "run-4", "6003": ""}
    assert told["fs1"]["members"] == told["fs2"]["members"] == ["6001", "6002", "6003"]


def test_each_saveset_is_a_record() -> None:
    assert saveset_records([{"id": "x"}], "fs1", "2026-11-23") == [
        {"server": "fs1", "consistency_point": "2026-11-23", "saveset": {"id": "x"}}
    ]


WANTED = {"name": "m", "serial": "6001", "mount": "/srv/m"}
TOLD = {"name": "m", "serial": "6001", "device": "/dev/sdb", "size": 4096, "mount": "/srv/m", "filesystem": "ext4"}
DRIVERS = [{"name": "filesystem", "mounts": ["/srv/m"]}]


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"msg": "volume m: no LUN"}, "volume m: no LUN"),
        ({"volumes": [], "checks": [], "holders": []}, "the server reports other volumes than the inventory has"),
        ({"volumes": [TOLD], "holders": []}, "'checks'"),
    ],
)
def test_what_a_file_server_reports_may_be_a_problem(told: Any, problem: str) -> None:
    hostvars = {"fs1": {"isb_volumes": [WANTED], "isb_drivers": DRIVERS, "preflight_server": told}}
    assert server_findings(["fs1"], hostvars) == {"fs1": {"problem": problem}}


def test_a_file_server_that_did_not_answer_has_no_findings() -> None:
    common = {"isb_volumes": [WANTED], "isb_drivers": DRIVERS}
    hostvars = {
        "fs1": {**common, "preflight_server": {"volumes": [TOLD], "checks": [], "holders": []}},
        "fs2": {**common, "preflight_server": {"unreachable": True, "msg": "no route"}},
        "fs3": common,
        "fs4": {"isb_volumes": [WANTED]},  # its ring quiesces it
    }
    found = server_findings(list(hostvars), hostvars)
    assert list(found) == ["fs1", "fs4"]
    assert found["fs1"]["volumes"][0]["size"] == 4096
    assert found["fs4"] == {"checks": [], "holders": [], "volumes": [{**WANTED, "size": None}]}


def test_the_facts_of_a_host_are_its_own_or_the_defaults() -> None:
    groups = {
        "file_servers": ["fs1"],
        "storage_hosts": ["storage1"],
        "backup_servers": ["b1", "b2"],
        "listeners": ["b1"],
    }
    own = {"isb_backup_server": "b2", "openisb_data_address": "10.0.0.7", "openisb_data_tls": "no"}
    hostvars = {"fs1": {"isb_changed_extents": "false"}, "storage1": own, "b1": {"ansible_host": "10.0.0.1"}, "b2": {}}
    facts = host_facts(groups, hostvars)
    assert set(facts) == set(hostvars)
    assert (facts["fs1"]["isb_backup_server"], facts["storage1"]["isb_backup_server"]) == ("b1", "b2")
    assert (facts["storage1"]["openisb_host"]["address"], facts["storage1"]["openisb_host"]["tls"]) == (
        "10.0.0.7",
        False,
    )
    assert facts["b1"]["openisb_host"]["address"] == "10.0.0.1"
    assert facts["b2"]["openisb_host"]["repository"] == "/var/lib/openisb/repository"
    assert facts["fs1"]["openisb_host"]["changed_extents"] is False


def test_an_option_of_the_inventory_is_validated_before_the_freeze() -> None:
    hostvars = {
        "fs1": {"block_backup_level": "high", "cleanup_keep_snapshot": "yes", "other": 1},
        "fs2": {"block_backup_verdict": "good", "prepare_hold_ttl": 9},
        "fs3": {},
    }
    first, second = option_problems(list(hostvars), hostvars)
    assert first.startswith("fs1: argument 'block_backup_level' is of type")
    assert second.startswith("fs2: value of block_backup_verdict must be one of: application-consistent")
    assert first.endswith("correct it in the inventory")


def test_the_hosts_of_a_play_are_those_that_take_part() -> None:
    groups, hostvars = {"listeners": ["b1"]}, {"b1": {"preflight_servers": ["fs2"]}}
    assert taking_part(hostvars, groups, "servers", False) == ["fs2"]
    assert taking_part(hostvars, groups, "rings", False) == []
    assert taking_part(hostvars, groups, "servers", True) == []
    assert taking_part({}, groups, "servers", False) == taking_part(hostvars, {}, "servers", False) == []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What concerns every server of a drill is derived once for all of them."""

from __future__ import annotations

from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.control.drill import servers as drilled

GROUPS = {"backup_servers": ["backup1", "backup2"], "file_servers": ["fs1", "fs2"]}
PLAN = {server: {"dr_host": "dr1", "run_id": "isb-20261123T021500Z-4f1c2a", "volumes": []} for server in ("fs1", "fs2")}
GTM = {"name": "gtm", "gtm_dist": "/usr/lib/gtm", "gbldir": "/srv/m/mumps.gld"}


def planned(mode: str = "test", *names: str) -> dict[str, dict[str, Any]]:
    servers = {name: PLAN[name] for name in names or PLAN}
    return {"backup1": {"idr_plans": {"servers": servers}, "idr_asked": {"mode": mode}}, "fs1": {}, "fs2": {}}


def test_the_plan_says_who_takes_part() -> None:
    assert drilled.taking_part(planned("test", "fs2"), GROUPS, False) == ["fs2"]
    assert drilled.taking_part(planned(), GROUPS, True) == []
    assert drilled.taking_part({"backup1": {}}, GROUPS, False) == []
    assert drilled.standing_by({"backup1": {"idr_standbys": {"servers": {"fs1": PLAN["fs1"]}}}}, GROUPS) == ["fs1"]
    assert drilled.standing_by(planned(), GROUPS) == drilled.standing_by({}, GROUPS) == []


def test_where_playbooks_are_only_parsed_nobody_takes_part() -> None:
    assert drilled.taking_part({}, GROUPS, False) == drilled.taking_part(planned(), {}, False) == []
    assert drilled.fenced({}, GROUPS) == drilled.fenced(planned("failover"), {}) == []


def test_only_a_failover_has_a_fence() -> None:
    assert drilled.fenced(planned("failover"), GROUPS) == ["fs1", "fs2"]
    assert drilled.fenced(planned("test"), GROUPS) == []


def test_each_server_is_told_its_own_plan() -> None:
    told = drilled.told(PLAN, {"source": "restore", "mode": "test"}, "idr-20261128T210000Z-4f1c2a", 7)
    assert list(told) == ["fs1", "fs2"]
    assert told["fs2"] == {
        "idr_drill": "idr-20261128T210000Z-4f1c2a",
        "idr_expires": 7,
        "idr_source": "restore",
        "idr_mode": "test",
        "idr_plan": PLAN["fs2"],
        "idr_up": {"mounts": {}, "devices": {}},
        "idr_through": False,
    }


def test_a_server_without_a_result_was_lost() -> None:
    hostvars = {"fs1": {"idr_through": True}, "fs2": {"idr_through": False}}
    assert drilled.lost(PLAN, hostvars) == [
        {"server": "fs2", "problem": "a host that it needs (dr1, or its backup server or storage) became unreachable"}
    ]
    assert [entry["server"] for entry in drilled.lost(PLAN, {"fs1": {}, "fs2": {}})] == ["fs1", "fs2"]


def test_wrong_checks_and_options_are_told_of_all_servers() -> None:
    volumes = [{"name": "m", "serial": "0" * 16, "mount": "/srv/m"}]
    right = {"isb_drivers": [GTM], "isb_volumes": volumes}
    wrong = {**right, "idr_checks": [{"name": "files", "path": "/srv/m"}, {"name": "wish"}]}
    assert drilled.description_problems(["fs1"], {"fs1": right}) == []
    assert drilled.description_problems(["fs1"], {"fs1": {**wrong, "idr_checks": []}}) == []
    (first,) = drilled.description_problems(["fs1", "fs2"], {"fs1": wrong, "fs2": right})
    assert first.startswith("In idr_checks of fs1: the description of check 1 is wrong: check files has no option")
    assert "; the description of check 2 is wrong: there is no check 'wish'" in first
    options = {"fs1": {**right, "idr_lun_timeout": "soon"}, "fs2": {**right, "idr_checks": "files"}}
    told = drilled.description_problems(["fs1", "fs2"], options)
    assert [text.partition(":")[0] for text in told] == ["fs1", "fs2"]
    assert "idr_lun_timeout" in told[0] and "idr_checks" in told[1]
    assert all(text.endswith("correct it in the inventory") for text in told)

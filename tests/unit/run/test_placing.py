# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup server backs up which server, what happens if one of them fails its tests, and who takes over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.hosts import host_facts
from ansible_collections.openisb.backup.plugins.module_utils.control.inventory import inventory_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.placing import (
    next_backup_server,
    place,
    repository_hosts,
    storage_hosts_of,
    unused_warnings,
)

GB = 10**9
SERVERS = ["fs1", "fs2", "fs3"]
SIZES = {"fs1": 30 * GB, "fs2": 20 * GB, "fs3": 15 * GB}
GROUPS = {
    "file_servers": SERVERS,
    "storage_hosts": ["s1", "s2"],
    "backup_servers": ["b1", "b2"],
    "listeners": ["b1"],
}
GONE = {"failed": True, "host_gone": True, "msg": "fs1: its host has not answered for 300 s: timed out"}


def serial(server: str) -> str:
    return f"600a09800000000{server[-1]}"


def groups_of(hosts: Sequence[str]) -> dict[str, list[str]]:
    """The groups of a site with these backup servers."""
    return {**GROUPS, "backup_servers": list(hosts)}


def site(shared: bool = True, hosts: Sequence[str] = ("b1", "b2"), **more: dict[str, Any]) -> dict[str, Any]:
    """A site with these backup servers after its hosts were tested; ``more``: variables by host."""
    luns = {serial(server): {"size": size, "allocated": size} for server, size in SIZES.items()}
    hostvars: dict[str, Any] = {
        server: {"isb_volumes": [{"name": "m", "serial": serial(server)}], "isb_storage_host": "s1"}
        for server in SERVERS
    }
    hostvars.update({host: {"preflight_found": {"storage": {"luns": luns}}} for host in GROUPS["storage_hosts"]})
    for host in hosts:
        hostvars[host] = {"preflight_found": {"repository": {"savesets": []}}, "block_backup_slots": 1}
        hostvars[host]["repository_shared"] = shared
    for host, variables in more.items():
        hostvars[host].update(variables)
    return resolved(hostvars, hosts)


def resolved(hostvars: dict[str, Any], hosts: Sequence[str] = ("b1", "b2")) -> dict[str, Any]:
    """With the facts that every playbook begins with."""
    for host, facts in host_facts(groups_of(hosts), hostvars).items():
        hostvars[host].update(facts)
    return hostvars


def saveset(server: str, run: int, count: int, seconds: float, **more: Any) -> dict[str, Any]:
    stats = {"bytes_read": count, "seconds": seconds}
    return {"volume": f"{server}/m", "run_id": f"isb-{run}", "stats": stats, "aside": "", **more}


def where(hostvars: dict[str, Any]) -> dict[str, str]:
    found = place(SERVERS, hostvars)
    assert found["problems"] == [] and found["left_out"] == {}
    return {server: entry["host"] for server, entry in found["placed"].items()}


def test_servers_are_spread_over_the_backup_servers_that_share_a_repository() -> None:
    assert where(site()) == {"fs1": "b1", "fs2": "b2", "fs3": "b2"}


def test_without_a_shared_repository_all_is_as_it_was() -> None:
    assert where(site(shared=False)) == dict.fromkeys(SERVERS, "b1")
    assert where(site(shared=False, fs2={"isb_backup_server": "b2"})) == {"fs1": "b1", "fs2": "b2", "fs3": "b1"}
    assert where(site(b1={"repository_shared": False})) == dict.fromkeys(SERVERS, "b1")


def test_what_the_site_names_is_pinned() -> None:
    pinned = site(fs1={"isb_backup_server": "b2"}, fs2={"isb_backup_server": "b2"})
    assert where(pinned) == {"fs1": "b2", "fs2": "b2", "fs3": "b1"}


def test_a_run_does_not_pin_what_it_has_assigned() -> None:
    """The next playbook of the same process finds the fact, and begins with what the site says."""
    hostvars = site(fs3={"isb_backup_server": "b1"})
    hostvars["fs2"]["isb_backup_server"] = "b2"
    again = resolved(hostvars)
    assert (again["fs2"]["isb_backup_server"], again["fs3"]["isb_backup_server"]) == ("b1", "b1")
    assert place(SERVERS, again)["placed"]["fs2"]["hosts"] == ["b1", "b2"]
    assert place(SERVERS, again)["placed"]["fs3"]["hosts"] == ["b1"]


def test_the_rates_of_earlier_runs_count() -> None:
    """The smallest server is the slowest one by far."""
    savesets = [
        *[saveset("fs1", run, GB, 10.0) for run in (1, 2, 3)],
        *[saveset("fs2", run, GB, 10.0) for run in (1, 2, 3)],
        *[saveset("fs3", run, GB, 500.0) for run in (1, 2, 3)],
    ]
    hostvars = site(b1={"preflight_found": {"repository": {"savesets": savesets}}})
    assert where(hostvars) == {"fs3": "b1", "fs1": "b2", "fs2": "b2"}
    placed = place(SERVERS, hostvars)["placed"]
    assert placed["fs3"]["seconds"] == pytest.approx(502.0)


def test_all_volumes_of_a_server_are_one_backup() -> None:
    volumes = [{"name": name, "serial": serial("fs1")} for name in ("m", "data")]
    savesets = [saveset("fs1", 1, GB, 10.0), saveset("fs1", 1, 3 * GB, 20.0, volume="fs1/data")]
    hostvars = site(fs1={"isb_volumes": volumes}, b1={"preflight_found": {"repository": {"savesets": savesets}}})
    assert place(["fs1"], hostvars)["placed"]["fs1"]["seconds"] == pytest.approx(2.0 + 20.0)


@pytest.mark.parametrize("stats", [None, {}, {"bytes_read": -1, "seconds": 1}, {"bytes_read": "x", "seconds": 1}])
@pytest.mark.parametrize("more", [{}, {"stats": {"bytes_read": 1, "seconds": float("nan")}}, {"aside": "unknown"}])
def test_what_a_repository_says_may_be_anything(stats: Any, more: dict[str, Any]) -> None:
    told = {**saveset("fs3", 1, 500 * GB, 500.0), **(more or {"stats": stats})}
    hostvars = site(b1={"preflight_found": {"repository": {"savesets": [told]}}})
    assert where(hostvars) == {"fs1": "b1", "fs2": "b2", "fs3": "b2"}


def test_all_is_read_where_changes_are_not_asked_for() -> None:
    savesets = [saveset(server, 1, GB, 10.0) for server in SERVERS]
    common = {"preflight_found": {"repository": {"savesets": savesets}}}
    for variables in ({"isb_changed_extents": False}, {"isb_paranoid": "yes"}):
        placed = place(SERVERS, site(b1=common, fs1=variables))["placed"]
        assert [round(placed[server]["seconds"]) for server in SERVERS] == [302, 12, 12]


@pytest.mark.parametrize("found", [None, {}, {"repository": {"problem": "wrong passphrase"}}])
def test_a_backup_server_that_fails_its_tests_is_left_out_and_told(found: Any) -> None:
    result = place(SERVERS, site(b2={"preflight_found": found}))
    assert {entry["host"] for entry in result["placed"].values()} == {"b1"}
    assert result["left_out"] == {"b2": "wrong passphrase" if found else "did not answer"}
    assert result["problems"] == []


def test_a_server_that_is_pinned_to_it_has_no_other() -> None:
    result = place(SERVERS, site(b2={"preflight_found": None}, fs2={"isb_backup_server": "b2"}))
    assert result["problems"] == ["b2: did not answer"]


def test_a_way_that_does_not_work_is_avoided() -> None:
    ways = {"repository": {"savesets": []}, "way to s2": {"problem": "no way"}}
    result = place(SERVERS, site(b1={"preflight_found": ways}, fs1={"isb_storage_host": "s2"}))
    assert result["placed"]["fs1"]["host"] == "b2" and result["placed"]["fs2"]["host"] == "b1"
    assert (result["left_out"], result["problems"]) == ({"b1": "no way"}, [])
    only = place(["fs1"], site(False, b1={"preflight_found": ways}, fs1={"isb_storage_host": "s2"}))
    assert (only["left_out"], only["problems"]) == ({}, ["b1: no way"])


def test_all_of_them_fail() -> None:
    found = {"repository": {"problem": "wrong passphrase"}}
    result = place(SERVERS, site(b1={"preflight_found": found}, b2={"preflight_found": None}))
    assert result["problems"] == ["b1: wrong passphrase", "b2: did not answer"]
    assert (result["placed"], result["left_out"]) == ({}, {})


@pytest.mark.parametrize("slots", ["two", -1, None])
def test_slots_that_are_no_number_are_named(slots: Any) -> None:
    (problem,) = place(SERVERS, site(b2={"block_backup_slots": slots}))["problems"]
    assert problem == f"b2: block_backup_slots is '{slots}': set a number, or 0 for no limit"


def test_whether_a_repository_is_shared_is_yes_or_no() -> None:
    (problem,) = inventory_problems([], {"b1": {"repository_shared": "nfs"}}, groups={"backup_servers": ["b1"]})
    assert problem == "b1: repository_shared is 'nfs': set it to true or false"


def test_what_is_done_once_for_a_repository() -> None:
    assert repository_hosts(GROUPS, site()) == ["b1"]
    assert repository_hosts(GROUPS, site(shared=False)) == ["b1", "b2"]
    assert repository_hosts(GROUPS, {}) == repository_hosts(GROUPS, None) == ["b1", "b2"]
    assert repository_hosts({}, {}) == []


def test_the_ways_that_are_tried() -> None:
    hostvars = site(fs1={"isb_storage_host": "s2"}, fs2={"isb_backup_server": "b2"})
    assert storage_hosts_of(SERVERS, hostvars, "b1") == ["s2", "s1"]
    assert storage_hosts_of(SERVERS, hostvars, "b2") == ["s2", "s1"]
    hostvars = site(False, fs1={"isb_storage_host": "s2"}, fs2={"isb_backup_server": "b2"})
    assert (storage_hosts_of(SERVERS, hostvars, "b1"), storage_hosts_of(SERVERS, hostvars, "b2")) == (
        ["s2", "s1"],
        ["s1"],
    )


def test_a_backup_server_that_does_nothing_is_told() -> None:
    (text,) = unused_warnings(GROUPS, site(shared=False))
    assert text.startswith("nothing is backed up on b2: no server names it")
    assert unused_warnings(GROUPS, site()) == []
    assert unused_warnings(GROUPS, site(shared=False, fs1={"isb_backup_server": "b2"})) == []
    assert unused_warnings({"file_servers": [], "listeners": []}, {}) == []


def running(hostvars: dict[str, Any]) -> dict[str, Any]:
    """The same while the backups run, each where it was assigned."""
    placed = place(SERVERS, hostvars)["placed"]
    for server, entry in placed.items():
        hostvars[server]["isb_backup_server"] = entry["host"]
    hostvars["b1"]["preflight_placed"] = placed
    return hostvars


@pytest.fixture
def three() -> dict[str, Any]:
    """A site with three backup servers, and a server on each."""
    hostvars = running(site(hosts=("b1", "b2", "b3")))
    assert [hostvars[server]["isb_backup_server"] for server in SERVERS] == ["b1", "b2", "b3"]
    return hostvars


def test_another_backup_server_takes_over() -> None:
    hostvars = running(site())
    assert next_backup_server(hostvars, "fs2", "b1", GONE) == {"host": "b1", "problem": GONE["msg"]}


def test_the_one_with_the_least_left_to_do_takes_over(three: dict[str, Any]) -> None:
    assert next_backup_server(three, "fs1", "b1", GONE)["host"] == "b3"
    three["fs2"]["block_backup_result"] = {"savesets": []}  # it has ended
    assert next_backup_server(three, "fs1", "b1", GONE)["host"] == "b2"


def test_all_that_lose_their_backup_server_are_spread(three: dict[str, Any]) -> None:
    """Each asks for itself, and they do not all go to the same one."""
    for server in SERVERS:
        three[server]["isb_backup_server"] = "b1"
    found = {server: next_backup_server(three, server, "b1", GONE)["host"] for server in SERVERS}
    assert found == {"fs1": "b2", "fs2": "b3", "fs3": "b3"}


def test_no_backup_server_is_tried_twice() -> None:
    hostvars = running(site())
    hostvars["fs1"].update(block_backup_backup_server="b2", block_backup_moves=[{"from": "b1", "to": "b2"}])
    found = next_backup_server(hostvars, "fs1", "b1", GONE)
    assert found["host"] == ""
    assert found["problem"].endswith("No other backup server takes over: all others have died in this run as well")


def test_one_that_died_under_another_server_does_not_take_over(three: dict[str, Any]) -> None:
    three["fs3"]["block_backup_result"] = {"failed": True, "host_gone": True}
    assert next_backup_server(three, "fs1", "b1", GONE)["host"] == "b2"
    moves = [{"from": "b3", "to": "b2"}]
    three["fs3"].update(block_backup_backup_server="b2", block_backup_moves=moves, block_backup_result={})
    assert next_backup_server(three, "fs1", "b1", GONE)["host"] == "b2"


def test_a_server_that_is_pinned_does_not_move() -> None:
    hostvars = running(site(fs2={"isb_backup_server": "b2"}))
    found = next_backup_server(hostvars, "fs2", "b1", GONE)
    assert found["host"] == "" and "it is the only one that can back up this server" in found["problem"]


@pytest.mark.parametrize("failed", [{"failed": True, "msg": "no space left"}, {"msg": "no space left"}])
def test_any_other_failure_stays_what_it_is(failed: dict[str, Any]) -> None:
    assert next_backup_server(running(site()), "fs1", "b1", failed) == {"host": "", "problem": "no space left"}

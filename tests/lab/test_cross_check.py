# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules by which copies of several servers are of one point in time, each broken once."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any

import pytest

SERVERS = ("fs1", "fs2", "fs3")
BASE = 1000


def lines(server: str) -> str:
    """What LABCHECK tells of a server that has sent entries 6 to 10, and received as many, from each peer."""
    told = [f"server\t{server}", f"base\t{BASE}", f"accounts\t10\t{BASE}"]
    for peer in SERVERS:
        if peer != server:
            told += [f"total\tout\t{peer}\t50", f"total\tin\t{peer}\t50", f"acknowledged\t{peer}\t10"]
            told += [f"high\tout\t{peer}\t10", f"high\tin\t{peer}\t10"]
            told += [f"entry\tout\t{peer}\t{n}\t5|{server} to {peer} {n}" for n in range(6, 11)]
            told += [f"entry\tin\t{peer}\t{n}\t5|{peer} to {server} {n}" for n in range(6, 11)]
    return "\n".join([*told, "end", ""])


@pytest.fixture
def states(cross_check: ModuleType) -> dict[str, Any]:
    """Copies of one point in time."""
    return {server: cross_check.parse(lines(server)) for server in SERVERS}


def send(state: Any, peer: str, amount: int = 5) -> None:
    """What a server's transaction changes when it sends an entry."""
    number = state.high_out[peer] + 1
    state.high_out[peer] = number
    state.sent[peer][number] = f"{amount}|{state.server} to {peer} {number}"
    state.total_out[peer] += amount
    state.money -= amount


def receive(state: Any, peer: str, amount: int = 5) -> None:
    """What a server's transaction changes when it receives an entry."""
    number = state.high_in[peer] + 1
    state.high_in[peer] = number
    state.received[peer][number] = f"{amount}|{peer} to {state.server} {number}"
    state.total_in[peer] += amount
    state.money += amount


def kinds(found: list[dict[str, Any]], scope: str) -> set[str]:
    return {each["kind"] for each in found if each["scope"] == scope}


def test_one_point_in_time_breaks_no_rule(cross_check: ModuleType, states: dict[str, Any]) -> None:
    assert cross_check.violations(states) == []


def test_what_is_on_its_way_breaks_no_rule(cross_check: ModuleType, states: dict[str, Any]) -> None:
    send(states["fs1"], "fs2")
    assert cross_check.violations(states) == []
    receive(states["fs2"], "fs1")
    assert cross_check.violations(states) == []
    states["fs1"].acknowledged["fs2"] += 1
    assert cross_check.violations(states) == []


def test_the_receiver_copied_after_the_sender(cross_check: ModuleType, states: dict[str, Any]) -> None:
    early = copy.deepcopy(states["fs1"])
    send(states["fs1"], "fs2")
    receive(states["fs2"], "fs1")
    found = cross_check.violations({**states, "fs1": early})
    assert kinds(found, "cross") == {"received_before_sent"}
    assert kinds(found, "server") == set()
    assert "fs2 has received entry 11, fs1 has sent no further than 10" in found[0]["detail"]


def test_the_sender_copied_after_the_receiver(cross_check: ModuleType, states: dict[str, Any]) -> None:
    early = copy.deepcopy(states["fs2"])
    send(states["fs1"], "fs2")
    receive(states["fs2"], "fs1")
    states["fs1"].acknowledged["fs2"] += 1
    found = cross_check.violations({**states, "fs2": early})
    assert kinds(found, "cross") == {"acknowledged_before_received"}
    assert (found[0]["server"], found[0]["peer"]) == ("fs1", "fs2")


def test_an_entry_that_arrived_changed(cross_check: ModuleType, states: dict[str, Any]) -> None:
    states["fs2"].received["fs1"][8] = "5|something else"
    assert kinds(cross_check.violations(states), "cross") == {"entry_differs"}


def test_money_lost_between_servers(cross_check: ModuleType, states: dict[str, Any]) -> None:
    states["fs2"].total_in["fs1"] -= 3
    states["fs2"].money -= 3
    assert kinds(cross_check.violations(states), "cross") == {"money_between"}


def test_money_lost_within_a_server(cross_check: ModuleType, states: dict[str, Any]) -> None:
    states["fs3"].money -= 1
    found = cross_check.violations(states)
    assert [(each["kind"], each["scope"], each["server"]) for each in found] == [("money", "server", "fs3")]


@pytest.mark.parametrize(("way", "kind"), [("sent", "gap_sent"), ("received", "gap_received")])
def test_a_missing_entry(cross_check: ModuleType, states: dict[str, Any], way: str, kind: str) -> None:
    del getattr(states["fs1"], way)["fs3"][7]
    found = cross_check.violations(states)
    assert kinds(found, "server") == {kind}
    assert "1 of the entries 6 to 10 are missing" in found[0]["detail"]


@pytest.mark.parametrize(("way", "kind"), [("sent", "gap_sent"), ("received", "gap_received")])
def test_a_last_entry_that_is_missing(cross_check: ModuleType, states: dict[str, Any], way: str, kind: str) -> None:
    del getattr(states["fs1"], way)["fs3"][10]
    assert kind in kinds(cross_check.violations(states), "server")


def test_a_copy_that_is_another_server(cross_check: ModuleType, states: dict[str, Any]) -> None:
    found = cross_check.violations({**states, "fs2": copy.deepcopy(states["fs3"])})
    assert "wrong_server" in kinds(found, "server")


@pytest.mark.parametrize("told", ["", "server\tfs1\n", "error\tin\tdamaged\nend\n"])
def test_a_copy_that_cannot_be_read_is_never_good(cross_check: ModuleType, states: dict[str, Any], told: str) -> None:
    found = cross_check.violations({**states, "fs1": cross_check.parse(told)})
    assert "unreadable" in kinds(found, "copy")


def test_values_with_tabs_stay_whole(cross_check: ModuleType) -> None:
    state = cross_check.parse("entry\tin\tfs1\t7\ta\tb\n")
    assert state.received == {"fs1": {7: "a\tb"}}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drills are taken down, what they have proven, and whose turn it is."""

from __future__ import annotations

import datetime
import os
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control import controller as controllers
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.life import (
    drills_to_end,
    due_servers,
    due_summary,
    last_proof,
    open_drills,
    with_proof,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import processes

NOON = 1795953600.0  # 2026-11-29T12:00:00Z
HERE = controllers.this_place()
ALIVE = {**HERE, **processes.identity(os.getpid())}
GONE = {**HERE, "pid": 1, "ticks": 1}
DAY = 86400


def opened(name: str, last_event: str, controller: dict[str, Any], ttl_s: int = 7200) -> dict[str, Any]:
    data = {"controller": controller, "ttl_s": ttl_s, "dr_hosts": ["dr1"]}
    return {"run_id": name, "opened": "2026-11-29T11:00:00+00:00", "last_event": last_event, "data": data} | {
        "last_time": "2026-11-29T11:00:00+00:00"
    }


@pytest.mark.parametrize(
    ("last_event", "controller", "ttl_s", "state"),
    [
        ("check", ALIVE, 7200, "live"),
        ("check", {**GONE, "host": "elsewhere"}, 7200, "live"),
        ("check", {**GONE, "boot": "another"}, 7200, "live"),
        ("check", {**GONE, "namespace": "pid:[1]"}, 7200, "live"),
        ("check", GONE, 7200, "dead"),
        ("kept", GONE, 7200, "kept"),
        ("kept", GONE, 3600, "expired"),
        ("torn_down", GONE, 7200, "dead"),
        ("failed_over", GONE, 0, "failed over"),
    ],
)
def test_the_state_of_an_open_drill(last_event: str, controller: dict[str, Any], ttl_s: int, state: str) -> None:
    (found,) = open_drills([opened("idr-20261129T110000Z-000001", last_event, controller, ttl_s)], NOON)
    assert found["state"] == state


def test_the_dead_and_those_out_of_time_are_ended_and_nothing_else() -> None:
    live, dead, kept, expired, failover = (f"idr-20261129T110000Z-00000{number}" for number in range(5))
    drills = open_drills(
        [
            opened(live, "check", ALIVE),
            opened(dead, "check", GONE),
            opened(kept, "kept", GONE),
            opened(expired, "kept", GONE, 60),
            opened(failover, "failed_over", GONE, 60),
        ],
        NOON,
    )
    assert drills_to_end(drills, [])["drills"] == [dead, expired]
    assert drills_to_end(drills, [])["died"] == [dead]
    assert drills_to_end(drills, [live])["died"] == [dead]
    assert drills_to_end(drills, [], named=live)["died"] == [live, dead]
    live_text, kept_text, failover_text = drills_to_end(drills, [])["left_alone"]
    assert live_text.startswith(f"drill {live} on dr1: its playbook is running")
    assert kept_text.startswith(f"drill {kept} on dr1: it is kept until 2026-11-29T13:00:00+00:00; ")
    assert kept_text.endswith(f"'idr.yml --tags teardown -e idr_end={kept}' ends it")
    assert "it was a failover, and stays permanently" in failover_text
    assert drills_to_end(drills, [live])["drills"] == [live, dead, expired]
    assert drills_to_end(drills, [], kept=True)["drills"] == [dead, kept, expired]
    assert drills_to_end(drills, [], named=failover, kept=True)["drills"] == [dead, expired, failover]
    assert drills_to_end(drills, [], named="other")["problems"] == [
        "there is no open drill other: leave idr_end out to end all that are kept"
    ]


def records(*drills: tuple[str, str, list[str]]) -> list[dict[str, Any]]:
    """Opened and closed records: of each drill its name, its day, and the servers that it has proven."""
    found: list[dict[str, Any]] = []
    for name, day, proven in drills:
        volumes = [{"volume": "fs1/m", "saveset": "s1"}, {"volume": "fs1/files", "saveset": "s2"}]
        servers = {"fs1": {"volumes": volumes}, "fs2": {"volumes": [{"volume": "fs2/m", "saveset": "s3"}]}}
        found.append({"run_id": name, "event": "opened", "time": f"{day}T01:00:00+00:00", "data": {"servers": servers}})
        found.append({"run_id": name, "event": "closed", "time": f"{day}T02:00:00+00:00", "data": {"proven": proven}})
    return found


def test_savesets_are_proven_by_the_last_drill_that_passed_for_their_server() -> None:
    savesets = [{"id": "s1"}, {"id": "s3"}, {"id": "s9"}]
    drills = records(
        ("idr-1", "2026-11-20", ["fs1", "fs2"]), ("idr-2", "2026-11-21", ["fs1"]), ("idr-3", "2026-11-22", [])
    )
    first, second, third = with_proof(savesets, drills)
    assert first["proven"] == {"drill": "idr-2", "time": "2026-11-21T02:00:00+00:00", "server": "fs1"}
    assert second["proven"]["drill"] == "idr-1"
    assert third["proven"] == {}
    assert last_proof(drills) == {"fs1": "2026-11-21T02:00:00+00:00", "fs2": "2026-11-20T02:00:00+00:00"}


def test_every_server_comes_round_in_time() -> None:
    servers = [f"fs{number}" for number in range(10)]
    proofs: dict[str, str] = {}
    for week in range(12):
        now = NOON + week * 7 * DAY
        chosen = due_servers(servers, proofs, 28, 7, now)
        proofs.update(dict.fromkeys(chosen, datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat()))
        ages = [now - datetime.datetime.fromisoformat(proofs[server]).timestamp() for server in servers]
        assert max(ages) <= 28 * DAY


def test_what_was_never_proven_comes_first() -> None:
    proofs = {"a": "2026-11-28T00:00:00+00:00", "c": "2026-11-01T00:00:00+00:00"}
    assert due_servers(["a", "b", "c"], proofs, 365, 1, NOON) == ["b"]
    assert due_servers(["a", "b", "c"], proofs, 28, 7, NOON) == ["b", "c"]
    due = {"b": "", "c": proofs["c"]}
    assert due_summary(due) == [
        "b: never proven",
        "c: last proven on 2026-11-01T00:00:00+00:00",
    ]


def test_a_proof_from_the_future_puts_nothing_off() -> None:
    """A clock that was ten years ahead at a drill would else spare that server for ten years."""
    proofs = {"a": "2036-11-28T00:00:00+00:00", "b": "2026-11-28T00:00:00+00:00"}
    assert due_servers(["a", "b"], proofs, 365, 1, NOON) == ["a"]
    assert due_servers(["a", "b"], {**proofs, "a": "2026-11-29T12:00:30+00:00"}, 365, 1, NOON) == ["b"]


def test_once_all_are_proven_only_as_many_as_it_takes() -> None:
    proofs = dict.fromkeys("abcdefgh", "2026-11-28T00:00:00+00:00")
    assert due_servers(list("abcdefgh"), proofs, 28, 7, NOON) == ["a", "b"]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server is never left frozen: not by a controller that is killed, and not by a storage that hangs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from families import kill_family
from lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.slow]

# Inside the freeze window, in place of the storage's call: longer than any budget.
HANGING_STORAGE = ("-e", "snapshot_command='date +%s.%N; sleep 120; date +%s.%N'")
BUDGET = 8  # seconds
SLACK = 1.0  # seconds


def wait_for(lab: Lab, state: str, seconds: float) -> dict[str, dict[str, Any]]:
    """The holders, once all of them are in this state."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        holders = lab.holders()
        if set(holders) == set(lab.servers) and {holder["state"] for holder in holders.values()} == {state}:
            return holders
    pytest.fail(f"not all servers were {state} within {seconds} s: {holders}")


def assert_thawed_in_time(holders: dict[str, dict[str, Any]], budget: float) -> None:
    """By each server's own clock."""
    for server, holder in holders.items():
        frozen_for = holder["thawed"] - holder["freeze_started"]
        assert frozen_for <= budget + SLACK, f"{server} was frozen for {frozen_for:.1f} s"
        assert holder["hold_unbroken"] is False


def databases_go_on(lab: Lab) -> None:
    """Every server can write to its volume."""
    for server in lab.servers:
        lab.on(server, "timeout 5 sh -c 'touch /srv/m/.written && sync -f /srv/m/.written && rm /srv/m/.written'")


def test_controller_killed_between_freeze_and_thaw(lab: Lab) -> None:
    process = lab.start("isb.yml", "-e", f"isb_freeze_budget={BUDGET}", *HANGING_STORAGE)
    try:
        wait_for(lab, "frozen", 180)
    finally:
        kill_family(process.pid)
        process.communicate()
    assert_thawed_in_time(wait_for(lab, "thawed", BUDGET + 30), BUDGET)
    databases_go_on(lab)

    status, output = lab.play("isb.yml")
    assert status != 0
    assert "is still open" in output
    assert "ansible-playbook recover.yml" in output

    before = lab.journal(), lab.holders()
    assert before[0][-1]["event"] == "refused"
    dead = before[0][-2]["run_id"]
    status, output = lab.play("recover.yml", "-e", "recover_dry_run=true")
    assert status == 0, output
    assert "What would be done (nothing was done):" in output
    for server in lab.servers:
        assert f"{server}: thaw, and end the holder of run {dead}" in output
    assert (lab.journal(), lab.holders()) == before

    foreign = "/srv/pool/snapshots/of-somebody"
    lab.on("storage1", f"btrfs subvolume snapshot -r /srv/pool/luns {foreign}")
    status, output = lab.play("recover.yml")
    assert status == 0, output
    assert "What was done:" in output
    lab.on("storage1", f"ls {foreign}/*.lun && btrfs subvolume delete {foreign}")
    lab.nothing_is_left()

    status, output = lab.play("isb.yml")
    assert status == 0, output
    assert lab.journal()[-1]["data"]["verdict"] == "application-consistent"


def test_a_run_that_dies_leaves_the_base_of_an_earlier_one_alone(lab: Lab) -> None:
    status, output = lab.play("isb.yml")
    assert status == 0, output
    bases = lab.luns_in_snapshots()
    slow = dict.fromkeys(lab.servers, {"block_backup_rate_limit": 1, "isb_changed_extents": False})
    process = lab.start("isb.yml", host_vars=slow)
    try:
        deadline = time.monotonic() + 90
        while lab.journal()[-1]["event"] != "backup":
            assert time.monotonic() < deadline, "no backup began"
        dead = lab.journal()[-1]["run_id"]
        while dead not in lab.on("backup1", "ls /run/openisb/jobs"):
            assert time.monotonic() < deadline, "no backup reads"
    finally:
        kill_family(process.pid)
        process.communicate()
    found = lab.luns_in_snapshots()
    assert found == {serial: [*runs, dead] for serial, runs in bases.items()}

    status, output = lab.play("recover.yml", "--check")
    assert status == 0, output
    assert f"storage1: delete the snapshot of run {dead}" in output
    assert f"backup1: end the job {dead}" in output
    assert lab.luns_in_snapshots() == found
    status, output = lab.play("recover.yml")
    assert status == 0, output
    assert lab.luns_in_snapshots() == bases
    assert dead not in lab.on("backup1", "ls -R /run/openisb")
    lab.nothing_is_left()


def test_storage_that_hangs_inside_the_window(lab: Lab) -> None:
    budget = 4
    status, output = lab.play("isb.yml", "-e", f"isb_freeze_budget={budget}", *HANGING_STORAGE)
    assert status != 0, output
    records = lab.journal()
    assert records[-1]["event"] == "closed"
    assert records[-1]["data"]["verdict"] == "failed"
    (thawed,) = [r for r in records if r["run_id"] == records[-1]["run_id"] and r["event"] == "thawed"]
    assert_thawed_in_time(thawed["data"]["servers"], budget)
    assert "storage host storage1 did not take its snapshot" in output
    databases_go_on(lab)
    lab.nothing_is_left()


def test_a_live_run_is_never_taken_for_a_dead_one(lab: Lab) -> None:
    process = lab.start("isb.yml", "-e", "isb_freeze_budget=25", *HANGING_STORAGE)  # long enough to be seen
    try:
        wait_for(lab, "frozen", 180)
        status, output = lab.play("recover.yml")
        assert status == 0, output
        assert "is still running" in output
        status, output = lab.play("isb.yml")
        assert status != 0
        assert "is still open" in output
        process.communicate(timeout=120)
    finally:
        if process.poll() is None:
            kill_family(process.pid)
    # The live run may have ended before the other one was refused.
    assert [record["event"] for record in lab.journal() if record["event"] != "refused"][-1] == "closed"
    lab.nothing_is_left()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes by identity and by session."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import processes
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import takeover

from .conftest import wait_for

GROUPS = "sleep 60 & set -m; sleep 60 & echo $!; wait"
"""Prints the id of a process that leads a group of its own in the session."""


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[str]]:
    started: dict[str, Any] = {"start_new_session": True, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(["bash", "-c", GROUPS], **started) as process:
        yield process
        takeover.end_session(process.pid)


def read_pid(leader: subprocess.Popen[str]) -> int:
    assert leader.stdout is not None
    return int(leader.stdout.readline())


def test_a_session_is_ended_with_all_its_groups(leader: subprocess.Popen[str]) -> None:
    other = processes.identity(read_pid(leader))
    wait_for(lambda: len(processes.session_members(leader.pid)) == 3)
    assert other["pid"] in processes.session_members(leader.pid)
    takeover.end_session(leader.pid)
    assert processes.session_members(leader.pid) == []
    assert not processes.is_running(other)


def test_a_process_is_ended_with_the_group_that_it_leads(leader: subprocess.Popen[str]) -> None:
    other = processes.identity(read_pid(leader))
    assert processes.end(other, 2)
    assert not processes.is_running(other)
    assert leader.poll() is None
    assert processes.end(other, 2)


def test_another_process_with_the_same_id_is_left_alone(leader: subprocess.Popen[str]) -> None:
    identity = processes.identity(leader.pid)
    assert processes.end(dict(identity, ticks=identity["ticks"] + 1), 2)
    assert processes.is_running(identity)

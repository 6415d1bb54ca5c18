# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits of SSH and of processes that many servers meet are named with their cause and remedy, before any is frozen."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.clocks import clock_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.connection_limits import (
    explained,
    session_warnings,
    settings,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import process_limits

DEFAULTS = "port 22\nmaxauthtries 6\nmaxsessions 10\nmaxstartups 10:30:100\n"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("kex_exchange_identification: read: Connection reset by peer", "MaxStartups"),
        ("Connection closed by 192.0.2.7 port 22", "MaxStartups"),
        ("Connection timed out during banner exchange", "MaxStartups"),
        ("mux_client_request_session: session request failed: Session open refused by peer", "MaxSessions"),
        ('unix_listener: path "/x/y" too long for Unix domain socket', "ansible_control_path_dir"),
        ("OSError: [Errno 24] Too many open files", "ulimit -Hn"),
        ("no answer within 30 s", "preflight_clock_timeout"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("fork: Resource temporarily unavailable.", "ulimit -u"),
    ],
)
def test_an_error_is_told_with_the_limit_it_comes_from(error: str, remedy: str) -> None:
    (problem,) = clock_problems({"fs1": {"ok": False, "error": f"cannot be reached: {error}"}}, 60)
    assert problem.startswith(f"fs1: its clock could not be read: cannot be reached: {error.rstrip('.')}: ")
    assert remedy in problem


def test_any_other_error_stays_as_it_is() -> None:
    text = "cannot be reached: Permission denied (publickey)."
    assert explained(text) == text


def site(servers: int, sshd: str) -> tuple[dict[str, Any], dict[str, list[str]]]:
    names = [f"fs{number}" for number in range(servers)]
    uses = {"isb_backup_server": "backup1", "isb_storage_host": "storage1"}
    hostvars: dict[str, Any] = {**dict.fromkeys(names, uses), "backup1": {"preflight_sshd": {"stdout": sshd}}}
    return {**hostvars, "storage1": {}}, {"file_servers": names, "listeners": ["backup1"]}


@pytest.mark.parametrize(
    ("servers", "forks", "told"), [(20, 100, 0), (21, 100, 21), (100, 64, 64), (100, 20, 0), (300, 308, 300)]
)
def test_more_tasks_at_once_than_sshd_accepts(servers: int, forks: int, told: int) -> None:
    found = session_warnings(*site(servers, DEFAULTS), forks)
    assert len(found) == bool(told)
    for text in found:
        assert text.startswith(f"backup1 works for up to {told} servers at the same time")
        assert text.endswith(f"Set MaxSessions in its sshd_config to {told} or more")


def test_a_host_that_does_not_say_what_it_accepts() -> None:
    assert session_warnings(*site(300, ""), 300) == []
    assert session_warnings(*site(300, "sshd: no hostkeys available -- exiting."), 300) == []


def test_what_a_host_says_is_only_read_where_it_has_the_form() -> None:
    assert settings(DEFAULTS) == {"maxsessions": 10, "maxstartups": 10}
    assert settings("maxsessions none\nmaxstartups 10:x\n" + "maxsessions 1" + "0" * 50) == {}
    assert settings("x" * (1 << 20) + "\nmaxsessions 1\n") == {}


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Control groups as of a process in /jobs/one."""
    monkeypatch.setattr(process_limits, "CGROUPS", str(tmp_path))
    monkeypatch.setattr(process_limits, "_own_cgroups", lambda: [str(tmp_path / "jobs/one")])
    (tmp_path / "jobs/one").mkdir(parents=True)
    return tmp_path


def test_a_limit_of_the_container_counts_wherever_it_is(cgroups: Path) -> None:
    assert process_limits.problems(300) == []
    (cgroups / "jobs/one/pids.max").write_text("max\n")
    (cgroups / "jobs/pids.max").write_text("512\n")
    assert process_limits.problems(100) == []
    (problem,) = process_limits.problems(300)
    assert "may have 512 processes, and freezing 300 hosts at once takes 920" in problem
    assert "TasksMax" in problem and "--pids-limit" in problem


def test_a_limit_of_the_user_counts_for_all_but_root(cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (100, 400))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert process_limits.problems(300) == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert process_limits.problems(100) == []
    (problem,) = process_limits.problems(300)
    assert "may have 400 processes" in problem and "ulimit -Hu" in problem


def test_the_control_groups_of_this_process() -> None:
    """Whichever version this machine has."""
    folders = process_limits._own_cgroups()
    assert all(folder.startswith(process_limits.CGROUPS) for folder in folders)
    assert any(os.path.isdir(folder) for folder in folders) or not os.path.isdir(process_limits.CGROUPS)

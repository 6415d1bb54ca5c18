# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that are started as orphans: what they inherit, and what is told of one that does not start."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import orphans, processes

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture(params=[256, 1024])
def few_open_files(request: pytest.FixtureRequest) -> Iterator[int]:
    """A host on which a process may have few open files: 1024 is what systemd's services and logins get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (request.param, hard))
    yield request.param
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def written(log: Path, pid: int) -> str:
    """What an orphan has written until it ended."""
    deadline = time.monotonic() + 10
    while processes.identity(pid)["ticks"] is not None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return log.read_text()


def test_it_inherits_what_it_is_given_and_nothing_else(few_open_files: int, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    proof.write_text("what was handed on")
    descriptor, other = os.open(proof, os.O_RDONLY), os.open(proof, os.O_RDONLY)
    try:
        script = "cat <&3; echo; ls /proc/self/fd | wc -w"
        pid = orphans.spawn_orphan(
            ["/bin/sh", "-c", script], str(tmp_path / "log"), ENVIRONMENT, inherited=(descriptor,)
        )
    finally:
        os.close(descriptor)
        os.close(other)
    # 0 to 3, and the one with which ls reads.
    assert written(tmp_path / "log", pid).split("\n") == ["what was handed on", "5", ""]


def test_why_it_did_not_start_is_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pid = orphans.spawn_orphan(["/nowhere/nbdkit"], str(log), ENVIRONMENT)
    assert written(log, pid) == (
        "/nowhere/nbdkit could not be started: [Errno 2] No such file or directory: '/nowhere/nbdkit'\n"
    )

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands are bounded, and are really gone when they are said to have ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.commands import run, run_or_leave
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import identity, is_running

from .conftest import wait_for

PATH = {"PATH": "/usr/bin:/bin"}


def test_output_and_status() -> None:
    finished = run(["sh", "-c", "echo out; echo err >&2; echo $X; exit 3"], dict(PATH, X="x"), 10)
    assert (finished.status, finished.output) == (3, "out\nerr\nx")


def test_a_command_that_takes_too_long_is_ended() -> None:
    started: list[int] = []
    begun = time.monotonic()
    with pytest.raises(DriverError, match=r"'sh -c .*' was ended: it took longer than 0.2 s"):
        run(["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"], PATH, 0.2, started=started.append)
    assert time.monotonic() - begun < 3
    assert not os.path.exists(f"/proc/{started[0]}")


def test_a_group_is_ended_with_its_command() -> None:
    printed = "sh -c 'trap \"\" TERM; echo $$; exec >&- 2>&-; sleep 60' & sleep 0.2; sleep 60"
    begun = time.monotonic()
    with pytest.raises(DriverError, match="it took longer than 0.5 s: [0-9]+") as caught:
        run(["sh", "-c", printed], PATH, 0.5, group=True)
    assert time.monotonic() - begun < 5
    child = int(str(caught.value).rpartition(" ")[2])
    wait_for(lambda: not is_running(identity(child)))


def test_what_a_command_leaves_running_is_not_waited_for() -> None:
    begun = time.monotonic()
    finished = run(["sh", "-c", "sleep 3 & echo $!; exit 4"], PATH, 20)
    assert time.monotonic() - begun < 2
    assert finished.status == 4
    os.kill(int(finished.output), signal.SIGKILL)


def test_a_command_can_be_cancelled() -> None:
    cancelled = threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    begun = time.monotonic()
    with pytest.raises(DriverError, match="it was cancelled"):
        run(["sleep", "60"], PATH, 60, cancelled)
    assert time.monotonic() - begun < 3


def test_a_command_does_not_outlive_a_failure_to_note_it() -> None:
    started: list[int] = []

    def note(pid: int) -> None:
        started.append(pid)
        raise DriverError("cannot be noted")

    with pytest.raises(DriverError, match="cannot be noted"):
        run(["sleep", "60"], PATH, 60, started=note)
    assert not os.path.exists(f"/proc/{started[0]}")


def test_a_missing_command_is_named() -> None:
    with pytest.raises(DriverError, match="/nowhere/mupip cannot be started: No such file"):
        run(["/nowhere/mupip"], PATH, 1)


def test_what_hangs_below_a_command_ends_with_it() -> None:
    begun = time.monotonic()
    with pytest.raises(DriverError, match="longer than 0.2 s"):
        run(["/bin/sh", "-c", "sleep 4711 & wait"], PATH, 0.2)
    assert time.monotonic() - begun < 3
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            commands.append(path.read_bytes())
    assert b"sleep\x004711\x00" not in commands


def test_what_a_command_left_comes_apart() -> None:
    ended = run_or_leave(["sh", "-c", "echo out; echo err >&2; printf '\\377'; echo $X; exit 3"], dict(PATH, X="x"), 10)
    assert ended == (3, b"out\n\xffx\n", b"err\n")


def test_a_command_that_cannot_end_is_left() -> None:
    """As one that waits for a hung disk: here, what it has started keeps its output open."""
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        run_or_leave(["sh", "-c", "sleep 5 & wait"], PATH, 0.2)
    assert time.monotonic() - begun < 2

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that are killed while they make a LUN, and LUNs that somebody uses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = pytest.mark.root
Mount = Callable[..., Path]
GPT = "label: gpt\nstart=2048, size=131072\nstart=133120, size=8192\n"
# Makes a LUN and kills itself when it calls what makes something for the n-th time: just before, or just after it.
KILLED = """
import json, os, signal, sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([sys.argv[1]])
from ansible_collections.openisb.backup.plugins.module_utils.luns import commands, loops, records
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import Luns
run_dir, wanted, psk, at = sys.argv[2], json.loads(sys.argv[3]), sys.argv[4], int(sys.argv[5])
calls = 0
def watched(function):
    def call(*arguments, **options):
        step()
        result = function(*arguments, **options)
        step()
        return result
    return call
def step():
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)
records.Records.write = watched(records.Records.write)
commands.spawn = watched(commands.spawn)
loops.attach = watched(loops.attach)
Luns(run_dir).start(wanted, psk)
print(calls)
"""


@pytest.mark.slow
def test_killed_at_any_step(disks: Disks, served: Served, made: Made, project_root: Path) -> None:
    uri, psk = served.start(disks.table(GPT, 80 * 1024**2, {1: disks.filesystem("ext4")}, {1: 2048 * 512}))
    arguments = [str(project_root / "collections"), str(made.run_dir), json.dumps(made.wanted(uri)), psk]
    environment = dict(os.environ, ANSIBLE_CONFIG=str(project_root / "ansible.cfg"))
    seen_left, at = 0, 1
    while True:
        words = [sys.executable, "-c", KILLED, *arguments, str(at)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        seen_left += bool(made.traces())
        assert made.luns.stop(made.name()) == [], f"killed at call {at}"
        assert made.traces() == [], f"killed at call {at}"
        at += 1
    assert at > 20, "every step was hurt"
    assert seen_left > 15, "most of them left something to mend"
    assert made.luns.get(made.name())["running"]


def test_ended_without_a_record(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    uri, psk = served.start(disks.filesystem("ext4"))
    lun = made.start(uri, psk=psk)
    point = mount(lun["parts"][0])
    made.luns.records.forget(lun["name"])
    assert made.luns.traces(lun["name"])
    assert made.luns.stop(lun["name"]) == []
    assert not os.path.ismount(point)
    assert made.traces() == []
    assert not made.luns.traces(lun["name"])


def test_nothing_is_torn_from_under_who_works(disks: Disks, made: Made, mount: Mount) -> None:
    lun = made.start(disks.filesystem("ext4"))
    point = mount(lun["parts"][0])
    with subprocess.Popen(["sleep", "600"], cwd=point) as user:
        (left,) = made.luns.stop(lun["name"])
        assert f"{point} cannot be unmounted" in left
        assert f"used by process {user.pid} (sleep)" in left
        assert made.luns.get(lun["name"])["running"]
        assert (point / "proof").exists()
        user.kill()
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []


@pytest.mark.slow
def test_a_mount_in_another_namespace_is_told(disks: Disks, made: Made, mount: Mount) -> None:
    lun = made.start(disks.filesystem("ext4"))
    mount(lun["parts"][0])
    with subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "600"]) as user:
        deadline = time.monotonic() + 5
        while Path(f"/proc/{user.pid}/comm").read_text().strip() != "sleep" and time.monotonic() < deadline:
            time.sleep(0.01)
        (left,) = made.luns.stop(lun["name"])
        assert f"{lun['device']} is still in use" in left
        assert f"of process {user.pid} (sleep)" in left
        user.kill()
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []


def test_lost_processes_are_noticed(disks: Disks, made: Made) -> None:
    lun = made.start(disks.filesystem("ext4"))
    record = made.luns.records.get(lun["name"])
    os.kill(record["processes"]["nbdkit"]["pid"], signal.SIGKILL)
    deadline = time.monotonic() + 5
    while made.luns.get(lun["name"])["running"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not made.luns.get(lun["name"])["running"]
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []

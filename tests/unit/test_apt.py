# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages are installed once another apt has ended, not refused: a new machine's own updates hold its locks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt")

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""
LOCKS = {"update": "lists/lock", "install": "dpkg/lock-frontend", "clean": "archives/lock"}


class Apt:
    """An apt with folders of its own, and no package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dpkg", "lists/partial", "archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "dpkg/status").touch()
        (folder / "sources.list").touch()
        settings = {
            "Dir::State::status": folder / "dpkg/status",
            "Dir::State::Lists": folder / "lists",
            "Dir::Cache": folder,
            "Dir::Cache::archives": folder / "archives",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
        }
        (folder / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
        self.holders: list[subprocess.Popen[bytes]] = []

    def hold(self, lock: str, seconds: float) -> None:
        """Have a process hold a lock, as another apt does."""
        command = [sys.executable, "-c", HOLD, str(self.folder / lock), str(seconds)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"

    def run(self, program: str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = [program, "-y", command]
        known = {**os.environ, "APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C", **environment}
        return subprocess.run(arguments, env=known, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def apt(tmp_path: Path) -> Iterator[Apt]:
    made = Apt(tmp_path)
    yield made
    for holder in made.holders:
        holder.kill()
        holder.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("command", list(LOCKS))
def test_another_apt_is_waited_for(apt: Apt, project_root: Path, command: str) -> None:
    apt.hold(LOCKS[command], 2)
    refused = apt.run("apt-get", command)
    assert refused.returncode != 0
    assert "Could not get lock" in refused.stderr
    begun = time.monotonic()
    done = apt.run(str(project_root / "scripts/patient-apt-get"), command)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("command", ["update", "install"])
def test_not_for_ever(apt: Apt, project_root: Path, command: str) -> None:
    apt.hold(LOCKS[command], 60)
    begun = time.monotonic()
    done = apt.run(str(project_root / "scripts/patient-apt-get"), command, APT_PATIENCE="2")
    assert done.returncode != 0
    assert "is another process using it" in done.stderr or "Could not get lock" in done.stderr
    assert 1 < time.monotonic() - begun < 10


def test_another_failure_is_told_at_once(apt: Apt, project_root: Path) -> None:
    begun = time.monotonic()
    done = apt.run(str(project_root / "scripts/patient-apt-get"), "nonsense")
    assert done.returncode == 100
    assert "Invalid operation" in done.stderr
    assert time.monotonic() - begun < 5


def test_nothing_calls_apt_in_another_way(project_root: Path) -> None:
    """Neither the scripts nor the roles."""
    scripts = [path for path in (project_root / "scripts").iterdir() if path.is_file()]
    calls = re.compile(
        r"(^|[;&|({])\s*(as_root |sudo )?(apt-get|apt) +(-\S+ +)*(update|install|download)\b", re.MULTILINE
    )
    assert [path.name for path in scripts if calls.search(path.read_text())] == []
    for path in [*project_root.glob("roles/*/tasks/**/*.yml"), *project_root.glob("lab/roles/*/tasks/**/*.yml")]:
        for task in yaml.safe_load(path.read_text()) or []:
            if "ansible.builtin.apt" in task:
                assert task["ansible.builtin.apt"]["lock_timeout"] == 600, path
            if "ansible.builtin.package" in task:
                assert task["module_defaults"]["ansible.builtin.apt"]["lock_timeout"] == 600, path

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules as Ansible runs them, and filesystems of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_site import ansible_environment

Play = Callable[..., list[dict[str, Any]]]
MIB = 1024**2


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for caches, of this process and of those that it starts: none of this machine is used."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a filesystem in a file and mounts it; called with the command that makes it, and mount options."""
    made: list[Path] = []

    def mount(*command: str, options: str = "loop", size: int = 512 * MIB) -> Path:
        image, folder = tmp_path / f"image{len(made)}", tmp_path / f"mount{len(made)}"
        image.touch()
        os.truncate(image, size)
        folder.mkdir()
        subprocess.run([*command, image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", options, image, folder], check=True)
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs tasks on the host `local`, and returns the result of each; all of them run, also after failures."""
    settings = {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_PIPELINING": "true"}

    def run(tasks: list[dict[str, Any]], *arguments: str, hosts: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"hosts": {"local": local, **(hosts or {})}}}
        (tmp_path / "hosts.json").write_text(json.dumps(inventory))
        head = {"hosts": "local", "gather_facts": False, "ignore_errors": True}
        (tmp_path / "play.json").write_text(json.dumps([{**head, "tasks": tasks}]))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", *arguments]
            + [tmp_path / "play.json"],
            env=ansible_environment(tmp_path, **settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return [task["hosts"]["local"] for task in json.loads(done.stdout)["plays"][0]["tasks"]]

    return run

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action hold runs its program with the Python that a host has, which need not be /usr/bin/python3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.plugin_utils.interpreter import command_line

GREET = [
    {"openisb.backup.hold": {"command": "connect", "servers": ["fs1"], "timeout": 100}, "delegate_to": "localhost"}
]


class Host:
    """A host whose only Python is a file of another name, which notes that it ran."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python3.99"
        self.calls = folder / "calls"
        self.python.write_text(f'#!/bin/sh\necho "$@" >>{self.calls}\nexec {sys.executable} "$@"\n')
        self.python.chmod(0o755)

    def greet(self, tasks: list[dict[str, Any]], **variables: Any) -> str:
        """Have the action hold greet it, after ``tasks``; the output, which tells whether it answered."""
        fs1 = {"ansible_connection": "local", "ansible_interpreter_python_fallback": [str(self.python)], **variables}
        (self.folder / "hosts.json").write_text(json.dumps({"all": {"hosts": {"fs1": fs1}}}))
        play = {"hosts": "fs1", "gather_facts": False, "tasks": tasks + GREET}
        (self.folder / "play.json").write_text(json.dumps([play]))
        (self.folder / "ansible.cfg").touch()
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(Path(__file__).parents[3] / "collections"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_STDOUT_CALLBACK": "default",
        }
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [program, "-v", "-i", self.folder / "hosts.json", self.folder / "play.json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        return done.stdout + done.stderr

    def ran(self) -> int:
        """How often its Python has run a program from its standard input, with nothing of the site."""
        return self.calls.read_text().splitlines().count("-I -S -") if self.calls.exists() else 0


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_python_that_ansible_has_found(host: Host) -> None:
    output = host.greet([{"ansible.builtin.ping": {}}], ansible_interpreter_python_fallback=[str(host.python)])
    assert host.ran() == 1, output
    assert '"ok": true' in output, output


def test_where_no_module_has_run_yet_it_is_looked_for(host: Host) -> None:
    output = host.greet([])
    assert host.ran() == 1, output


@pytest.mark.parametrize("words", ["{}", "/usr/bin/env {}"])
def test_the_python_of_the_inventory(host: Host, words: str) -> None:
    output = host.greet([], ansible_python_interpreter=words.format(host.python))
    assert host.ran() == 1, output


def test_the_python_of_the_configuration(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_PYTHON_INTERPRETER", str(host.python))
    output = host.greet([], ansible_interpreter_python_fallback=["/nowhere"])
    assert host.ran() == 1, output


@pytest.mark.parametrize("mode", ["auto", "auto_silent", ""])
def test_a_host_without_any_python_is_told(mode: str) -> None:
    known = {"ansible_python_interpreter": mode, "ansible_interpreter_python_fallback": ["python3.99", "/no/where; id"]}
    done = subprocess.run(["sh", "-c", command_line(known)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr.startswith("there is no Python: none of python3.99 is on this host")


def test_a_name_is_no_program() -> None:
    known = {"ansible_facts": {"discovered_interpreter_python": "/bin/echo;id"}}
    assert command_line(known) == "exec '/bin/echo;id' -I -S -"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a holder that needs no process: what goes over it, and when there is none."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.plugin_utils.forward import Forward

from .conftest import Holds


class Connection:
    """What a way needs to know of Ansible's connection."""

    transport = "ssh"
    control_path = "%(directory)s/abc"
    control_path_dir = "/nowhere/cp"
    host = "fs1"

    def __init__(self, program: str) -> None:
        self.program = program

    def get_option(self, name: str) -> str:
        assert name == "ssh_executable"
        return self.program


@pytest.fixture
def ssh(tmp_path: Path) -> Path:
    """In place of ssh: notes how it was called, and fails where it is told to."""
    program = tmp_path / "ssh"
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\ntest ! -e {tmp_path}/fails\n')
    program.chmod(0o755)
    return program


def test_the_open_connection_is_asked_to_forward(ssh: Path, tmp_path: Path) -> None:
    way = Forward(Connection(str(ssh)), "/l/0", "/run/openisb/holder-r1.sock")
    assert way.open()
    way.close()
    start = "-F none -o ControlPath=/nowhere/cp/abc"
    what = "-L /l/0:/run/openisb/holder-r1.sock fs1"
    assert (tmp_path / "calls").read_text().splitlines() == [f"{start} -O forward {what}", f"{start} -O cancel {what}"]


def test_a_refusal_is_no_way(ssh: Path, tmp_path: Path) -> None:
    (tmp_path / "fails").touch()
    assert not Forward(Connection(str(ssh)), "/l/0", "/r").open()
    assert not Forward(Connection(str(tmp_path / "nothing")), "/l/0", "/r").open()


@pytest.mark.parametrize("change", [{"transport": "local"}, {"control_path": None}])
def test_connections_without_a_control_socket_have_no_way(ssh: Path, tmp_path: Path, change: dict) -> None:
    connection = Connection(str(ssh))
    for name, value in change.items():
        setattr(connection, name, value)
    way = Forward(connection, "/l/0", "/r")
    assert not way.open()
    way.close()
    assert not (tmp_path / "calls").exists()


def test_a_holder_answers_over_it(holds: Holds) -> None:
    holds.arm()
    way = Forward(Connection("ssh"), str(Path(holds.run_dir, "holder-r1.sock")), "/r")
    frozen = way.ask(b'{"run_id": "r1", "command": "freeze"}\n', 5)
    assert frozen is not None
    assert (frozen["ok"], frozen["state"]) == (True, "frozen")
    assert holds.ask("thaw")["hold_unbroken"] is True


def hang_up(listener: socket.socket) -> None:
    """Take one connection, and end it."""
    connection, _address = listener.accept()
    connection.close()


def test_a_way_that_breaks_gives_no_answer(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert Forward(Connection("ssh"), path, "/r").ask(b"{}\n", 1) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=hang_up, args=(listener,))
        thread.start()
        assert Forward(Connection("ssh"), path, "/r").ask(b"{}\n", 1) is None
        thread.join()
        begun = time.monotonic()
        assert Forward(Connection("ssh"), path, "/r").ask(b"{}\n", 0.2) is None
        assert time.monotonic() - begun < 1

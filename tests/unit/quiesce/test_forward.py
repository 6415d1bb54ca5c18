# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to a holder that needs no process: what goes over it, and when there is none."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.action import consistency_point
from ansible_collections.openisb.backup.plugins.plugin_utils import forward
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
        assert time.monotonic() - begun < 3


def serve_at(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    return listener


@pytest.mark.parametrize("name", ["x" * 150, "with:colon", "with space", "%h", "${HOME}", "x" * 60])
def test_whatever_tmpdir_is_sockets_have_paths_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(folder))
    assert tempfile.gettempdir() == str(folder)
    assert forward.place_problem() == ""
    with forward.sockets_folder() as found:
        assert not found.startswith(str(folder))
        serve_at(f"{found}/999999").close()
        assert Path(found).stat().st_mode & 0o777 == 0o700
    assert not Path(found).exists()


def test_a_short_tmpdir_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    with forward.sockets_folder() as found:
        assert found.startswith("/var/tmp/isb-")


def test_where_no_folder_is_fit_it_is_said_and_a_program_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "places", lambda: ["/nowhere", "/tmp/" + "x" * 150])
    with forward.sockets_folder() as found:
        assert found == ""
    assert "none of /nowhere, /tmp/xxx" in forward.place_problem()
    assert "set TMPDIR to a folder with a short path" in forward.place_problem()


class Point(consistency_point.ActionModule):
    """Takes a point of one server without Ansible, and notes the folder in which it would open ways."""

    def __init__(self, transport: str) -> None:
        self.peer = SimpleNamespace(_connection=SimpleNamespace(transport=transport))
        self.folder = ""

    def _prepare_greetings(self, *_given: Any) -> dict[str, Any]:
        return {"fs1": (self.peer,)}

    def _poke_all(self, *_given: Any) -> dict[str, Any]:
        return {"fs1": {"ok": True}}

    def _open_ways(self, _args: Any, _hostvars: Any, _connections: Any, folder: str, _stack: Any) -> None:
        self.folder = folder

    def _take(self, *_given: Any) -> dict[str, Any]:
        return {}

    def taken(self) -> dict[str, Any]:
        args = {"servers": ["fs1"], "snapshots": {}, "timeout": 1, "clock_limit": 1, "on_clock_skew": "abort"}
        with contextlib.ExitStack() as stack:
            return self._point({**args, "needs_all": True}, {}, "here", {}, stack)


def test_a_point_opens_its_ways_in_a_short_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ("x" * 150)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 150)))
    point = Point("ssh")
    assert point.taken()["warnings"] == []
    assert 0 < len(point.folder) + len("/123456") <= forward.LONGEST_SOCKET


@pytest.mark.parametrize(("transport", "told"), [("ssh", True), ("local", False)])
def test_a_point_without_a_folder_says_so_and_is_taken(
    monkeypatch: pytest.MonkeyPatch, transport: str, told: bool
) -> None:
    monkeypatch.setattr(forward, "places", lambda: ["/nowhere"])
    point = Point(transport)
    taken = point.taken()
    assert (taken["changed"], taken["problems"], taken["forwarded"], point.folder) == (True, [], [], "")
    assert taken["warnings"] == ([forward.place_problem()] if told else [])

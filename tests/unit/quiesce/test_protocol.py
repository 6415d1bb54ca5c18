# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers, as lines and over a socket."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import protocol
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError
from hypothesis import given
from hypothesis import strategies as st


@given(st.lists(st.integers(1, 12), min_size=1), st.dictionaries(st.text(), st.text()))
def test_a_message_survives_any_pieces(sizes: list[int], message: dict[str, str]) -> None:
    data, lines, got = protocol.encode(message), protocol.Lines(), None
    sizes = sizes + [len(data)]
    for size in sizes:
        piece, data = data[:size], data[size:]
        got = got or lines.feed(piece)
    assert got == message


@pytest.mark.parametrize("line", [b"\n", b"freeze\n", b"[1]\n", b"{\xff}\n", b"x" * (protocol.LIMIT + 1)])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(protocol.BadRequest):
        protocol.Lines().feed(line)


def test_a_request_for_another_run_is_refused() -> None:
    assert protocol.parse_request({"run_id": "r1", "command": "thaw"}, "r1") == "thaw"
    with pytest.raises(protocol.BadRequest, match="run r1, not of run r2"):
        protocol.parse_request({"run_id": "r2", "command": "thaw"}, "r1")
    with pytest.raises(protocol.BadRequest, match="no 'command'"):
        protocol.parse_request({"run_id": "r1"}, "r1")


def serve_once(listener: socket.socket, answer: bytes) -> threading.Thread:
    def serve() -> None:
        listener.setblocking(True)
        connection, _address = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_a_call_works_in_a_folder_with_a_long_name(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with protocol.listen(str(folder / "holder.sock")) as listener:
        serve_once(listener, b'{"ok": true}\n')
        assert protocol.call(str(folder / "holder.sock"), "r1", "status", 5) == {"ok": True}


def test_a_call_says_what_is_wrong(tmp_path: Path) -> None:
    path = str(tmp_path / "holder.sock")
    with pytest.raises(HolderError, match="does not answer"):
        protocol.call(path, "r1", "status", 1)
    with protocol.listen(path) as listener:
        with pytest.raises(HolderError, match="does not answer"):
            protocol.call(path, "r1", "status", 0.1)
        listener.accept()[0].close()
        serve_once(listener, b"")
        with pytest.raises(HolderError, match="without an answer"):
            protocol.call(path, "r1", "status", 5)

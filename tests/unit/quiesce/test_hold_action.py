# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the action hold makes of the answers, and the program that it sends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.action import hold
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import protocol

from .conftest import Holds


def poke(command: str, run_dir: Path | str, run_id: str = "r1", timeout: float = 5.0) -> dict[str, Any]:
    """Run the program as a server would, and read its answer."""
    source = hold.program(command, run_id, str(run_dir), timeout)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"], input=source, capture_output=True, text=True, check=False, timeout=20
    )
    return hold.parse_answer("Welcome!\n" + done.stdout, done.stderr)


def test_the_program_brings_the_holders_answer(holds: Holds) -> None:
    holds.arm()
    assert poke("status", holds.run_dir)["state"] == "armed"
    assert poke("freeze", holds.run_dir)["hold_unbroken"] is True
    assert poke("thaw", holds.run_dir) == holds.ask("thaw")


def test_the_program_greets_and_tells_the_time() -> None:
    before = time.time()
    answer = poke("connect", "/nowhere")
    assert before <= answer.pop("clock") <= time.time()
    assert answer == {"ok": True}


def test_the_greeting_writes_out_what_will_be_frozen(tmp_path: Path) -> None:
    record = {"drivers": [{"options": {"name": "gtm"}}, {"options": {"name": "filesystem", "mounts": [str(tmp_path)]}}]}
    (tmp_path / "hold-r1.json").write_text(json.dumps(record))
    # In place of the C library, something that notes which file the descriptor is of.
    noting = (
        "import os, sys, types\n"
        "def syncfs(number):\n"
        f"    with open({str(tmp_path / 'synced')!r}, 'w') as stream:\n"
        "        stream.write(os.readlink(f'/proc/self/fd/{number}'))\n"
        "library = types.SimpleNamespace(syncfs=syncfs)\n"
        "sys.modules['ctypes'] = types.SimpleNamespace(CDLL=lambda name: library)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-"],
        input=noting + hold.program("connect", "r1", str(tmp_path), 5.0),
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert hold.parse_answer(done.stdout, done.stderr)["ok"]
    assert (tmp_path / "synced").read_text() == str(tmp_path)


def test_a_greeting_whose_disk_cannot_be_written_out_still_answers(tmp_path: Path) -> None:
    record = {"drivers": [{"options": {"name": "filesystem", "mounts": [str(tmp_path / "nowhere")]}}]}
    (tmp_path / "hold-r1.json").write_text(json.dumps(record))
    assert poke("connect", tmp_path)["ok"] is True


def test_where_there_is_no_holder(tmp_path: Path) -> None:
    assert "there is no holder of this run" in poke("freeze", tmp_path)["error"]
    assert "there is no holder of this run" in poke("status", tmp_path / "nowhere")["error"]
    for command in ("thaw", "end"):
        assert poke(command, tmp_path) == {"ok": True, "run_id": "r1", "state": "absent", "hold_unbroken": False}


def test_a_record_without_a_holder_is_no_thaw(tmp_path: Path) -> None:
    (tmp_path / "hold-r1.json").touch()
    answer = poke("thaw", tmp_path)
    assert not answer["ok"]
    assert "the holder of this run is gone" in answer["error"]


def test_the_program_waits_for_the_partner(tmp_path: Path) -> None:
    path = str(tmp_path / "holder-r1.sock")
    protocol.listen(path).close()  # as a killed holder leaves it

    def take_over() -> None:
        time.sleep(0.3)
        with protocol.listen(path) as listener:
            listener.setblocking(True)
            connection, _address = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b'{"ok": true, "reason": "partner"}\n')

    thread = threading.Thread(target=take_over)
    thread.start()
    assert poke("thaw", tmp_path) == {"ok": True, "reason": "partner"}
    thread.join()


def test_the_program_gives_up_in_time(tmp_path: Path) -> None:
    with protocol.listen(str(tmp_path / "holder-r1.sock")):
        begun = time.monotonic()
        answer = poke("thaw", tmp_path, timeout=0.5)
        assert time.monotonic() - begun < 3
    assert answer["error"].startswith("the holder does not answer: ")
    assert answer["unreachable"] is False


def test_a_server_without_python_is_told() -> None:
    answer = hold.parse_answer("", "sh: 1: /usr/bin/python3: not found")
    assert (answer["ok"], answer["unreachable"]) == (False, True)
    assert "python3: not found" in answer["error"]


THAWED = {
    "fs1": {"ok": True, "run_id": "r1", "hold_unbroken": True, "freeze_started": 10.0, "frozen": 10.2}
    | {"thaw_started": 10.5, "thawed": 10.6, "window_ms": 600.0},
    "fs2": {"ok": True, "run_id": "r1", "hold_unbroken": True, "freeze_started": 10.1, "frozen": 10.4}
    | {"thaw_started": 10.6, "thawed": 10.75, "window_ms": 650.0},
}


def test_the_window_of_all_servers() -> None:
    assert hold.summarise(THAWED) == {
        "first_freeze": 10.0,
        "last_frozen": 10.4,
        "first_thaw": 10.5,
        "last_thaw": 10.75,
        "ms": 750.0,
        "servers": {"fs1": 600.0, "fs2": 650.0},
    }


def test_the_window_is_not_known_without_every_server() -> None:
    window = hold.summarise({**THAWED, "fs3": {"ok": False, "error": "no answer"}})
    assert (window["first_freeze"], window["ms"], window["servers"]["fs3"]) == (None, None, None)


@pytest.mark.parametrize("change", [{"ok": False}, {"hold_unbroken": False}, {"run_id": "r2"}, {"hold_unbroken": None}])
def test_unbroken_needs_every_server(change: dict[str, Any]) -> None:
    assert hold.is_unbroken(THAWED, "r1")
    assert not hold.is_unbroken({**THAWED, "fs2": {**THAWED["fs2"], **change}}, "r1")
    assert not hold.is_unbroken({}, "r1")


def test_odd_names_stay_what_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "it's a {folder}"
    folder.mkdir()
    assert poke("thaw", folder, run_id='r"1') == {
        "ok": True,
        "run_id": 'r"1',
        "state": "absent",
        "hold_unbroken": False,
    }

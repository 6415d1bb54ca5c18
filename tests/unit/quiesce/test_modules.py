# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules and the action as Ansible runs them."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Holds, wait_for

Play = Callable[..., list[dict[str, Any]]]


@pytest.mark.slow
@pytest.mark.root
def test_a_hold_from_arm_to_end(play: Play, holds: Holds, make_filesystem: Callable[[str], Path]) -> None:
    mount = make_filesystem("ext4")
    drivers = [{"name": "filesystem", "mounts": [str(mount)]}]
    common = {"run_id": "r1", "run_dir": holds.run_dir}
    hold = {"run_id": "r1", "servers": ["here"], "timeout": 10}

    def quiesce(state: str, **options: Any) -> dict[str, Any]:
        return {"openisb.backup.quiesce": {**common, "state": state, **options}}

    results = play(
        [
            quiesce("frozen"),
            {**quiesce("armed", drivers=drivers), "check_mode": True},
            {**quiesce("armed", drivers=drivers), "async": 60, "poll": 1},
            quiesce("armed", drivers=drivers),
            {"openisb.backup.hold": {"command": "connect", "servers": ["here"]}},
            {"openisb.backup.hold": {**hold, "command": "freeze"}, "check_mode": True},
            {"openisb.backup.hold": {**hold, "command": "freeze"}},
            {"openisb.backup.quiesce": {**common, "run_id": "r2", "drivers": drivers}},
            {"openisb.backup.quiesce_info": {"run_dir": holds.run_dir, "drivers": drivers}},
            {"openisb.backup.hold": {**hold, "command": "thaw"}},
            quiesce("thawed"),
            quiesce("absent"),
            quiesce("absent"),
        ],
        hosts={
            "here": {
                "ansible_connection": "{{ kind }}",
                "kind": "local",
                "openisb_run_dir": holds.run_dir,
                "ansible_python_interpreter": sys.executable,
            }
        },
    )
    (early, planned, armed, again, connected, looked, frozen, second, info, thawed, repeated, ended, gone) = results
    assert "arm it first" in early["msg"]
    assert (planned["changed"], planned["hold"]["state"]) == (True, "armed")
    assert (armed["changed"], armed["hold"]["state"]) == (True, "armed")
    found = [{"driver": "filesystem", "ok": True, "message": f"can freeze {mount}"}]
    assert (planned["checks"], armed["checks"], again["checks"], "checks" in thawed) == (found, found, found, False)
    assert armed["diff"] == {"before": {"state": "absent"}, "after": {"state": "armed"}}
    assert (again["changed"], again["hold"]["pid"]) == (False, armed["hold"]["pid"])
    assert connected["servers"]["here"]["ok"]
    assert looked["servers"]["here"]["state"] == "armed"
    assert (frozen["changed"], frozen["unbroken"]) == (True, True)
    assert "run r1 holds this server" in second["msg"]
    assert [(holder["run_id"], holder["state"]) for holder in info["holders"]] == [("r1", "frozen")]
    assert info["checks"] == found
    assert thawed["unbroken"] is True
    assert thawed["window"]["ms"] == pytest.approx(thawed["servers"]["here"]["window_ms"], abs=5)
    assert (repeated["changed"], repeated["hold"]["state"]) == (False, "thawed")
    assert (ended["changed"], gone["changed"], gone["hold"]["state"]) == (True, False, "absent")


@pytest.mark.slow
def test_every_server_gets_a_result_in_time(play: Play, holds: Holds) -> None:
    holds.arm()
    here = {
        "ansible_connection": "local",
        "openisb_run_dir": holds.run_dir,
        "ansible_python_interpreter": sys.executable,
    }
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as refusing:
        refused = refusing.getsockname()[1]
        refusing.close()
        hosts = {
            "here": here,
            "silent": {"ansible_host": "127.0.0.1", "ansible_port": silent.getsockname()[1]},
            "refusing": {"ansible_host": "127.0.0.1", "ansible_port": refused},
            "wrong": {**here, "ansible_python_interpreter": "/nowhere/python"},
            "untold": {**here, "ansible_connection": "{{ nothing }}"},
            "empty": {**here, "openisb_run_dir": f"{holds.folder}/empty"},
        }
        task = {"command": "freeze", "run_id": "r1", "timeout": 4, "servers": [*hosts, "unknown"]}
        begun = time.monotonic()
        (result,) = play([{"openisb.backup.hold": task}], hosts=hosts)
        assert time.monotonic() - begun < 15
    answers = result["servers"]
    assert result["failed"]
    assert result["unbroken"] is False
    assert [server for server, answer in answers.items() if answer["ok"]] == ["here"]
    assert {server for server, answer in answers.items() if answer.get("unreachable")} == {
        "silent",
        "refusing",
        "wrong",
        "untold",
        "unknown",
    }
    assert re.fullmatch("no answer within [0-9.]+ s", answers["silent"]["error"])
    assert "refused" in answers["refusing"]["error"]
    assert "/nowhere/python" in answers["wrong"]["error"]
    assert "nothing" in answers["untold"]["error"]
    assert "no holder of this run" in answers["empty"]["error"]
    assert "not in the inventory" in answers["unknown"]["error"]
    for server in set(answers) - {"here"}:
        assert server in result["msg"]
    wait_for(lambda: not ssh_clients(str(silent)), 2)


def ssh_clients(port: str) -> list[str]:
    """Command lines of ssh clients to that port."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"ssh") and f"Port={port}".encode() in words:
            lines.append(words[0].decode())
    return lines


WRONG = [
    ("quiesce", {"run_id": "r1"}, "state is armed but all of the following are missing: drivers"),
    ("quiesce", {"run_id": "../r", "drivers": [{"name": "file"}]}, "cannot be a run id"),
    ("quiesce", {"run_id": "r1", "state": "thawed", "hold_ttl": 0}, "'hold_ttl' must be more than 0 seconds"),
    ("hold", {"command": "freeze", "servers": ["local"]}, "'run_id' is needed with command 'freeze'"),
    ("hold", {"command": "melt", "servers": ["local"]}, "value of command must be one of"),
    ("hold", {"command": "connect", "servers": []}, "name at least one server"),
    ("hold", {"command": "connect", "servers": ["local"], "timeout": 0.5}, "'timeout' must be more than 1 s"),
]


@pytest.mark.slow
def test_wrong_arguments_are_named(play: Play, tmp_path: Path) -> None:
    tasks = []
    for module, arguments, _message in WRONG:
        run_dir = {"run_dir": str(tmp_path / "run")} if module == "quiesce" else {}
        tasks.append({f"openisb.backup.{module}": {**run_dir, **arguments}})
    drivers = [{"name": "melt"}, {"name": "filesystem", "mounts": ["/"]}]
    info = {"openisb.backup.quiesce_info": {"run_dir": str(tmp_path / "run"), "drivers": drivers}}
    *results, told = play([*tasks, info])
    for (_module, _arguments, message), result in zip(WRONG, results, strict=True):
        assert result["failed"]
        assert message in result["msg"]
    assert [check["ok"] for check in told["checks"]] == [False, False]
    assert "there is no driver 'melt'" in told["checks"][0]["message"]
    assert "/ contains the system itself" in told["checks"][1]["message"]

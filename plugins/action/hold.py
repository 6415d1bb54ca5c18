# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes and thaws many servers at once, from one task, through their holders.

For each server, a thread sends a small program over that server's own connection plugin. The program writes one line to
the holder's socket and returns the answer. (`consistency_point` avoids the program where it can.) Everything that needs
variables or templates happens before the threads start. Whatever a connection does, the task returns in time with a
result for every server.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.openisb.backup.plugins.plugin_utils.at_once import CONNECTING, Outcomes, ask_all
from ansible_collections.openisb.backup.plugins.plugin_utils.connections import on_host
from ansible_collections.openisb.backup.plugins.plugin_utils.interpreter import command_line

CONNECT = "connect"
COMMANDS = ("freeze", "thaw", "status", "end", CONNECT)
CHANGING = ("freeze", "thaw", "end")

ARGUMENTS = {
    "run_id": {"type": "str"},
    "command": {"type": "str", "choices": list(COMMANDS), "required": True},
    "servers": {"type": "list", "elements": "str", "required": True},
    "timeout": {"type": "float", "default": 30.0},
}

ANSWER = "OPENISB-ANSWER "
ERROR = "OPENISB-ERROR "
MARGIN = 0.5
"""Seconds before the task's own end at which a program on a server gives up, so that its answer still arrives."""

FLUSH = 5.0
"""Seconds at most to wait for a server to flush pending writes, so that it has fewer to write in the freeze."""

POKE = """
import _socket, os, sys, time
end = time.monotonic() + {timeout!r}
def ask():
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(max(end - time.monotonic(), 0.1))
    connection.connect({name!r})
    connection.send({request!r})
    line = b""
    while not line.endswith(b"\\n"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError("the holder ended without an answer")
        line += piece
    return line.decode()
def main():
    patience = min(time.monotonic() + 2.0, end)
    try:
        os.chdir({run_dir!r})
        while True:
            try:
                return {answer!r} + ask()
            except (ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
                # The holder has just died; its partner takes over at once.
                if time.monotonic() > patience:
                    raise
                time.sleep(0.02)
    except FileNotFoundError:
        if os.path.exists({record!r}):
            return {error!r} + "the holder of this run is gone from that server: thaw it there with state=thawed"
        return {missing!r}
    except OSError as error:
        return {error!r} + "the holder does not answer: %s" % error
sys.stdout.write(main())
{leave}"""

GREET = """
import json, os, sys, time
def flush():
    import ctypes
    with open({record!r}) as stream:
        options = [driver["options"] for driver in json.load(stream)["drivers"]]
    for mount in [mount for each in options for mount in each.get("mounts") or []]:
        descriptor = os.open(mount, os.O_RDONLY)
        ctypes.CDLL(None).syncfs(descriptor)
def main():
    # In a separate process, without the connection's descriptors: a hanging disk must not delay the answer.
    child = os.fork()
    if child == 0:
        os.closerange(0, 3)
        try:
            flush()
        finally:
            os._exit(0)
    end = time.monotonic() + {patience!r}
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < end:
        time.sleep(0.002)
if os.path.exists({record!r}):
    main()
sys.stdout.write({answer!r} + '{{"ok": true, "clock": %.6f}}' % time.time())
{leave}"""

# Skipping the interpreter's shutdown saves a third of the program's time. The pause is for ssh, which can drop the
# output of a program that exits at once (ansible issue 13876).
LEAVE = """sys.stdout.flush()
time.sleep(0.001)
import os
os._exit(0)
"""


def request_line(command: str, run_id: str | None) -> bytes:
    """The request to the holder, as sent over its socket."""
    return json.dumps({"run_id": run_id, "command": command}).encode() + b"\n"


def program(command: str, run_id: str | None, run_dir: str, timeout: float) -> str:
    """The program to run on a server: Python, for a bare interpreter."""
    record = os.path.join(run_dir, f"hold-{run_id}.json")
    if command == CONNECT:
        return GREET.format(record=record, patience=min(FLUSH, timeout), answer=ANSWER, leave=LEAVE)
    request = request_line(command, run_id)
    return POKE.format(
        timeout=timeout,
        request=request,
        run_dir=run_dir,
        name=f"holder-{run_id}.sock",
        record=record,
        missing=_missing(command, run_id),
        answer=ANSWER,
        error=ERROR,
        leave=LEAVE,
    )


def _missing(command: str, run_id: str | None) -> str:
    """The answer if the run has neither a holder nor a record: nothing is frozen, so a thaw succeeds."""
    if command in ("thaw", "end"):
        return ANSWER + json.dumps({"ok": True, "run_id": run_id, "state": "absent", "hold_unbroken": False})
    return ERROR + "there is no holder of this run on that server: arm it first"


def parse_answer(output: str, errors: str) -> dict[str, Any]:
    """The holder's answer in the program's output, among whatever else a login prints."""
    for line in reversed(output.split("\n")):
        if line.startswith(ANSWER):
            return json.loads(line[len(ANSWER) :])
        if line.startswith(ERROR):
            return {"ok": False, "unreachable": False, "error": line[len(ERROR) :].strip()}
    said = " ".join((errors or output).split())[-300:]
    return {"ok": False, "unreachable": True, "error": f"Python did not run on that server: {said or 'no output'}"}


def summarise(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The window of all servers, in seconds since the epoch by the servers' own clocks; null if it is not known."""

    def times(name: str) -> list[float]:
        return [answer[name] for answer in answers.values() if answer.get(name) is not None]

    def whole(name: str, choose: Any) -> float | None:
        found = times(name)
        return choose(found) if found and len(found) == len(answers) else None

    first_freeze, last_thaw = whole("freeze_started", min), whole("thawed", max)
    known = first_freeze is not None and last_thaw is not None
    return {
        "first_freeze": first_freeze,
        "last_frozen": whole("frozen", max),
        "first_thaw": whole("thaw_started", min),
        "last_thaw": last_thaw,
        "ms": round((last_thaw - first_freeze) * 1000.0, 3) if known else None,  # type: ignore[operator]
        "servers": {server: answer.get("window_ms") for server, answer in answers.items()},
    }


def is_unbroken(answers: Mapping[str, Mapping[str, Any]], run_id: str | None) -> bool:
    """Whether every server's hold of this very run is unbroken."""
    return bool(answers) and all(
        answer.get("ok") and answer.get("hold_unbroken") and answer.get("run_id") == run_id
        for answer in answers.values()
    )


def run_dir_of(variables: Mapping[str, Any]) -> str:
    """The folder of a host's holders."""
    return str(variables.get("openisb_run_dir") or "/run/openisb")


class ActionModule(ActionBase):
    """Reaches the holders of O(servers) in threads."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._check(args)
        command = args["command"]
        asked = "status" if self._task.check_mode and command in CHANGING else command
        answers = self._ask_all(args, asked, (task_vars or {})["hostvars"])
        failed = {server: answer["error"] for server, answer in answers.items() if not answer["ok"]}
        result.update(
            changed=command in CHANGING
            and any(answer["ok"] and answer["state"] != "absent" for answer in answers.values()),
            failed=bool(failed),
            servers=answers,
            window=summarise(answers),
            unbroken=is_unbroken(answers, args["run_id"]),
        )
        if failed:
            result["msg"] = f"{command}: " + "; ".join(f"{server}: {error}" for server, error in failed.items())
        return result

    @staticmethod
    def _check(args: Mapping[str, Any]) -> None:
        if args["command"] != CONNECT and not args["run_id"]:
            raise AnsibleError(f"'run_id' is needed with command '{args['command']}'")
        if not args["servers"]:
            raise AnsibleError("'servers' is empty: name at least one server")
        if args["timeout"] <= 2 * MARGIN:
            raise AnsibleError(f"'timeout' must be more than {2 * MARGIN:g} s, not {args['timeout']:g}")

    # All servers

    def _ask_all(self, args: Mapping[str, Any], command: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
        """An answer for every server, within the timeout."""
        most = CONNECTING if command == CONNECT else None
        return self._poke_all(self._prepare_all(args, command, hostvars), args["timeout"], most)

    def _prepare_all(self, args: Mapping[str, Any], command: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
        """For each server, what `_ask` needs to reach it, or, as a dict, the answer that it cannot be reached."""
        prepared: dict[str, Any] = {}
        for server in dict.fromkeys(args["servers"]):
            try:
                prepared[server] = self._prepare(server, args, command, hostvars)
            except Exception as error:
                prepared[server] = {"ok": False, "unreachable": True, "error": f"cannot be reached: {error}"}
        return prepared

    def _poke_all(self, prepared: Mapping[str, Any], timeout: float, most: int | None = None) -> dict[str, Any]:
        """Reach all servers at once, or ``most`` of them; an answer for every one, within ``timeout`` seconds."""
        tasks = {server: (self._ask, *task) for server, task in prepared.items() if isinstance(task, tuple)}
        answers = {server: answer for server, answer in prepared.items() if not isinstance(answer, tuple)}
        answers.update(ask_all(tasks, timeout, most))
        return {server: answers[server] for server in prepared}

    def _ask(self, server: str, peer: ActionModule, line: str, source: str, request: bytes, outcomes: Outcomes) -> None:
        """In a thread: ask a server's holder, and put its answer into ``outcomes``."""
        begun, at = time.monotonic(), time.time()
        try:
            answer = self._directly(server, request) or self._by_program(peer, line, source)
        except AnsibleConnectionFailure as error:
            answer = {"ok": False, "unreachable": True, "error": f"cannot be reached: {error}"}
        except Exception as error:
            answer = {"ok": False, "unreachable": False, "error": f"{type(error).__name__}: {error}"}
        if not answer["ok"] and not answer.get("error"):
            answer["error"] = f"the hold is {answer.get('state')}"
        took = time.monotonic() - begun
        answer["poke_ms"] = round(took * 1000.0, 3)
        if "clock" in answer:  # read at some time during the round trip, so the error is at most half of that
            answer.update(ahead=answer.pop("clock") - (at + took / 2), bound=took / 2)
        outcomes.put((server, answer))

    def _directly(self, server: str, request: bytes) -> dict[str, Any] | None:
        """The holder's answer over a forwarded socket, which needs no program; None if there is no such socket."""

    @staticmethod
    def _by_program(peer: ActionModule, line: str, source: str) -> dict[str, Any]:
        # No executable: a shell between the login shell and Python would be one more process in the window.
        done = peer._low_level_execute_command(line, in_data=source.encode(), executable=False)
        return parse_answer(done["stdout"], done["stderr"])

    # One server

    def _prepare(
        self, server: str, args: Mapping[str, Any], command: str, hostvars: Mapping[str, Any]
    ) -> tuple[ActionModule, str, str, bytes]:
        """This action on that server's connection, the command line of its Python, the program, and the request."""
        peer, variables = on_host(self, server, hostvars)
        source = program(command, args["run_id"], run_dir_of(variables), args["timeout"] - MARGIN)
        request = request_line(command, args["run_id"])
        return peer, command_line(variables), source, request

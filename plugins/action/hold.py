# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes and thaws many servers at once, from one task, by their holders.

One thread a server sends one small program over that server's own connection plugin, which hands one line to the
holder's socket and brings back the answer. (`consistency_point` does without the program where it can.) Everything
that needs variables or templates happens before the threads start; whatever a connection does, the task returns in
time with a result for every server.
"""

from __future__ import annotations

import copy
import json
import os
import queue
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader, connection_loader

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
"""Seconds before the task's own end at which a program on a server gives up, so that its word still arrives."""

FLUSH = 5.0
"""Seconds to wait at most for what a server has yet to write, so that less is left to write while it is frozen."""

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
                # The holder has just died: its partner takes its place at once.
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
    # In a process of its own, without the connection's descriptors: a disk that hangs must not hold up the answer.
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

# Not to tear itself down saves a third of the program's time. The pause is for ssh, which can drop what a program that
# ends at once has said (ansible issue 13876).
LEAVE = """sys.stdout.flush()
time.sleep(0.001)
import os
os._exit(0)
"""


def request_line(command: str, run_id: str | None) -> bytes:
    """What the holder is asked, as it comes over its socket."""
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
    """What to say where the run has neither a holder nor a record: nothing is frozen, so a thaw has no more to do."""
    if command in ("thaw", "end"):
        return ANSWER + json.dumps({"ok": True, "run_id": run_id, "state": "absent", "hold_unbroken": False})
    return ERROR + "there is no holder of this run on that server: arm it first"


def parse_answer(output: str, errors: str) -> dict[str, Any]:
    """The holder's answer from what the program printed, among whatever else a login prints."""
    for line in reversed(output.splitlines()):
        if line.startswith(ANSWER):
            return json.loads(line[len(ANSWER) :])
        if line.startswith(ERROR):
            return {"ok": False, "unreachable": False, "error": line[len(ERROR) :].strip()}
    said = " ".join((errors or output).split())[-300:]
    return {"ok": False, "unreachable": True, "error": f"Python did not run on that server: {said or 'no output'}"}


def summarise(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The window of all servers: seconds since the epoch by the servers' own clocks; null where it is not known."""

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


def child_processes() -> Iterator[int]:
    """This process's own children."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    parent = int(stream.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == os.getpid():
                yield int(name)


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
        return self._poke_all(self._prepare_all(args, command, hostvars), args["timeout"])

    def _prepare_all(self, args: Mapping[str, Any], command: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
        """By server what `_ask` needs to reach it, or, as a dict, the answer that it cannot be reached."""
        prepared: dict[str, Any] = {}
        for server in dict.fromkeys(args["servers"]):
            try:
                prepared[server] = self._prepare(server, args, command, hostvars)
            except Exception as error:
                prepared[server] = {"ok": False, "unreachable": True, "error": f"cannot be reached: {error}"}
        return prepared

    def _poke_all(self, prepared: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Reach all servers at once; an answer for every one of them, within ``timeout`` seconds."""
        tasks = {server: (self._ask, *task) for server, task in prepared.items() if isinstance(task, tuple)}
        answers = {server: answer for server, answer in prepared.items() if not isinstance(answer, tuple)}
        answers.update(self._in_threads(tasks, timeout))
        return {server: answers[server] for server in prepared}

    def _in_threads(self, tasks: Mapping[str, tuple[Any, ...]], timeout: float) -> dict[str, Any]:
        """Call each task, a function with its arguments, in a thread of its own; what came of it, by name."""
        end = time.monotonic() + timeout
        outcomes: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        for name, (function, *arguments) in tasks.items():
            threading.Thread(target=function, args=(name, *arguments, outcomes), daemon=True).start()
        answers: dict[str, Any] = {}
        while len(answers) < len(tasks):
            try:
                name, answer = outcomes.get(timeout=max(end - time.monotonic(), 0.0))
            except queue.Empty:
                self._give_up(set(tasks) - set(answers), answers, timeout)
                break
            answers[name] = answer
        return answers

    @staticmethod
    def _give_up(wanted: set[str], answers: dict[str, Any], timeout: float) -> None:
        """Leave the threads of servers that do not answer, and end their connection programs."""
        for server in wanted:
            answers[server] = {"ok": False, "unreachable": True, "error": f"no answer within {timeout:g} s"}
        for child in child_processes():
            try:
                os.kill(child, signal.SIGTERM)
            except ProcessLookupError:
                continue

    def _ask(
        self, server: str, peer: ActionModule, line: str, source: str, request: bytes, outcomes: queue.SimpleQueue[Any]
    ) -> None:
        """In a thread: ask a server's holder, by a program on the server, and put its answer into ``outcomes``."""
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
        if "clock" in answer:  # read some time between the two moments, so it is ahead by this, give or take the half
            answer.update(ahead=answer.pop("clock") - (at + took / 2), bound=took / 2)
        outcomes.put((server, answer))

    def _directly(self, server: str, request: bytes) -> dict[str, Any] | None:
        """The holder's answer where there is a way to its socket that needs no program; None where there is none."""

    @staticmethod
    def _by_program(peer: ActionModule, line: str, source: str) -> dict[str, Any]:
        # No executable: a shell between the login's own one and Python would be one more process in the window.
        done = peer._low_level_execute_command(line, in_data=source.encode(), executable=False)
        return parse_answer(done["stdout"], done["stderr"])

    # One server

    def _prepare(
        self, server: str, args: Mapping[str, Any], command: str, hostvars: Mapping[str, Any]
    ) -> tuple[ActionModule, str, str, bytes]:
        """This action on that server's connection, the command line of its Python, the program, and what is asked."""
        peer, variables = self._peer(server, hostvars)
        interpreter = str(variables.get("ansible_python_interpreter") or "/usr/bin/python3")
        if interpreter.startswith("auto"):
            interpreter = "/usr/bin/python3"
        source = program(command, args["run_id"], run_dir_of(variables), args["timeout"] - MARGIN)
        request = request_line(command, args["run_id"])
        return peer, f"exec {shlex.quote(interpreter)} -I -S -", source, request

    def _peer(self, host: str, hostvars: Mapping[str, Any]) -> tuple[ActionModule, Mapping[str, Any]]:
        """This action on the connection of another host, and that host's variables."""
        if host not in hostvars:
            raise AnsibleError("it is not in the inventory")
        variables = hostvars[host]  # templates each value, in that host's context, as it is looked up
        peer = copy.copy(self)
        peer._play_context = self._play_context_for(host, variables)
        peer._connection = self._connection_for(peer._play_context, variables)
        return peer, variables

    def _play_context_for(self, server: str, variables: Mapping[str, Any]) -> Any:
        context = self._play_context.copy()
        for attribute, names in C.MAGIC_VARIABLE_MAPPING.items():
            found = [variables[name] for name in names if name in variables]
            if found:
                setattr(context, attribute, found[0])
        context.remote_addr = next(
            (variables[name] for name in ("ansible_ssh_host", "ansible_host") if name in variables), server
        )
        context.connection = variables.get("ansible_connection") or C.DEFAULT_TRANSPORT
        return context

    def _connection_for(self, context: Any, variables: Mapping[str, Any]) -> Any:
        """A connection to one server, with its options set from its variables as task delegation does it."""
        connection = connection_loader.get(context.connection, context)
        if connection is None:
            raise AnsibleError(f"there is no connection plugin '{context.connection}'")
        connection.set_become_plugin(self._become_for(variables))
        keys = self._task.dump_attrs()
        keys.pop("retries", None)  # the task's retries are not the connection's
        keys.update(timeout=context.timeout)
        if context.password:
            keys.update(password=context.password)
        if context.become_pass:
            keys.update(become_pass=context.become_pass)
        plugins = [("connection", connection), ("shell", connection._shell)]
        if connection.become is not None:
            plugins.append(("become", connection.become))
        for kind, plugin in plugins:
            names = C.config.get_plugin_vars(kind, plugin._load_name)
            plugin.set_options(
                task_keys=keys, var_options={name: variables[name] for name in names if name in variables}
            )
        return connection

    def _become_for(self, variables: Mapping[str, Any]) -> Any:
        wanted = variables.get("ansible_become")
        if not (self._task.become if wanted is None else boolean(wanted)):
            return None
        method = variables.get("ansible_become_method") or self._task.become_method
        plugin = become_loader.get(method)
        if plugin is None:
            raise AnsibleError(f"there is no become plugin '{method}'")
        return plugin

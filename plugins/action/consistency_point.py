# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a consistency point: freezes all servers, has the storage take its snapshots, and thaws all servers.

It is one task, because every server would be frozen during whatever Ansible does between two tasks. Everything that can
be prepared is prepared before the first server is asked to freeze.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.openisb.backup.plugins.action.hold import CONNECT, MARGIN, request_line, run_dir_of
from ansible_collections.openisb.backup.plugins.action.hold import ActionModule as Hold
from ansible_collections.openisb.backup.plugins.plugin_utils import forward
from ansible_collections.openisb.backup.plugins.plugin_utils.at_once import CONNECTING, Outcomes, ask_all
from ansible_collections.openisb.backup.plugins.plugin_utils.connections import on_host
from ansible_collections.openisb.backup.plugins.plugin_utils.forward import OPEN_TIMEOUT, Forward

ARGUMENTS = {
    "run_id": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "str", "required": True},
    "leaders": {"type": "list", "elements": "str", "default": []},
    "snapshots": {"type": "dict", "required": True},
    "needs_all": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 30.0},
    "storage_timeout": {"type": "float", "default": 9.0},
    "clock_limit": {"type": "float", "default": 1.0},
    "on_clock_skew": {"type": "str", "choices": ["warn", "abort"], "default": "warn"},
}


def clocks(answers: Mapping[str, Mapping[str, Any]], listener: str) -> dict[str, dict[str, float]]:
    """How far each host's clock is ahead of the listener's, in seconds, and by how much that may be wrong (bound).

    The bound is half of the round trips to both hosts. Hosts that did not report their clock are left out.
    """
    reference = answers.get(listener, {})
    if "ahead" not in reference:
        return {}
    return {
        host: {
            "ahead": round(answer["ahead"] - reference["ahead"], 6),
            "bound": round(answer["bound"] + reference["bound"], 6),
        }
        for host, answer in answers.items()
        if host != listener and "ahead" in answer
    }


def skews(found: Mapping[str, Mapping[str, float]], limit: float) -> list[str]:
    """Warnings about clocks that certainly differ from the listener's by more than ``limit`` seconds."""
    return [
        f"the clock of {host} is {abs(clock['ahead']):.3f} s {'ahead of' if clock['ahead'] > 0 else 'behind'} the "
        f"listener's (give or take {clock['bound']:.3f} s), which is more than {limit:g} s: synchronise it (NTP)"
        for host, clock in found.items()
        if abs(clock["ahead"]) - clock["bound"] > limit
    ]


class ActionModule(Hold):
    """Reaches the holders of O(servers) and the storage hosts of O(snapshots), each over its own connection."""

    _ways: Mapping[str, Forward] = {}
    _patience = 0.0

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super(Hold, self).run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._stages = [stage for stage in (args["leaders"], args["servers"]) if stage]
        args = dict(args, servers=[server for stage in self._stages for server in stage])
        if not args["servers"] or args["timeout"] <= 2 * MARGIN:
            raise AnsibleError(f"'servers' must name a server, and 'timeout' must be more than {2 * MARGIN:g} s")
        hostvars = (task_vars or {})["hostvars"]
        if self._task.check_mode:
            status = {"servers": self._ask_all(args, "status", hostvars)}
            return dict(result, changed=False, freeze=status, thaw={}, snapshots=[], problems=[])
        listener = (task_vars or {})["inventory_hostname"]
        with contextlib.ExitStack() as stack:
            return self._point(args, hostvars, listener, result, stack)

    def _point(
        self,
        args: Mapping[str, Any],
        hostvars: Mapping[str, Any],
        listener: str,
        result: dict[str, Any],
        stack: contextlib.ExitStack,
    ) -> dict[str, Any]:
        """Connect, compare clocks and take the point; return the task's result. ``stack`` closes forwarded sockets."""
        prepared = self._prepare_greetings(args, hostvars, listener)
        answers = self._poke_all(prepared, args["timeout"], CONNECTING)
        needed = [*args["servers"], *args["snapshots"]]
        problems = [f"{host}: {answers[host]['error']}" for host in needed if not answers[host]["ok"]]
        result["clocks"] = clocks(answers, listener)
        result["warnings"] = skews(result["clocks"], args["clock_limit"])
        wrong = result["warnings"] if args["on_clock_skew"] == "abort" else []
        if wrong or (problems and args["needs_all"]):
            return dict(result, changed=False, freeze={}, thaw={}, snapshots=[], problems=problems + wrong)
        connections = {server: prepared[server][0]._connection for server in args["servers"] if answers[server]["ok"]}
        folder = stack.enter_context(forward.sockets_folder())
        if folder:
            self._open_ways(args, hostvars, connections, folder, stack)
        elif any(connection.transport == "ssh" for connection in connections.values()):
            result["warnings"] = [*result["warnings"], forward.place_problem()]
        result["forwarded"] = list(self._ways)
        return dict(result, changed=True, problems=[], **self._take(args, hostvars))

    def _prepare_greetings(self, args: Mapping[str, Any], hostvars: Mapping[str, Any], listener: str) -> dict[str, Any]:
        """What opens every connection that the window needs, and one to the listener."""
        hosts = dict.fromkeys([listener, *args["snapshots"], *args["servers"]])
        return self._prepare_all({**args, "servers": list(hosts)}, CONNECT, hostvars)

    def _open_ways(
        self,
        args: Mapping[str, Any],
        hostvars: Mapping[str, Any],
        connections: Mapping[str, Any],
        folder: str,
        stack: contextlib.ExitStack,
    ) -> None:
        """Open and try a forwarded socket to each holder, where possible: it needs no process in the window."""
        ways = {}
        for number, (server, connection) in enumerate(connections.items()):
            remote = f"{run_dir_of(hostvars[server])}/holder-{args['run_id']}.sock"
            ways[server] = Forward(connection, f"{folder}/{number}", remote)
        stack.callback(self._close_ways, ways, args["timeout"])
        request = request_line("status", args["run_id"])
        tasks = {server: (self._open_way, way, request) for server, way in ways.items()}
        found = ask_all(tasks, args["timeout"], CONNECTING)
        self._patience = args["timeout"] - MARGIN
        self._ways = {server: ways[server] for server, answer in found.items() if answer["ok"]}

    @staticmethod
    def _open_way(server: str, way: Forward, request: bytes, outcomes: Outcomes) -> None:
        """In a thread."""
        outcomes.put((server, {"ok": way.open() and bool(way.ask(request, OPEN_TIMEOUT))}))

    def _close_ways(self, ways: Mapping[str, Forward], timeout: float) -> None:
        ask_all({server: (self._close_way, way) for server, way in ways.items()}, timeout, CONNECTING)

    @staticmethod
    def _close_way(server: str, way: Forward, outcomes: Outcomes) -> None:
        """In a thread."""
        way.close()
        outcomes.put((server, {"ok": True}))

    def _directly(self, server: str, request: bytes) -> dict[str, Any] | None:
        way = self._ways.get(server)
        return way.ask(request, self._patience) if way else None

    def _take(self, args: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze, snapshot, thaw; return all answers. Every server is thawed, whatever happens in between.

        Leaders freeze before the servers and thaw after them.
        """
        freezing = self._prepare_all(args, "freeze", hostvars)
        thawing = self._prepare_all(args, "thaw", hostvars)
        storing = self._storage_tasks(args["snapshots"], hostvars)
        frozen: dict[str, Any] = {}
        thawed: dict[str, Any] = {}
        stored: dict[str, Any] = {}
        begun = time.monotonic()
        try:
            for stage in self._stages:
                if not args["needs_all"] or all(answer["ok"] for answer in frozen.values()):
                    frozen.update(self._poke_all({server: freezing[server] for server in stage}, args["timeout"]))
            freeze_seconds = time.monotonic() - begun
            if not args["needs_all"] or all(answer["ok"] for answer in frozen.values()):
                stored = ask_all(storing, args["storage_timeout"])
        finally:
            asked = time.monotonic()
            for stage in reversed(self._stages):
                thawed.update(self._poke_all({server: thawing[server] for server in stage}, args["timeout"]))
        return {
            "freeze": {"servers": frozen},
            "thaw": {"servers": thawed},
            "snapshots": [{"storage_host": host, "answer": answer} for host, answer in stored.items()],
            "seconds": {
                "freeze": round(freeze_seconds, 4),
                "snapshot": round(asked - begun - freeze_seconds, 4),
                "thaw": round(time.monotonic() - asked, 4),
            },
        }

    def _storage_tasks(self, commands: Mapping[str, str], hostvars: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
        """For each storage host, what to call in its thread."""
        return {host: (self._store, on_host(self, host, hostvars)[0], command) for host, command in commands.items()}

    def _store(self, host: str, peer: Hold, command: str, outcomes: Outcomes) -> None:
        """In a thread: run the storage driver's command and put the result into ``outcomes``."""
        try:
            done = peer._low_level_execute_command(command)
            answer = {"ok": done["rc"] == 0, "stdout": done["stdout"], "error": " ".join(done["stderr"].split())}
        except AnsibleConnectionFailure as error:
            answer = {"ok": False, "stdout": "", "error": f"cannot be reached: {error}"}
        except Exception as error:
            answer = {"ok": False, "stdout": "", "error": f"{type(error).__name__}: {error}"}
        outcomes.put((host, answer))

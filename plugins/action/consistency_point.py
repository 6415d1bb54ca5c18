# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a consistency point: freezes all servers, has the storage make its snapshots, and thaws all servers.

All of it is one task, because whatever Ansible does between two tasks would be time in which every server stands still.
Everything that can be made ready is ready before the first server is asked to freeze.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible_collections.openisb.backup.plugins.action.hold import CONNECT, MARGIN
from ansible_collections.openisb.backup.plugins.action.hold import ActionModule as Hold

ARGUMENTS = {
    "run_id": {"type": "str", "required": True},
    "servers": {"type": "list", "elements": "str", "required": True},
    "leaders": {"type": "list", "elements": "str", "default": []},
    "snapshots": {"type": "dict", "required": True},
    "needs_all": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 30.0},
    "storage_timeout": {"type": "float", "default": 9.0},
}


class ActionModule(Hold):
    """Reaches the holders of O(servers), and the storage hosts of O(snapshots), over their own connections."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super(Hold, self).run(tmp, task_vars)
        _validation, args = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._stages = [stage for stage in (args["leaders"], args["servers"]) if stage]
        args = dict(args, servers=[server for stage in self._stages for server in stage])
        if not args["servers"] or args["timeout"] <= 2 * MARGIN:
            raise AnsibleError(f"'servers' must name a server, and 'timeout' be more than {2 * MARGIN:g} s")
        hostvars = (task_vars or {})["hostvars"]
        if self._task.check_mode:
            status = {"servers": self._ask_all(args, "status", hostvars)}
            return dict(result, changed=False, freeze=status, thaw={}, snapshots=[], problems=[])
        problems = self._connect(args, hostvars)
        if problems and args["needs_all"]:
            return dict(result, changed=False, freeze={}, thaw={}, snapshots=[], problems=problems)
        return dict(result, changed=True, problems=[], **self._take(args, hostvars))

    def _connect(self, args: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[str]:
        """Open every connection that the window needs; what is wrong with those that cannot be opened."""
        answers = self._ask_all(args, CONNECT, hostvars)
        problems = [f"{server}: {answer['error']}" for server, answer in answers.items() if not answer["ok"]]
        stores = self._in_threads(
            self._storage_tasks(dict.fromkeys(args["snapshots"], "true"), hostvars), args["timeout"]
        )
        return problems + [f"{host}: {answer['error']}" for host, answer in stores.items() if not answer["ok"]]

    def _take(self, args: Mapping[str, Any], hostvars: Mapping[str, Any]) -> dict[str, Any]:
        """Freeze, snapshot, thaw; what everybody answered. Whatever happens in between, every server is thawed.

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
                stored = self._in_threads(storing, args["storage_timeout"])
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
        """For each storage host what to call in its thread."""
        return {host: (self._store, self._peer(host, hostvars)[0], command) for host, command in commands.items()}

    def _store(self, host: str, peer: Hold, command: str, outcomes: queue.SimpleQueue[Any]) -> None:
        """In a thread: run the storage driver's command and put what came of it into ``outcomes``."""
        try:
            done = peer._low_level_execute_command(command)
            answer = {"ok": done["rc"] == 0, "stdout": done["stdout"], "error": " ".join(done["stderr"].split())}
        except AnsibleConnectionFailure as error:
            answer = {"ok": False, "stdout": "", "error": f"cannot be reached: {error}"}
        except Exception as error:
            answer = {"ok": False, "stdout": "", "error": f"{type(error).__name__}: {error}"}
        outcomes.put((host, answer))

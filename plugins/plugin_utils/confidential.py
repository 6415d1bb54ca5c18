# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of every module that takes a secret: no secret is ever written to a disk, whatever the settings.

It works in every play, also from an installed collection and in AWX, because it depends neither on variables nor on an
ansible.cfg. A module runs through a pipe (pipelining), so that its arguments are in no file, neither on the controller
nor on the host. An asynchronous module needs files: then the secrets first go through a pipe into a file in memory,
which confidential.option() reads. Without pipelining the task fails before a secret is sent.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.vars import merge_hash
from ansible_collections.openisb.backup.plugins.module_utils.host.confidential import NAMES, VARIABLE

ANSWER = "OPENISB-HANDED "
NO_MEMORY = 3
RUN_DIR = "/run/openisb"

# Runs as the module's user. Also removes leftovers of earlier calls whose module never started.
HAND_OVER = """umask 077
for folder in {folders}; do
    case "$(stat -f -c %T "$folder" 2>/dev/null)" in tmpfs|ramfs) ;; *) continue ;; esac
    find "$folder" -maxdepth 1 -type f -name 'openisb-handed.*' -user "$(id -u)" -mmin +60 -delete 2>/dev/null
    file=$(mktemp "$folder/openisb-handed.XXXXXXXXXXXX" 2>/dev/null) || continue
    if cat >"$file"; then echo "{answer}$file"; exit 0; fi
    rm -f "$file"
done
exit {no_memory}
"""


def as_texts(secret: Any) -> Any:
    """A secret option as JSON has it: a text, or a dict of texts."""
    if isinstance(secret, Mapping):
        return {str(name): str(value) for name, value in secret.items() if value is not None}
    return str(secret)


class ActionModule(ActionBase):
    """Runs the module that the task names."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        self._need_a_pipe()
        arguments = dict(self._task.args)
        if self._task.async_val:
            return merge_hash(result, self._start(arguments, task_vars))
        done = self._execute_module(module_args=arguments, task_vars=task_vars)
        self._say_what_sudo_wants(done)
        return merge_hash(result, done)

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        """Always, except for the files that start an asynchronous module, which contain no secret."""
        return not wrap_async

    def _need_a_pipe(self) -> None:
        """Fail where a module can only run from a file."""
        connection = self._connection
        if not connection.has_pipelining or getattr(connection, "has_native_async", False):
            self._refuse(f"the connection plugin {connection.transport} cannot", "use ssh or local")
        if connection.become and not connection.become.pipelining:
            self._refuse(f"the become plugin {connection.become.name} cannot", "use sudo")
        try:
            connection.get_option("pipelining")
        except KeyError:
            return
        connection.set_option("pipelining", True)

    def _refuse(self, cause: str, remedy: str) -> None:
        raise AnsibleActionFail(f"{self._why_a_pipe()}, and {cause}: {remedy}")

    def _why_a_pipe(self) -> str:
        return f"{self._task.action} takes secrets, which must be on no disk, so it is run through a pipe (pipelining)"

    def _say_what_sudo_wants(self, done: dict[str, Any]) -> None:
        if done.get("failed") and "must have a tty" in str(done.get("module_stderr", "")):
            remedy = "remove 'requiretty' from the sudoers of that host"
            done["msg"] = f"{self._why_a_pipe()}, and sudo there requires a terminal: {remedy}"

    # Asynchronous

    def _start(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Start the module asynchronously; it finds its secrets in memory."""
        secrets = {name: as_texts(arguments.pop(name)) for name in NAMES if arguments.get(name) is not None}
        if not secrets:
            return self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=True)
        path = self._hand_over(secrets, arguments)
        started = False
        self._task.environment.append({VARIABLE: path})
        try:
            done = self._execute_module(module_args=arguments, task_vars=task_vars, wrap_async=True)
            started = bool(done.get("ansible_job_id"))
        finally:
            self._task.environment.pop()
            if not started:
                self._low_level_execute_command(f"rm -f {shlex.quote(path)}")
        return done

    def _hand_over(self, secrets: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
        """Write the secrets into a file in memory on the host, and return its path."""
        run_dir = shlex.quote(str(arguments.get("run_dir") or RUN_DIR))
        folders = f'{run_dir} /run "/run/user/$(id -u)" /dev/shm'
        command = HAND_OVER.format(folders=folders, answer=ANSWER, no_memory=NO_MEMORY)
        done = self._low_level_execute_command(command, in_data=json.dumps(secrets).encode())
        told = [line for line in done["stdout"].split("\n") if line.startswith(ANSWER)]
        if done["rc"] == 0 and told:
            return told[-1][len(ANSWER) :].strip()
        if done["rc"] == NO_MEMORY:
            cause = f"none of {run_dir}, /run, /run/user/<id> and /dev/shm is a tmpfs that its user can write to"
            raise AnsibleActionFail(f"{self._task.action} takes secrets, which must be on no disk, and {cause}")
        said = " ".join((done["stderr"] or done["stdout"]).split())[-300:] or "no reason given"
        raise AnsibleActionFail(f"The secrets of {self._task.action} could not be handed over: {said}")

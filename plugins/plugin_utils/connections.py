# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An action's connections to hosts other than its task's: as Ansible makes one for a delegated task."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import become_loader, connection_loader

Action = TypeVar("Action", bound=ActionBase)


def on_host(action: Action, host: str, hostvars: Mapping[str, Any]) -> tuple[Action, Mapping[str, Any]]:
    """This action on the connection of another host, and that host's variables. Raises AnsibleError."""
    if host not in hostvars:
        raise AnsibleError("it is not in the inventory")
    variables = hostvars[host]  # templates each value, in that host's context, as it is looked up
    peer = copy.copy(action)
    peer._play_context = _play_context(action._play_context, host, variables)
    peer._connection = _connection(peer._play_context, action._task, variables)
    return peer, variables


def _play_context(of_task: Any, host: str, variables: Mapping[str, Any]) -> Any:
    context = of_task.copy()
    for attribute, names in C.MAGIC_VARIABLE_MAPPING.items():
        found = [variables[name] for name in names if name in variables]
        if found:
            setattr(context, attribute, found[0])
    context.remote_addr = next(
        (variables[name] for name in ("ansible_ssh_host", "ansible_host") if name in variables), host
    )
    context.connection = variables.get("ansible_connection") or C.DEFAULT_TRANSPORT
    return context


def _connection(context: Any, task: Any, variables: Mapping[str, Any]) -> Any:
    """A connection with its options set from the host's variables."""
    connection = connection_loader.get(context.connection, context)
    if connection is None:
        raise AnsibleError(f"there is no connection plugin '{context.connection}'")
    connection.set_become_plugin(_become(task, variables))
    keys = task.dump_attrs()
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
        plugin.set_options(task_keys=keys, var_options={name: variables[name] for name in names if name in variables})
    return connection


def _become(task: Any, variables: Mapping[str, Any]) -> Any:
    wanted = variables.get("ansible_become")
    if not (task.become if wanted is None else boolean(wanted)):
        return None
    method = variables.get("ansible_become_method") or task.become_method
    plugin = become_loader.get(method)
    if plugin is None:
        raise AnsibleError(f"there is no become plugin '{method}'")
    return plugin

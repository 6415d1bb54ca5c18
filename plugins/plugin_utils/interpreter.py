# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a host's Python: the one that its modules run with, as Ansible finds it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ansible import constants as C

DISCOVERED = "discovered_interpreter_python"
ISOLATED = "-I -S -"
"""Arguments with which Python runs a program from its standard input, isolated from site-packages and the user."""

SEARCH = """for python in {names}; do
command -v "$python" >/dev/null 2>&1 && exec "$python" {arguments}
done
echo "there is no Python: none of {known} is on this host; install one, or set ansible_python_interpreter" >&2
exit 127"""


def command_line(variables: Mapping[str, Any]) -> str:
    """The command with which a host's Python runs the program on its standard input; ``variables``: the host's."""
    found = _configured(variables) or _discovered(variables)
    if found:
        return f"exec {' '.join(map(shlex.quote, shlex.split(found)))} {ISOLATED}"
    names = _option("INTERPRETER_PYTHON_FALLBACK", "ansible_interpreter_python_fallback", variables)
    search = SEARCH.format(
        names=" ".join(shlex.quote(str(name)) for name in names),
        known=", ".join(str(name) for name in names if str(name).replace("/", "").replace(".", "").isalnum()),
        arguments=ISOLATED,
    )
    return f"exec /bin/sh -c {shlex.quote(search)}"


def _configured(variables: Mapping[str, Any]) -> str:
    """The Python that the inventory or the configuration names; empty where Ansible must discover one."""
    named = str(_option("INTERPRETER_PYTHON", "ansible_python_interpreter", variables) or "").strip()
    return "" if named.startswith("auto") else named


def _discovered(variables: Mapping[str, Any]) -> str:
    """The Python that Ansible discovered when a module ran on this host; empty where none has run."""
    return str((variables.get("ansible_facts") or {}).get(DISCOVERED) or "")


def _option(name: str, variable: str, variables: Mapping[str, Any]) -> Any:
    known = {variable: variables[variable]} if variable in variables else {}
    return C.config.get_config_value(name, variables=known)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates the options of the roles that work on each server, before anything is frozen or brought up.

Ansible itself would validate them as each role begins: for the backup of a server, that is after its freeze.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

ROLES = ("prepare", "block_backup", "cleanup")
"""Those of a run."""
ROOT = Path(__file__).parents[3]


def option_problems(servers: list[str], hostvars: Any, roles: tuple[str, ...] = ROLES) -> list[str]:
    """What is wrong with the options of these roles that the inventory sets for these servers, as texts."""
    return [
        f"{server}: {problem}: correct it in the inventory"
        for server in servers
        for problem in _of(hostvars[server], roles)
    ]


def _of(variables: Any, roles: tuple[str, ...]) -> list[str]:
    chosen = {name: spec for name, spec in _options(roles).items() if name in variables}
    values = {name: variables[name] for name in chosen}
    return list(ArgumentSpecValidator(chosen).validate(values).error_messages)


@functools.lru_cache
def _options(roles: tuple[str, ...]) -> dict[str, Any]:
    """The options of these roles, of which none is required here."""
    yaml: Any = importlib.import_module("yaml")  # the controller has it, and other hosts import no more than this file
    found = {}
    for role in roles:
        specs = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text(encoding="utf-8"))
        for name, option in specs["argument_specs"]["main"]["options"].items():
            found[name] = {key: value for key, value in option.items() if key not in ("required", "default")}
    return found

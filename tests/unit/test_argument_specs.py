# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role's documented arguments and its defaults say the same.

Ansible checks a role's arguments against meta/argument_specs.yml, but takes no defaults from there: those stand in
defaults/main.yml once more, and nothing but a test keeps the two together.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.openisb.backup.plugins.modules import block_backup

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for folder in ("lab/roles", "roles") for path in (ROOT / folder).iterdir() if path.is_dir())
# Variables of the whole collection, which more than one role reads; all others carry their role's name.
SHARED_PREFIXES = ("isb_", "openisb_")


@pytest.fixture(params=ROLES, ids=lambda path: path.name)
def role(request: pytest.FixtureRequest) -> Path:
    """Each role's folder in turn."""
    return request.param


def specs(role: Path) -> dict[str, dict[str, Any]]:
    """The role's entry points by name."""
    return yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points together; one that several have must be the same in each."""
    merged: dict[str, dict[str, Any]] = {}
    for entry_point, spec in specs(role).items():
        for name, option in spec.get("options", {}).items():
            known = {key: value for key, value in merged.get(name, option).items() if key != "required"}
            assert known == {key: value for key, value in option.items() if key != "required"}, (
                f"{name} differs between the entry points of {role.name} (see {entry_point})"
            )
            merged[name] = option
    return merged


def defaults(role: Path) -> dict[str, Any]:
    """The role's defaults, none when it has no such file."""
    path = role / "defaults/main.yml"
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def is_template(value: Any) -> bool:
    """Whether Ansible makes the value only when it runs."""
    return isinstance(value, str) and "{{" in value


def test_there_are_roles() -> None:
    """The other tests have something to say."""
    assert {"prepare", "snapshot", "block_backup", "cleanup"} <= {role.name for role in ROLES}


def test_entry_points_exist(role: Path) -> None:
    """Each entry point is a task file, described in a line."""
    for name, spec in specs(role).items():
        assert (role / f"tasks/{name}.yml").exists(), f"{role.name} has no tasks/{name}.yml"
        assert spec["short_description"]


def test_defaults_are_documented_and_equal(role: Path) -> None:
    """What defaults/main.yml sets is an option with the very same default, and the other way round."""
    documented = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert documented == defaults(role)


def test_options_are_described(role: Path) -> None:
    """Each option has a type and a description, and is not both required and defaulted."""
    for name, option in options(role).items():
        assert option.get("type"), f"{name} has no type"
        assert option.get("description"), f"{name} has no description"
        assert not (option.get("required") and "default" in option), f"{name} is required, so its default is never used"


def test_defaults_are_valid(role: Path) -> None:
    """Each default passes the check that Ansible makes of a user's own value (templates aside)."""
    fixed = {name: value for name, value in defaults(role).items() if not is_template(value)}
    spec = {name: {**option, "required": False} for name, option in options(role).items() if name in fixed}
    for option in spec.values():
        option.pop("description", None)
    assert ArgumentSpecValidator(spec).validate(fixed).error_messages == []


def test_names_carry_the_role(role: Path) -> None:
    """No role can be handed another role's variable by accident."""
    for name in options(role):
        assert re.match(rf"{role.name}_|{'|'.join(SHARED_PREFIXES)}", name), f"{name} does not name its role"


def test_what_the_role_block_backup_is_told_reaches_the_module() -> None:
    """Every variable of the role that is named like an option of the module is passed on to it."""
    root = Path(__file__).parents[2]
    tasks = yaml.safe_load((root / "roles/block_backup/tasks/savesets.yml").read_text())
    (passed,) = [task["openisb.backup.block_backup"] for task in tasks if "openisb.backup.block_backup" in task]
    prefix = "block_backup_"
    variables = {name.removeprefix(prefix) for name in defaults(root / "roles/block_backup")}
    shared = variables & set(block_backup.ARGUMENTS) - {"metadata", "volumes"}  # they become the sources of the volumes
    assert shared >= {"level", "rate_limit", "read_latency", "slots"}
    assert {name: passed.get(name) for name in shared} == {name: f"{{{{ {prefix}{name} }}}}" for name in shared}

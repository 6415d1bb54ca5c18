# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site's inventory sets takes effect in playbooks: the variables of a play would win over it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.playbook.block import Block
from ansible.playbook.role_include import IncludeRole
from ansible.playbook.task import Task
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).parents[2]
GROUPS = ("file_servers", "storage_hosts", "backup_servers", "listeners")
SET = "set in group_vars"


def options(role: str) -> list[str]:
    """The options of a role that have a default, so that nobody has to set them."""
    return list(yaml.safe_load((ROOT / f"roles/{role}/defaults/main.yml").read_text()))


def tasks_of(blocks: Any, role: str, *known: Any) -> Iterator[Task]:
    """The tasks in blocks, and those of a role that they include."""
    for task in [task for block in blocks for task in (*block.block, *block.rescue, *block.always)]:
        if isinstance(task, Block):
            yield from tasks_of([task], role, *known)
            continue
        yield task
        if isinstance(task, IncludeRole) and task.args["name"] == f"openisb.backup.{role}":
            yield from tasks_of(task.get_block_list(*known)[0], role, *known)


@pytest.mark.parametrize("playbook", ["adopt", "catalog", "prune", "recover", "restore", "verify"])
def test_an_option_in_group_vars_takes_effect(playbook: str, tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/all.json").write_text(json.dumps(dict.fromkeys(options(playbook), SET)))
    (tmp_path / "hosts.json").write_text(json.dumps({group: {"hosts": {"one": {}}} for group in GROUPS}))
    loader = DataLoader()
    inventory = InventoryManager(loader=loader, sources=[str(tmp_path / "hosts.json")])
    variables = VariableManager(loader=loader, inventory=inventory)
    book = Playbook.load(str(ROOT / f"playbooks/{playbook}.yml"), variable_manager=variables, loader=loader)
    seen = [
        variables.get_vars(play=play, host=inventory.get_host("one"), task=task)
        for play in book.get_plays()
        for task in tasks_of(play.compile(), playbook, play, variables, loader)
    ]
    assert len(seen) > 10
    assert {name: vars_of[name] for vars_of in seen for name in options(playbook) if vars_of[name] != SET} == {}

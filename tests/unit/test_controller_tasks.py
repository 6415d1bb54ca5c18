# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on the controller runs as whoever runs the playbook, also where a site has `ansible_become` for all hosts.

A controller may have no sudo, as an execution environment has none, and needs none. A keyword of the task would not
help, as variables come before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("roles", "playbooks") for path in sorted((ROOT / folder).glob("**/*.yml"))]


def tasks(entries: Any) -> Iterator[dict[str, Any]]:
    """All tasks of a file, those of plays and blocks too."""
    for entry in entries if isinstance(entries, list) else []:
        yield entry
        for key in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from tasks(entry.get(key))


DELEGATED = [
    (path.relative_to(ROOT), task)
    for path in FILES
    if {"tasks", "handlers", "playbooks"} & set(path.parts)
    for task in tasks(yaml.safe_load(path.read_text()))
    if task.get("delegate_to") == "localhost"
]


def test_there_are_some() -> None:
    assert len(DELEGATED) >= 6


@pytest.mark.parametrize(("path", "task"), DELEGATED, ids=[f"{path}: {task['name']}" for path, task in DELEGATED])
def test_it_does_not_become_another_user(path: Path, task: dict[str, Any]) -> None:
    assert task.get("vars", {}).get("ansible_become") is False, f"{path}: {task['name']}"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks show and hand on: lists of lines, for any callback, and one entry of artifacts in one form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.control import catalog, outcome, text
from ansible_collections.openisb.backup.plugins.module_utils.control.drill import life, plan

ROOT = Path(__file__).parents[3]
FILES = sorted([*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/tasks/**/*.yml")])
TEXTS = {"run", "idr", "catalog", "prune", "dead_runs", "recover"}
LISTS = {"unknown_savesets", "due", "idr_plan"}
RESULT = {"run_id", "verdict", "exit_status", "report"}
NO_PRUNE = {"savesets": [], "forgotten": [], "waiting": [], "bytes_freed": 0} | dict.fromkeys(
    ("packs_deleted", "maps_deleted", "packs_punched"), 0
)


def tasks(module: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All tasks of playbooks and roles with a module, and where they are."""

    def within(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            yield value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from within(item)

    for path in FILES:
        for task in within(yaml.safe_load(path.read_text())):
            if module in task:
                yield path, task


def test_what_is_more_than_a_line_is_shown_as_lines() -> None:
    used = set()
    for path, task in tasks("ansible.builtin.debug"):
        message = task["ansible.builtin.debug"]["msg"]
        filters = set(re.findall(r"openisb\.backup\.text\('(\w+)'", message if isinstance(message, str) else ""))
        used |= filters
        if filters & TEXTS or "to_nice_json" in message:
            assert message.endswith(").splitlines() }}"), (path, message)
        elif filters & LISTS:
            assert "splitlines" not in message, (path, message)
    assert used >= TEXTS | LISTS


@pytest.mark.parametrize(
    "shown",
    [
        text.catalog_table([]),
        text.prune_summary(NO_PRUNE),
        text.dead_runs_summary({"runs": [], "problems": []}),
        text.recover_summary({}, [], [], False),
    ],
)
def test_texts_are_texts(shown: object) -> None:
    assert isinstance(shown, str)


@pytest.mark.parametrize(
    "shown", [catalog.unknown_savesets([]), life.due_summary({}), plan.plan_summary({}, "instant", "test")]
)
def test_lists_are_lists(shown: object) -> None:
    assert isinstance(shown, list)


def test_artifacts_have_one_form_and_take_the_place_of_those_before() -> None:
    """Ansible adds up what is told twice, unless it is told not to."""
    found = list(tasks("ansible.builtin.set_stats"))
    assert len(found) > 8
    for path, task in found:
        options = task["ansible.builtin.set_stats"]
        assert options["aggregate"] is False, path
        assert re.search(r"\| openisb\.backup\.facts\('artifacts', ", options["data"]), path
    assert set(outcome.artifacts("", "failed")) == {"openisb_result"}
    assert set(outcome.artifacts("", "failed")["openisb_result"]) == RESULT

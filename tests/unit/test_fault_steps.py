# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks at which the fault matrix holds a run are tasks of the playbooks: else the fault would never strike."""

from __future__ import annotations

import runpy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_every_task_at_which_a_run_is_held_is_there() -> None:
    steps = runpy.run_path(str(ROOT / "tests/faults/steps.py"))
    wanted = {step.task for step in steps["STEPS"].values() if step.task}
    wanted |= {*steps["ARMED"].values(), *steps["UNCHECKED"].values()}
    there: set[str] = set()
    for path in ROOT.glob("roles/*/tasks/**/*.yml"):
        there |= {
            f"{path.relative_to(ROOT / 'roles').parts[0]} : {name}"
            for name in names_in(yaml.safe_load(path.read_text()))
        }
    for path in ROOT.glob("playbooks/*.yml"):
        there |= names_in(yaml.safe_load(path.read_text()))
    assert len(wanted) > 5 and wanted <= there


def names_in(value: object) -> set[str]:
    """The names of all tasks, in blocks as well."""
    if isinstance(value, list):
        return {name for entry in value for name in names_in(entry)}
    if not isinstance(value, dict):
        return set()
    mine = {str(value["name"])} if isinstance(value.get("name"), str) else set()
    return mine | {name for entry in value.values() if isinstance(entry, (list, dict)) for name in names_in(entry)}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site sets for its backup server takes effect in drills, and what is given with -e counts more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal
from local_site import run_playbook, write_inventory

ROOT = Path(__file__).parents[3]
NOW = "2026-11-29T12:00:00+00:00"


def play(folder: Path, playbook: str, *options: str, **of_backup_servers: Any) -> tuple[int, str]:
    """A playbook of the collection, of a site whose hosts are all this one; its exit status, and what it said."""
    server = {
        "isb_drivers": [{"name": "command", "freeze": ["x"], "thaw": ["y"]}],
        "isb_volumes": [{"name": "m", "serial": "600a098000000011", "mount": "/srv/m"}],
    }
    groups = {"storage_hosts": "storage1", "listeners": "backup1", "backup_servers": "backup1", "dr_hosts": "dr1"}
    children: dict[str, Any] = {group: {"hosts": {name: {}}} for group, name in groups.items()}
    children["file_servers"] = {"hosts": {"fs1": server, "fs2": {**server, "isb_volumes": [other(server)]}}}
    children["backup_servers"]["vars"] = of_backup_servers
    write_inventory(folder, children, openisb_state_dir=f"{folder}/state", openisb_run_dir=f"{folder}/run")
    return run_playbook(folder, playbook, *options)


def other(server: dict[str, Any]) -> dict[str, Any]:
    return {**server["isb_volumes"][0], "serial": "600a098000000022"}


@pytest.mark.slow
def test_a_declared_disaster_keeps_a_drill_of_the_present_from_freezing_anything(tmp_path: Path) -> None:
    """It was only seen where it was set for the file servers."""
    status, said = play(tmp_path, "openisb.backup.idr_fresh", idr_declared=NOW)
    assert status and f"nothing was frozen. idr_declared is {NOW}, and a drill" in said, said
    assert "Verify that a run can start" not in said and not (tmp_path / "state").exists(), said


@pytest.mark.slow
def test_how_often_servers_are_proven(tmp_path: Path) -> None:
    (tmp_path / "state/journal").mkdir(parents=True)
    journal = Journal(f"{tmp_path}/state/journal/drills.jsonl")
    drill = "idr-20261129T110000Z-000001"
    journal.append(drill, "opened", {})
    journal.append(drill, "closed", {"proven": ["fs1", "fs2"]})
    playbook = tmp_path / "due.yml"
    roles = [{"role": "openisb.backup.drill"}]
    resolve = {"ansible.builtin.import_playbook": "openisb.backup.resolve"}
    playbook.write_text(yaml.safe_dump([resolve, {"hosts": "backup_servers", "gather_facts": False, "roles": roles}]))
    assert "fs2: last proven" not in play(tmp_path, str(playbook))[1]
    assert "fs2: last proven" in play(tmp_path, str(playbook), drill_within_days=7)[1]
    assert "fs2: last proven" not in play(tmp_path, str(playbook), "-e", "drill_within_days=28", drill_within_days=7)[1]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""recover.yml itself, of a run with a server that the inventory does not have any more: that may stand still."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal
from local_site import ansible_environment

pytestmark = [pytest.mark.root, pytest.mark.slow]
RUN = "isb-20261128T220000Z-4f1c2a"


def test_a_run_is_closed_only_when_all_of_its_hosts_are_clean(tmp_path: Path) -> None:
    part = {"ring": "", "storage_host": "storage1", "backup_server": "backup1"}
    server = {
        "isb_drivers": [{"name": "command", "freeze": ["x"], "thaw": ["y"]}],
        "isb_volumes": [{"name": "m", "serial": "600a098000000011", "mount": "/srv/m"}],
    }
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "openisb_state_dir": f"{tmp_path}/state",
        "openisb_run_dir": f"{tmp_path}/run",
        "snapshot_directory": f"{tmp_path}/snapshots",
    }
    groups = {"storage_hosts": "storage1", "listeners": "backup1", "backup_servers": "backup1"}
    children = {group: {"hosts": {name: {}}} for group, name in groups.items()}
    children["file_servers"] = {"hosts": {"fs1": server}}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": variables, "children": children}}))
    (tmp_path / "state/journal").mkdir(parents=True)
    journal = Journal(f"{tmp_path}/state/journal/runs.jsonl")
    journal.append(RUN, "opened", {"plan": {"fs1": part, "fs9": part}})

    def recover(*options: str) -> tuple[int, str]:
        command = [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json"]
        done = subprocess.run(
            [*command, "openisb.backup.recover", "-e", f"recover_run_id={RUN}", *options],
            env=ansible_environment(tmp_path),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    status, output = recover("--limit", "fs1")
    assert status != 0 and "The limit 'fs1' would leave out hosts" in output, output
    status, output = recover()
    assert status != 0 and "Not closed, because these hosts could not be cleaned up: fs9." in output, output
    assert [record["event"] for record in journal.records()] == ["opened"]
    status, output = recover("-e", "recover_gone=fs9")
    assert status == 0, output
    assert [record["event"] for record in journal.records()] == ["opened", "closed"]

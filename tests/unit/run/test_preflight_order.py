# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight names what is out of order, and what the journal does not know, and goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.catalog import with_places

from .test_catalog import AHEAD, HONEST, NOON, saveset

PLAY = [
    {
        "hosts": "backup_servers",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.include_role": {
                    "name": "openisb.backup.preflight",
                    "tasks_from": "order",
                    "rolespec_validate": False,
                }
            }
        ],
    }
]


@pytest.mark.slow
def test_what_is_out_of_order_is_named_before_a_run(tmp_path: Path, project_root: Path) -> None:
    stranger = saveset(7, "2026-11-04T23:00:00+00:00")
    other = [saveset(number, volume="fs2/m", id=f"{number + 100:032x}") for number in (1, 2, 3, 6)]
    behind = saveset(5, "2016-11-05T02:15:03+00:00", "fs2/m", id=f"{105:032x}")
    known = [*HONEST, AHEAD, *other, behind]
    found = {
        "backup1": with_places([*HONEST, AHEAD, stranger, *other, behind], known, NOON),
        "backup2": with_places(HONEST, HONEST, NOON),
    }
    hosts = {
        name: {"ansible_connection": "local", "preflight_found": {"repository": {"savesets": savesets}}}
        for name, savesets in found.items()
    }
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"children": {"backup_servers": {"hosts": hosts}}}}))
    (tmp_path / "play.yml").write_text(json.dumps(PLAY))
    (tmp_path / "ansible.cfg").touch()
    environment = {**os.environ, "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "ANSIBLE_HOME": str(tmp_path)}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(project_root / "collections")
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [program, "-i", tmp_path / "hosts.json", tmp_path / "play.yml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    assert done.returncode == 0, said
    assert "The journal does not know these savesets" in said and stranger["id"] in said
    assert f"saveset {AHEAD['id']}; its time is in the future of this host's clock" in said
    assert f"saveset {behind['id']}; its time is before that of" in said
    assert said.count("These savesets are out of order") == 2  # once a host of this play

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight says of a run that may start: without the project's ansible.cfg Ansible has five forks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.control.controller_settings import settings_warnings

Play = Callable[..., list[dict[str, Any]]]

#: What preflight has of a host whose sshd accepts very few.
SSHD = {"stdout": "port 22\r\nmaxstartups 2:30:100\r\nmaxsessions 2\r\n"}


def groups(servers: int) -> dict[str, list[str]]:
    return {"file_servers": [f"fs{number}" for number in range(servers)]}


@pytest.mark.parametrize(("forks", "servers", "told"), [(5, 5, False), (5, 6, True), (64, 6, False), (1, 1, False)])
def test_fewer_forks_than_file_servers(forks: int, servers: int, told: bool) -> None:
    found = settings_warnings(groups(servers), forks, True)
    assert bool(found) is told
    assert all(f"Set forks to {servers} or more" in text and "ANSIBLE_FORKS" in text for text in found)


def test_half_an_inventory() -> None:
    (found,) = settings_warnings(groups(1), 5, False)
    assert "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED" in found


def told(play: Play, project_root: Path, *arguments: str) -> list[str]:
    """What the role says, in an Ansible that has no settings of the project, with six file servers."""
    text = (project_root / "roles/preflight/tasks/warnings.yml").read_text()
    (task,) = yaml.safe_load(text.replace("'preflight_warnings', groups,", "'preflight_warnings', site,"))
    site = {**groups(6), "listeners": ["backup1"]}
    uses = {"isb_backup_server": "backup1", "isb_storage_host": "storage1"}
    hosts = {**dict.fromkeys(site["file_servers"], uses), "backup1": {}, "storage1": {"preflight_sshd": SSHD}}
    (result,) = play([task], "-e", json.dumps({"site": site}), *arguments, hosts=hosts)
    return [] if result.get("skipped") else list(result["msg"])


def test_the_role_tells_what_ansible_is_set_to(play: Play, project_root: Path, tmp_path: Path) -> None:
    forks, unparsed, sessions = told(play, project_root)
    assert forks.startswith("Warning: Ansible works on 5 hosts at a time (forks), and there are 6 file servers")
    assert unparsed.startswith("Warning: Ansible continues when a part of the inventory cannot be read")
    assert sessions.startswith("Warning: storage1 works for up to 5 servers at the same time")
    (tmp_path / "ansible.cfg").write_text("[inventory]\nany_unparsed_is_failed = true\n")
    (sessions,) = told(play, project_root, "--forks", "6")
    assert sessions.startswith("Warning: storage1 works for up to 6 servers at the same time")

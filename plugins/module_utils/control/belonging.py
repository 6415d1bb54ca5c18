# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds hosts that are missing from the groups they belong to, and would be left out of a run unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMED = {"isb_storage_host": "storage_hosts", "isb_backup_server": "backup_servers"}


def belonging_problems(groups: Mapping[str, list[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One text for each host that is in none of the groups it needs to take part, with a remedy."""
    servers = groups["file_servers"]
    problems = [
        f"{host} has isb_volumes and is not in the group file_servers, so it would not be backed up: add it there, "
        "correct the name of its group, or remove its isb_volumes"
        for host in groups["all"]
        if host not in servers and hostvars[host].get("isb_volumes")
    ]
    for server in servers:
        for variable, group in NAMED.items():
            named = hostvars[server].get(variable)
            if named and named not in groups[group]:
                problems.append(
                    f"{server}: {variable} is {named}, which is not in the group {group}: add it or correct it"
                )
    return problems

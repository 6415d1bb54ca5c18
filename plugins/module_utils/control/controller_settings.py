# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recommended settings of Ansible on the controller: the project's ansible.cfg has them."""

from __future__ import annotations

from collections.abc import Mapping


def settings_warnings(groups: Mapping[str, list[str]], forks: int, unparsed_fails: bool) -> list[str]:
    """One text for each setting that is not as recommended, with its effect and the remedy."""
    servers = len(groups["file_servers"])
    found = []
    if forks < servers:
        found.append(
            f"Ansible works on {forks} hosts at a time (forks), and there are {servers} file servers: the backup and "
            f"the cleanup of a server may have to wait for those of another server. Set forks to {servers} or more: "
            "in ansible.cfg, as ANSIBLE_FORKS, with --forks, or in the job template of AWX"
        )
    if not unparsed_fails:
        found.append(
            "Ansible continues when a part of the inventory cannot be read, and servers in that part are then not "
            "backed up: set any_unparsed_is_failed to true, in the section [inventory] of ansible.cfg or as "
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"
        )
    return found

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts that every host needs to know of itself and of the others, from the inventory alone."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

GROUPS = ("file_servers", "storage_hosts", "backup_servers", "listeners", "dr_hosts", "rings")


def host_facts(groups: Any, hostvars: Any) -> dict[str, dict[str, Any]]:
    """By host of these groups, its facts: the hosts of the run, and as ``openisb_host`` its own paths and addresses."""
    hosts = dict.fromkeys(host for group in GROUPS for host in groups.get(group, []))
    sharing = [host for host in groups["backup_servers"] if boolean(hostvars[host].get("repository_shared", False))]
    return {host: _facts(host, hostvars[host], groups, sharing) for host in hosts}


def _facts(host: str, variables: Any, groups: Any, sharing: list[str]) -> dict[str, Any]:
    state_dir = variables.get("openisb_state_dir", "/var/lib/openisb")
    backup_servers = _backup_servers(variables, groups, sharing)
    run_dir = variables.get("openisb_run_dir", "/run/openisb")
    return {
        "isb_listener": groups["listeners"][0],
        "isb_backup_server": backup_servers[0],
        "isb_storage_host": variables.get("isb_storage_host", groups["storage_hosts"][0]),
        "idr_keeper": groups["backup_servers"][0],
        "openisb_state_dir": state_dir,
        "openisb_run_dir": run_dir,
        "openisb_host": {
            "state_dir": state_dir,
            "run_dir": run_dir,
            "address": variables.get("openisb_data_address", variables.get("ansible_host", host)),
            "tls": boolean(variables.get("openisb_data_tls", True)),
            "journal": f"{state_dir}/journal/runs.jsonl",
            "drills": f"{state_dir}/journal/drills.jsonl",
            "report_key": variables.get("idr_report_key", f"{state_dir}/report-key.pem"),
            "repository": variables.get("repository_path", f"{state_dir}/repository"),
            "python": variables.get("repository_python", f"{state_dir}/venv/bin/python"),
            "changed_extents": boolean(variables.get("isb_changed_extents", True)),
            "backup_servers": backup_servers,
            "shared_with": sharing[0] if host in sharing else "",
        },
    }


def _backup_servers(variables: Any, groups: Any, sharing: list[str]) -> list[str]:
    """The backup servers that may back up a host: the one that the site names, or all that share the first one's
    repository.

    A run that has just assigned a backup server has not thereby pinned it: what an earlier playbook of this process
    found still counts.
    """
    found = (variables.get("openisb_host") or {}).get("backup_servers")
    if found:
        return list(found)
    named, first = variables.get("isb_backup_server"), groups["backup_servers"][0]
    if named:
        return [named]
    return list(sharing) if first in sharing else [first]


def taking_part(hostvars: Any, groups: Any, kind: str, dry_run: bool) -> list[str]:
    """The hosts of a play: those of a ``kind`` (servers, rings, quiesced) that preflight has found to take part.

    None in a dry run, nor where playbooks are only parsed and there is no inventory.
    """
    listener = next(iter(groups.get("listeners", [])), None)
    if dry_run or not hostvars or listener is None:
        return []
    return list(hostvars[listener].get(f"preflight_{kind}", []))

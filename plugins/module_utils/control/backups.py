# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup of each server needs to know of the others and of earlier runs, derived once for the whole run."""

from __future__ import annotations

from typing import Any

from .catalog import bases, parents
from .entries import Entry
from .inventory import volumes_by_storage


def backups(servers: list[str], hostvars: Any) -> dict[str, Entry]:
    """By server, a dict of

    - parents: by serial of each volume, the id of its latest saveset; empty where it has none,
    - bases: by serial, the run of that saveset,
    - members: serials of all LUNs of the run on the server's storage host.

    ``hostvars``: each host's variables, with the fact that the role preflight sets, ``preflight_found``.
    """
    found = {}
    members = {host: [lun["serial"] for lun in luns] for host, luns in volumes_by_storage(servers, hostvars).items()}
    for server in servers:
        variables = hostvars[server]
        volumes = variables["isb_volumes"]
        savesets = hostvars[variables["isb_backup_server"]]["preflight_found"]["repository"]["savesets"]
        found[server] = {
            "parents": parents(volumes, server, savesets),
            "bases": bases(volumes, server, savesets),
            "members": members[variables["isb_storage_host"]],
        }
    return found


def saveset_records(savesets: list[Entry], server: str, consistency_point: str) -> list[Entry]:
    """The journal's data for each saveset of a server."""
    common = {"server": server, "consistency_point": consistency_point}
    return [{**common, "saveset": saveset} for saveset in savesets]

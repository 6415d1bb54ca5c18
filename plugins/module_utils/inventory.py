# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says of the file servers: checked, and turned into what the storage is asked for."""

from __future__ import annotations

import re

SERIAL = re.compile(r"^[0-9a-f]{16,32}$")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")


def inventory_problems(servers, hostvars):
    """What is wrong with these file servers: one text a problem, with its way out.

    ``hostvars`` maps each server to its variables, among them ``isb_drivers`` and ``isb_volumes``.
    """
    problems, owners = [], {}
    for server in servers:
        problems += _driver_problems(server, hostvars[server].get("isb_drivers"))
        problems += _volume_problems(server, hostvars[server].get("isb_volumes"), owners)
    return problems


def _driver_problems(server, drivers):
    if not drivers:
        return [f"{server} has no isb_drivers: list how it quiesces, in the order of the freeze"]
    return [f"{server}: a driver in isb_drivers has no name" for driver in drivers if not driver.get("name")]


def _volume_problems(server, volumes, owners):
    if not volumes:
        return [f"{server} has no isb_volumes: list the LUNs that belong to it"]
    problems, names = [], set()
    for volume in volumes:
        name, serial = str(volume.get("name", "")), str(volume.get("serial", ""))
        if not NAME.match(name):
            problems.append(f"{server}: '{name}' cannot name a volume: use letters, digits, '_' and '-'")
        if name in names:
            problems.append(f"{server} has two volumes with the name {name}: rename one")
        if not SERIAL.match(serial):
            problems.append(
                f"{server}/{name}: serial '{serial}' is not 16 to 32 lowercase hex digits (quote it in YAML)"
            )
        elif serial in owners:
            problems.append(f"serial {serial} belongs to {owners[serial]} and to {server}/{name}")
        names.add(name)
        owners[serial] = f"{server}/{name}"
    return problems


def volumes_by_storage(servers, hostvars):
    """Volumes of these servers by storage host: dicts of server, name, serial and, where a volume is a file, path."""
    found = {}
    for server in servers:
        host = hostvars[server]["isb_storage_host"]
        for volume in hostvars[server]["isb_volumes"]:
            entry = {key: volume[key] for key in ("name", "serial", "path") if volume.get(key)}
            found.setdefault(host, []).append(dict(entry, server=server))
    return found


def run_plan(servers, hostvars):
    """What a run is going to do, for the journal: servers, and of each its volumes, storage host and backup server."""
    return {
        "servers": servers,
        "plan": {
            server: {
                "volumes": [
                    {"name": volume["name"], "serial": volume["serial"]} for volume in hostvars[server]["isb_volumes"]
                ],
                "storage_host": hostvars[server]["isb_storage_host"],
                "backup_server": hostvars[server]["isb_backup_server"],
            }
            for server in servers
        },
    }

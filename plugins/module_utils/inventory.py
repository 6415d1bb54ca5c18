# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says of the file servers: checked, and turned into what the storage is asked for."""

from __future__ import annotations

import re

SERIAL = re.compile(r"^[0-9a-f]{16,32}\Z")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")


def inventory_problems(servers, hostvars, rings=()):
    """What is wrong with these file servers and rings: one text a problem, with its way out.

    ``hostvars`` maps each of them to its variables, among them ``isb_drivers`` and ``isb_volumes``.
    """
    problems, owners = [], {}
    for server in servers:
        ring, drivers = hostvars[server].get("isb_ring"), hostvars[server].get("isb_drivers")
        if ring and ring not in rings:
            problems.append(
                f"{server}: isb_ring is '{ring}', and the group rings has no such host: add it or correct it"
            )
        problems += [] if ring and not drivers else _driver_problems(server, drivers)
        problems += _volume_problems(server, hostvars[server].get("isb_volumes"), owners)
    for ring in rings:
        problems += _driver_problems(ring, hostvars[ring].get("isb_drivers"))
        if ring in servers or not servers_of(ring, servers, hostvars):
            problems.append(f"ring {ring} has no file server: give servers 'isb_ring: {ring}', or take it out of rings")
    return problems


def _driver_problems(server, drivers):
    if not drivers:
        return [f"{server} has no isb_drivers: list how it quiesces, in the order of the freeze"]
    return [f"{server}: a driver in isb_drivers has no name" for driver in drivers if not driver.get("name")]


def servers_of(ring, servers, hostvars):
    """Those of ``servers`` that are in a ring; with an empty ``ring``, in none."""
    return [server for server in servers if (hostvars[server].get("isb_ring") or "") == ring]


def mbf_name(server, hostvars):
    """The name that a ring's own answers give to a server."""
    return str(hostvars[server].get("isb_mbf_name") or server)


def consistency_points(servers, hostvars, rings):
    """The consistency points of a run, in order: one a ring, then one of all servers that are in none.

    Dicts of ring (empty: none), leaders (hosts whose holder quiesces all servers of the point), servers, holders
    (servers with a holder of their own), names (of the servers in the leaders' answers) and volumes (by storage host).
    """
    points = []
    for ring in [*rings, ""]:
        mine = servers_of(ring, servers, hostvars)
        if mine:
            points.append(
                {
                    "ring": ring,
                    "leaders": [ring] if ring else [],
                    "servers": mine,
                    "holders": [server for server in mine if hostvars[server].get("isb_drivers")],
                    "names": {server: mbf_name(server, hostvars) for server in mine},
                    "volumes": volumes_by_storage(mine, hostvars),
                }
            )
    return points


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
                "ring": hostvars[server].get("isb_ring") or "",
                "storage_host": hostvars[server]["isb_storage_host"],
                "backup_server": hostvars[server]["isb_backup_server"],
            }
            for server in servers
        },
    }

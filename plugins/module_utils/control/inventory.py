# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validates what the inventory says of the file servers, and turns it into what the storage is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

from ..host import nbd_addresses
from ..saveset.base.errors import InvalidValue
from ..saveset.base.volume import check_part, folded
from .entries import Entry

Variables = Mapping[str, Any]
HostVars = Mapping[str, Variables]
Groups = Mapping[str, list[str]]

SERIAL = re.compile(r"^[0-9a-f]{16,32}\Z")
NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}\Z")
#: The groups whose hosts have exports that others open.
EXPORTING = ("storage_hosts", "backup_servers", "dr_hosts")
#: The drill id in the names of a drill's exports, besides server and volume; for its length.
A_DRILL = "idr-20261123T021500Z-4f1c2a"
#: The keys by which a volume's own server finds it, and all keys that a volume may have.
FOUND_BY = ("name", "serial", "mount", "path")
SAID_OF_VOLUMES = (*FOUND_BY, "census", "drive", "idr_mount", "idr_part", "idr_sector_size", "idr_target")


def inventory_problems(
    servers: list[str], hostvars: HostVars, rings: Sequence[str] = (), groups: Groups | None = None
) -> list[str]:
    """What is wrong with these file servers and rings: one text per problem, with its remedy.

    ``hostvars`` maps each of them to its variables, among them ``isb_drivers`` and ``isb_volumes``. ``groups``: the
    hosts of each group, to validate the addresses that other hosts connect to.
    """
    problems = alike_problems("file servers", servers)
    owners: dict[str, str] = {}
    groups = groups or {}
    for host in dict.fromkeys(host for group in EXPORTING for host in groups.get(group, [])):
        problems += _address_problems(host, hostvars[host])
    for host in groups.get("backup_servers", []):
        problems += _sharing_problems(host, hostvars[host])
    for server in servers:
        problems += _server_name_problems(server)
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
            problems.append(f"ring {ring} has no file server: set 'isb_ring: {ring}' on some, or remove it from rings")
    return problems


def alike_problems(what: str, names: Iterable[str]) -> list[str]:
    """One text for each pair of names that a filesystem of a repository or host may not distinguish."""
    seen: dict[str, str] = {}
    problems = []
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            problems.append(
                f"the {what} {other} and {name} differ only in upper and lower case or in their Unicode form, and a "
                "filesystem may not distinguish them: rename one"
            )
    return problems


def _address_problems(host: str, variables: Variables) -> list[str]:
    problem = nbd_addresses.problem_of(nbd_addresses.of_host(host, variables))
    return [f"{host}: {problem}: set openisb_data_address to a name or address of the host"] if problem else []


def _sharing_problems(host: str, variables: Variables) -> list[str]:
    shared = variables.get("repository_shared", False)
    try:
        boolean(shared)
    except TypeError:
        return [f"{host}: repository_shared is '{shared}': set it to true or false"]
    return []


def _server_name_problems(server: str) -> list[str]:
    """Why the engine or an export would refuse a name: both derive their own names from it."""
    usable: re.Match[str] | bool | None
    try:
        usable = nbd_addresses.NAME.fullmatch(check_part(server))
    except InvalidValue:
        usable = False
    rule = "use at most 100 letters, digits, '.', '_' and '-', the first of them a letter or digit"
    return [] if usable else [f"'{server}' cannot name a server: {rule}, and put its address into ansible_host"]


def _driver_problems(server: str, drivers: list[Entry] | None) -> list[str]:
    if not drivers:
        return [f"{server} has no isb_drivers: list the drivers that quiesce it, in the order of the freeze"]
    return [f"{server}: a driver in isb_drivers has no name" for driver in drivers if not driver.get("name")]


def servers_of(ring: str, servers: Iterable[str], hostvars: HostVars) -> list[str]:
    """Those of ``servers`` that are in a ring; with an empty ``ring``, those in none."""
    return [server for server in servers if (hostvars[server].get("isb_ring") or "") == ring]


def mbf_name(server: str, hostvars: HostVars) -> str:
    """The name of a server in its ring's own answers."""
    return str(hostvars[server].get("isb_mbf_name") or server)


def consistency_points(servers: list[str], hostvars: HostVars, rings: Iterable[str]) -> list[Entry]:
    """The consistency points of a run, in order: one per ring, then one of all servers that are in none.

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


def _volume_problems(server: str, volumes: list[Entry] | None, owners: dict[str, str]) -> list[str]:
    if not volumes:
        return [f"{server} has no isb_volumes: list the LUNs that belong to it"]
    problems = alike_problems("volumes", [f"{server}/{volume.get('name', '')}" for volume in volumes])
    names: set[str] = set()
    for volume in volumes:
        name, serial = str(volume.get("name", "")), str(volume.get("serial", ""))
        if not NAME.match(name):
            problems.append(
                f"{server}: '{name}' cannot name a volume: use at most 63 letters, digits, '_' and '-', the first of "
                "them a letter or digit"
            )
        elif len(f"{A_DRILL}.{server}.{name}") > nbd_addresses.LONGEST_NAME and not _server_name_problems(server):
            problems.append(f"{server}/{name} is too long a name: rename the volume, or the server in the inventory")
        if name in names:
            problems.append(f"{server} has two volumes with the name {name}: rename one")
        if not SERIAL.match(serial):
            problems.append(
                f"{server}/{name}: serial '{serial}' is not 16 to 32 lowercase hex digits (quote it in YAML)"
            )
        elif serial in owners:
            problems.append(f"serial {serial} belongs to {owners[serial]} and to {server}/{name}")
        problems += [
            f"{server}/{name}: a volume has no key '{key}': correct it ({', '.join(SAID_OF_VOLUMES)}) or remove it"
            for key in volume
            if key not in SAID_OF_VOLUMES
        ]
        names.add(name)
        owners[serial] = f"{server}/{name}"
    return problems


def volumes_to_find(volumes: list[Entry]) -> list[Entry]:
    """A server's volumes, with only the keys that the server itself needs."""
    return [{key: volume[key] for key in FOUND_BY if key in volume} for volume in volumes]


def volumes_by_storage(servers: Iterable[str], hostvars: HostVars) -> dict[str, list[Entry]]:
    """Volumes of these servers by storage host: dicts of server, name, serial and, where a volume is a file, path."""
    found: dict[str, list[Entry]] = {}
    for server in servers:
        host = hostvars[server]["isb_storage_host"]
        for volume in hostvars[server]["isb_volumes"]:
            entry = {key: volume[key] for key in ("name", "serial", "path") if volume.get(key)}
            found.setdefault(host, []).append(dict(entry, server=server))
    return found


def run_plan(servers: list[str], hostvars: HostVars) -> Entry:
    """What a run will do, for the journal: servers, and for each its volumes, ring, storage host and backup server."""
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

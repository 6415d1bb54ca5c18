# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares a ring's census, what it says it has, with the inventory, by the serials of the LUNs."""

from __future__ import annotations

import re

from .entries import Entry
from .inventory import SERIAL, HostVars, mbf_name

SHORTEST = 16
"""Least hex digits of a serial that may be identified by its last digits alone."""


def census_problems(ring: str, drives: list[Entry], servers: list[str], hostvars: HostVars) -> list[str]:
    """One text for everything that is in the census and not in the inventory, or the reverse.

    ``drives``: dicts of server, name, serial and wwn. ``servers``: file servers of the ring. The ring's
    ``isb_census_ignore`` names servers and drives (``SERVER:DRIVE``) that are left out on purpose; a volume of the
    inventory with ``census: false`` is one that MBF does not know.
    """
    ignored = {str(entry).casefold() for entry in hostvars[ring].get("isb_census_ignore") or []}
    names = {mbf_name(server, hostvars).casefold(): server for server in servers}
    volumes = [(server, volume) for server in servers for volume in hostvars[server]["isb_volumes"]]
    problems, found = [], []
    for drive in drives:
        label = "{server}:{name}".format(**drive)
        if ignored & {label.casefold(), drive["server"].casefold()}:
            continue
        matches = [entry for entry in volumes if is_same_lun(entry[1]["serial"], drive)]
        found += matches
        problems += drive_problems(ring, drive, label, names, matches)
    for entry in volumes:
        if entry not in found and entry[1].get("census", True):
            problems.append(
                "{0}/{1[name]}: the LUN with serial {1[serial]} is not in the census of ring {2}: correct the "
                "inventory, add it to MBF, or set 'census: false' for the volume".format(*entry, ring)
            )
    return list(dict.fromkeys(problems))


def drive_problems(
    ring: str, drive: Entry, label: str, names: dict[str, str], matches: list[tuple[str, Entry]]
) -> list[str]:
    """What is wrong with one drive of the census; ``matches``: servers and volumes of the inventory with that LUN."""
    server = names.get(drive["server"].casefold())
    way_out = "add it, or list it in the ring's isb_census_ignore"
    if server is None:
        place = "no file server of that ring in the inventory"
        return [f"ring {ring}: MBF's census names the server {drive['server']}, which is {place}: {way_out}"]
    if not matches:
        text = f"ring {ring}: MBF's census has the drive {label} (serial {drive['serial']})"
        return [f"{text}, and {server} has no such volume in the inventory: {way_out}"]
    return [
        f"ring {ring}: the LUN with serial {volume['serial']} is the drive {label} by MBF's census, and belongs to "
        f"{owner}/{volume['name']} in the inventory: correct one of them"
        for owner, volume in matches
        if owner != server
    ]


def is_same_lun(serial: str, drive: Entry) -> bool:
    """Whether a serial of the inventory is that of a drive: its serial or WWN, or one ends with the other."""
    told = (drive["serial"], drive["wwn"])
    return any(known and ends_alike(serial, known) for known in (*told, *map(decoded, told)))


def decoded(serial: str) -> str:
    """The serial, in lowercase, that this one is the ASCII hex of; empty where it is not such hex."""
    match = re.match(r"(?:[0-9a-f]{2})+\Z", serial)
    text = bytes.fromhex(serial).strip(b" \0") if match else b""
    return text.decode("ascii").lower() if text.isalnum() else ""


def lun_serial(serial: str) -> str:
    """The serial by which servers and storage find a LUN: the census's, decoded where it is hex of hex digits.

    A serial cannot look like that by accident: each of its 16 bytes would have to be one of 22 values out of 256.
    """
    text = decoded(serial)
    return text if SERIAL.match(text) else serial


def ends_alike(one: str, other: str) -> bool:
    """Whether one ends with the other: a WWN ends with the storage's serial, and /dev/disk/by-id may use either."""
    shorter, longer = sorted((one, other), key=len)
    return one == other or (len(shorter) >= SHORTEST and longer.endswith(shorter))

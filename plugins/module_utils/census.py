# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what a ring says that it has, its census, with what the inventory says: by the serials of the LUNs."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.module_utils.inventory import mbf_name

SHORTEST = 16
"""Hex digits of a serial that is told from others by its end."""


def census_problems(ring, drives, servers, hostvars):
    """One text for whatever is in the census and not in the inventory, or the reverse.

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
                "inventory, add it to MBF, or say 'census: false' of the volume".format(*entry, ring)
            )
    return list(dict.fromkeys(problems))


def drive_problems(ring, drive, label, names, matches):
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


def is_same_lun(serial, drive):
    """Whether a serial of the inventory is a drive's: its serial or its WWN, or the one ends with the other."""
    return any(known and ends_alike(serial, known) for known in (drive["serial"], drive["wwn"]))


def ends_alike(one, other):
    """A WWN ends with the serial that the storage gave: links below /dev/disk/by-id may be of either."""
    shorter, longer = sorted((one, other), key=len)
    return one == other or (len(shorter) >= SHORTEST and longer.endswith(shorter))

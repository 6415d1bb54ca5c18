# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of LUNs on the storage of a MEDITECH site: ``MTFS05E`` is drive E of host 05. Other programs rely on that.

A LUN is identified by its serial, never by its name. So a name that contradicts the census is only a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .census import is_same_lun
from .entries import Entry
from .inventory import Groups, HostVars

_LUN = re.compile(r"^[A-Za-z]{1,32}(?P<host>[0-9]{1,9})(?P<drive>[A-Za-z])\Z")
_HOST = re.compile(r"(?P<host>[0-9]{1,9})\Z")


def name_warnings(groups: Groups, hostvars: HostVars) -> list[str]:
    """One text for each LUN whose name on the storage contradicts the census of its ring.

    Names that do not follow the convention, and servers without a number, cannot be compared.
    """
    return [
        f"{server}/{volume['name']}: the storage calls this LUN {name}, so by MEDITECH's convention it is drive "
        f"{told['drive'].upper()} of host {told['host']}, and by MBF's census it is {drive['server']}:{drive['name']} "
        f"(serial {volume['serial']}): find out which is right, because other programs rely on the name"
        for ring in groups.get("rings", [])
        for drive in census_of(ring, hostvars)
        for server, volume, name in luns_of(ring, groups, hostvars)
        if is_same_lun(volume["serial"], drive) and (told := contradiction(name, drive))
    ]


def contradiction(name: str, drive: Entry) -> re.Match[str] | None:
    """A LUN's host and drive by its name, where the census contradicts them; None where it does not."""
    told, known = _LUN.match(name), _HOST.search(drive["server"])
    if not told or not known:
        return None
    same_host = int(told["host"]) == int(known["host"])
    return None if same_host and drive["name"].upper().endswith(told["drive"].upper()) else told


def census_of(ring: str, hostvars: HostVars) -> list[Entry]:
    """The drives that preflight found; none where there is no census."""
    return hostvars[ring].get("preflight_found", {}).get("ring", {}).get("census") or []


def luns_of(ring: str, groups: Groups, hostvars: HostVars) -> Iterator[tuple[str, Entry, str]]:
    """Server, volume and name on the storage of each LUN of a ring that the storage has a name for."""
    for server in groups["file_servers"]:
        if hostvars[server].get("isb_ring") == ring:
            storage = hostvars[hostvars[server]["isb_storage_host"]].get("preflight_found", {}).get("storage", {})
            for volume in hostvars[server]["isb_volumes"]:
                name = storage.get("luns", {}).get(volume["serial"], {}).get("name")
                if name:
                    yield server, volume, str(name)

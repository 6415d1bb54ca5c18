# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses MBF's output: one line per drive for a census, one line per server for a quiesce or an unquiesce."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

SUCCESS = "SUCCESS"

_DRIVES = re.compile(r"^(?P<server>[^\s:=,|]+):(?P<unit>[^\s:=,|]+)\s+(?P<drives>\S.*)\Z")
_DRIVE = re.compile(r"^(?P<drive>[A-Za-z0-9_$-]+)=(?P<serial>[0-9A-Fa-f]+)\|(?P<wwn>[0-9A-Fa-f]*)\Z")
_SERVER = re.compile(r"^(?P<server>[^\s:=,|]+)=(?P<status>[^,]*),?\Z")


class Drive(NamedTuple):
    """A drive of the census. ``serial`` and ``wwn``: lowercase hex digits; ``wwn`` may be empty."""

    server: str
    name: str
    serial: str
    wwn: str

    def public(self) -> dict[str, Any]:
        """As plain values."""
        return dict(self._asdict())


class Census(NamedTuple):
    """The drives of a census, and the lines that look like a drive but cannot be parsed."""

    drives: list[Drive]
    unreadable: list[str]

    @property
    def servers(self) -> list[str]:
        """The servers, without duplicates, in the census's order."""
        return list(dict.fromkeys(drive.server for drive in self.drives))


def parse_census(text: str) -> Census:
    """Parse the output of ``C=Census``. ``SERVER:SERVER E=<serial>|<WWN>,``: drive E; ``SERVER:DISK E=...``: DISK-E.

    More drives may follow on the same line. A line with neither ``:`` nor ``|`` is a banner.
    """
    drives: list[Drive] = []
    unreadable: list[str] = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        found = _drives_of(line)
        drives += found
        if not found and "|" in line:
            unreadable.append(line)
    return Census(drives, unreadable)


def _drives_of(line: str) -> list[Drive]:
    """The drives of one line; none if any part of it cannot be parsed."""
    match = _DRIVES.match(line)
    if not match:
        return []
    parts = [_DRIVE.match(part.strip()) for part in match.group("drives").rstrip(", ").split(",")]
    server, unit = match.group("server"), match.group("unit")
    prefix = "" if same_name(server, unit) else unit + "-"
    found = [
        Drive(server, prefix + part.group("drive"), part.group("serial").lower(), part.group("wwn").lower())
        for part in parts
        if part
    ]
    return found if len(found) == len(parts) else []


def parse_servers(text: str) -> dict[str, str]:
    """Each server's answer to a quiesce or an unquiesce, by its name; lines of another form are skipped."""
    matches = filter(None, (_SERVER.match(line.strip()) for line in text.split("\n")))
    return {match.group("server"): match.group("status").strip().upper() for match in matches}


def same_name(one: str, other: str) -> bool:
    """Whether two names mean the same server: MBF writes them in capitals, inventories may not."""
    return one.casefold() == other.casefold()


def missing(wanted: list[str], statuses: dict[str, str]) -> list[str]:
    """Those of ``wanted`` that did not answer with success."""
    good = {name.casefold() for name, status in statuses.items() if status == SUCCESS}
    return [name for name in wanted if name.casefold() not in good]


def unknown(wanted: list[str], statuses: dict[str, str]) -> list[str]:
    """Servers that answered but are not among ``wanted``."""
    known = {name.casefold() for name in wanted}
    return [name for name in statuses if name.casefold() not in known]

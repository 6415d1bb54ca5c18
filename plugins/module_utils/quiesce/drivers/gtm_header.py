# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the database files who froze a GT.M database.

``mupip freeze`` writes into each file's header who froze it: the user (``freeze``) and the process (``image_count``).
``mupip dumpfhead`` prints them, but it runs M, which takes tens of milliseconds. Inside the freeze window the two
fields are read directly from the file, at the offsets in GT.M's own description of its structures.
"""

from __future__ import annotations

import os
import re
import struct
from typing import Any, NamedTuple

_REGION = re.compile(r"^Fileheader dump of region (\S+)\Z")
_FILE = re.compile(r"^Dumping fileheader of (.+)\Z")
_FIELD = re.compile(r'^record\("sgmnt_data\.(freeze|image_count)"\)=(\d+)\Z')
_PLACE = re.compile(r"^sgmnt_data\.(freeze|image_count)=(\d+),(\d+)\Z")

LABEL = b"GDSDYNUNX"
"""The first bytes of every database file."""

PLACES = (
    'for i=1:1:$get(^gtmtypes("sgmnt_data",0)) set n=$get(^gtmtypes("sgmnt_data",i,"name")) '
    'if (n="sgmnt_data.freeze")!(n="sgmnt_data.image_count") '
    'write n,"=",^gtmtypes("sgmnt_data",i,"off"),",",^gtmtypes("sgmnt_data",i,"len"),!'
)
"""M code that prints where the two fields are, from GT.M's help database: ``name=offset,length``."""


class Region(NamedTuple):
    """A region according to its file's header: ``freezer`` is 0 or a user, ``process`` the process that froze it."""

    name: str
    file: str
    freezer: int
    process: int


def replaced(identities: dict[str, list[int]]) -> list[str]:
    """The paths that no longer show the file with the given device and inode."""
    return [path for path, identity in identities.items() if _identity(path) != identity]


def _identity(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_dev, found.st_ino]


def parse_dump(output: str) -> list[Region]:
    """Regions from the output of ``mupip dumpfhead -region``; only those with all fields."""
    regions: list[dict[str, Any]] = []
    for line in output.split("\n"):
        begun = _REGION.match(line)
        if begun:
            regions.append({"name": begun.group(1)})
        elif regions:
            _parse_field(line, regions[-1])
    return [
        Region(item["name"], item["file"], item["freeze"], item["image_count"]) for item in regions if len(item) == 4
    ]


def _parse_field(line: str, region: dict[str, Any]) -> None:
    file, field = _FILE.match(line), _FIELD.match(line)
    if file:
        region["file"] = file.group(1)
    elif field:
        region[field.group(1)] = int(field.group(2))


def parse_places(output: str) -> dict[str, int]:
    """Offset of each field from the output of ``PLACES``; empty unless it printed both as 4-byte fields."""
    found = [match.groups() for match in map(_PLACE.match, output.split("\n")) if match]
    places = {name: int(offset) for name, offset, length in found if length == "4"}
    return places if len(places) == 2 else {}


class HeaderReader:
    """Reads the two fields of the regions' files, which it keeps open. Raises OSError."""

    def __init__(self, regions: list[Region], places: dict[str, int]) -> None:
        self._places = places
        self._files = [(region, os.open(region.file, os.O_RDONLY | os.O_CLOEXEC)) for region in regions]

    def identities(self) -> dict[str, list[int]]:
        """Device and inode of each file, by its path."""
        found = [(region.file, os.fstat(descriptor)) for region, descriptor in self._files]
        return {path: [status.st_dev, status.st_ino] for path, status in found}

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.pop()[1])

    def read(self) -> list[Region]:
        """The regions according to their files now, without those whose file is no longer a database."""
        regions = [self._read_one(region, descriptor) for region, descriptor in self._files]
        return [region for region in regions if region is not None]

    def _read_one(self, region: Region, descriptor: int) -> Region | None:
        if os.pread(descriptor, len(LABEL), 0) != LABEL:
            return None
        freezer, process = (
            struct.unpack("=I", os.pread(descriptor, 4, self._places[name]))[0] for name in ("freeze", "image_count")
        )
        return region._replace(freezer=freezer, process=process)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that objects of a repository may have, and the size limits of those that are read whole.

Anyone who can write to a medium controls its content, so a name from a document is not trusted as a path: what is not
in this table is neither read, written nor removed.  docs/saveset-format.md has the same table for people.
"""

from __future__ import annotations

import functools
import re
import typing as t

from ..base.errors import InvalidValue
from ..base.volume import FOLDER as _VOLUME

ID = r"[0-9a-f]{32}"
_HASH = r"[0-9a-f]{64}"
_DAY = r"[0-9]{8}T[0-9]{6}"
_MOMENT = rf"{_DAY}\.[0-9]{{6}}Z"

_KIB = 1 << 10
_MIB = 1 << 20


class Kind(t.NamedTuple):
    """A kind of objects: a pattern of whole names, and the most bytes that one may have (None: it is read in parts)."""

    pattern: re.Pattern[str]
    max_bytes: int | None


def _kind(pattern: str, max_bytes: int | None) -> Kind:
    return Kind(re.compile(pattern), max_bytes)


REPOSITORY = _kind(r"repo\.json", 64 * _KIB)
KEY = _kind(rf"keys/{ID}\.json", 64 * _KIB)
FEATURE = _kind(r"features/[a-z0-9][a-z0-9._-]{0,99}\.json", 64 * _KIB)
COMMIT = _kind(rf"savesets/{_VOLUME}/{_MOMENT}-{ID}", 8 * _MIB)
MAP = _kind(rf"maps/{_VOLUME}/{ID}", None)
PACK = _kind(r"packs/([0-9a-f]{2})/\1[0-9a-f]{30}", None)
SESSION = _kind(rf"sessions/{_VOLUME}/{_HASH}", 0)
PIN = _kind(rf"pins/{ID}\.json", 64 * _KIB)
LEASE = _kind(rf"gc/leases/{ID}", 1 * _MIB)
COLLECTOR = _kind(r"gc/collector", 64 * _KIB)
FORGOTTEN = _kind(rf"gc/forgotten/{ID}", 64 * _KIB)
TOMBSTONE = _kind(rf"gc/tombstones/{_DAY}Z-{ID}", 8 * _MIB)
PUNCHED = _kind(rf"gc/punched/{ID}-[1-9][0-9]{{0,8}}", 8 * _MIB)
CHECK = _kind(rf"checks/{_MOMENT}-{ID}", 64 * _MIB)
README = _kind(r"README\.txt", 1 * _MIB)
PROGRAM = _kind(r"isb-saveset\.pyz", 16 * _MIB)
#: The head of a run journal, which the engine does not read.
JOURNAL = _kind(r"journal/[A-Za-z0-9_.~%-]{1,240}\.json", 4 * _KIB)
TOOL = _kind(r"tool\.json", 64 * _KIB)
#: Objects that are never read: half-written ones, and those with which a store is tried out.
TEMPORARY_FOLDER = "tmp"
TEMPORARY = _kind(rf"{TEMPORARY_FOLDER}/{ID}", 0)

#: The kinds by the first part of their names, for gc/ by the first two.
_KINDS: dict[str, Kind] = {
    "repo.json": REPOSITORY,
    "keys": KEY,
    "features": FEATURE,
    "savesets": COMMIT,
    "maps": MAP,
    "packs": PACK,
    "sessions": SESSION,
    "pins": PIN,
    "gc/leases": LEASE,
    "gc/collector": COLLECTOR,
    "gc/forgotten": FORGOTTEN,
    "gc/tombstones": TOMBSTONE,
    "gc/punched": PUNCHED,
    "checks": CHECK,
    "README.txt": README,
    "isb-saveset.pyz": PROGRAM,
    "tool.json": TOOL,
    "journal": JOURNAL,
    TEMPORARY_FOLDER: TEMPORARY,
}

#: The folders at the top.
TOP_FOLDERS = ("checks", "features", "gc", "journal", "keys", "maps", "packs", "pins", "savesets", "sessions", "tmp")
#: What creating a repository puts at the top before repo.json, without which there is none.
UNFINISHED = {"README.txt", "isb-saveset.pyz", "tool.json", "keys", "gc"}
_FOLDER = re.compile(
    rf"checks|features|journal|keys|pins|tmp|gc(?:/(?:forgotten|leases|punched|tombstones))?"
    rf"|packs(?:/[0-9a-f]{{2}})?|(?:maps|savesets|sessions)(?:/{_VOLUME})?"
)


def find_kind(name: str) -> Kind | None:
    """The kind of the object with that name; None if no object can have it."""
    first, _slash, rest = name.partition("/")
    if first == "gc":
        first = f"gc/{rest.partition('/')[0]}"
    kind = _KINDS.get(first)
    return kind if kind is not None and kind.pattern.fullmatch(name) else None


@functools.lru_cache(maxsize=1024)
def kind_of(name: str) -> Kind:
    """The kind of the object with that name.  Raises InvalidValue if no object can have it."""
    kind = find_kind(name)
    if kind is None:
        raise InvalidValue(
            f"object name {printable(name)}",
            "no object of a repository can have it",
            "Nothing was done with it: see docs/saveset-format.md for the possible names",
        )
    return kind


def is_folder(name: str) -> bool:
    """Whether objects can be in a folder with that name."""
    return _FOLDER.fullmatch(name) is not None


def check_folder(name: str) -> str:
    """The name; raises InvalidValue unless objects can be in a folder with that name."""
    if not is_folder(name):
        raise InvalidValue(
            f"folder name {printable(name)}", "no folder of a repository can have it", "Name a folder of objects"
        )
    return name


def printable(name: str) -> str:
    """An untrusted name, made safe to print: on one line, without control characters for a terminal."""
    return name if name.isprintable() and name.isascii() else ascii(name)[1:-1]

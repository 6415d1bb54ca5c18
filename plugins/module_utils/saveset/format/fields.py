# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allowed fields of each kind of document.

Untrusted parties may write to a repository, and a MAC proves little where everybody knows the key.  Fields that are
not named here are ignored.
"""

from __future__ import annotations

import datetime
import typing as t

from ..base.errors import InvalidValue
from ..base.volume import check_volume
from ..store import names
from . import schema
from .bounds import CHUNK_SIZES, VOLUME_BYTES_MAX
from .order import SEQUENCE_MAX

#: The format of times in names and documents, always UTC.
TIME = "%Y%m%dT%H%M%S.%fZ"


def _is_time(value: str) -> bool:
    return datetime.datetime.strptime(value, TIME).strftime(TIME) == value


def _is_volume(value: str) -> bool:
    try:
        return bool(check_volume(value))
    except InvalidValue:
        return False


def _named(kind: names.Kind, what: str) -> schema.Check:
    return schema.matching(kind.pattern.pattern, what)


def _hex(least: int, most: int | None = None) -> schema.Check:
    """Validates ``least`` to ``most`` bytes in hex."""
    return schema.matching(rf"(?:[0-9a-f]{{2}}){{{least},{most or least}}}", f"{least} bytes or more in hex")


_ID = schema.matching(names.ID, "an id")
_TEXT = schema.text()
_VOLUME = schema.passing(_is_volume, "a volume id")
_TIME = schema.passing(_is_time, "a time")
_OFFSET = schema.integer(0, VOLUME_BYTES_MAX)
_RANGES = schema.list_of(schema.tuple_of(_OFFSET, schema.integer(1, VOLUME_BYTES_MAX)))
_FEATURES = schema.list_of(schema.text(100, 1))
_WORDS = schema.string(1 << 16)
_OBJECT = schema.record({})
#: Arguments of a backup: run id and verdict, and the id of the source.
RUN_TEXT = schema.text(1024, 1)
SOURCE_ID = schema.string(4096)


def _chunk_size(value: object) -> None:
    if not isinstance(value, int) or value not in CHUNK_SIZES:
        raise ValueError("it is not a power of two from 4 KiB to 4 MiB")


#: The fields of all documents, besides those that authenticate them.
ENVELOPE = schema.record(
    {"openisb": _TEXT, "version": schema.integer(1, 1 << 30)},
    {"features": schema.record({}, dict.fromkeys(("read", "write", "optional"), _FEATURES))},
)


class Form(t.NamedTuple):
    """The form of a kind of document: the most bytes that one may have, and its fields."""

    max_bytes: int
    check: schema.Check


def _form(
    kind: names.Kind, fields: t.Mapping[str, schema.Check], optional: t.Mapping[str, schema.Check] | None = None
) -> Form:
    return Form(kind.max_bytes or 0, schema.record(fields, optional))


#: Kind of a document -> its form: its required and optional fields, besides those of all documents.
FORMS: dict[str, Form] = {
    "repository": _form(
        names.REPOSITORY, {"id": _ID, "chunk_size": _chunk_size, "encryption": _TEXT}, {"created": _TEXT}
    ),
    "key": _form(
        names.KEY,
        {"id": _ID, "repository": _ID, "method": schema.text(100, 1)},
        {"created": _TEXT, "label": _TEXT, "public_key": _hex(32)},
    ),
    "feature": _form(names.FEATURE, {}),
    "saveset": _form(
        names.COMMIT,
        {
            "id": _ID,
            "volume": _VOLUME,
            "time": _TIME,
            "run_id": RUN_TEXT,
            "sequence": schema.integer(1, SEQUENCE_MAX),
            "verdict": RUN_TEXT,
            "size": schema.integer(0, VOLUME_BYTES_MAX),
            "chunk_size": _chunk_size,
            "parent": schema.nullable(_ID),
        },
        {"sealed": schema.base64_of(1), "body": _OBJECT},
    ),
    "pin": _form(names.PIN, {"saveset": _ID, "who": _TEXT, "why": _TEXT, "when": _TEXT}),
    "lease": _form(
        names.LEASE,
        {"role": _TEXT, "host": _TEXT, "pid": schema.integer(0, 1 << 62), "since": _TEXT},
        {
            "id": _ID,
            "volume": schema.passing(lambda value: not value or _is_volume(value), "a volume id"),
            "session": schema.matching(r"(?:[0-9a-f]{64})?", "a session"),
            "seen": schema.nullable(schema.list_of(_named(names.TOMBSTONE, "a tombstone's name"))),
        },
    ),
    "forgotten": _form(
        names.FORGOTTEN,
        {"commit": _named(names.COMMIT, "a commit's name"), "volume": _VOLUME, "map_id": schema.nullable(_ID)},
    ),
    "tombstone": _form(
        names.TOMBSTONE,
        {
            "id": _ID,
            "packs": schema.list_of(_ID),
            "maps": schema.list_of(_named(names.MAP, "a map's name")),
            "frames": schema.map_of(_ID, _RANGES),
        },
    ),
    "punched": _form(names.PUNCHED, {"pack": _ID, "ranges": _RANGES}),
    "tool": _form(
        names.TOOL,
        {
            "release": schema.matching(r"[0-9]{1,6}(?:\.[0-9]{1,6}){2}", "a release"),
            "files": schema.record(dict.fromkeys(("isb-saveset.pyz", "README.txt"), _hex(32))),
        },
    ),
    "check": _form(
        names.CHECK,
        {
            "id": _ID,
            "time": _TIME,
            "checked": schema.list_of(
                schema.record({"depth": schema.text(100, 1), "time": _TIME, "packs": schema.base64_of(16)})
            ),
        },
    ),
}

_PASSPHRASE = schema.record(
    {
        "n": schema.integer(2, 1 << 32),
        "r": schema.integer(1, 64),
        "p": schema.integer(1, 64),
        "salt": _hex(16, 64),
        "wrapped": _hex(16, 128),
    }
)
#: Method of a key file -> the further fields that it needs.
KEY_FIELDS: dict[str, schema.Check] = {
    "scrypt": _PASSPHRASE,
    "writer": _PASSPHRASE,
    "x25519": schema.record({"public_key": _hex(32), "sealed": _hex(80)}),
}

#: What a commit seals.
COMMIT_BODY = schema.record(
    {
        "map_id": _ID,
        "root": _hex(32),
        "digest": _hex(32),
        "origin": schema.record({}, dict.fromkeys(("method", "reason", "since", "source", "source_id"), _WORDS)),
        "stats": schema.map_of(_TEXT, schema.number),
        "metadata": _OBJECT,
    }
)


def check_key(fields: t.Mapping[str, t.Any]) -> None:
    """Raise ValueError unless a key file has what its method needs; unknown methods are not validated."""
    check = KEY_FIELDS.get(fields["method"])
    if check is not None:
        check(fields)

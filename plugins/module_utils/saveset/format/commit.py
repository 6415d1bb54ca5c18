# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commits: the small documents that make savesets exist."""

from __future__ import annotations

import base64
import datetime
import json
import re
import typing as t
from dataclasses import dataclass, field

from ..base.errors import Damaged, InvalidValue
from ..base.progress import BackupStats
from ..base.volume import volume_folder, volume_of_folder
from ..keys.keys import DOCUMENT, KeyRing
from . import schema
from .document import FORMAT_VERSION, Document, decode_document, encode_document
from .fields import COMMIT_BODY, TIME
from .order import Place

_NAME = re.compile(r"savesets/([^/]+)/([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-([0-9a-f]{32})\Z")
#: Bytes of JSON; sealing and base64 add a third, and a commit may have 8 MiB.
METADATA_MAX = 4 << 20
_METADATA_VALUES = schema.VALUES_MAX - 1000  # the rest of a commit has some too
_WAY_OUT = "Put back a copy of the object, or use another saveset of the volume"


@dataclass(frozen=True)
class SavesetInfo:
    """What a commit says about a saveset.

    ``time`` is the consistency point (UTC); ``sequence`` its number in the order of its volume's savesets, from 1 (see
    :mod:`.order`); ``size`` is in bytes; ``digest`` is equal for equal content in one repository;
    ``origin`` records how the extents were determined; ``format`` is the format version.
    """

    id: str
    volume: str
    run_id: str
    sequence: int
    time: datetime.datetime
    verdict: str
    size: int
    chunk_size: int
    map_id: str
    root: str
    digest: str
    parent: str | None = None
    origin: dict[str, t.Any] = field(default_factory=dict)
    stats: BackupStats = field(default_factory=BackupStats)
    metadata: dict[str, t.Any] = field(default_factory=dict)
    format: int = FORMAT_VERSION

    @property
    def name(self) -> str:
        """The name of the commit in the store."""
        return commit_name(self.volume, self.time, self.id)

    @property
    def place(self) -> Place:
        """Its place in the order of savesets."""
        return Place(self.volume, self.sequence, self.time, self.id)


_CLEAR = ("id", "volume", "run_id", "sequence", "verdict", "size", "chunk_size", "parent")
_SEALED = ("map_id", "root", "digest", "origin", "metadata")


def commit_name(volume: str, time: datetime.datetime, saveset_id: str) -> str:
    """The name of a commit: its folder is the volume's, its name sorts by time."""
    return f"savesets/{volume_folder(volume)}/{time.strftime(TIME)}-{saveset_id}"


def parse_name(name: str) -> tuple[str, str, str] | None:
    """Volume, time as text, and id from a commit's name; None if it is not a commit's name."""
    match = _NAME.match(name)
    if not match:
        return None
    try:
        return volume_of_folder(match.group(1)), match.group(2), match.group(3)
    except InvalidValue:
        return None


def utc(time: datetime.datetime) -> datetime.datetime:
    """``time`` in UTC; InvalidValue if it has no time zone."""
    if time.tzinfo is None:
        raise InvalidValue(f"time {time}", "it has no time zone", "Pass an aware datetime, preferably in UTC")
    return time.astimezone(datetime.UTC)


def encode_commit(info: SavesetInfo, ring: KeyRing) -> bytes:
    """The bytes of a commit.  Raises InvalidValue if the metadata or another value cannot be stored."""
    fields = {name: getattr(info, name) for name in _CLEAR}
    fields["time"] = info.time.strftime(TIME)
    body = {name: getattr(info, name) for name in _SEALED}
    body["stats"] = info.stats.as_dict()
    check_metadata(info.metadata)
    text = json.dumps(body, sort_keys=True, allow_nan=False).encode()
    try:
        COMMIT_BODY(body)
    except ValueError as error:
        raise InvalidValue(
            f"the saveset {info.id}", f"a commit cannot store it: {error}", "Give other values"
        ) from error
    if ring.encrypted:
        fields["sealed"] = base64.b64encode(_cipher(ring, info.id).encrypt(0, text, _bound(info.id))).decode()
    else:
        fields["body"] = json.loads(text)
    return encode_document("saveset", fields, ring.mac)


def check_metadata(metadata: t.Mapping[str, t.Any]) -> None:
    """Raise InvalidValue unless a commit can store and return this; a backup calls it first, before it reads."""
    try:
        text = json.dumps({"body": {"metadata": metadata}}, allow_nan=False).encode()
        schema.parse(text, _METADATA_VALUES)
        if len(text) > METADATA_MAX:
            raise ValueError(f"it has {len(text)} bytes, and may have {METADATA_MAX} at most")
    except (RecursionError, TypeError, ValueError) as error:
        raise InvalidValue(
            "the metadata",
            f"a saveset cannot store it: {error}",
            "Use text, numbers, lists and dicts, and less of them",
        ) from error


def decode_commit(name: str, data: bytes, ring: KeyRing) -> SavesetInfo:
    """Parse and authenticate a commit.  Raises Damaged (also if it is another commit), UnsupportedFormat."""
    document = decode_document(name, data, "saveset")
    document.check_mac(name, ring.mac)
    fields = document.fields
    body = _open_body(name, document, ring)
    try:
        COMMIT_BODY(body)
        time = datetime.datetime.strptime(fields["time"], TIME).replace(tzinfo=datetime.UTC)
        info = SavesetInfo(
            time=time,
            stats=BackupStats.from_dict(body["stats"]),
            format=fields["version"],
            **{key: fields[key] for key in _CLEAR},
            **{key: body[key] for key in _SEALED},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(name, f"a field is missing or malformed ({error})", _WAY_OUT) from error
    if info.name != name:
        raise Damaged(name, f"it is the commit {info.name}: files were swapped or renamed", _WAY_OUT)
    return info


def _open_body(name: str, document: Document, ring: KeyRing) -> dict[str, t.Any]:
    if not ring.encrypted:
        return dict(document.fields.get("body", {}))
    saveset_id: str = document.fields["id"]
    try:
        sealed = base64.b64decode(document.fields.get("sealed", ""), validate=True)
        text = _cipher(ring, saveset_id).decrypt(0, sealed, _bound(saveset_id))
        return dict(schema.parse(text or b"null"))
    except (TypeError, ValueError) as error:
        raise Damaged(name, "its sealed part cannot be opened", _WAY_OUT) from error


def _cipher(ring: KeyRing, saveset_id: str) -> t.Any:
    return ring.cipher(DOCUMENT, bytes.fromhex(saveset_id))


def _bound(saveset_id: str) -> bytes:
    return f"openisb saveset 1 commit {saveset_id}".encode()

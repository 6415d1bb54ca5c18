# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small authenticated JSON files: repo.json, key files and savesets' commits.

One JSON object in canonical form (sorted keys, no spaces, ASCII) and a line feed.  ``mac`` authenticates the
canonical form without ``mac`` and ``hash``; ``hash`` is the BLAKE3 of the canonical form without ``hash`` alone, so
damage is found without a key and distinguished from a wrong secret.  A file that is not exactly its own canonical form
is damaged.

Anyone who can write to a medium can make a well-formed document.  So the cost of reading one is bounded before it is
parsed, and its fields are validated against :mod:`.fields` before anything uses them, whoever wrote it.
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ..base.deps import blake3
from ..base.errors import Damaged, InvalidValue, UnsupportedFormat
from . import schema
from .fields import ENVELOPE, FORMS

FORMAT_VERSION = 1

#: Features known to this version, by what they forbid to versions that do not know them.
KNOWN_READ_FEATURES: frozenset[str] = frozenset()
KNOWN_WRITE_FEATURES: frozenset[str] = frozenset()

Mac = t.Callable[[str, bytes], bytes]


@dataclasses.dataclass(frozen=True)
class Document:
    """A parsed document.

    ``read_only`` is True if it needs unknown features that allow reading but not writing.
    """

    kind: str
    fields: dict[str, t.Any]
    signed: bytes
    mac: str | None
    read_only: bool = False

    def check_mac(self, name: str, mac: Mac) -> None:
        """Raise Damaged unless the document was made with the repository's key."""
        if self.mac is None or self.mac != mac(self.kind, self.signed).hex():
            raise Damaged(name, "its MAC is wrong: it was not written with this repository's key", _WAY_OUT)


_WAY_OUT = "Put back a copy of the object; verify shows what else is damaged"


def encode_document(kind: str, fields: t.Mapping[str, t.Any], mac: Mac | None = None) -> bytes:
    """The bytes of a document of ``kind``; ``fields`` may contain ``features``; without them none are needed.

    Raises InvalidValue for what no reader would accept.
    """
    data = sign_document(kind, fields, mac)
    form = FORMS[kind]
    try:
        form.check(fields)
        schema.check_shape(data)
        if len(data) > form.max_bytes:
            raise ValueError(f"it would have {len(data)} bytes; the limit is {form.max_bytes}")
    except ValueError as error:
        raise InvalidValue(f"a {kind} document", str(error), "Give other values; nothing was written") from error
    return data


def sign_document(kind: str, fields: t.Mapping[str, t.Any], mac: Mac | None = None) -> bytes:
    """The bytes of a document of ``kind``, not validated."""
    body = {
        "openisb": kind,
        "version": FORMAT_VERSION,
        "features": {"read": [], "write": [], "optional": []},
        **fields,
    }
    if mac is not None:
        body["mac"] = mac(kind, _canonical(body)).hex()
    body["hash"] = blake3(_canonical(body)).hexdigest()
    return _canonical(body) + b"\n"


def decode_document(name: str, data: bytes, kind: str, mac: Mac | None = None) -> Document:
    """Parse a document and validate its fields against FORMS.

    :param mac: used to verify its MAC before its features are considered; without it, the caller must verify the MAC.
    Raises Damaged; UnsupportedFormat if a newer version is needed to read it.
    """
    form = FORMS[kind]
    if len(data) > form.max_bytes:
        raise Damaged(name, f"it has {len(data)} bytes; the limit is {form.max_bytes}", _WAY_OUT)
    try:
        body = schema.parse(data)
        whole = isinstance(body, dict) and body.get("openisb") == kind and data == _canonical(body) + b"\n"
    except ValueError as error:
        raise Damaged(name, f"it is not usable JSON ({error})", _WAY_OUT) from error
    if not whole:
        raise Damaged(name, f"it is not a whole {kind} document", _WAY_OUT)
    digest = body.pop("hash", None)
    if digest != blake3(_canonical(body)).hexdigest():
        raise Damaged(name, "its hash does not match its content", _WAY_OUT)
    own_mac = body.pop("mac", None)
    document = Document(kind, body, _canonical(body), own_mac if isinstance(own_mac, str) else None)
    if mac is not None:
        document.check_mac(name, mac)
    try:
        ENVELOPE(body)
        read_only = _check_features(name, body)
        form.check(body)
    except ValueError as error:
        raise Damaged(name, f"its fields are not those of a {kind}: {error}", _WAY_OUT) from error
    return dataclasses.replace(document, read_only=read_only)


def _check_features(name: str, body: dict[str, t.Any]) -> bool:
    version = body["version"]
    features = body.get("features", {})
    unknown = sorted(set(features.get("read", ())) - KNOWN_READ_FEATURES)
    if version != FORMAT_VERSION or unknown:
        needs = f"the features {', '.join(unknown)}" if unknown else f"format version {version}"
        raise UnsupportedFormat(
            name,
            f"it needs {needs}; this version reads format version {FORMAT_VERSION}",
            "Use a newer version of the saveset engine",
        )
    return bool(set(features.get("write", ())) - KNOWN_WRITE_FEATURES)


def _canonical(body: t.Mapping[str, t.Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()

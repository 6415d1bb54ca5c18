# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small authenticated JSON files: repo.json, key files and savesets' commits.

One JSON object in canonical form (sorted keys, no spaces, ASCII) and a line feed.  ``mac`` authenticates the
canonical form without ``mac`` and ``hash``; ``hash`` is the BLAKE3 of the canonical form without ``hash`` alone, so
that damage is found without a key and told from a wrong secret.  A file that is not exactly its own canonical form is
damaged.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from .deps import blake3
from .errors import Damaged, UnsupportedFormat

FORMAT_VERSION = 1

#: Features known to this version, by what not knowing them forbids.
KNOWN_READ_FEATURES: frozenset[str] = frozenset()
KNOWN_WRITE_FEATURES: frozenset[str] = frozenset()

Mac = t.Callable[[str, bytes], bytes]


@dataclass(frozen=True)
class Document:
    """A parsed document.

    ``read_only`` is True when it needs features that this version knows not to break only by not writing.
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


_WAY_OUT = "Put back a copy of the object; verify tells what else is hurt"


def encode_document(kind: str, fields: t.Mapping[str, t.Any], mac: Mac | None = None) -> bytes:
    """The bytes of a document of ``kind``; ``fields`` may hold ``features``, else none are needed."""
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


def decode_document(name: str, data: bytes, kind: str) -> Document:
    """Parse a document.  Raises Damaged; UnsupportedFormat when a newer version is needed to read it."""
    try:
        body = json.loads(data)
    except ValueError as error:
        raise Damaged(name, f"it is not JSON ({error})", _WAY_OUT) from error
    if not isinstance(body, dict) or body.get("openisb") != kind or data != _canonical(body) + b"\n":
        raise Damaged(name, f"it is not a whole {kind} document", _WAY_OUT)
    digest = body.pop("hash", None)
    if digest != blake3(_canonical(body)).hexdigest():
        raise Damaged(name, "its hash does not fit its content", _WAY_OUT)
    mac = body.pop("mac", None)
    read_only = _check_features(name, body)
    return Document(kind, body, _canonical(body), mac if isinstance(mac, str) else None, read_only)


def _check_features(name: str, body: dict[str, t.Any]) -> bool:
    version = body.get("version")
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

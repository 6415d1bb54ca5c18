# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of which packs were verified, how deep and when, so that a verification need not begin anew each time.

A record holds all that was known when it was written, and the older ones are removed then.  Two verifications at once
leave two records; the next one merges them.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import re
import secrets
import typing as t

from .document import decode_document, encode_document
from .errors import Damaged, NotFound, SavesetError, StoreError, UnsupportedFormat
from .keys import KeyRing
from .store import Store

STORED = "stored"
FULL = "full"

_FOLDER = "checks"
_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"checks/([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)-([0-9a-f]{32})\Z")
_ID_BYTES = 16
_WAY_OUT = "Nothing is lost: what it tells is verified again, and the next verification that may write removes it"

_Known = t.Dict[t.Tuple[str, bytes], datetime.datetime]


class Checks:
    """When packs were verified, as far as the repository knows."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        #: When this was read; a record from the future counts for nothing.
        self.now = datetime.datetime.now(datetime.timezone.utc)
        #: Records that are damaged, as (name, text).
        self.problems: list[tuple[str, str]] = []
        self._read: list[str] = []
        self._known: _Known = {}
        for name in store.list(_FOLDER):
            self._load(name)

    def last(self, pack: bytes, depth: str) -> datetime.datetime | None:
        """When a pack was last verified to this depth or a deeper one, None when never."""
        depths = (FULL,) if depth == FULL else (STORED, FULL)
        times = [self._known[key] for key in ((deep, pack) for deep in depths) if key in self._known]
        return max(times, default=None)

    def record(self, depth: str, good: t.Collection[bytes], bad: t.Collection[bytes]) -> None:
        """Write down that packs were verified just now: whole ones, and ones that are not and must be looked at again.

        Raises StoreFull, StoreError.
        """
        known: _Known = {**self._known, **{(depth, pack): self.now for pack in good}}
        there = {name.rsplit("/", 1)[-1] for name in self._store.list("packs")}
        known = {key: time for key, time in known.items() if key[1] not in bad and key[1].hex() in there}
        time, check_id = self.now.strftime(_TIME), secrets.token_hex(_ID_BYTES)
        fields = {"id": check_id, "time": time, "checked": _encode(known)}
        self._store.put(f"{_FOLDER}/{time}-{check_id}", encode_document("check", fields, self._ring.mac))
        for name in self._read:
            with contextlib.suppress(NotFound, StoreError):  # the next one removes it
                self._store.delete(name)

    def _load(self, name: str) -> None:
        try:
            known = _decode(name, self._store.get(name), self._ring)
        except (NotFound, UnsupportedFormat):
            return  # removed since it was listed; or a newer version's, which may go on using it
        except StoreError:
            raise
        except SavesetError as error:
            self.problems.append((name, error.cause))
            known = {}
        self._read.append(name)
        for key, time in known.items():
            if time <= self.now:
                self._known[key] = max(time, self._known.get(key, time))


def _encode(known: _Known) -> list[dict[str, str]]:
    """Packs that were verified together, together."""
    groups: dict[tuple[str, datetime.datetime], list[bytes]] = {}
    for (depth, pack), time in known.items():
        groups.setdefault((depth, time), []).append(pack)
    return [
        {"depth": depth, "time": time.strftime(_TIME), "packs": base64.b64encode(b"".join(sorted(packs))).decode()}
        for (depth, time), packs in sorted(groups.items())
    ]


def _decode(name: str, data: bytes, ring: KeyRing) -> _Known:
    document = decode_document(name, data, "check")
    document.check_mac(name, ring.mac)
    match = _NAME.match(name)
    if not match or (document.fields.get("time"), document.fields.get("id")) != match.groups():
        raise Damaged(name, "it is another record: files were swapped or renamed", _WAY_OUT)
    known: _Known = {}
    try:
        for group in document.fields["checked"]:
            time = datetime.datetime.strptime(group["time"], _TIME).replace(tzinfo=datetime.timezone.utc)
            packs = base64.b64decode(group["packs"], validate=True)
            for at in range(0, len(packs), _ID_BYTES):
                key = (str(group["depth"]), packs[at : at + _ID_BYTES])
                known[key] = max(time, known.get(key, time))
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(name, f"a field is missing or malformed ({error})", _WAY_OUT) from error
    return known

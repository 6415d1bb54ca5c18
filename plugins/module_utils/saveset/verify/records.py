# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification records: which packs were verified, how deeply and when, so a verification need not start over.

A record holds everything that was known when it was written; the older ones are then removed.  Two concurrent
verifications leave two records, which the next one merges.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import secrets
import typing as t

from ..base.errors import Damaged, NotFound, SavesetError, StoreError, UnsupportedFormat
from ..format.document import decode_document, encode_document
from ..format.fields import TIME
from ..keys.keys import KeyRing
from ..store.store import Store

STORED = "stored"
FULL = "full"

_FOLDER = "checks"
#: The most packs in a record, each with its depth: each takes less than 30 bytes, and a record may have 64 MiB.
_PACKS_MAX = 2_000_000
_ID_BYTES = 16
_WAY_OUT = "Nothing is lost: its packs are verified again, and the next verification that may write removes it"

_Known = dict[tuple[str, bytes], datetime.datetime]


class Checks:
    """When packs were verified, according to the repository's verification records."""

    def __init__(self, store: Store, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        #: When this was read; a record from the future is ignored.
        self.now = datetime.datetime.now(datetime.UTC)
        #: Records that are damaged, as (name, text).
        self.problems: list[tuple[str, str]] = []
        self._read: list[str] = []
        self._known: _Known = {}
        try:
            names = store.list(_FOLDER)
        except Damaged as error:  # no folder: nothing is known
            self.problems.append((error.thing, error.cause))
            names = []
        for name in names:
            self._load(name)

    def last(self, pack: bytes, depth: str) -> datetime.datetime | None:
        """When a pack was last verified to this depth or a deeper one; None if never."""
        depths = (FULL,) if depth == FULL else (STORED, FULL)
        times = [self._known[key] for key in ((deep, pack) for deep in depths) if key in self._known]
        return max(times, default=None)

    def record(self, depth: str, good: t.Collection[bytes], bad: t.Collection[bytes]) -> None:
        """Record that packs were verified just now: good ones, and bad ones, which must be verified again.

        Raises StoreFull, StoreError.
        """
        known: _Known = {**self._known, **{(depth, pack): self.now for pack in good}}
        there = {name.rsplit("/", 1)[-1] for name in self._store.list("packs")}
        known = {key: time for key, time in known.items() if key[1] not in bad and key[1].hex() in there}
        if len(known) > _PACKS_MAX:  # drops those verified longest ago: they are verified again
            known = dict(sorted(known.items(), key=lambda item: item[1], reverse=True)[:_PACKS_MAX])
        time, check_id = self.now.strftime(TIME), secrets.token_hex(_ID_BYTES)
        fields = {"id": check_id, "time": time, "checked": _encode(known)}
        self._store.put(f"{_FOLDER}/{time}-{check_id}", encode_document("check", fields, self._ring.mac))
        for name in self._read:
            with contextlib.suppress(NotFound, StoreError):  # the next verification removes it
                self._store.delete(name)

    def _load(self, name: str) -> None:
        try:
            known = _decode(name, self._store.get(name), self._ring)
        except (NotFound, UnsupportedFormat):
            return  # removed since it was listed; or written by a newer version, which may still use it
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
    """The packs, grouped by depth and time of verification."""
    groups: dict[tuple[str, datetime.datetime], list[bytes]] = {}
    for (depth, pack), time in known.items():
        groups.setdefault((depth, time), []).append(pack)
    return [
        {"depth": depth, "time": time.strftime(TIME), "packs": base64.b64encode(b"".join(sorted(packs))).decode()}
        for (depth, time), packs in sorted(groups.items())
    ]


def _decode(name: str, data: bytes, ring: KeyRing) -> _Known:
    document = decode_document(name, data, "check")
    document.check_mac(name, ring.mac)
    fields = document.fields
    if f"{_FOLDER}/{fields['time']}-{fields['id']}" != name:
        raise Damaged(name, "it is another record: files were swapped or renamed", _WAY_OUT)
    known: _Known = {}
    for group in fields["checked"]:
        time = datetime.datetime.strptime(group["time"], TIME).replace(tzinfo=datetime.UTC)
        packs = base64.b64decode(group["packs"])
        for at in range(0, len(packs), _ID_BYTES):
            key = (group["depth"], packs[at : at + _ID_BYTES])
            known[key] = max(time, known.get(key, time))
    return known

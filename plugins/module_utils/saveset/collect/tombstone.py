# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tombstones: authenticated documents ``gc/tombstones/<time>-<id>`` that name what is to be removed.

A tombstone is only an announcement.  It is carried out once no process is left that may use what it names without
having seen it.
"""

from __future__ import annotations

import dataclasses
import datetime
import secrets
import typing as t

from ..base.errors import Damaged, NotFound, SavesetError
from ..format.document import decode_document, encode_document
from ..keys.keys import KeyRing
from ..store.store import Store
from .punched import NOTHING, Range, Ranges, as_range

KIND = "tombstone"
FOLDER = "gc/tombstones"
#: The most things that one names: each takes less than 300 bytes, and a document may have 8 MiB.
_PART_ITEMS = 25_000


@dataclasses.dataclass(frozen=True)
class Tombstone:
    """What is to be removed: whole packs (ids) and maps (names of objects), and frames of packs that stay in use."""

    name: str
    packs: frozenset[bytes] = frozenset()
    maps: frozenset[str] = frozenset()
    frames: t.Mapping[bytes, Ranges] = dataclasses.field(default_factory=dict)

    def parts(self) -> list[Tombstone]:
        """The same, split into as many tombstones as needed for each to fit into a document."""
        named: list[tuple[int, t.Any, t.Any]] = [
            *((0, pack, None) for pack in sorted(self.packs)),
            *((1, name, None) for name in sorted(self.maps)),
            *((2, pack, item) for pack, ranges in sorted(self.frames.items()) for item in ranges),
        ]
        if len(named) <= _PART_ITEMS:
            return [self]
        parts = []
        for begin in range(0, len(named), _PART_ITEMS):
            some = named[begin : begin + _PART_ITEMS]
            frames: dict[bytes, list[Range]] = {}
            for kind, pack, item in some:
                if kind == 2:
                    frames.setdefault(pack, []).append(item)
            parts.append(
                Tombstone(
                    new_name(),
                    frozenset(pack for kind, pack, _item in some if kind == 0),
                    frozenset(name for kind, name, _item in some if kind == 1),
                    {pack: Ranges(ranges) for pack, ranges in frames.items()},
                )
            )
        return parts

    def touches(self, packs: t.AbstractSet[bytes], maps: t.AbstractSet[str]) -> bool:
        """Whether it names any of these packs or maps, or frames of these packs."""
        return not (
            self.packs.isdisjoint(packs) and self.maps.isdisjoint(maps) and packs.isdisjoint(self.frames.keys())
        )


def new_name() -> str:
    """A name for a new tombstone; the time in it is for people."""
    now = datetime.datetime.now(datetime.UTC)
    return f"{FOLDER}/{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(16)}"


def put_tombstone(store: Store, ring: KeyRing, tombstone: Tombstone) -> None:
    """Put a tombstone; it is durable when this returns.  Raises StoreFull, StoreError; InvalidValue: see parts()."""
    fields = {
        "id": tombstone.name.rpartition("-")[2],
        "packs": sorted(pack.hex() for pack in tombstone.packs),
        "maps": sorted(tombstone.maps),
        "frames": {pack.hex(): [list(item) for item in ranges] for pack, ranges in tombstone.frames.items()},
    }
    store.put(tombstone.name, encode_document(KIND, fields, ring.mac))


def read_tombstones(store: Store, ring: KeyRing) -> tuple[list[Tombstone], list[str]]:
    """The existing tombstones, oldest first, and the names of those that cannot be read or authenticated."""
    found, unreadable = [], []
    for name in store.list(FOLDER):
        try:
            found.append(_decode(name, store.get(name), ring))
        except NotFound:
            continue  # carried out since it was listed
        except SavesetError:
            unreadable.append(name)
    return found, unreadable


def _decode(name: str, data: bytes, ring: KeyRing) -> Tombstone:
    document = decode_document(name, data, KIND)
    document.check_mac(name, ring.mac)
    fields = document.fields
    if fields.get("id") != name.rpartition("-")[2]:
        raise Damaged(name, "it is another tombstone: files were renamed", "Remove it")
    frames = {bytes.fromhex(pack): Ranges(map(as_range, ranges)) for pack, ranges in fields["frames"].items()}
    return Tombstone(name, frozenset(map(bytes.fromhex, fields["packs"])), frozenset(fields["maps"]), frames)


class Withheld:
    """What a writer must not use although it still exists: all that the tombstones it has seen name."""

    def __init__(self, tombstones: t.Iterable[Tombstone] = ()) -> None:
        self.packs: set[bytes] = set()
        self.maps: set[bytes] = set()
        self._frames: dict[bytes, list[Range]] = {}
        for tombstone in tombstones:
            self.packs |= tombstone.packs
            self.maps |= {bytes.fromhex(name.rpartition("/")[2]) for name in tombstone.maps}
            for pack, ranges in tombstone.frames.items():
                self._frames.setdefault(pack, []).extend(ranges)
        self._ranges = {pack: Ranges(ranges) for pack, ranges in self._frames.items()}

    @classmethod
    def of_all(cls, several: t.Iterable[Withheld]) -> Withheld:
        """What any of several writers must not use."""
        found = cls()
        for one in several:
            found.packs |= one.packs
            found.maps |= one.maps
            for pack, ranges in one._frames.items():
                found._frames.setdefault(pack, []).extend(ranges)
        found._ranges = {pack: Ranges(ranges) for pack, ranges in found._frames.items()}
        return found

    def frames(self, pack: bytes) -> Ranges:
        """The withheld frames of a pack."""
        return self._ranges.get(pack, NOTHING)

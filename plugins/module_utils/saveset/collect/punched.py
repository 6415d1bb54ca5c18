# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was punched out of packs: documents ``gc/punched/<pack id>-<number>``, written before anything is punched.

They distinguish frames that were discarded from frames that are damaged.
"""

from __future__ import annotations

import bisect
import typing as t

from ..base.errors import Damaged, NotFound
from ..format.document import decode_document, encode_document
from ..keys.keys import KeyRing
from ..store.store import Store

KIND = "punched"
FOLDER = "gc/punched"

#: The most ranges in one record: each takes less than 50 bytes, and a document may have 8 MiB.
_RECORD_RANGES = 150_000

Range = tuple[int, int]


def as_range(item: t.Sequence[int]) -> Range:
    """A range from a document's list of two numbers."""
    offset, length = item
    return offset, length


class Ranges:
    """Ranges (offset, length) of a pack, merged where they touch."""

    def __init__(self, ranges: t.Iterable[Range] = ()) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for offset, length in sorted(ranges):
            if self._ends and offset <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], offset + length)
            else:
                self._begins.append(offset)
                self._ends.append(offset + length)

    def __iter__(self) -> t.Iterator[Range]:
        return ((begin, end - begin) for begin, end in zip(self._begins, self._ends, strict=True))

    def __bool__(self) -> bool:
        return bool(self._begins)

    def end_of(self, offset: int) -> int | None:
        """The end of the range that contains ``offset``; None if none does."""
        number = bisect.bisect_right(self._begins, offset) - 1
        return self._ends[number] if number >= 0 and offset < self._ends[number] else None

    def __contains__(self, offset: int) -> bool:
        return self.end_of(offset) is not None


NOTHING = Ranges()


class PunchedPacks:
    """What was punched out of the packs of a store, according to the records at the time of construction.

    :param ring: used to authenticate the records; None for a scrub, which has no key.
    """

    def __init__(self, store: Store, ring: KeyRing | None) -> None:
        self._store = store
        self._ring = ring
        self._names: dict[bytes, list[str]] = {}
        self._problem: Damaged | None = None  # why nothing is known about any pack
        try:
            names = store.list(FOLDER)
        except Damaged as error:
            self._problem, names = error, []
        for name in names:
            pack = name.rpartition("/")[2].partition("-")[0]
            self._names.setdefault(bytes.fromhex(pack), []).append(name)

    def names(self, pack: bytes) -> list[str]:
        """The names of a pack's records."""
        return self._names.get(pack, [])

    def packs(self) -> list[bytes]:
        """The packs that have records."""
        return list(self._names)

    def ranges(self, pack: bytes) -> Ranges:
        """The whole frames that were punched out of a pack.  Raises Damaged, UnsupportedFormat."""
        if self._problem is not None:
            raise self._problem
        names = self._names.get(pack)
        if not names:
            return NOTHING
        return Ranges(item for name in names for item in self._read(name, pack))

    def record(self, pack: bytes, ranges: t.Iterable[Range]) -> None:
        """Record what is about to be punched out of a pack, in one or more documents.

        Raises StoreFull, StoreError.
        """
        if self._ring is None:
            raise ValueError("nothing can be recorded without a key")
        last = max((int(name.rpartition("-")[2]) for name in self.names(pack)), default=0)
        items = [list(item) for item in ranges]
        for number, begin in enumerate(range(0, len(items), _RECORD_RANGES), last + 1):
            name = f"{FOLDER}/{pack.hex()}-{number}"
            fields = {"pack": pack.hex(), "ranges": items[begin : begin + _RECORD_RANGES]}
            self._store.put(name, encode_document(KIND, fields, self._ring.mac))
            self._names.setdefault(pack, []).append(name)

    def _read(self, name: str, pack: bytes) -> list[Range]:
        try:
            document = decode_document(name, self._store.get(name), KIND)
        except NotFound:
            return []  # its pack was removed since they were listed
        if self._ring is not None:
            document.check_mac(name, self._ring.mac)
        if document.fields["pack"] != pack.hex():
            raise Damaged(name, "it belongs to another pack: files were swapped", "Put back a copy of the object")
        return [as_range(item) for item in document.fields["ranges"]]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing tables: from the footers of packs, and from other tables."""

from __future__ import annotations

import array
import secrets
import struct
import typing as t

from ..base.deps import blake3
from ..base.extent import DATA
from ..format.footer import PackFooter
from ..keys.keys import KeyRing
from .table import (
    BUCKET_MAX,
    ENTRY_BYTES,
    FOOT,
    MAC_BYTES,
    MAGIC,
    NUMBER,
    PACK,
    Table,
    bits_for,
    bucket_key,
    foot_mac,
    sorted_buckets,
    table_bytes,
)

#: A footer's row as bytes: the identity; offset, length, place and kind, as in a map; what only resuming needs.
_ROW = struct.Struct("<32s16s16x")
_CHUNK = struct.pack("<H", DATA)


class Content(t.NamedTuple):
    """What a table is to hold: at most so many entries, in buckets, and the packs that they are of."""

    entries_max: int
    buckets: t.Iterable[bytes]
    packs: t.Sequence[tuple[bytes, bytes]]

    @property
    def bytes_max(self) -> int:
        """How long the table will be at most."""
        return table_bytes(self.entries_max, len(self.packs))


class Batch:
    """Footers that are to become one table."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._packs: list[tuple[bytes, bytes]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return bool(self._packs)

    def add(self, pack: bytes, footer: PackFooter) -> None:
        """Add a pack with its chunks; pieces are never deduplicated."""
        self._entries += [
            identity + pack + place for identity, place in _ROW.iter_unpack(footer.raw_rows) if place.endswith(_CHUNK)
        ]
        self._packs.append((pack, session_tag(footer.session)))

    def content(self) -> Content:
        """What to write; the batch is used up."""
        bits = bits_for(len(self._entries))
        return Content(len(self._entries), sorted_buckets(self._entries, bits), self._packs)


def merged(tables: t.Sequence[Table], gone: t.AbstractSet[bytes]) -> Content:
    """The content of several tables, without the packs ``gone``."""
    entries = sum(table.entries for table in tables)
    bits = bits_for(entries)
    packs = {pack: tag for table in tables for pack, tag in table.packs() if pack not in gone}
    parts = [table.buckets(bits, gone) for table in tables]
    return Content(entries, (b"".join(each) for each in zip(*parts, strict=True)), list(packs.items()))


def write(stream: t.BinaryIO, ring: KeyRing, content: Content) -> None:
    """Write a table.  Raises OSError, and DamagedTable if a table that is merged turns out to be damaged."""
    table_id = secrets.token_bytes(16)
    key = bucket_key(ring, table_id)
    starts = array.array("I", [0])
    for number, bucket in enumerate(content.buckets):
        # Only equal chunks, or somebody who has the key, can fill a bucket: what is left out is stored again.
        data = NUMBER.pack(number) + bucket[: BUCKET_MAX * ENTRY_BYTES]
        stream.write(data)
        stream.write(blake3(data, key=key).digest(MAC_BYTES))
        starts.append(starts[-1] + (len(data) - NUMBER.size) // ENTRY_BYTES)
    lists = starts.tobytes() + b"".join(PACK.pack(*pack) for pack in content.packs)
    bits = (len(starts) - 1).bit_length() - 1
    foot = FOOT.pack(MAGIC, table_id, starts[-1], len(content.packs), bits, blake3(lists, key=key).digest())
    stream.write(lists + foot + foot_mac(ring, foot))


def session_tag(session: bytes) -> bytes:
    """What a table keeps of a pack's session: enough to find its packs again."""
    return session[:8]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Footers of packs: what a pack holds.  The footers of all packs are the repository's only index."""

from __future__ import annotations

import struct
import typing as t

from ..base.extent import DATA, GRAINS
from .bounds import PACK_FOOTER_MAX

SESSION_BYTES = 32

#: Identity, frame offset, frame length, place in the frame, kind (DATA or GRAINS); then, for a resumed backup, the
#: chunk's number in the volume and, if the kind is GRAINS, which of its grains.
ROW = struct.Struct("<32sQIHHQI4x")
#: A chunk's place, as maps keep it after the identity: pack id, frame offset, frame length, place in the frame, kind.
PLACE = struct.Struct("<16sQIHH")
#: Length without what only a resumed backup needs: the part that maps contain too.
ROW_PLACE_BYTES = 48
_KIND = 46
_KINDS = bytes((DATA, GRAINS))


class Row(t.NamedTuple):
    """A chunk or piece in a pack."""

    identity: bytes
    offset: int
    length: int
    place: int
    kind: int
    chunk: int
    mask: int


class PackFooter:
    """A footer as read.  Raises ValueError if ``data`` is not the footer of a pack."""

    def __init__(self, data: bytes) -> None:
        if len(data) < SESSION_BYTES or (len(data) - SESSION_BYTES) % ROW.size:
            raise ValueError(f"{len(data)} bytes are not a footer")
        if len(data) > PACK_FOOTER_MAX:
            raise ValueError(f"{len(data)} bytes are more than a footer may have")
        self.session = data[:SESSION_BYTES]
        self.raw_rows = data[SESSION_BYTES:]
        low, high = self.raw_rows[_KIND :: ROW.size], self.raw_rows[_KIND + 1 :: ROW.size]
        if low.strip(_KINDS) or high.strip(b"\0"):  # any rest contains an unknown kind
            raise ValueError("it has rows of an unknown kind")

    def rows(self) -> t.Iterator[Row]:
        """The rows, in the order of frames."""
        return (Row(*fields) for fields in ROW.iter_unpack(self.raw_rows))

    def places(self) -> t.Iterator[bytes]:
        """The identity, frame offset, frame length, place and kind of each row, as stored."""
        rows = self.raw_rows
        return (rows[at : at + ROW_PLACE_BYTES] for at in range(0, len(rows), ROW.size))

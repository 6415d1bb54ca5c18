# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Footers of packs: what a pack holds.  The footers of all packs are the repository's index; nothing else is."""

from __future__ import annotations

import struct
import typing as t

from .bounds import PACK_FOOTER_MAX
from .extent import DATA, GRAINS

SESSION_BYTES = 32

#: Identity, frame offset, frame length, place in the frame, kind (DATA or GRAINS); then, for a backup that is taken up
#: again, the chunk's number in the volume and, where the kind is GRAINS, which of its grains.
ROW = struct.Struct("<32sQIHHQI4x")
#: Without what only a resumed backup needs: what maps name too.
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
    """A footer as read.  Raises ValueError when ``data`` is no footer of a pack."""

    def __init__(self, data: bytes) -> None:
        if len(data) < SESSION_BYTES or (len(data) - SESSION_BYTES) % ROW.size:
            raise ValueError(f"{len(data)} bytes are no footer")
        if len(data) > PACK_FOOTER_MAX:
            raise ValueError(f"{len(data)} bytes are more than a footer may have")
        self.session = data[:SESSION_BYTES]
        self.raw_rows = data[SESSION_BYTES:]
        low, high = self.raw_rows[_KIND :: ROW.size], self.raw_rows[_KIND + 1 :: ROW.size]
        if low.strip(_KINDS) or high.strip(b"\0"):  # what is left begins with a byte that is none of these
            raise ValueError("it has rows of an unknown kind")

    def rows(self) -> t.Iterator[Row]:
        """The rows, in the order of frames."""
        return (Row(*fields) for fields in ROW.iter_unpack(self.raw_rows))

    def places(self) -> t.Iterator[bytes]:
        """Each row's identity, frame offset, frame length, place and kind, as stored."""
        rows = self.raw_rows
        return (rows[at : at + ROW_PLACE_BYTES] for at in range(0, len(rows), ROW.size))

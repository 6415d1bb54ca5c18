# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Telling whether bytes on a target are those of a chunk: by identity, so that most chunks need no read of a pack."""

from __future__ import annotations

from .buffers import is_zero
from .extent import DATA, HOLE, SPLIT, ZERO
from .keys import KeyRing
from .page import GRAINS_PER_CHUNK, Page, Piece
from .reader import ChunkReader, gather, split_pieces


class Comparer:
    """Compares chunks of a saveset with what a target holds; threads may share it."""

    def __init__(self, ring: KeyRing, reader: ChunkReader) -> None:
        self._ring = ring
        self._reader = reader

    def same(self, page: Page, position: int, data: memoryview) -> bool:
        """Whether ``data``, of the chunk's length, is the chunk at ``position`` of a page.

        Only a split chunk that keeps a part of a larger piece is read and put together for that.
        Raises NotFound, Damaged.
        """
        entry = page.entry(position)
        if entry.kind == DATA:
            return self._ring.identity(data) == entry.identity
        if entry.kind != SPLIT:
            return is_zero(data)
        pieces = split_pieces(page, position)
        known = [self._piece_same(piece, data) for piece in pieces if _comparable(piece)]
        if not all(known):
            return False
        if len(known) == len(pieces):
            return True
        return bytes(self._reader.chunk(page, position, len(data))) == bytes(data)

    def _piece_same(self, piece: Piece, data: memoryview) -> bool:
        grains = gather(data, len(data) // GRAINS_PER_CHUNK, piece.mask)
        if piece.has_data:
            return self._ring.identity(grains) == piece.identity
        return is_zero(memoryview(grains))


def _comparable(piece: Piece) -> bool:
    """Whether a piece's grains can be compared where they are: all that its identity is over still count."""
    return piece.kind in (HOLE, ZERO) or piece.mask == piece.stored

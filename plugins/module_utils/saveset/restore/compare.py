# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Comparing bytes on a target with a chunk, by identity, so that most chunks can be compared without reading a pack."""

from __future__ import annotations

from ..base.extent import DATA, HOLE, SPLIT, ZERO
from ..format.page import GRAINS_PER_CHUNK, Page, Piece
from ..io.buffers import is_zero
from ..keys.keys import KeyRing
from .reader import ChunkReader, gather, split_pieces


class Comparer:
    """Compares chunks of a saveset with what a target holds; threads may share it."""

    def __init__(self, ring: KeyRing, reader: ChunkReader) -> None:
        self._ring = ring
        self._reader = reader

    def same(self, page: Page, position: int, data: memoryview) -> bool:
        """Whether ``data``, of the chunk's length, is the chunk at ``position`` of a page.

        Only a split chunk that uses just part of a stored piece is read and assembled for this.
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
    """Whether a piece's grains can be compared by identity: all grains that its identity covers are still in use."""
    return piece.kind in (HOLE, ZERO) or piece.mask == piece.stored

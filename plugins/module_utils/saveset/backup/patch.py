# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Splitting chunks: the pieces of a chunk in which some grains changed, and when to store it whole again."""

from __future__ import annotations

import typing as t

from ..base.extent import GRAINS, HOLE, ZERO
from ..format.page import ALL_GRAINS, Piece

#: A chunk with more pieces, or with more grains outside the originally stored chunk, is read and stored whole:
#: otherwise restoring it would need too many frames, and storing data twice would cost more than reading less saves.
PIECES_MAX = 8
PATCHED_GRAINS_MAX = 16


def may_patch(pieces: t.Sequence[Piece], mask: int) -> bool:
    """Whether new grains may be added to a chunk with these pieces."""
    left = [piece for piece in pieces if piece.mask & ~mask]
    patched = mask
    for piece in left:
        if piece.kind == GRAINS:
            patched |= piece.mask
    return len(left) + 2 <= PIECES_MAX and patched.bit_count() <= PATCHED_GRAINS_MAX


def patch(pieces: t.Sequence[Piece], zeros: int, grains: Piece | None) -> list[Piece]:
    """The pieces of a chunk after the grains ``zeros`` became zero and ``grains`` were stored."""
    changed = zeros | (grains.mask if grains else 0)
    result = []
    for piece in pieces:
        mask = piece.mask & ~changed
        if piece.kind in (HOLE, ZERO):
            zeros |= mask
        elif mask:
            result.append(piece._replace(mask=mask))
    if zeros:
        result.append(Piece(bytes(32), bytes(16), 0, 0, 0, ZERO, zeros, zeros))
    if grains:
        result.append(grains)
    return result


def is_zero(pieces: t.Sequence[Piece]) -> bool:
    """Whether the pieces form a chunk of zeros."""
    return len(pieces) == 1 and pieces[0].kind == ZERO and pieces[0].mask == ALL_GRAINS

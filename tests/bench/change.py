# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes to the image: scattered blocks of 8 KiB, known exactly, and undone by making them once more."""

from __future__ import annotations

import os
import random
import typing as t
from pathlib import Path

from .data import STRETCH_BYTES
from .mblocks import BLOCK_BYTES

#: A changed block keeps most of its content, as a database block does when records in it are set.
_PATCH_BYTES = 256

Extent = tuple[int, int]


def used_extents(kinds: t.Sequence[str], size: int) -> list[Extent]:
    """(offset, length) of the stretches that hold data: neither zeros nor holes."""
    return [
        (number * STRETCH_BYTES, min(STRETCH_BYTES, size - number * STRETCH_BYTES))
        for number, kind in enumerate(kinds)
        if kind not in ("zeros", "holes")
    ]


def scattered(used: t.Sequence[Extent], share: float, seed: str) -> list[Extent]:
    """Blocks of 8 KiB in order of offset: at least one, and ``share`` (0 to 1) of all blocks in ``used``."""
    blocks = [at for offset, length in used for at in range(offset, offset + length, BLOCK_BYTES)]
    count = max(1, round(len(blocks) * share))
    return [(at, BLOCK_BYTES) for at in sorted(random.Random(seed).sample(blocks, count))]


def apply(image: Path, extents: t.Iterable[Extent], seed: str) -> None:
    """Change a few hundred bytes in each extent; the same call once more undoes it, in any order with other calls."""
    numbers = random.Random(seed)
    fd = os.open(image, os.O_RDWR)
    try:
        for offset, length in extents:
            at = offset + numbers.randrange(length - _PATCH_BYTES + 1)
            old = int.from_bytes(os.pread(fd, _PATCH_BYTES, at), "big")
            new = old ^ numbers.getrandbits(_PATCH_BYTES * 8)
            os.pwrite(fd, new.to_bytes(_PATCH_BYTES, "big"), at)
        os.fsync(fd)
    finally:
        os.close(fd)

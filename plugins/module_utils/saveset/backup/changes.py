# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changed extents: what changed since the parent was backed up, according to the storage, and the grains affected.

They are only a hint: they are used only if they refer to exactly the snapshot from which the parent was made, some
chunks that they call unchanged are compared anyway, and a backup always works without them.
"""

from __future__ import annotations

import bisect
import dataclasses
import typing as t

from ..base.errors import InvalidValue
from ..base.extent import DATA, Extent
from ..format.directory import Geometry
from ..format.page import ALL_GRAINS, GRAINS_PER_CHUNK

_ASK_BYTES = 1 << 20  # for changed extents of at least this length, the source is asked which parts are allocated


@dataclasses.dataclass(frozen=True)
class Changes:
    """What changed between two snapshots of a volume.

    ``since`` is the source id of the older one; ``size`` the volume's size in bytes, the same in both; ``extents`` are
    (offset, length) in bytes, in any order, overlapping or not.  What is not covered has not changed.
    """

    since: str
    size: int
    extents: t.Sequence[tuple[int, int]]

    def merged(self) -> list[tuple[int, int]]:
        """The extents in order of offset, clipped to the volume, with neighbours and overlaps merged.

        Raises InvalidValue if one is negative.
        """
        found: list[tuple[int, int]] = []
        for offset, length in sorted(self.extents):
            if offset < 0 or length < 0:
                raise InvalidValue(f"changed extent {offset}+{length}", "it is negative", "Repair its source")
            end = min(offset + length, self.size)
            if end <= offset:
                continue
            if found and offset <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], end))
            else:
                found.append((offset, end))
        return [(offset, end - offset) for offset, end in found]


class Touched(t.NamedTuple):
    """A chunk that changed: which of its grains, and its kind: HOLE or ZERO if all of it is empty now, else DATA."""

    chunk: int
    mask: int
    kind: int


class ChangedChunks:
    """The numbers of the chunks that changed extents touch, as a container that keeps nothing per chunk."""

    def __init__(self, extents: t.Sequence[tuple[int, int]], chunk_size: int) -> None:
        """:param extents: as returned by Changes.merged()."""
        self._extents = extents
        self._chunk_size = chunk_size

    def __contains__(self, chunk: int) -> bool:
        begin, end = chunk * self._chunk_size, (chunk + 1) * self._chunk_size
        number = bisect.bisect_left(self._extents, (end, 0)) - 1  # the last extent that begins before the chunk ends
        return number >= 0 and sum(self._extents[number]) > begin


ExtentsOf = t.Callable[[int, int], t.Iterator[Extent]]


def touched_chunks(
    extents: t.Iterable[tuple[int, int]], geometry: Geometry, allocated: ExtentsOf
) -> t.Iterator[Touched]:
    """The chunks that changed extents touch, in order, each once.

    :param extents: as returned by Changes.merged().
    :param allocated: returns which parts of (offset, length) of the source are allocated.
    """
    held: Touched | None = None
    for offset, length, kind in _with_kinds(extents, allocated):
        for chunk, mask in _masks(offset, length, geometry):
            whole = kind if mask == ALL_GRAINS else DATA
            if held is not None and held.chunk == chunk:
                held = Touched(chunk, held.mask | mask, DATA)
                continue
            if held is not None:
                yield held
            held = Touched(chunk, mask, whole)
    if held is not None:
        yield held


def _with_kinds(extents: t.Iterable[tuple[int, int]], allocated: ExtentsOf) -> t.Iterator[Extent]:
    for offset, length in extents:
        if length < _ASK_BYTES:
            yield Extent(offset, length, DATA)
        else:
            yield from allocated(offset, length)


def _masks(offset: int, length: int, geometry: Geometry) -> t.Iterator[tuple[int, int]]:
    """The chunks that a range touches, and the grains of each; of a short last chunk, always all grains."""
    chunk_size = geometry.chunk_size
    grain = chunk_size // GRAINS_PER_CHUNK
    end = offset + length
    while offset < end:
        chunk, skip = divmod(offset, chunk_size)
        stop = min(end - chunk * chunk_size, chunk_size)
        if geometry.chunk_length(chunk) < chunk_size:
            yield chunk, ALL_GRAINS
        else:
            first, last = skip // grain, -(-stop // grain)
            yield chunk, (1 << last) - (1 << first)
        offset = chunk * chunk_size + stop

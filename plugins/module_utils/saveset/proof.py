# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proving changed extents: comparing what they call unchanged with what the parent holds."""

from __future__ import annotations

import random
import threading

from .changes import ChangedChunks
from .compare import Comparer
from .directory import Geometry
from .errors import SavesetError
from .extent import DATA
from .leafmap import LeafMap
from .page import LEAF_ENTRIES
from .source import Source

_NAMED = 5


class Proof:
    """Compares chunks that should not have changed with the parent's; threads may share it."""

    def __init__(self, parent: LeafMap, comparer: Comparer, touched: ChangedChunks) -> None:
        self._parent = parent
        self._comparer = comparer
        self._touched = touched
        self._lock = threading.Lock()
        self.compared = 0
        #: Chunks that could not be compared, as reading the parent's needs a key that is not at hand.
        self.unproven = 0
        #: Numbers of chunks that differ though nothing told that they changed.
        self.missed: list[int] = []

    def check(self, chunk: int, data: memoryview) -> None:
        """Compare a chunk as read now, unless it is known to have changed."""
        if chunk in self._touched:
            return
        same = self._same(chunk, data)
        with self._lock:
            self.compared += same is not None
            self.unproven += same is None
            if same is False:
                self.missed.append(chunk)

    def spot_check(self, source: Source, count: int) -> None:
        """Compare ``count`` chunks taken at random; fewer where most changed.  Raises SourceError."""
        geometry = self._parent.geometry
        for _attempt in range(count * 4):
            if self.compared >= count or not geometry.chunks:
                return
            chunk = random.randrange(geometry.chunks)
            if chunk not in self._touched and self._is_stored(chunk):
                data = memoryview(bytearray(geometry.chunk_length(chunk)))
                source.read(chunk * geometry.chunk_size, data)
                self.check(chunk, data)

    @property
    def problem(self) -> str:
        """What is wrong with the changed extents; empty when nothing was found."""
        if not self.missed:
            return ""
        offsets = ", ".join(str(chunk * self._parent.geometry.chunk_size) for chunk in sorted(self.missed)[:_NAMED])
        return (
            f"the changed extents are not true: {len(self.missed)} of {self.compared} chunks compared differ though "
            f"they are told to be unchanged, at offsets {offsets}"
        )

    def _is_stored(self, chunk: int) -> bool:
        leaf, position = divmod(chunk, LEAF_ENTRIES)
        try:
            return self._parent.page(leaf).entry(position).kind == DATA
        except SavesetError:
            return False

    def _same(self, chunk: int, data: memoryview) -> bool | None:
        leaf, position = divmod(chunk, LEAF_ENTRIES)
        try:
            return self._comparer.same(self._parent.page(leaf), position, data)
        except SavesetError:
            return None


def spot_checks(changed_bytes: int, geometry: Geometry) -> int:
    """How many chunks to compare where so many bytes changed: about a tenth of what is read anyway, 2 to 16."""
    return min(16, max(2, changed_bytes // 10 // geometry.chunk_size))

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifying changed extents: comparing what they call unchanged with what the parent holds."""

from __future__ import annotations

import threading

from ..base.errors import Damaged, NotFound, SavesetError, StoreError
from ..format.directory import Geometry
from ..format.leafmap import LeafMap
from ..format.page import LEAF_ENTRIES
from ..io.source import Source
from ..restore.compare import Comparer
from ..restore.sample import stored_by_chance
from .changes import ChangedChunks

_NAMED = 5


class Proof:
    """Compares chunks that should not have changed with the parent's; threads may share it."""

    def __init__(self, parent: LeafMap, comparer: Comparer, touched: ChangedChunks) -> None:
        self._parent = parent
        self._comparer = comparer
        self._touched = touched
        self._lock = threading.Lock()
        self.compared = 0
        #: Number of chunks that could not be compared, because reading the parent's needs a key that is missing.
        self.unproven = 0
        #: Numbers of chunks that differ although they were not reported as changed.
        self.missed: list[int] = []

    def check(self, chunk: int, data: memoryview) -> None:
        """Compare a chunk that was just read, unless it is known to have changed."""
        if chunk in self._touched:
            return
        same = self._same(chunk, data)
        with self._lock:
            self.compared += same is not None
            self.unproven += same is None
            if same is False:
                self.missed.append(chunk)

    def spot_check(self, source: Source, count: int) -> None:
        """Compare ``count`` stored chunks at random; fewer if most changed, or the parent's map cannot be read.

        Raises SourceError.
        """
        try:
            for chunk in stored_by_chance(self._parent, count * 4):
                if self.compared >= count:
                    return
                if chunk in self._touched:
                    continue
                data = memoryview(bytearray(self._parent.geometry.chunk_length(chunk)))
                source.read(chunk * self._parent.geometry.chunk_size, data)
                self.check(chunk, data)
        except (Damaged, NotFound, StoreError):
            return

    @property
    def problem(self) -> str:
        """What is wrong with the changed extents; empty if nothing was found."""
        if not self.missed:
            return ""
        offsets = ", ".join(str(chunk * self._parent.geometry.chunk_size) for chunk in sorted(self.missed)[:_NAMED])
        return (
            f"the changed extents are wrong: {len(self.missed)} of {self.compared} compared chunks differ although "
            f"they were reported as unchanged, at offsets {offsets}"
        )

    def _same(self, chunk: int, data: memoryview) -> bool | None:
        leaf, position = divmod(chunk, LEAF_ENTRIES)
        try:
            return self._comparer.same(self._parent.page(leaf), position, data)
        except SavesetError:
            return None


def spot_checks(changed_bytes: int, geometry: Geometry) -> int:
    """How many chunks to compare if ``changed_bytes`` changed: about a tenth of what is read anyway, 2 to 16."""
    return min(16, max(2, changed_bytes // 10 // geometry.chunk_size))

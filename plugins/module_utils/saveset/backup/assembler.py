# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Assembles the entries that workers produce, in any order, into the leaf pages of the map."""

from __future__ import annotations

import threading
import typing as t

from ..base.errors import SavesetError
from ..base.extent import SPLIT, ZERO, ChunkRun
from ..format.leafmap import LeafMap, MapWriter
from ..format.page import ENTRY_BYTES, HOLE_ENTRY, LEAF_ENTRIES, PIECE, ZERO_ENTRY, Page


class _OpenPage:
    """A page that still lacks entries."""

    def __init__(self, entries: int, parent: Page | None, missing: int) -> None:
        self.missing = missing
        self.entries = bytearray(parent.data[: entries * ENTRY_BYTES] if parent else entries * ENTRY_BYTES)
        #: Packed pieces of the split chunks, by position.
        self.splits: dict[int, bytes] = {}
        if parent and len(parent.data) > entries * ENTRY_BYTES:
            for position in range(entries):
                if parent.entry(position).kind == SPLIT:
                    self.splits[position] = b"".join(PIECE.pack(*piece) for piece in parent.pieces(position))

    def put(self, position: int, entries: bytes) -> None:
        for number in range(position, position + len(entries) // ENTRY_BYTES):
            self.splits.pop(number, None)
        begin = position * ENTRY_BYTES
        self.entries[begin : begin + len(entries)] = entries


class LeafAssembler:
    """Assembles entries into leaf pages and passes each complete page to the map, unless the parent has the same."""

    def __init__(self, writer: MapWriter, parent: LeafMap | None, withheld: t.Collection[bytes] = frozenset()) -> None:
        """:param withheld: ids of maps that are about to be removed: their pages are written again."""
        self._writer = writer
        self._withheld = withheld
        self._parent = parent
        self._lock = threading.Lock()
        self._pages: dict[int, _OpenPage] = {}

    def parent_page(self, leaf: int) -> Page | None:
        """The parent's page for a leaf; None if there is none or it cannot be read: it is only an optimization."""
        if self._parent is None or leaf >= self._parent.geometry.leaves:
            return None
        try:
            return self._parent.page(leaf)
        except SavesetError:
            return None

    def may_take_over(self, leaf: int) -> bool:
        """Whether the parent's page for a leaf is not about to be removed, so taking it over need not read it."""
        return self._parent is not None and self._parent.leaf(leaf).map_id not in self._withheld

    def take_over(self, leaf: int) -> None:
        """Take a leaf from the parent as it is."""
        if self._parent is None:
            raise ValueError(f"leaf {leaf} cannot be taken over: there is no parent")
        if self.may_take_over(leaf):
            self._writer.add_known(leaf, self._parent)
        else:
            self._writer.add_page(leaf, self._parent.page(leaf))

    def begin(self, leaf: int, page: Page, missing: int) -> None:
        """Begin a leaf with the parent's entries, ``missing`` of which will be replaced."""
        with self._lock:
            self._pages[leaf] = _OpenPage(page.count, page, missing)

    def fill(self, first: int, entries: bytes, missing: int = 0) -> None:
        """Put entries from chunk ``first`` on, all in one leaf; ``missing`` of them follow later, one by one."""
        leaf, position = divmod(first, LEAF_ENTRIES)
        with self._lock:
            page = self._open(leaf)
            page.put(position, entries)
            page.missing -= len(entries) // ENTRY_BYTES - missing
            done = self._close(leaf, page)
        self._complete(leaf, done)

    def fill_split(self, chunk: int, entry: bytes, pieces: bytes) -> None:
        """Put the entry of a split chunk."""
        leaf, position = divmod(chunk, LEAF_ENTRIES)
        with self._lock:
            page = self._open(leaf)
            page.put(position, entry)
            page.splits[position] = pieces
            page.missing -= 1
            done = self._close(leaf, page)
        self._complete(leaf, done)

    def fill_empty(self, run: ChunkRun) -> None:
        """Put a run of holes or zeros inside one leaf."""
        leaf = run.first // LEAF_ENTRIES
        if run.chunks == self._writer.geometry.leaf_entries(leaf):
            with self._lock:
                self._pages.pop(leaf, None)
            self._writer.add_empty(leaf, run.kind)
            return
        self.fill(run.first, (ZERO_ENTRY if run.kind == ZERO else HOLE_ENTRY) * run.chunks)

    def _open(self, leaf: int) -> _OpenPage:
        if leaf not in self._pages:
            count = self._writer.geometry.leaf_entries(leaf)
            self._pages[leaf] = _OpenPage(count, None, count)
        return self._pages[leaf]

    def _close(self, leaf: int, page: _OpenPage) -> Page | None:
        if page.missing:
            return None
        del self._pages[leaf]
        return Page.build(bytes(page.entries), page.splits)

    def _complete(self, leaf: int, page: Page | None) -> None:
        if page is None:
            return
        parent = self.parent_page(leaf)
        empty = page.empty_kind()
        if parent is not None and page.data == parent.data:
            self.take_over(leaf)
        elif empty is not None:
            self._writer.add_empty(leaf, empty)
        else:
            self._writer.add_page(leaf, page)

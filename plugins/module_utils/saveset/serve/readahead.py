# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Detecting sequential reads, and what to read ahead for them.

Requests of one reader arrive in any order, and several readers may be active at once.  So a reader is recognized by
what was read ahead for it: a request that touches it gets more, twice as much each time, up to a limit.
"""

from __future__ import annotations

import collections
import threading
import typing as t

_FIRST = 4
_NONE = range(0)
#: How many recently touched chunks are remembered: enough for the concurrent requests of a few readers.
_RECENT = 64
#: How many chunks are remembered whose read would reveal a new reader: with more, random reads would look like one.
_BEGUN = 32
_AHEAD = 4096

Map = t.TypeVar("Map", bound="collections.OrderedDict[int, t.Any]")


class _Reader:
    """A sequential reader: the chunks before ``end`` are read ahead, about ``window`` of them."""

    __slots__ = ("end", "window")

    def __init__(self, end: int, window: int) -> None:
        self.end = end
        self.window = window


class ReadAhead:
    """The read-ahead of a volume with ``chunks`` chunks; threads may share it."""

    def __init__(self, chunks: int, most: int) -> None:
        """:param most: how many chunks to read ahead of a reader at most."""
        self._chunks = chunks
        self._most = max(_FIRST, most)
        self._recent: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._begun: collections.OrderedDict[int, None] = collections.OrderedDict()
        self._ahead: collections.OrderedDict[int, _Reader] = collections.OrderedDict()
        self._lock = threading.Lock()

    def touched(self, chunk: int) -> range:
        """The chunks to read ahead when ``chunk`` is read."""
        with self._lock:
            if chunk in self._recent:
                self._recent.move_to_end(chunk)
                return _NONE
            _put(self._recent, chunk, None, _RECENT)
            reader = self._ahead.pop(chunk, None)
            if reader is None:
                if self._begun.pop(chunk, self) is self:
                    _put(self._begun, chunk + 1, None, _BEGUN)
                    return _NONE
                reader = _Reader(chunk + 1, _FIRST // 2)
            return self._extend(reader, chunk)

    def _extend(self, reader: _Reader, chunk: int) -> range:
        """The next chunks for a reader at ``chunk``, once it has used half of what was read ahead."""
        if reader.end - chunk > max(1, reader.window // 2):
            return _NONE
        reader.window = min(2 * reader.window, self._most)
        begin, end = max(reader.end, chunk + 1), min(chunk + 1 + reader.window, self._chunks)
        for number in range(begin, end):
            _put(self._ahead, number, reader, _AHEAD)
        reader.end = max(reader.end, end)
        return range(begin, end)


def _put(kept: Map, key: int, value: t.Any, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was used last, kept in a bounded part of memory; what several threads want at once is made once."""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import typing as t

Key = t.TypeVar("Key", bound=t.Hashable)
Value = t.TypeVar("Value")


class Recent(t.Generic[Key, Value]):
    """The values used last, as many as fit into ``limit`` by their sizes, one at least; threads may share it."""

    def __init__(self, limit: int, size_of: t.Callable[[Value], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._size = 0
        self._kept: collections.OrderedDict[Key, Value] = collections.OrderedDict()
        self._under_way: dict[Key, concurrent.futures.Future[Value]] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: Key) -> bool:
        """Whether a value is kept or being made."""
        return key in self._kept or key in self._under_way

    def get(self, key: Key, make: t.Callable[[], Value]) -> Value:
        """The value that is kept; else what ``make`` makes, or is making in another thread.  Raises what that raises,
        and keeps nothing then."""
        with self._lock:
            value = self._kept.get(key)
            if value is not None:
                self._kept.move_to_end(key)
                return value
            future = self._under_way.get(key)
            if future is None:
                mine = self._under_way[key] = concurrent.futures.Future()
        if future is not None:
            return future.result()
        try:
            value = make()
        except BaseException as error:
            with self._lock:
                del self._under_way[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._under_way[key]
            self._keep(key, value)
        mine.set_result(value)
        return value

    def keep(self, key: Key, value: Value) -> None:
        """Keep a value that was made elsewhere."""
        with self._lock:
            self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        before = self._kept.pop(key, None)
        self._size += self._size_of(value) - (self._size_of(before) if before is not None else 0)
        self._kept[key] = value
        while self._size > self._limit and len(self._kept) > 1:
            _key, oldest = self._kept.popitem(last=False)
            self._size -= self._size_of(oldest)

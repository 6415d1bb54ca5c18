# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache of the most recently used values with bounded memory; concurrent requests for a value create it once."""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import typing as t

Key = t.TypeVar("Key", bound=t.Hashable)
Value = t.TypeVar("Value")


class Recent(t.Generic[Key, Value]):
    """The most recently used values: as many as fit into ``limit`` by size, at least one; threads may share it."""

    def __init__(self, limit: int, size_of: t.Callable[[Value], int]) -> None:
        self._limit = limit
        self._size_of = size_of
        self._size = 0
        self._kept: collections.OrderedDict[Key, Value] = collections.OrderedDict()
        self._under_way: dict[Key, concurrent.futures.Future[Value]] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: Key) -> bool:
        """Whether a value is cached or being created."""
        return key in self._kept or key in self._under_way

    def get(self, key: Key, make: t.Callable[[], Value]) -> Value:
        """The cached value, else the one that ``make`` creates, or is creating in another thread.

        Raises what ``make`` raises, and then caches nothing.
        """
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
        """Cache a value that was created elsewhere."""
        with self._lock:
            self._keep(key, value)

    def _keep(self, key: Key, value: Value) -> None:
        before = self._kept.pop(key, None)
        self._size += self._size_of(value) - (self._size_of(before) if before is not None else 0)
        self._kept[key] = value
        while self._size > self._limit and len(self._kept) > 1:
            _key, oldest = self._kept.popitem(last=False)
            self._size -= self._size_of(oldest)

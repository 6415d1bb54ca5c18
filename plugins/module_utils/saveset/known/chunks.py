# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chunks that a repository has: in tables on disk as far as a cache folder can be used, else in memory.

What the tables lack, because it was published since, is read from the footers of the packs and becomes a table of its
own; tables of similar size are merged.  So bringing the cache up to date costs what was added, and a look-up reads few
tables.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
import typing as t

from ..format.footer import PackFooter
from .cache import CacheFolder
from .heap import Heap
from .table import DamagedTable, Table
from .writing import Batch, merged, session_tag

#: A table is at least so many times as large as all smaller ones together.
_GROWTH = 16
#: Tables smaller than this are merged into one.
_SMALL = 1 << 18
#: A rebuild writes tables of so many chunks, and merges them when there are so many tables.
_BATCH = 1 << 19
_UNMERGED_MAX = 64
#: The chunks of the running backup that are kept in memory before they become a table.
_HEAP_MAX = 1 << 20
#: How often damaged tables are made again before the backup does without the cache.
_ATTEMPTS = 3
#: How long another process that writes is waited for, and how often it is looked for, in seconds.
_WAIT_S = 600.0
_POLL_S = 1.0
#: A table is written again when more than this share of its packs was removed.
_GONE_SHARE = 8


class KnownChunks:
    """Where chunks are; threads may share it.

    What it says was true of a pack once: callers make sure that the pack still exists.
    """

    def __init__(
        self,
        folder: CacheFolder | None,
        names: t.Callable[[], t.Sequence[str]],
        read: t.Callable[[str], PackFooter | None],
        warn: t.Callable[[str], object],
    ) -> None:
        """:param folder: the cache; None to keep everything in memory.
        :param names: lists the names of all packs.
        :param read: reads the footer of the pack with a name; None if the pack cannot be used.
        :param warn: is called with what prevents the use of the cache.
        """
        self._folder = folder
        self._list = names
        self._read = read
        self._warn = warn
        self._lock = threading.RLock()
        self._heap = Heap()
        self._tables: list[Table] = []
        self._searched: list[Table] = []  # by look-ups, which must not miss a table while it is replaced
        self._names: dict[bytes, str] = {}
        self._unreadable: set[bytes] = set()
        self._complained = False
        #: Packs that tables still name although the repository no longer has them.
        self.gone: frozenset[bytes] = frozenset()

    def __len__(self) -> int:
        return len(self._heap) + sum(table.entries for table in self._searched)

    def load(self) -> None:
        """Learn the chunks of all packs."""
        with self._lock:
            if self._folder:
                self._update(self._folder, _WAIT_S)
            else:
                self._open([])
            self._read_rest()
            self._searched = self._tables

    def close(self) -> None:
        """Close the tables at once: nothing is looked up any more."""
        with self._lock:
            self._tables, self._searched = [], []

    def find(self, identity: bytes) -> t.Iterator[bytes]:
        """The places of a chunk, as packed by PLACE."""
        # Memory first: what leaves it is in a table before.
        yield from self._heap.find(identity)
        for table in self._searched:
            try:
                found = table.find(identity)
            except (DamagedTable, OSError) as error:
                self._replace(table, error)
                yield from self.find(identity)
                return
            yield from found

    def add(self, packs: t.Iterable[tuple[bytes, bytes]]) -> None:
        """Add packs that were just published: id and rows of each."""
        with self._lock:
            for pack, rows in packs:
                self._heap.add(pack, rows)
            self._heap.settle()
            if self._folder and len(self._heap) > _HEAP_MAX and not self._complained:
                self._update(self._folder, 0)
                self._searched = self._tables
                if not self._missing():
                    self._heap = Heap()

    def of_session(self, session: bytes) -> list[str]:
        """The names of packs in tables that may be of a session."""
        tag = session_tag(session)
        found = {pack for table in self._tables for pack, its in table.packs() if its == tag}
        return sorted(self._names[pack] for pack in found if pack in self._names)

    # -- bringing the tables up to date

    def _update(self, folder: CacheFolder, wait_s: float) -> None:
        """Write what the tables lack, unless another process does, which is waited for."""
        for _attempt in range(_ATTEMPTS):
            try:
                self._open(self._tables_in(folder))
                for cause in folder.damaged.values():
                    self._warn_of_damage(cause)
                if not self._complained and self._has_work(folder):
                    folder.prepare()
                    self._write_or_wait(folder, wait_s)
                return
            except DamagedTable as error:
                self._warn_of_damage(error)
            except OSError as error:
                self._complain(error.strerror or str(error))
                return

    def _has_work(self, folder: CacheFolder) -> bool:
        return bool(folder.damaged or self._missing() or _to_merge(self._tables) or self._wasteful())

    def _tables_in(self, folder: CacheFolder) -> list[Table]:
        try:
            return folder.tables()
        except OSError as error:
            self._complain(error.strerror or str(error))
            return []

    def _write_or_wait(self, folder: CacheFolder, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            with folder.try_lock() as mine:
                if folder.has_changed(self._tables):
                    self._open(self._tables_in(folder))
                if mine:
                    self._write(folder)
                if mine or not self._missing():
                    return
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_S)
        if wait_s:
            self._complain(f"another process has been writing to it for {wait_s:.0f} s")

    def _open(self, tables: list[Table]) -> None:
        """Use these tables.  The packs are listed after the tables were opened: a pack that is not there is gone."""
        self._tables = tables
        self._names = {pack: name for name in self._list() if (pack := _id_of(name)) not in self._unreadable}
        self.gone = frozenset(pack for table in tables for pack, _tag in table.packs() if pack not in self._names)

    def _missing(self) -> dict[bytes, str]:
        """The packs that no table has."""
        missing = dict(self._names)
        for table in self._tables:
            for pack, _tag in table.packs():
                missing.pop(pack, None)
        return missing

    def _write(self, folder: CacheFolder) -> None:
        """Under the lock: read the footers that are missing, then put the tables in order."""
        self._tables = self._needed()
        folder.sweep(self._tables)
        batch = Batch()
        for pack, name in self._missing().items():
            footer = self._footer(pack, name)
            if footer is not None:
                batch.add(pack, footer)
            if len(batch) >= _BATCH:
                self._add(folder, batch)
                batch = Batch()
        if batch:
            self._add(folder, batch)
        self._put_in_order(folder)

    def _put_in_order(self, folder: CacheFolder) -> None:
        """Merge what is to be merged, the smaller ones at least where there is not enough disk space for all."""
        tables, full = _to_merge(self._tables), None
        while len(tables) > 1:
            try:
                self._merge(folder, tables)
                break
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                tables, full = tables[1:], error
        if full:
            raise full
        for table in self._wasteful():
            self._merge(folder, [table])

    def _footer(self, pack: bytes, name: str) -> PackFooter | None:
        """The footer of a pack, which is not looked at again if it cannot be used."""
        footer = self._read(name)
        if footer is None:
            self._unreadable.add(pack)
            del self._names[pack]
        return footer

    def _add(self, folder: CacheFolder, batch: Batch) -> None:
        self._put([*self._tables, folder.add(batch.content())])
        unmerged = [table for table in self._tables if table.entries <= 2 * _BATCH]
        if len(unmerged) > _UNMERGED_MAX:
            self._merge(folder, unmerged)

    def _merge(self, folder: CacheFolder, tables: t.Sequence[Table]) -> None:
        try:
            new = folder.add(merged(tables, self.gone))
        except DamagedTable:
            self._drop_damaged(folder, tables)
            raise
        self._put([*(table for table in self._tables if table not in tables), new])
        for table in tables:
            folder.remove(table.name)

    def _drop_damaged(self, folder: CacheFolder, tables: t.Sequence[Table]) -> None:
        """Remove those of the tables that cannot be read to their end."""
        for table in tables:
            try:
                for _entries in table.buckets(table.bits, frozenset()):
                    pass
            except (DamagedTable, OSError) as error:
                self._drop(folder, table, error)

    def _drop(self, folder: CacheFolder, table: Table, error: Exception) -> None:
        folder.damaged[table.name] = str(error)
        self._put(other for other in self._tables if other is not table)
        with contextlib.suppress(OSError):  # it is not opened again either way
            folder.remove(table.name)

    def _put(self, tables: t.Iterable[Table]) -> None:
        self._tables = sorted(tables, key=lambda table: -table.entries)

    def _needed(self) -> list[Table]:
        """The tables that have a pack that no larger one has."""
        needed = []
        covered: set[bytes] = set()
        for table in self._tables:
            own = {pack for pack, _tag in table.packs()} - self.gone
            if not own <= covered:
                needed.append(table)
                covered |= own
        return needed

    def _wasteful(self) -> list[Table]:
        """The tables of which too many packs were removed."""
        if not self.gone:
            return []
        return [table for table in self._tables if _count_gone(table, self.gone) * _GONE_SHARE > table.pack_count]

    # -- what the cache cannot be used for

    def _read_rest(self) -> None:
        """Read the footers of packs that no table has into memory."""
        there = set(self._heap.packs())
        for pack, name in self._missing().items():
            footer = self._footer(pack, name) if pack not in there else None
            if footer is not None:
                self._heap.add(pack, footer.raw_rows)
        self._heap.settle()

    def _replace(self, table: Table, error: Exception) -> None:
        """Do without a table that turned out to be damaged: its packs' footers are read again."""
        with self._lock:
            if self._folder is None or table not in self._searched:
                return  # another thread met it first
            self._warn_of_damage(error)
            self._drop(self._folder, table, error)
            self._update(self._folder, _WAIT_S)
            self._read_rest()
            self._searched = self._tables

    def _warn_of_damage(self, error: Exception | str) -> None:
        path = self._folder.path if self._folder else ""
        self._warn(
            f"Index cache {path}: a file in it cannot be used ({error}). It is made again from the repository. If that "
            "happens repeatedly, check the disk that holds it"
        )

    def _complain(self, cause: str) -> None:
        self._complained = True
        path = self._folder.path if self._folder else ""
        self._warn(
            f"Index cache {path}: {cause}. The backup goes on without it, with more memory and time. Make the folder "
            "writable and give it free disk space, or set cache_dir to another one"
        )


def _id_of(name: str) -> bytes:
    """A pack's id, from the name of its object."""
    return bytes.fromhex(name.rpartition("/")[2])


def _to_merge(tables: t.Sequence[Table]) -> list[Table]:
    """Which tables, of all from the largest to the smallest, are to become one."""
    for number, table in enumerate(tables[:-1]):
        smaller = sum(other.entries for other in tables[number + 1 :])
        if table.entries < max(_GROWTH * smaller, _SMALL):
            return list(tables[number:])
    return []


def _count_gone(table: Table, gone: t.AbstractSet[bytes]) -> int:
    return sum(1 for pack, _tag in table.packs() if pack in gone)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache folder of one repository: ``<cache>/<repository id>`` with tables, a lock, and what is being written.

The tables that are there are the whole state.  A table is written under a temporary name, synced and renamed; whoever
holds the lock may write, merge and remove.  Readers need no lock: they keep open what was removed.  So a process may be
killed at any moment: what it leaves is a temporary file, or a table whose packs another table has too.  Whoever holds
the lock next removes both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import typing as t

from ..keys.keys import KeyRing
from ..store.beneath import Beneath, NotAFile
from .table import DamagedTable, Table
from .writing import Content, write

_LOCK = "lock"
_TABLE = ".table"
_UNFINISHED = ".tmp"
#: More tables than a rebuild makes before it merges them; what is beyond is not opened.
_TABLES_MAX = 256
_BUFFER = 1 << 20
#: The disk space that stays free: so many bytes, or a twentieth of a small filesystem.
_RESERVE_BYTES = 1 << 30
_RESERVE_PARTS = 20


def default_folder() -> str:
    """Where the cache is if nobody says: caches of the system for root, of the user for anybody else."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = "/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache")
    return os.path.join(base, "openisb")


class CacheFolder:
    """The files of one repository in a cache folder; methods raise OSError."""

    def __init__(self, folder: str, ring: KeyRing) -> None:
        self._ring = ring
        self._files = Beneath(folder)
        self._name = ring.repository_id
        #: For people.
        self.path = os.path.join(folder, self._name)
        #: Names of tables that cannot be used, with the reason.
        self.damaged: dict[str, str] = {}

    def prepare(self) -> None:
        """Make the folder unless it exists."""
        os.makedirs(self._files.root, mode=0o700, exist_ok=True)
        self._files.make_folder(self._name)

    def tables(self) -> list[Table]:
        """The tables, largest first; none if there is no folder."""
        for _attempt in range(5):
            with contextlib.suppress(_Merged):
                return self._open_all()
        return []

    def _open_all(self) -> list[Table]:
        """Raises _Merged if a table was removed since they were listed: what replaced it may not be in the list."""
        found = []
        for last in self._names(_TABLE)[:_TABLES_MAX]:
            if last in self.damaged:
                continue
            try:
                found.append(self._open(last))
            except FileNotFoundError as error:
                raise _Merged from error
            except (DamagedTable, NotAFile) as error:
                self.damaged[last] = str(error)
            except OSError as error:
                self.damaged[last] = error.strerror or str(error)
        return sorted(found, key=lambda table: -table.entries)

    def has_changed(self, tables: t.Iterable[Table]) -> bool:
        """Whether the tables are others than these."""
        return {table.name for table in tables} != set(self._names(_TABLE)) - self.damaged.keys()

    def _open(self, last: str) -> Table:
        return Table(last, self._files.open(f"{self._name}/{last}", os.O_RDONLY), self._ring)

    @contextlib.contextmanager
    def try_lock(self) -> t.Iterator[bool]:
        """Whether this process may write meanwhile: no other does."""
        fd = self._open_lock()
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def _open_lock(self) -> int:
        """The lock is never removed, so all processes lock the same file."""
        name = f"{self._name}/{_LOCK}"
        try:
            return self._files.make(name)
        except FileExistsError:
            return self._files.open(name, os.O_RDWR)

    def sweep(self, keep: t.Collection[Table]) -> None:
        """Remove what writers that died have left, tables that are damaged, and those that are not to be kept."""
        kept = {table.name for table in keep}
        for last in [*self._names(_UNFINISHED), *(last for last in self._names(_TABLE) if last not in kept)]:
            self.remove(last)

    def remove(self, last: str) -> None:
        """Remove a file."""
        with contextlib.suppress(FileNotFoundError):
            self._files.unlink(f"{self._name}/{last}")
        self.damaged.pop(last, None)

    def add(self, content: Content) -> Table:
        """Write a table and open it.  Raises DamagedTable if one that is merged turns out to be damaged."""
        self._check_space(content.bytes_max)
        stem = secrets.token_hex(16)
        unfinished, name = f"{self._name}/{stem}{_UNFINISHED}", f"{self._name}/{stem}{_TABLE}"
        try:
            with open(self._files.make(unfinished), "wb", buffering=_BUFFER) as stream:
                write(stream, self._ring, content)
                stream.flush()
                os.fsync(stream.fileno())
            self._files.rename(unfinished, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self._files.unlink(unfinished)
            raise
        return self._open(stem + _TABLE)

    def _check_space(self, length: int) -> None:
        """A cache must not fill a disk that others need."""
        status = os.statvfs(self.path)
        reserve = min(_RESERVE_BYTES, status.f_blocks * status.f_frsize // _RESERVE_PARTS)
        if status.f_bavail * status.f_frsize < length + reserve:
            raise OSError(errno.ENOSPC, f"{length >> 20} MiB are needed, and {reserve >> 20} MiB must stay free")

    def _names(self, ending: str) -> list[str]:
        try:
            entries = self._files.scan(self._name)
            return sorted(last for last, what in entries if last.endswith(ending) and what != "folder")
        except FileNotFoundError:
            return []


class _Merged(Exception):
    """A table was removed by another process."""

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that stand for a living process: in a local store, files that stay locked as long as it lives.

Such a file is created atomically under its own name and locked at once.  Another process may take it for abandoned in
between and remove it, so its creator checks that it still has its name once it is locked, and starts over if not.  It
is replaced only by a file that is already locked.  So a process that gets the lock of the file with that name knows
that the file's owner is dead or has not started yet, whatever clocks and process ids say.

The name is not given by a hard link: on some user-space filesystems the links of a file are separate files, and the
opened one is lost when its first name is removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import typing as t

from .appending import AppendedFile
from .beneath import Beneath, NotAFile
from .names import TEMPORARY_FOLDER
from .refusal import LOCK, doing
from .store import Hold

#: Errors for a file that another process has removed, or whose folder was removed or replaced.
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP)


OpenLocked = t.Callable[[], tuple[str, int]]


class LocalHold(Hold):
    """A locked file."""

    def __init__(
        self,
        files: Beneath,
        name: str,
        data: bytes,
        open_locked: OpenLocked,
        error_of: t.Callable[[OSError], Exception],
    ) -> None:
        """:param open_locked: creates a locked file beneath the same folder; returns its name and descriptor.
        :param error_of: converts an OSError to the engine's error.
        """
        self._files = files
        self._name = name
        self._open_locked = open_locked
        self._error_of = error_of
        self._fd = self._guarded(lambda: self._make(data))

    def replace(self, data: bytes) -> None:
        if not self.is_kept():
            raise self._error_of(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        fd = self._guarded(lambda: self._make_beside(data))
        os.close(self._fd)
        self._fd = fd

    def is_kept(self) -> bool:
        if self._fd < 0:
            return False
        try:
            return has_name(self._files, self._name, self._fd)
        except OSError as error:
            raise self._error_of(error) from error

    def release(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd, kept = self._fd, -1, False
        with contextlib.suppress(OSError):
            kept = has_name(self._files, self._name, fd)
        with contextlib.suppress(OSError):
            if kept:
                _remove_and_close(self._files, self._name, fd)
            else:
                os.close(fd)

    def _guarded(self, make: t.Callable[[], int]) -> int:
        try:
            return make()
        except OSError as error:
            raise self._error_of(error) from error

    def _make(self, data: bytes) -> int:
        while True:
            fd = self._files.make(self._name)
            try:
                lock(fd)
                if has_name(self._files, self._name, fd):
                    _write(fd, data)
                    return fd
            except BaseException:
                self._give_up(self._name, fd)
                raise
            os.close(fd)

    def _make_beside(self, data: bytes) -> int:
        temp, fd = self._open_locked()
        try:
            _write(fd, data)
            self._files.rename(temp, self._name)
        except BaseException:
            self._give_up(temp, fd)
            raise
        return fd

    def _give_up(self, name: str, fd: int) -> None:
        with contextlib.suppress(OSError):
            _remove_and_close(self._files, name, fd)


def lock(fd: int) -> None:
    """Wait for the lock of an open file.  Raises OSError."""
    with doing(LOCK):
        fcntl.flock(fd, fcntl.LOCK_EX)


def is_abandoned(files: Beneath, name: str, remove: bool) -> bool:
    """Whether the process that a file stands for is dead or the file is gone; with ``remove``, removes the file then.

    A file counts as held if its lock may not be requested or the filesystem has no locks, and so does anything that
    is not a regular file.  Raises OSError, also if the file cannot be removed.
    """
    try:
        fd = _open_to_lock(files, name)
    except FileNotFoundError:
        return True
    except (PermissionError, NotAFile):
        return False
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        if not _is_free(fd):
            return False
        if not has_name(files, name, fd):
            return not files.is_there(name)  # its process has just replaced or removed it
        if remove:
            stack.pop_all()
            _remove_and_close(files, name, fd)
        return True


def _write(fd: int, data: bytes) -> None:
    file = AppendedFile(fd)
    file.write([data])
    file.sync()  # for readers on other hosts of a network filesystem


def _is_free(fd: int) -> bool:
    """Whether the lock of a file was free; if so, this process now holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def has_name(files: Beneath, name: str, fd: int) -> bool:
    """Whether an open file still has its name.  Raises OSError.

    It is opened again, because only then do network filesystems notice what other hosts have removed.  The link count
    of the open file is not enough, because some filesystems hide an open file instead of removing it.
    """
    try:
        mine = os.fstat(fd)
        if not mine.st_nlink:
            return False
        other = files.open(name, os.O_RDONLY)
        try:
            return os.path.samestat(mine, os.fstat(other))
        finally:
            os.close(other)
    except NotAFile:
        return False
    except OSError as error:
        if error.errno not in _GONE:
            raise
        return False


def _remove_and_close(files: Beneath, name: str, fd: int) -> None:
    """Remove a locked file while it is open, so that nobody takes its name meanwhile, and close it.

    Where an open file cannot be removed, it is renamed first.  Raises OSError.
    """
    moved = ""
    try:
        files.unlink(name)
    except FileNotFoundError:
        pass
    except OSError as error:
        moved = f"{TEMPORARY_FOLDER}/{secrets.token_hex(16)}"
        try:
            files.rename(name, moved)
        except OSError:
            raise error from None
    finally:
        os.close(fd)
    if moved:
        with contextlib.suppress(OSError):  # a later writer sweeps it up
            files.unlink(moved)


def _open_to_lock(files: Beneath, name: str) -> int:
    """Open for writing, which network filesystems require for locks, or for reading if writing is not possible."""
    try:
        return files.open(name, os.O_RDWR)
    except (FileNotFoundError, NotAFile):
        raise
    except OSError:
        return files.open(name, os.O_RDONLY)

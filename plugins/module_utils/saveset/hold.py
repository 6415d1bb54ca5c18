# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that stand for a living process: in a local store, files that stay locked as long as it lives.

Such a file has its name only while it is locked, and is replaced only by one that is locked already.  So whoever gets
the lock of the file that has the name now knows that its process is dead, whatever clocks and process ids say.
"""

from __future__ import annotations

import abc
import contextlib
import errno
import fcntl
import os
import typing as t

from .appending import AppendedFile
from .beneath import Beneath, NotAFile


class Hold(abc.ABC):
    """An object that stands for this process."""

    @abc.abstractmethod
    def replace(self, data: bytes) -> None:
        """Change what it says.  Raises StoreFull; StoreError, NotFound when it is lost."""

    @abc.abstractmethod
    def is_kept(self) -> bool:
        """Whether it is still there: others remove it when they take this process for dead."""

    @abc.abstractmethod
    def release(self) -> None:
        """Remove it; safe to call again.  Where that fails, others see that it is abandoned."""


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
        """:param open_locked: makes a new, locked file beneath the same folder; its name and descriptor.
        :param error_of: makes the engine's error of an OSError.
        """
        self._files = files
        self._name = name
        self._open_locked = open_locked
        self._error_of = error_of
        self._fd = self._publish(data, files.rename_exclusive)

    def replace(self, data: bytes) -> None:
        if not self.is_kept():
            raise self._error_of(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        fd = self._publish(data, self._files.rename)
        os.close(self._fd)
        self._fd = fd

    def is_kept(self) -> bool:
        return self._fd >= 0 and os.fstat(self._fd).st_nlink > 0

    def release(self) -> None:
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            if self.is_kept():
                self._files.unlink(self._name)
        os.close(self._fd)
        self._fd = -1

    def _publish(self, data: bytes, rename: t.Callable[[str, str], None]) -> int:
        try:
            temp, fd = self._open_locked()
            try:
                file = AppendedFile(fd)
                file.write([data])
                file.sync()  # for readers on other hosts of a network filesystem
                rename(temp, self._name)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    self._files.unlink(temp)
                os.close(fd)
                raise
        except OSError as error:
            raise self._error_of(error) from error
        return fd


def is_abandoned(files: Beneath, name: str, remove: bool) -> bool:
    """Whether the process that a file stands for is dead, or the file gone; removes it if so and asked to.

    A file whose lock may not be asked for counts as held, and so does whatever is no file.
    """
    try:
        fd = _open_to_lock(files, name)
    except FileNotFoundError:
        return True
    except (PermissionError, NotAFile):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(fd).st_nlink:
            return not files.is_there(name)  # its process has just replaced it, or removed it
        if remove:
            files.unlink(name)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def _open_to_lock(files: Beneath, name: str) -> int:
    """Open for writing, as network filesystems ask for to lock, or for reading where writing is not possible."""
    try:
        return files.open(name, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return files.open(name, os.O_RDONLY)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files beneath a folder, whoever else may write there: a link inside it leads nowhere.

Every name is walked from the folder's descriptor, a part at a time and without following links, also when one is put
there at this very moment.  Only regular files are opened, so that no pipe hangs and no device is touched.  The folder
itself may be a link: who names it decides that.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: Filesystems without hard links say so in many ways.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class NotAFile(OSError):
    """What has the name is no regular file; the text tells what it is."""


class Beneath:
    """The files beneath ``root``; names have parts with ``/`` between them, and the caller has checked them."""

    def __init__(self, root: str) -> None:
        self.root = root

    @contextlib.contextmanager
    def folder(self, name: str) -> t.Iterator[int]:
        """A descriptor of a folder, of the root itself where the name is empty.

        Raises OSError: ENOENT; ENOTDIR or ELOOP where a link, or a file, is in the way.
        """
        fd = os.open(self.root, _FOLDER_FLAGS)
        try:
            for part in name.split("/") if name else ():
                below = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _parent(self, name: str) -> t.Iterator[tuple[int, str]]:
        folder, _slash, last = name.rpartition("/")
        with self.folder(folder) as fd:
            yield fd, last

    def status(self, name: str) -> os.stat_result:
        """What is known of a file.  Raises OSError, NotAFile."""
        with self._parent(name) as (parent, last):
            return _regular(os.stat(last, dir_fd=parent, follow_symlinks=False))

    def open(self, name: str, flags: int) -> int:
        """A descriptor of a file that is there.  Raises OSError, NotAFile."""
        with self._parent(name) as (parent, last):
            # Looked at first, as opening alone does something to some devices.
            _regular(os.stat(last, dir_fd=parent, follow_symlinks=False))
            fd = os.open(last, flags | _FILE_FLAGS, dir_fd=parent)
        try:
            _regular(os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def make(self, name: str) -> int:
        """A descriptor of a new file, for reading and writing.  Raises OSError."""
        with self._parent(name) as (parent, last):
            return os.open(last, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o600, dir_fd=parent)

    def make_folder(self, name: str) -> None:
        """Make a folder unless it is there; its name is durable when this returns.  Raises OSError."""
        with self._parent(name) as (parent, last):
            with contextlib.suppress(FileExistsError):
                os.mkdir(last, 0o700, dir_fd=parent)
            os.fsync(parent)

    def unlink(self, name: str) -> None:
        """Remove a name, whatever has it but a folder.  Raises OSError."""
        with self._parent(name) as (parent, last):
            os.unlink(last, dir_fd=parent)

    def rename(self, name: str, new: str) -> None:
        """Give a file another name, which is taken from whatever has it but a folder.  Raises OSError."""
        with self._parent(name) as (parent, last), self._parent(new) as (new_parent, new_last):
            os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)

    def rename_exclusive(self, name: str, new: str) -> None:
        """Give a file another name; FileExistsError when anything has that.  Raises OSError."""
        with self._parent(name) as (parent, last), self._parent(new) as (new_parent, new_last):
            try:
                os.link(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                # Without hard links: ids are random, so looking first is as good as it gets.
                if _is_there(new_last, new_parent):
                    raise FileExistsError(errno.EEXIST, "the name is taken", new) from error
                os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)
                return
            os.unlink(last, dir_fd=parent)

    def is_there(self, name: str) -> bool:
        """Whether anything has a name.  Raises OSError."""
        try:
            with self._parent(name) as (parent, last):
                return _is_there(last, parent)
        except FileNotFoundError:
            return False

    def sync_folder(self, name: str) -> None:
        """Make the names in a folder durable.  Raises OSError."""
        with self.folder(name) as fd:
            os.fsync(fd)

    def scan(self, name: str) -> list[tuple[str, str]]:
        """What is in a folder: last parts of names, and what has each.  Raises OSError.

        That is ``file``, ``folder``, ``link`` or ``special file``.
        """
        with self.folder(name) as fd, os.scandir(fd) as entries:
            return [(entry.name, _what(entry)) for entry in entries]


def _what(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "special file"


def _is_there(last: str, parent: int) -> bool:
    try:
        os.stat(last, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _regular(status: os.stat_result) -> os.stat_result:
    if stat.S_ISREG(status.st_mode):
        return status
    what = "a link" if stat.S_ISLNK(status.st_mode) else "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
    raise NotAFile(errno.EINVAL, f"it is {what}, where a regular file should be")

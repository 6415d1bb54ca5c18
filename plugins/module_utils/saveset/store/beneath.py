# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files beneath a folder to which untrusted parties may write: links inside it are not followed.

Every name is resolved from the folder's descriptor, one part at a time and without following links, so a link that is
created at the same time is not followed either.  Only regular files are opened, so no pipe blocks and no device is
touched.  The folder itself may be a link: that is the choice of the user who names it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import typing as t

from ..base.linux import rename_noreplace
from .refusal import LINK, MAKE, MAKE_FOLDER, RENAME, SYNC_FOLDER, UNLINK, cause_of, doing, sync_folder

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: Errors from link() that any other operation would meet as well.
_NOT_FOR_BEING_A_LINK = (
    errno.EEXIST,
    errno.ENOENT,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ESTALE,
    errno.ENOTDIR,
    errno.ELOOP,
)


class NotAFile(OSError):
    """The name belongs to something other than a regular file; the text says what it is."""


class NoLink(OSError):
    """The filesystem makes no hard links, the only sure way to take a name only if it is free."""


class Beneath:
    """The files beneath ``root``; names have parts separated by ``/``, and the caller has validated them."""

    def __init__(self, root: str) -> None:
        self.root = root
        #: Operations that the filesystem turned out not to support, with the cause; a fallback was used instead.
        self.lacks: dict[str, str] = {}

    @contextlib.contextmanager
    def folder(self, name: str) -> t.Iterator[int]:
        """A descriptor of a folder; an empty name stands for the root itself.

        Raises OSError: ENOENT; ENOTDIR or ELOOP if a link or a file is in the way.
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
        """The status of a regular file.  Raises OSError, NotAFile."""
        with self._parent(name) as (parent, last):
            return _regular(os.stat(last, dir_fd=parent, follow_symlinks=False))

    def open(self, name: str, flags: int) -> int:
        """A descriptor of an existing file.  Raises OSError, NotAFile."""
        with self._parent(name) as (parent, last):
            # Checked first, because merely opening some devices has side effects.
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
        with self._parent(name) as (parent, last), doing(MAKE):
            return os.open(last, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o600, dir_fd=parent)

    def make_folder(self, name: str) -> None:
        """Make a folder unless it exists; its name is durable when this returns.  Raises OSError."""
        with self._parent(name) as (parent, last):
            try:
                with doing(MAKE_FOLDER):
                    os.mkdir(last, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            except OSError:  # some filesystems refuse it before they look whether it exists
                if not _is_there(last, parent):
                    raise
            self._sync(parent)

    def unlink(self, name: str) -> None:
        """Remove a name, whatever it belongs to except a folder.  Raises OSError."""
        with self._parent(name) as (parent, last), doing(UNLINK):
            os.unlink(last, dir_fd=parent)

    def rename(self, name: str, new: str) -> None:
        """Rename a file, replacing whatever has the new name except a folder.  Raises OSError."""
        with self._parent(name) as (parent, last), self._parent(new) as (new_parent, new_last), doing(RENAME):
            os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)

    def rename_exclusive(self, name: str, new: str) -> None:
        """Rename a file; FileExistsError if anything has the new name.  Raises OSError, NoLink.

        The old name may stay where an open file cannot be removed: whoever closes the file removes it.
        """
        with self._parent(name) as (parent, last), self._parent(new) as (new_parent, new_last):
            try:
                with doing(LINK):
                    os.link(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent, follow_symlinks=False)
            except OSError as error:
                # A network filesystem may have made the link, lost the reply, and met its own link when it retried.
                if not _are_links((last, parent), (new_last, new_parent)):
                    if error.errno in _NOT_FOR_BEING_A_LINK:
                        raise
                    self.lacks[LINK] = cause_of(error)
                    raise NoLink(error.errno, error.strerror, new) from error
            with contextlib.suppress(OSError):
                os.unlink(last, dir_fd=parent)

    def rename_unless_taken(self, name: str, new: str) -> None:
        """The same without a hard link.

        The new name is looked up first and, where the system supports it, once more atomically with the rename;
        not all filesystems that claim support do so.
        """
        with self._parent(name) as (parent, last), self._parent(new) as (new_parent, new_last), doing(RENAME):
            if _is_there(new_last, new_parent):
                raise FileExistsError(errno.EEXIST, "the name is taken", new)
            try:
                rename_noreplace(parent, last, new_parent, new_last)
            except FileExistsError:
                raise
            except OSError:
                os.rename(last, new_last, src_dir_fd=parent, dst_dir_fd=new_parent)

    def is_there(self, name: str) -> bool:
        """Whether a name exists, whatever it belongs to.  Raises OSError."""
        try:
            with self._parent(name) as (parent, last):
                return _is_there(last, parent)
        except FileNotFoundError:
            return False

    def sync_folder(self, name: str) -> None:
        """Make the names in a folder durable.  Raises OSError."""
        with self.folder(name) as fd:
            self._sync(fd)

    def _sync(self, folder: int) -> None:
        refused = sync_folder(folder)
        if refused is not None:
            self.lacks[SYNC_FOLDER] = cause_of(refused)

    def scan(self, name: str) -> list[tuple[str, str]]:
        """The entries of a folder: the last part of each name, and its kind.  Raises OSError.

        A kind is ``file``, ``folder``, ``link`` or ``special file``.
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


def _are_links(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two names, each with the descriptor of its folder, are links to one file."""
    try:
        first, second = (os.stat(last, dir_fd=folder, follow_symlinks=False) for last, folder in (one, other))
    except OSError:
        return False
    return os.path.samestat(first, second) and first.st_nlink > 1


def _regular(status: os.stat_result) -> os.stat_result:
    if stat.S_ISREG(status.st_mode):
        return status
    what = (
        "a link" if stat.S_ISLNK(status.st_mode) else "a folder" if stat.S_ISDIR(status.st_mode) else "a special file"
    )
    raise NotAFile(errno.EINVAL, f"it is {what}, where a regular file should be")

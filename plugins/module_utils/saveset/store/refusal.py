# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What filesystems refuse: errors that name the operation, and the remedy for the repository's administrator."""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

#: The operations, as named in errors.
LINK = "making a hard link (link)"
LOCK = "locking a file (flock)"
MAKE = "making a file (open with O_CREAT and O_EXCL)"
MAKE_FOLDER = "making a folder (mkdir)"
RENAME = "renaming a file (rename)"
SYNC = "making a file durable (fsync)"
SYNC_FOLDER = "making names in a folder durable (fsync)"
UNLINK = "removing a file (unlink)"
WRITE = "writing to a file (write)"

_RIGHTS = "Check the folder's permissions, and whether it is mounted read-only"
_STORAGE = "Check the underlying storage: what was written last may not be on it"
_WAYS_OUT = {
    LOCK: "Mount it so that locks work (NFS: version 4, or version 3 with lockd; CIFS: without nobrl; FUSE: with a "
    "program that supports flock), or keep the repository on another filesystem: locks show who is using it",
    MAKE: _RIGHTS,
    MAKE_FOLDER: _RIGHTS,
    RENAME: f"{_RIGHTS}. A repository needs a filesystem where files can be renamed from one of its folders to another "
    "(mergerfs: set ignorepponrename=true, or a create policy that preserves no paths)",
    SYNC: _STORAGE,
    SYNC_FOLDER: _STORAGE,
    UNLINK: f"{_RIGHTS}. A repository needs a filesystem where files can be removed",
    WRITE: _STORAGE,
}
#: Errors that mean a filesystem does not support this for folders, rather than that it failed.
_NO_FOLDER_SYNC = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EBADF", "EBUSY", "EINVAL", "ENOLCK", "ENOSYS", "ENOTSUP", "ENOTTY", "EOPNOTSUPP", "EPERM"),
        *("EROFS", "EXDEV"),
    )
)


@contextlib.contextmanager
def doing(operation: str) -> t.Iterator[None]:
    """Add the name of the operation to an OSError."""
    try:
        yield
    except OSError as error:
        error.add_note(operation)
        raise


def sync_folder(fd: int) -> OSError | None:
    """Make the names in a folder durable; returns the error if the filesystem does not support that for folders.

    Raises OSError if it is supported and failed.
    """
    try:
        with doing(SYNC_FOLDER):
            os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        return error
    return None


def cause_of(error: OSError) -> str:
    """The operation that was refused, and the error."""
    text = error.strerror or str(error)
    code = errno.errorcode.get(error.errno or 0)
    operation = _operation_of(error)
    return f"{operation} was refused: {text} ({code})" if operation else text


def way_out_of(error: OSError) -> str:
    """The remedy for an error."""
    default = "Check the folder's permissions and the underlying storage, then try again"
    return _WAYS_OUT.get(_operation_of(error), default)


def _operation_of(error: OSError) -> str:
    return next(iter(getattr(error, "__notes__", ())), "")

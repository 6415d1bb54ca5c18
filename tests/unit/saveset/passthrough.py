# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real filesystem that shows a folder as it is, but that one operation ends with one error: FUSE.

``python3 passthrough.py FOLDER MOUNT_POINT OPERATION ERRNO`` runs it until it is unmounted.  Removed files are removed
at once, also when they are open; names and attributes are never cached, so that another client is noticed at once.
"""

from __future__ import annotations

import collections
import errno
import fcntl
import os
import sys
import threading
import typing as t

import mfusepy

Id = tuple[int, int]


class Passthrough(mfusepy.Operations):
    """Every call goes to the same path below ``root``."""

    use_ns = True

    def __init__(self, root: str, operation: str, number: int) -> None:
        self._root = root
        self._operation = operation
        self._number = number
        self._open: collections.Counter[Id] = collections.Counter()
        self._lock = threading.Lock()

    def _below(self, path: str) -> str:
        return self._root + path

    def _refuse(self, operation: str) -> None:
        if operation == self._operation:
            raise OSError(self._number, os.strerror(self._number))

    def _opened(self, fd: int) -> int:
        with self._lock:
            self._open[_id_of(os.fstat(fd))] += 1
        return fd

    # What may be refused.

    def link(self, target: str, source: str) -> None:
        self._refuse("link")
        os.link(self._below(source), self._below(target))

    def unlink(self, path: str) -> None:
        with self._lock:
            if self._open[_id_of(os.lstat(self._below(path)))]:
                self._refuse("unlink of an open file")
        os.unlink(self._below(path))

    def fsyncdir(self, path: str, _datasync: int, _fh: int) -> None:
        self._refuse("fsync of a folder")

    def flock(self, _path: str, fh: int, operation: int) -> None:
        self._refuse("flock")
        fcntl.flock(fh, operation)

    # What is not.

    def getattr(self, path: str, fh: int | None = None) -> dict[str, t.Any]:
        status = os.lstat(self._below(path)) if fh is None else os.fstat(fh)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_ino", "st_blocks", "st_blksize")
        times = {f"st_{name}time": getattr(status, f"st_{name}time_ns") for name in "amc"}
        return {**{name: getattr(status, name) for name in names}, **times}

    def readdir(self, path: str, _fh: int) -> t.Iterator[tuple[str, dict[str, int], int]]:
        for name in (".", "..", *os.listdir(self._below(path))):
            status = os.lstat(os.path.join(self._below(path), name))
            yield name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0

    def open(self, path: str, flags: int) -> int:
        return self._opened(os.open(self._below(path), flags & ~os.O_DIRECT))

    def create(self, path: str, mode: int, flags: int = 0) -> int:
        return self._opened(os.open(self._below(path), flags & ~os.O_DIRECT | os.O_CREAT, mode))

    def release(self, _path: str, fh: int) -> None:
        with self._lock:
            self._open[_id_of(os.fstat(fh))] -= 1
        os.close(fh)

    def read(self, _path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, _path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._below(path) if fh is None else fh, length)

    def fsync(self, _path: str, _datasync: int, _fh: int) -> None:
        pass  # what the disk has when the power fails is no matter here

    def flush(self, _path: str, _fh: int) -> None:
        pass

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._below(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._below(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._below(old), self._below(new))

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._below(path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_") and name != "f_fsid"}


def _id_of(status: os.stat_result) -> Id:
    return status.st_dev, status.st_ino


if __name__ == "__main__":
    folder, mount_point, refused, code = sys.argv[1:]
    mfusepy.FUSE(
        Passthrough(folder, refused, getattr(errno, code)),
        mount_point,
        foreground=True,
        hard_remove=True,
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
    )

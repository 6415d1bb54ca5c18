# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens files of a copy, and nothing else: follows no link, and never blocks on a FIFO or a device."""

from __future__ import annotations

import os
import stat

from .errors import CheckFailed

FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_beneath(root: str, below: str, flags: int) -> int:
    """A descriptor of ``below`` (relative; empty for ``root`` itself). Raises OSError, also for a link.

    Opens directory by directory, each from the previous descriptor: if a directory is swapped for a link meanwhile,
    this only fails.
    """
    *folders, last = [part for part in below.split("/") if part not in ("", ".")] or [""]
    if ".." in (*folders, last):
        raise ValueError(f"{below} has not been resolved")
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            descriptor, before = _open(folder, FOLDER, descriptor, root), descriptor
            os.close(before)
        if last:
            return _open(last, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, descriptor, root)
        return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    finally:
        os.close(descriptor)


def _open(name: str, flags: int, folder: int, root: str) -> int:
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.path.join(_path(folder, root), name)) from error


def _path(folder: int, root: str) -> str:
    """The name of a directory in errors."""
    try:
        return os.readlink(f"/proc/self/fd/{folder}")
    except OSError:
        return root


def is_file(root: str, below: str) -> bool:
    """Whether it is a regular file whose path has no link."""
    try:
        descriptor = open_beneath(root, below, os.O_PATH)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def read_file(root: str, below: str, most: int, name: str) -> bytes:
    """The content of a small file. Raises OSError, and CheckFailed if it is not regular or exceeds ``most`` bytes.

    ``name``: its name in the error.
    """
    descriptor = open_beneath(root, below, os.O_RDONLY)
    with open(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckFailed(f"{name} in the copy is not a regular file: the copy is damaged or was tampered with")
        if status.st_size > most:
            raise CheckFailed(f"{name} in the copy has {status.st_size} bytes, more than {most}: the copy is damaged")
        return stream.read(most) or b""

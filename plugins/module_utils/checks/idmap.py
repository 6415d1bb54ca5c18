# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes files of a copy belong to a user of this host, without changing them: an ID-mapped mount.

Requires Linux 5.12 and filesystem support (ext4 and xfs since 5.12, btrfs since 5.15).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Callable, Iterator

from .isolation import User

CLONE_NEWUSER = 0x10000000
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
"""System call numbers; those of recent calls are the same on all architectures."""
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_EMPTY_PATH = 1, os.O_CLOEXEC, 0x1000
FROM_DESCRIPTOR, TO_DESCRIPTOR = 0x4, 0x40
NOSUID, NODEV, NOEXEC, IDMAP = 0x2, 0x4, 0x8, 0x100000


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "namespace")]


def mapped(descriptor: int, owner: User, user: User) -> Callable[[int], None] | None:
    """A mount of the descriptor's file or directory that maps ``owner`` to ``user``; None if that is not possible.

    In it other users' files belong to nobody, and no file is executable or a device. The mount is detached until the
    returned function is called with the descriptor of its mount point; that may raise OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
    tree = libc.syscall(OPEN_TREE, descriptor, b"", ctypes.c_uint(flags))
    if tree < 0:
        return None
    if not _map(libc, tree, owner, user):
        os.close(tree)
        return None

    def attach(place: int) -> None:
        flags = ctypes.c_uint(FROM_DESCRIPTOR | TO_DESCRIPTOR)
        try:
            if libc.syscall(MOVE_MOUNT, tree, b"", place, b"", flags) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(tree)

    return attach


def _map(libc: ctypes.CDLL, tree: int, owner: User, user: User) -> bool:
    with _namespace(libc, owner, user) as namespace:
        if namespace is None:
            return False
        wanted = _Attributes(NOSUID | NODEV | NOEXEC | IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(ctypes.sizeof(wanted))
        done: int = libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(wanted), size)
        return done == 0


@contextlib.contextmanager
def _namespace(libc: ctypes.CDLL, owner: User, user: User) -> Iterator[int | None]:
    """A descriptor of a user namespace with the mapping; None if it cannot be created."""
    ready, told = os.pipe()
    done, wait = os.pipe()
    pid = os.fork()
    if pid == 0:  # only lends its namespace
        try:
            os.close(wait)
            os.write(told, b"y" if libc.unshare(CLONE_NEWUSER) == 0 else b"n")
            os.read(done, 1)
        finally:
            os._exit(0)
    opened = None
    try:
        os.close(told)
        opened = _opened(pid, owner, user) if os.read(ready, 1) == b"y" else None
        yield opened
    finally:
        for descriptor in (ready, done, wait, *([] if opened is None else [opened])):
            os.close(descriptor)
        os.waitpid(pid, 0)


def _opened(pid: int, owner: User, user: User) -> int | None:
    for name, there, here in (("uid_map", owner.uid, user.uid), ("gid_map", owner.gid, user.gid)):
        try:
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as stream:
                stream.write(f"{there} {here} 1\n")
        except OSError:
            return None
    return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

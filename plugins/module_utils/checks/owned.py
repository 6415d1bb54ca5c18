# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives the programs of a check, which run as a user who owns nothing, access to their files.

a mount that maps the owner to the user   costs nothing and changes nothing; needs Linux 5.12 and its own mounts
changing the owner                        if the mounts are discarded with the drill anyway
a copy                                    if neither is possible, or nothing may be written
"""

from __future__ import annotations

import os
import stat

from .bench import Bench
from .errors import CheckFailed
from .idmap import mapped
from .isolation import User, bind, may
from .places import Places
from .space import copy_file, give_folder

READ_WRITE = stat.S_IRUSR | stat.S_IWUSR


def own_file(places: Places, path: str, name: str, bench: Bench, copy: bool = False) -> str:
    """The path in the check's directory, under our own name, at which the check's user can use a file of the copy.

    ``path`` is a result of ``Places.resolve``. With ``copy``, or if the file cannot be written, it is a copy. Raises
    CheckFailed, OSError.
    """
    target, called = os.path.join(bench.work, name), places.there(path)
    descriptor = places.open(path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckFailed(f"{called} in the copy is not a regular file")
        read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
        if copy or read_only or not _lent(descriptor, path, target, bench):
            copy_file(_of(descriptor), target, called, bench)
    finally:
        os.close(descriptor)
    return target


def _lent(descriptor: int, path: str, target: str, bench: Bench) -> bool:
    """Whether the file itself is now at ``target``, where the check's user can read and write it."""
    if bench.user is None:  # an ordinary user's own check
        return _linked(path, target, bench)
    status = os.fstat(descriptor)
    if bench.own_mounts and status.st_mode & READ_WRITE == READ_WRITE:
        attach = mapped(descriptor, User(status.st_uid, status.st_gid), bench.user)
        if attach is not None:
            place = _new_file(target)
            attach(place)
            os.close(place)
            return True
    if not bench.disposable:
        return False
    os.chown(_of(descriptor), *bench.user)
    os.chmod(_of(descriptor), stat.S_IMODE(status.st_mode) & 0o777 | READ_WRITE)
    if not bench.own_mounts:
        return _linked(path, target, bench)
    os.close(_new_file(target))
    bind(_of(descriptor), target)
    return True


def _linked(path: str, target: str, bench: Bench) -> bool:
    os.symlink(path, target)
    if may(bench.user, target, os.R_OK | os.W_OK):
        return True
    os.unlink(target)
    return False


def _new_file(path: str) -> int:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)


def _of(descriptor: int) -> str:
    return f"/proc/{os.getpid()}/fd/{descriptor}"


class Volumes:
    """The drill's mounts, as seen by a check's programs, to which ``owner``'s files belong."""

    def __init__(self, places: Places, owner: User, bench: Bench) -> None:
        self._places = places
        self._owner = owner
        self._bench = bench
        self._mapped: set[str] = set()
        self._given: set[str] = set()

    def map(self) -> None:
        """Map the owner's files to the check's user, in place, on all mounts that support it."""
        if self._bench.user is None or not self._bench.own_mounts:
            return
        roots = {here: os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for here in self._places.roots}
        found = {here: mapped(root, self._owner, self._bench.user) for here, root in roots.items()}
        for here, attach in sorted(found.items()):  # a mount before those below it
            if attach is not None:
                place = os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                attach(place)
                os.close(place)
                self._mapped.add(here)
        for root in roots.values():
            os.close(root)

    def lend(self, path: str) -> bool:
        """Give a directory with all the owner's content to the check's user, if possible. Raises CheckFailed."""
        root, _below = self._places.split(self._places.there(path))
        if root in self._mapped or self._bench.user is None:
            return True
        if not self._bench.disposable:
            return False
        if path not in self._given:
            give_folder(path, self._bench)
            self._given.add(path)
        if self._bench.own_mounts:
            bind(path, path)
        return True

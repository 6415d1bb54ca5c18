# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder on which one operation ends with one error, as on many a network filesystem: the calls themselves fail."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import beneath

from .media import LINK, SYNC, UNLINK


class Refusing:
    """The calls of this process on what is below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"

    @contextlib.contextmanager
    def refuse(self, operation: str, code: str) -> t.Iterator[None]:
        """Have one operation fail."""
        self._error = getattr(errno, code)
        with pytest.MonkeyPatch.context() as patch:
            if operation == LINK:
                patch.setattr(os, "link", self._failing(os.link, self._links_here))
            elif operation == UNLINK:
                patch.setattr(os, "unlink", self._failing(os.unlink, self._is_open))
            elif operation == SYNC:
                patch.setattr(os, "fsync", self._failing(os.fsync, self._is_folder))
            else:
                patch.setattr(fcntl, "flock", self._failing(fcntl.flock, lambda fd, _flags: self._is_here(fd)))
            yield

    @contextlib.contextmanager
    def without_exclusive_renames(self) -> t.Iterator[None]:
        """Neither hard links nor renames that fail where the name is taken."""
        self._error = errno.EPERM
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "link", self._failing(os.link, self._links_here))
            patch.setattr(beneath, "rename_noreplace", self._failing(None, lambda *_arguments: True))
            yield

    def _failing(self, real: t.Any, is_meant: t.Callable[..., bool]) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any, **options: t.Any) -> t.Any:
            if is_meant(*arguments, **options):
                raise OSError(self._error, os.strerror(self._error))
            return real(*arguments, **options)

        return call

    def _is_here(self, fd: int) -> bool:
        return f"{os.readlink(f'/proc/self/fd/{fd}')}/".startswith(self._root)

    def _links_here(self, *_names: t.Any, src_dir_fd: int | None = None, **_options: t.Any) -> bool:
        return src_dir_fd is not None and self._is_here(src_dir_fd)

    def _is_folder(self, fd: int) -> bool:
        return stat.S_ISDIR(os.fstat(fd).st_mode) and self._is_here(fd)

    def _is_open(self, name: t.Any, *, dir_fd: int | None = None) -> bool:
        if dir_fd is None or not self._is_here(dir_fd):
            return False
        try:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return any(_is_same(fd, status) for fd in os.listdir("/proc/self/fd"))


def _is_same(fd: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(int(fd)), status)
    except OSError:
        return False

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes copies for checks that change their files, if those must not be changed.

Only content and links are copied: production's setuid programs must not end up on this host's own disk. ``cp`` finds
its source through our own link, so no name from the copy is on its command line.
"""

from __future__ import annotations

import os
import shutil

from ..host.users import environment_of
from .base import telling
from .bench import Bench
from .errors import CheckFailed

RESERVE = 64 * 1024 * 1024
"""Bytes that a copy must leave free."""
COPY = ("cp", "--reflink=auto", "--sparse=always", "--no-preserve=mode,ownership")


def writable(path: str) -> bool:
    """Whether a file or directory may be changed here."""
    return os.access(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY


def copy_file(source: str, target: str, name: str, bench: Bench) -> None:
    """Copy a file for the check's programs, which own the copy. ``name``: its name in errors. Raises CheckFailed."""
    size = os.stat(source).st_blocks * 512
    _copy(["--dereference"], source, "", target, size, name, bench)
    _give(target, 0o600, bench)


def copy_folder(source: str, target: str, name: str, bench: Bench) -> None:
    """Copy a directory tree for the check's programs, which own the copy; links stay links. Raises CheckFailed.

    It must contain only files, directories and links.
    """
    size = 0
    for folder, _folders, files in os.walk(source, onerror=_raise):
        bench.left()
        size += sum(os.lstat(os.path.join(folder, each)).st_blocks * 512 for each in files)
    os.mkdir(target, 0o700)
    _copy(["--recursive", "--no-dereference"], source, "/.", target, size, name, bench)
    give_folder(target, bench)


def give_folder(path: str, bench: Bench) -> None:
    """Make the check's user the owner of a directory tree. Raises CheckFailed, OSError."""
    if bench.user is None:
        return
    for _folder, folders, files, descriptor in os.fwalk(path, onerror=_raise, follow_symlinks=False):
        bench.left()
        for each in folders + files:
            os.chown(each, *bench.user, dir_fd=descriptor, follow_symlinks=False)
    _give(path, 0o700, bench)


def _give(path: str, mode: int, bench: Bench) -> None:
    if bench.user is not None:
        os.chown(path, *bench.user)
    os.chmod(path, mode)


def _raise(error: OSError) -> None:
    raise error


def _copy(options: list[str], source: str, below: str, target: str, size: int, name: str, bench: Bench) -> None:
    free = shutil.disk_usage(bench.work).free - RESERVE
    if size > free:
        raise CheckFailed(
            f"{name} cannot be changed in place, and a copy needs {size} bytes, but only {max(free, 0)} are free in "
            f"{os.path.dirname(bench.work)}: mount it from an overlay, or set 'scratch' to another directory"
        )
    link = f"{target}.source"
    os.symlink(source, link)
    copied = bench.call([*COPY, *options, link + below, target], environment_of(None), with_rights=True)
    os.unlink(link)
    if copied.rc != 0:
        raise CheckFailed(f"{name} cannot be copied: {telling(copied.output, 'cp:')}")

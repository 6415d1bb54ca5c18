# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies for checks that change what they look at, where that may not be changed."""

from __future__ import annotations

import os
import shutil

from ..quiesce.users import environment_of
from .base import telling
from .bench import Bench
from .errors import CheckFailed

RESERVE = 64 * 1024 * 1024
"""Bytes that a copy leaves free."""


def writable(path: str) -> bool:
    """Whether a file or folder may be changed here."""
    return os.access(path, os.W_OK) and not os.statvfs(path).f_flag & os.ST_RDONLY


def copy_file(source: str, target: str, bench: Bench) -> None:
    """Copy a file. Raises CheckFailed."""
    _copy(["--reflink=auto", "--sparse=always"], source, target, os.stat(source).st_blocks * 512, bench)


def copy_folder(source: str, target: str, bench: Bench) -> None:
    """Copy a folder with all that is in it, its owners and its links. Raises CheckFailed."""
    size = 0
    for folder, _folders, files in os.walk(source, onerror=_raise):
        bench.left()
        size += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in files)
    _copy(["--archive", "--reflink=auto", "--sparse=always"], source, target, size, bench)


def _raise(error: OSError) -> None:
    raise error


def _copy(options: list[str], source: str, target: str, size: int, bench: Bench) -> None:
    free = shutil.disk_usage(bench.work).free - RESERVE
    if size > free:
        raise CheckFailed(
            f"{source} is mounted read-only, and its copy needs {size} bytes, of which there are {max(free, 0)} in "
            f"{os.path.dirname(bench.work)}: mount it from an overlay, or name another 'scratch'"
        )
    copied = bench.call(["cp", *options, source, target], environment_of(None))
    if copied.rc != 0:
        raise CheckFailed(f"{source} cannot be copied: {telling(copied.output, 'cp:')}")

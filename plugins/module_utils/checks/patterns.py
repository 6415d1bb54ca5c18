# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expands paths and patterns of production to files of the copy.

It does not use ``glob``, which would follow links to this host and treat unreadable directories as empty.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from typing import Iterator

from .errors import CheckFailed
from .places import Places

WILD = "*?["
DEEP = "**"


def is_wild(pattern: str) -> bool:
    """Whether it may match more than one path."""
    return any(sign in pattern for sign in WILD)


def literal(path: str) -> str:
    """A path as a pattern that matches only this path."""
    return "".join(f"[{sign}]" if sign in WILD else sign for sign in path)


def matching(places: Places, pattern: str, must: bool = True) -> list[str]:
    """The regular files of this host that match a pattern of production, without links.

    ``*``, ``?`` and ``[...]`` match within a name, except a leading dot; ``**`` matches any directories. Links to what
    is not in the copy do not match a pattern, but are an error for a plain path. Raises CheckFailed, with ``must`` also
    if no file matches; and OSError.
    """
    folder, below = places.split(pattern)
    found = [folder]
    lenient = is_wild(pattern)
    parts = below.split("/") if below else []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        found = [path for each in found for path in _step(_resolve(places, each, lenient), part, last)]
    files = [_resolve(places, path, lenient) for path in found]
    files = list(dict.fromkeys(path for path in files if path and _is_file(path)))
    if not files and must:
        raise CheckFailed(f"{pattern}: there is no such file in the copy")
    return files


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _step(folder: str, part: str, last: bool) -> Iterator[str]:
    """The matches of one part of a pattern in a directory."""
    if not folder or not os.path.isdir(folder):
        return
    if part == DEEP:
        for below in _folders(folder):
            if last:
                yield from (os.path.join(below, name) for name in sorted(os.listdir(below)))
            else:
                yield below
        return
    for name in sorted(os.listdir(folder)):
        if fnmatch.fnmatchcase(name, part) and (part.startswith((".", "[.]")) or not name.startswith(".")):
            yield os.path.join(folder, name)


def _folders(top: str) -> Iterator[str]:
    """A directory and all directories below, without following links. Raises OSError if one cannot be read."""
    for folder, folders, _files in os.walk(top, onerror=_raise):
        folders.sort()
        yield folder


def _raise(error: OSError) -> None:
    raise error


def _resolve(places: Places, path: str, lenient: bool) -> str:
    try:
        return places.resolve(path) if os.path.islink(path) else path
    except CheckFailed:
        if not lenient:
            raise
        return ""

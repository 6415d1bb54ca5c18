# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a journal, read as one: the newest, at the journal's path, and the older ones, which were moved aside.

An older file is named ``<path>.<number>``, after its last record (12 digits or more), and never changes again. Where
there are only older files, the writer died after moving the newest one aside, and the next record begins a new one.
"""

from __future__ import annotations

import os
import re
from typing import BinaryIO, Iterable, Iterator, NamedTuple

from ..host import records
from . import lines


class Line(NamedTuple):
    """A complete line, without its line feed. ``number``: its place in ``file``, counted from the end if negative."""

    file: str
    number: int
    content: bytes


def forwards(path: str) -> Iterator[Line]:
    """Yield the lines of a journal, oldest first."""
    with _open_newest(path) as newest:
        for file in _older(path, newest):
            with open(file, "rb") as stream:
                yield from _numbered(file, lines.forwards(stream), 1)
        yield from _numbered(path, lines.forwards(newest), 1)


def backwards(path: str) -> Iterator[Line]:
    """Yield the lines of a journal, newest first. Reads only what is asked for."""
    with _open_newest(path) as newest:
        yield from _numbered(path, lines.backwards(newest), -1)
        for file in reversed(_older(path, newest)):
            with open(file, "rb") as stream:
                yield from _numbered(file, lines.backwards(stream), -1)


def move_aside(path: str, number: int) -> None:
    """Make the newest file, whose last record has this number, an older one. Never replaces another."""
    aside = f"{path}.{number:012}"
    if not os.path.exists(aside):  # only a journal that was tampered with has it: its chain tells
        os.rename(path, aside)
        records.sync_folder(path)


def _open_newest(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return open(os.devnull, "rb")  # a file without lines


def _older(path: str, newest: BinaryIO) -> list[str]:
    """The older files, oldest first; without those that became older while ``newest`` was being read."""
    folder, name = os.path.split(path)
    form = re.compile(re.escape(name) + r"\.([0-9]{12,})\Z")
    try:
        found = [match for match in map(form.match, os.listdir(folder)) if match]
    except FileNotFoundError:
        return []
    files = []
    for match in sorted(found, key=lambda match: int(match.group(1))):
        file = os.path.join(folder, match.group())
        if os.path.samestat(os.stat(file), os.fstat(newest.fileno())):
            break
        files.append(file)
    return files


def _numbered(file: str, contents: Iterable[bytes], step: int) -> Iterator[Line]:
    for number, content in enumerate(contents, start=1):
        yield Line(file, step * number, content)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mounts that a process sees, from the kernel's ``mountinfo`` (proc(5)).

This is the project's only reader of it. Standard library only, Python 3.8: this runs on every host.
"""

from __future__ import annotations

import os
import typing as t

from . import kerneltables

OWN = "/proc/self/mountinfo"


class Mount(t.NamedTuple):
    """One mount. ``device`` (``major:minor``) identifies the filesystem: all mounts of one filesystem share it.

    ``root`` is the part of the filesystem that is mounted; ``options`` are those of the filesystem, separated by
    commas; ``source`` is what the filesystem reports as its source.
    """

    number: int
    device: str
    point: str
    type: str
    root: str = "/"
    options: str = ""
    source: str = ""


def mounts(path: str = OWN) -> list[Mount]:
    """All mounts, the latest last. Raises OSError."""
    return [_parsed(line) for line in kerneltables.lines(path)]


def parse(table: bytes) -> list[Mount]:
    """The mounts of a table's content."""
    return [_parsed(line) for line in kerneltables.split(table)]


def _parsed(line: bytes) -> Mount:
    # Any number of optional fields, ended by a lone dash, separate the mount's fields from the filesystem's.
    left, _dash, right = line.partition(b" - ")
    own, (kind, source, options) = left.split(b" "), right.split(b" ", 2)
    number, device, root, point = own[0], own[2], own[3], own[4]
    name = kerneltables.name
    return Mount(
        int(number), os.fsdecode(device), name(point), name(kind), name(root), os.fsdecode(options), name(source)
    )

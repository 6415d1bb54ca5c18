# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the kernel's tables: lines of fields, in which untrusted users may choose the bytes of names.

Only a line feed ends a line, and only a blank ends a field. In names, these two, tabs and backslashes are written in
octal, as in ``\\040``. All other bytes are literal: a carriage return, a form feed, or the bytes of a no-break space
are part of a name, which need not be UTF-8. So tables are split as bytes, and each name is decoded as Python decodes
file names, so that it opens exactly that file. Standard library only, Python 3.8: this runs on all hosts.
"""

from __future__ import annotations

import os
import re

_OCTAL = re.compile(rb"\\([0-7]{3})")


def lines(path: str) -> list[bytes]:
    """The lines of a table. Raises OSError."""
    with open(path, "rb") as stream:
        return split(stream.read())


def split(table: bytes) -> list[bytes]:
    """The lines of a table's content."""
    return [line for line in table.split(b"\n") if line]


def name(field: bytes) -> str:
    """The name that a field holds."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def swaps(path: str = "/proc/swaps") -> list[str]:
    """The paths of the swap areas. Raises OSError."""
    # Blanks and tabs separate the columns; a heading precedes one line per area.
    return [name(line.replace(b"\t", b" ").partition(b" ")[0]) for line in lines(path)[1:]]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Iterates over the complete lines of an open file, forwards or backwards, and reads only what is asked for.

A line is complete with its line feed. Anything after the last one was torn by a power loss, and is never returned.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Iterator

BLOCK = 1 << 14


def forwards(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the complete lines of an open file, from the first on."""
    for line in stream:
        if line.endswith(b"\n"):
            yield line[:-1]


def backwards(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the complete lines of an open file, from the last on."""
    rest, torn = [], True  # pieces of a line whose beginning has not been read yet, the last piece first
    for block in _blocks(stream):
        *lines, piece = reversed(block.split(b"\n"))
        for line in lines:
            rest.append(line)
            if not torn:
                yield b"".join(reversed(rest))
            rest, torn = [], False
        rest.append(piece)
    if not torn:
        yield b"".join(reversed(rest))


def end_of_whole(stream: BinaryIO) -> int:
    """The offset at which the last complete line of an open file ends."""
    end = stream.seek(0, os.SEEK_END)
    for block in _blocks(stream):
        at = block.rfind(b"\n")
        if at >= 0:
            return end - len(block) + at + 1
        end -= len(block)
    return 0


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the blocks of an open file, from its end to its beginning."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - BLOCK)
        stream.seek(begin)
        block = stream.read(end - begin)
        yield block
        end = begin

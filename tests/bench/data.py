# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The image that is backed up: stretches of M database, of this machine's files, random bytes, zeros and holes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import typing as t
from pathlib import Path

from .mblocks import BLOCK_BYTES, BlockMaker

MIB = 1 << 20
STRETCH_BYTES = 16 * MIB

#: Where the files come from.
FILES = Path("/usr")

#: Per cent of the image: like a LUN of which three quarters are used.
DEFAULT_SHARES = {"m": 40, "files": 30, "random": 5, "zeros": 5, "holes": 20}

Shares = dict[str, int]


def parse_shares(text: str) -> Shares:
    """Read ``m=40,files=30,random=5,zeros=5,holes=20``, per cents that add up to 100.  Raises ValueError."""
    shares = dict.fromkeys(DEFAULT_SHARES, 0)
    for item in text.split(","):
        name, _equals, number = item.partition("=")
        if name not in shares or not number.isdigit():
            raise ValueError(f"share {item!r}: name one of {', '.join(shares)} and a whole number, like m=40")
        shares[name] = int(number)
    if sum(shares.values()) != 100:
        raise ValueError(f"shares {text!r} add up to {sum(shares.values())}, not to 100 per cent")
    return shares


def layout(size: int, shares: Shares) -> list[str]:
    """The kind of each stretch: every kind spread evenly over the image, as near to its share as stretches allow."""
    count = -(-size // STRETCH_BYTES)
    given = dict.fromkeys(shares, 0)
    kinds = []
    for number in range(1, count + 1):
        kind = max(shares, key=lambda name: shares[name] * number / 100 - given[name])
        given[kind] += 1
        kinds.append(kind)
    return kinds


def make_image(path: Path, size: int, shares: Shares, seed: int = 1) -> Shares:
    """Write the image of ``size`` bytes (a multiple of 8 KiB) to ``path``; returns how many bytes each kind got.

    The same seed, size, shares and files under /usr give the same image.
    Raises ValueError when this machine has too few files.
    """
    if size % BLOCK_BYTES or size <= 0:
        raise ValueError(f"size {size} is not a multiple of {BLOCK_BYTES} bytes")
    kinds = layout(size, shares)
    lengths = [min(STRETCH_BYTES, size - number * STRETCH_BYTES) for number in range(len(kinds))]
    with open(path, "wb") as image:
        image.truncate(size)
    files = list_files(FILES)
    made = dict.fromkeys(shares, 0)
    with concurrent.futures.ProcessPoolExecutor() as pool:
        works = []
        for number, (kind, length) in enumerate(zip(kinds, lengths, strict=True)):
            made[kind] += length
            if kind != "holes":
                parts = take_files(files, length) if kind == "files" else []
                offset = number * STRETCH_BYTES
                works.append(pool.submit(_write_stretch, path, offset, kind, length, f"{seed}/{number}", parts))
        for work in works:
            work.result()
    return made


def stretch_bytes(kind: str, length: int, seed: str) -> bytes:
    """The content of a stretch that needs no files; the same for the same seed."""
    if kind == "m":
        return b"".join(BlockMaker(seed).blocks(length // BLOCK_BYTES))
    if kind == "random":
        return random.Random(seed).randbytes(length)
    return bytes(length)


class FilePart(t.NamedTuple):
    """The first ``length`` bytes of a file, filled up with zeros."""

    path: str
    length: int


def list_files(folder: Path) -> t.Iterator[FilePart]:
    """All files in the order of their names, each filled up to whole blocks of 4 KiB as filesystems do it."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            with contextlib.suppress(OSError):  # a file that vanished since its folder was read
                if os.path.isfile(path) and not os.path.islink(path):
                    yield FilePart(path, -(-os.path.getsize(path) // 4096) * 4096)


def take_files(parts: t.Iterator[FilePart], length: int) -> list[FilePart]:
    """The next parts, ``length`` bytes in all; the last file is cut.  Raises ValueError when the files are too few."""
    taken = []
    while length > 0:
        part = next(parts, None)
        if part is None:
            raise ValueError(f"{FILES} holds too few files: choose a smaller SIZE, or a smaller share of files")
        taken.append(part._replace(length=min(part.length, length)))
        length -= taken[-1].length
    return taken


def _write_stretch(path: Path, offset: int, kind: str, length: int, seed: str, parts: list[FilePart]) -> None:
    with open(path, "r+b") as image:
        image.seek(offset)
        if kind != "files":
            image.write(stretch_bytes(kind, length, seed))
            return
        for part in parts:
            with open(part.path, "rb") as file:
                image.write(file.read(part.length).ljust(part.length, b"\0"))

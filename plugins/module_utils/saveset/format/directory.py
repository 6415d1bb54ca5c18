# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory of a map: its leaves, and the packs that each of them uses.

It is kept packed in memory, because a volume of many TiB has tens of thousands of leaves.
"""

from __future__ import annotations

import array
import operator
import struct
import sys
import typing as t

from ..base.errors import InvalidValue
from ..base.extent import HOLE, ZERO
from .bounds import CHUNK_SIZES, DIRECTORY_MAX, LEAVES_MAX, VOLUME_BYTES_MAX
from .page import LEAF_ENTRIES

#: Head: volume size, chunk size, entries per leaf, number of leaves, number of packs, number of pack numbers.
_HEAD = struct.Struct("<QIIQQQ")
_LEAF = struct.Struct("<16sQII32s32s")
_PACK_BYTES = 16

#: Kind of a leaf that has a page; leaves that are all HOLE or all ZERO have none.
PAGE = 2


class Leaf(t.NamedTuple):
    """A leaf: the map that holds its page, the page's frame there, its kind, the page's hash, the content's digest."""

    map_id: bytes
    offset: int
    length: int
    kind: int
    page_hash: bytes
    digest: bytes


class Geometry(t.NamedTuple):
    """A volume cut into chunks and leaves; sizes in bytes."""

    size: int
    chunk_size: int

    @property
    def chunks(self) -> int:
        """How many chunks the volume has; the last one may be short."""
        return -(-self.size // self.chunk_size)

    @property
    def leaves(self) -> int:
        """How many leaves its map has."""
        return -(-self.chunks // LEAF_ENTRIES)

    def leaf_entries(self, leaf: int) -> int:
        """How many entries a leaf has; the last one may have fewer."""
        return min(LEAF_ENTRIES, self.chunks - leaf * LEAF_ENTRIES)

    def chunk_length(self, chunk: int) -> int:
        """The length of a chunk in bytes."""
        return min(self.chunk_size, self.size - chunk * self.chunk_size)


class Directory:
    """A directory as read.  Raises ValueError if ``data`` is not a valid one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        try:
            size, chunk_size, entries, leaves, packs, numbers = _HEAD.unpack_from(data)
        except struct.error as error:
            raise ValueError("it is too short") from error
        self.geometry = Geometry(size, chunk_size)
        self._packs_at = _HEAD.size + leaves * _LEAF.size
        ends_at = self._packs_at + packs * _PACK_BYTES
        numbers_at = ends_at + 4 * leaves
        if chunk_size not in CHUNK_SIZES or size > VOLUME_BYTES_MAX or leaves > LEAVES_MAX:
            raise ValueError("its volume is not one that a map can describe")
        if entries != LEAF_ENTRIES or leaves != self.geometry.leaves or len(data) != numbers_at + 4 * numbers:
            raise ValueError("its sizes contradict each other")
        self._packs = packs
        # ends[n] is where the pack numbers of leaf n end and those of leaf n + 1 begin.
        self._ends = _from_little(data[ends_at:numbers_at])
        self._numbers = _from_little(data[numbers_at:])
        if max(self._numbers, default=-1) >= packs or (self._ends[-1] if leaves else 0) != numbers:
            raise ValueError("it refers to packs that it does not list")
        # Otherwise a few bytes could claim that each of many leaves uses all of many packs.
        if any(map(operator.gt, self._ends, self._ends[1:])):
            raise ValueError("the packs of its leaves are not in order")
        if any(leaf.kind not in (HOLE, ZERO, PAGE) for leaf in self.leaves()):
            raise ValueError("a leaf is of an unknown kind")

    def leaf(self, number: int) -> Leaf:
        """A leaf."""
        return Leaf(*_LEAF.unpack_from(self._data, _HEAD.size + number * _LEAF.size))

    def leaves(self) -> t.Iterator[Leaf]:
        """All leaves in order."""
        return (Leaf(*fields) for fields in _LEAF.iter_unpack(self._data[_HEAD.size : self._packs_at]))

    def packs(self) -> set[bytes]:
        """The ids of all packs that the map uses."""
        return {self._pack(number) for number in range(self._packs)}

    def leaf_packs(self, number: int) -> list[bytes]:
        """The ids of the packs that a leaf uses."""
        begin = self._ends[number - 1] if number else 0
        return [self._pack(pack) for pack in self._numbers[begin : self._ends[number]]]

    def _pack(self, number: int) -> bytes:
        begin = self._packs_at + number * _PACK_BYTES
        return self._data[begin : begin + _PACK_BYTES]


def encode_directory(geometry: Geometry, leaves: t.Sequence[Leaf], packs: t.Sequence[t.Collection[bytes]]) -> bytes:
    """The bytes of a directory.

    :param packs: for each leaf, the packs that it uses.
    Raises InvalidValue if it is too large for any reader.
    """
    numbers: dict[bytes, int] = {}
    ends, uses = array.array("I"), array.array("I")
    for used in packs:
        uses.extend(numbers.setdefault(pack, len(numbers)) for pack in sorted(used))
        ends.append(len(uses))
    head = _HEAD.pack(geometry.size, geometry.chunk_size, LEAF_ENTRIES, len(leaves), len(numbers), len(uses))
    lines = b"".join(_LEAF.pack(*leaf) for leaf in leaves)
    data = b"".join((head, lines, *numbers, _to_little(ends), _to_little(uses)))
    if len(data) > DIRECTORY_MAX:
        raise InvalidValue(
            f"a volume of {geometry.size} bytes",
            f"its map would have a directory of {len(data)} bytes; the limit is {DIRECTORY_MAX}",
            "Use a repository with larger chunks",
        )
    return data


def _from_little(data: bytes) -> array.array[int]:
    numbers = array.array("I", data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _to_little(numbers: array.array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A table: a file that says where the chunks of some packs are, in the order of their identities.

::

    buckets   2^bits of them; each is its number u64, its entries of 64 bytes, and a MAC of 16 bytes
    starts    u32 per bucket and one more: how many entries precede it
    packs     24 bytes per pack: its id, and the first 8 bytes of its session
    foot      magic, table id, number of entries and packs, bits, MAC of starts and packs; MAC of the foot

An entry is an identity and a place, as in a page of a map.  It is in the bucket that the first bits of its identity
name: identities are random, so all buckets have about as many entries, and a look-up is one read of some KiB.

A table is written once and never changed.  Nothing in it is believed before its MAC is verified, each bucket's when it
is read, with a key that only holders of the repository's key can make and that no other table has.  So what a table
says was in an authenticated footer when it was written: a damaged, shortened, foreign or forged file cannot say
anything, and an old one that was put back says nothing false about packs that still exist.

It is read with pread and not mapped, because a file that is shortened, or cannot be read, would kill a process that has
mapped it.  All processes share it in the page cache either way.
"""

from __future__ import annotations

import array
import bisect
import os
import struct
import typing as t
import weakref

from ..base.deps import blake3
from ..keys.keys import KeyRing

ENTRY_BYTES = 64
#: A bucket's number, before its entries, and its MAC, after them.
NUMBER = struct.Struct("<Q")
MAC_BYTES = 16
_AROUND = NUMBER.size + MAC_BYTES
#: The most entries of a bucket, which has 16 to 32 on average.
BUCKET_MAX = 1 << 10
_MEAN_MIN = 16
_BITS_MAX = 28
PACK = struct.Struct("<16s8s")
#: Magic, table id, entries, packs, bits, MAC of the lists.
FOOT = struct.Struct("<8s16sQQB7x32s")
FOOT_MAC_BYTES = 32
MAGIC = b"ISBKNWN\1"
_LABEL = "known chunks"
_PREFIX_BITS = 32


class DamagedTable(Exception):
    """A table cannot be used; the text says why."""


class Table:
    """A table that is open for look-ups; threads may share it."""

    def __init__(self, name: str, fd: int, ring: KeyRing) -> None:
        """:param fd: is closed once nobody uses the table any more.

        Raises DamagedTable, OSError.
        """
        weakref.finalize(self, os.close, fd)
        self.name = name
        self._fd = fd
        self.size = os.fstat(fd).st_size
        foot = self._read(self.size - FOOT.size - FOOT_MAC_BYTES, FOOT.size + FOOT_MAC_BYTES)
        magic, table_id, entries, packs, bits, lists_mac = FOOT.unpack_from(foot)
        if magic != MAGIC or foot_mac(ring, foot[: FOOT.size]) != foot[FOOT.size :]:
            raise DamagedTable("its end is damaged, or it is of another repository or version")
        self.entries: int = entries
        self.pack_count: int = packs
        self.bits: int = bits
        self._key = bucket_key(ring, table_id)
        self._shift = _PREFIX_BITS - self.bits
        starts_bytes, packs_bytes = ((1 << self.bits) + 1) * 4, self.pack_count * PACK.size
        begin = self.entries * ENTRY_BYTES + (_AROUND << self.bits)
        if begin + starts_bytes + packs_bytes + len(foot) != self.size:
            raise DamagedTable("its length is not the one that its end names")
        lists = self._read(begin, starts_bytes + packs_bytes)
        if blake3(lists, key=self._key).digest() != lists_mac:
            raise DamagedTable("its lists are damaged")
        self._starts = array.array("I", lists[:starts_bytes])
        self._packs = lists[starts_bytes:]

    def packs(self) -> t.Iterator[tuple[bytes, bytes]]:
        """The packs whose chunks it has, each with the first bytes of its session."""
        return PACK.iter_unpack(self._packs)

    def find(self, identity: bytes) -> list[bytes]:
        """The places of a chunk, as packed by PLACE.  Raises DamagedTable, OSError."""
        entries = self._bucket(int.from_bytes(identity[:4], "big") >> self._shift)
        found = []
        at = entries.find(identity, NUMBER.size, -MAC_BYTES)
        while at >= 0:
            if (at - NUMBER.size) % ENTRY_BYTES == 0:
                found.append(entries[at + len(identity) : at + ENTRY_BYTES])
            at = entries.find(identity, at + 1, -MAC_BYTES)
        return found

    def buckets(self, bits: int, gone: t.AbstractSet[bytes]) -> t.Iterator[bytes]:
        """All entries without those of the packs ``gone``, as 2^bits buckets.  Raises DamagedTable, OSError."""
        coarser = max(0, self.bits - bits)
        for first in range(0, 1 << self.bits, 1 << coarser):
            entries = b"".join(
                self._bucket(number)[NUMBER.size : -MAC_BYTES] for number in range(first, first + (1 << coarser))
            )
            if gone:
                entries = b"".join(entry for entry in _cut(entries) if entry[32:48] not in gone)
            yield from _split(entries, max(0, bits - self.bits), bits)

    def _bucket(self, number: int) -> bytes:
        start, end = self._starts[number], self._starts[number + 1]
        if not 0 <= end - start <= BUCKET_MAX:
            raise DamagedTable("its lists are wrong")
        data = self._read(start * ENTRY_BYTES + number * _AROUND, (end - start) * ENTRY_BYTES + _AROUND)
        if blake3(data[:-MAC_BYTES], key=self._key).digest(MAC_BYTES) != data[-MAC_BYTES:]:
            raise DamagedTable(f"its bucket {number} is damaged")
        if NUMBER.unpack_from(data)[0] != number:
            raise DamagedTable(f"its bucket {number} is in the wrong place")
        return data

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset) if offset >= 0 else b""
        if len(data) != length:
            raise DamagedTable("it is too short")
        return data


def bits_for(entries: int) -> int:
    """How many bits of an identity name its bucket in a table with so many entries."""
    return min(max(0, (entries // _MEAN_MIN).bit_length() - 1), _BITS_MAX)


def table_bytes(entries: int, packs: int) -> int:
    """How long a table is."""
    return entries * ENTRY_BYTES + ((_AROUND + 4) << bits_for(entries)) + 4 + packs * PACK.size + 112


def bucket_key(ring: KeyRing, table_id: bytes) -> bytes:
    """The key of a table's MACs."""
    return ring.mac(_LABEL, b"bucket" + table_id)


def foot_mac(ring: KeyRing, foot: bytes) -> bytes:
    """The MAC of a table's foot."""
    return ring.mac(_LABEL, b"foot" + foot)


def sorted_buckets(entries: list[bytes], bits: int) -> t.Iterator[bytes]:
    """Entries as 2^bits buckets; sorts the list."""
    entries.sort()
    return (b"".join(bucket) for bucket in _cut_sorted(entries, bits))


def _cut_sorted(entries: list[bytes], bits: int) -> t.Iterator[list[bytes]]:
    shift, begin = _PREFIX_BITS - bits, 0
    for bucket in range(1, 1 << bits):
        end = bisect.bisect_left(entries, (bucket << shift).to_bytes(4, "big"), begin)
        yield entries[begin:end]
        begin = end
    yield entries[begin:]


def _cut(entries: bytes) -> t.Iterator[bytes]:
    return (entries[at : at + ENTRY_BYTES] for at in range(0, len(entries), ENTRY_BYTES))


def _split(entries: bytes, finer: int, bits: int) -> t.Iterator[bytes]:
    """The entries of a bucket as 2^finer buckets, each named by ``bits`` bits."""
    if not finer:
        yield entries
        return
    shift, mask = _PREFIX_BITS - bits, (1 << finer) - 1
    parts: list[list[bytes]] = [[] for _part in range(1 << finer)]
    for entry in _cut(entries):
        parts[(int.from_bytes(entry[:4], "big") >> shift) & mask].append(entry)
    for part in parts:
        yield b"".join(part)

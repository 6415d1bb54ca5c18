# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks of an M database, made deterministically: what GT.M lays down for patients, laboratory values and notes.

Each block has the 16-byte block header, records with 4-byte headers and keys whose shared beginning is left out, and
behind its records the rests of older ones, as block splits leave them.
"""

from __future__ import annotations

import functools
import random
import struct
import typing as t

BLOCK_BYTES = 8192

_HEADER = struct.Struct("<HBBIQ")  # version, filler, level, bytes in use, transaction number
_RECORD = struct.Struct("<HBB")  # record's bytes, key bytes shared with the record before, filler
_END = b"\0\0"
_LEAVES_TOGETHER = 40
_OVERRUN_MAX = 1200  # the last records of a block may need so much more than the room they are given

_SYLLABLES = [
    "an",
    "bel",
    "cor",
    "dan",
    "el",
    "fer",
    "gar",
    "hol",
    "is",
    "jen",
    "kra",
    "lin",
    "mar",
    "nor",
    "ost",
    "pet",
    "qui",
    "ros",
    "sen",
    "tor",
    "ul",
    "ver",
    "wes",
    "yar",
    "zim",
]
_DRUGS = b"ASPIRIN METFORMIN LISINOPRIL SIMVASTATIN OMEPRAZOLE AMOXICILLIN INSULIN WARFARIN IBUPROFEN".split()
_UNITS = ["mmol/L", "mg/dL", "g/L", "U/L", "10*9/L", "%", "mm[Hg]", "ng/mL"]
_STATUS = b"ACTIVE DISCONTINUED EXPIRED PENDING COMPLETE".split()
_STEMS = (
    "patient denies reports pain chest abdominal mild severe acute chronic history of with without since days ago "
    "follow up in weeks continue medication dose increased decreased no change blood pressure stable normal exam "
    "lungs clear heart regular rate rhythm edema noted left right lower upper extremity labs pending reviewed plan "
    "discussed understands agrees call if worse return clinic fever cough nausea vomiting appetite sleep well the and"
)


class _Vocabulary:
    """What records are put together from, the same for every stretch."""

    def __init__(self) -> None:
        self._random = random.Random("vocabulary")
        names = [self._name() for _name in range(3000)]
        words = [*_STEMS.split(), *(name.lower() for name in names[:600])]
        weights = [1 / (rank + 3) for rank in range(len(words))]
        self.names = [name.encode() for name in names]
        self.phrases = [
            " ".join(self._random.choices(words, weights, k=self._random.randrange(2, 5))).encode()
            for _phrase in range(20_000)
        ]
        self.results = [self._result() for _result in range(5000)]
        self.numbers = [_number(value) for value in range(1, 1000)]

    def _name(self) -> str:
        return "".join(self._random.choices(_SYLLABLES, k=self._random.randrange(2, 4))).upper()

    def _result(self) -> bytes:
        low = self._random.randrange(90)
        value = low * self._random.uniform(0.8, 1.4)
        return f"{value:.1f}^{self._random.choice(_UNITS)}^{low}-{low + 40}^".encode()


@functools.cache
def _vocabulary() -> _Vocabulary:
    return _Vocabulary()


class BlockMaker:
    """Makes the blocks of one stretch of a database, always the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._known = _vocabulary()
        self._patient = self._random.randrange(1_000, 9_000_000)
        self._day = self._random.randrange(3_150_101, 3_250_101)
        self._transaction = self._random.randrange(1 << 33, 1 << 40)
        self._block = bytes(BLOCK_BYTES)

    def blocks(self, count: int) -> t.Iterator[bytes]:
        """``count`` blocks: runs of leaves of one global, the kinds of globals in turn."""
        kinds = (self._laboratory, self._patients, self._laboratory, self._notes, self._index)
        made = 0
        while made < count:
            kind = self._random.choice(kinds)
            for _leaf in range(min(_LEAVES_TOGETHER, count - made)):
                yield self._leaf(kind)
                made += 1

    def _leaf(self, kind: t.Callable[[int], t.Iterator[bytes]]) -> bytes:
        room = self._random.randrange(BLOCK_BYTES * 6 // 10, BLOCK_BYTES - _OVERRUN_MAX)
        body = b"".join(kind(room))
        used = _HEADER.size + len(body)
        self._transaction += self._random.randrange(1, 4000)
        header = _HEADER.pack(6, 0, 0, used, self._transaction)
        self._block = (header + body + self._block[used:])[:BLOCK_BYTES]
        return self._block

    def _laboratory(self, room: int) -> t.Iterator[bytes]:
        """Short records with numbers: ^LR(patient,day,time,test)=value^unit^range^day^technician."""
        pick = self._random.random
        results, numbers = self._known.results, self._known.numbers
        first = b"LR\0" + _number(self._patient) + _number(self._day)
        beginning, shared = first, 0
        while room > 0:
            moment = _number(80_000 + int(pick() * 120_000))
            end = b"%d^^F^%d" % (self._day, 1000 + int(pick() * 60))
            for test in range(3 + int(pick() * 12)):
                record = _record(
                    shared, beginning + moment + numbers[test], results[(test * 401 + int(pick() * 400)) % 5000] + end
                )
                yield record
                room -= len(record)
                beginning, shared = b"", len(first)
            self._day += 1
            if pick() < 0.2:
                self._patient += 1 + int(pick() * 40)

    def _patients(self, room: int) -> t.Iterator[bytes]:
        """Long records of many pieces: ^DPT(patient,0)=name^sex^born^..., and a short one behind some of them."""
        pick, names = self._random.random, self._known.names
        beginning, shared = b"DPT\0", 0
        while room > 0:
            self._patient += 1 + int(pick() * 30)
            value = b"%s,%s %c^%c^%d^^%d^%09d^^%d %s ST^^%s^%05d^%s^%s" % (
                names[int(pick() * 3000)],
                names[int(pick() * 3000)],
                65 + int(pick() * 26),
                b"MF"[int(pick() * 2)],
                2_200_000 + int(pick() * 1_000_000),
                1 + int(pick() * 9),
                int(pick() * 1e9),
                1 + int(pick() * 9999),
                names[int(pick() * 3000)],
                names[int(pick() * 3000)],
                int(pick() * 1e5),
                _DRUGS[int(pick() * len(_DRUGS))],
                _STATUS[int(pick() * len(_STATUS))],
            )
            record = _record(shared, beginning + _number(self._patient) + b"\x80", value)
            yield record
            room -= len(record)
            beginning, shared = b"", 4
            if pick() < 0.5:
                value = b"%d^%d^%s^%d" % (self._day, int(pick() * 400), _DRUGS[int(pick() * len(_DRUGS))], pick() * 1e6)
                record = _record(8, b"\xbf\x12", value)
                yield record
                room -= len(record)

    def _notes(self, room: int) -> t.Iterator[bytes]:
        """Lines of text: ^TIU(8925,note,"TEXT",line,0)=line."""
        pick, phrases, numbers = self._random.random, self._known.phrases, self._known.numbers
        first = b"TIU\0" + _number(8925) + _number(self._random.randrange(10**6, 10**8)) + b"\xffTEXT\0"
        beginning, shared, line = first, 0, 0
        while room > 0:
            line += 1
            text = b" ".join([phrases[int(pick() * 20_000)] for _phrase in range(1 + int(pick() * 4))])
            record = _record(shared, beginning + numbers[line] + b"\x80", text.capitalize())
            yield record
            room -= len(record)
            beginning, shared = b"", len(first)

    def _index(self, room: int) -> t.Iterator[bytes]:
        """Keys with nothing to say: ^DPT("B",name,patient)=""."""
        pick, beginning, shared = self._random.random, b"DPT\0\xffB\0\xff", 0
        for name in sorted(self._random.choices(self._known.names, k=room // 12)):
            if room <= 0:
                return
            record = _record(shared, beginning + name + b"\0" + _number(1_000 + int(pick() * 9e6)), b"")
            yield record
            room -= len(record)
            beginning, shared = b"", 8


def _record(shared: int, key: bytes, value: bytes) -> bytes:
    return _RECORD.pack(_RECORD.size + len(key) + 2 + len(value), shared, 0) + key + _END + value


def _number(value: int) -> bytes:
    """A positive number as a subscript: exponent, then two decimal digits a byte, ended by a zero byte."""
    digits = str(value)
    exponent = 0xBE + len(digits)
    digits = digits.rstrip("0")
    if len(digits) % 2:
        digits += "0"
    return bytes((exponent, *(int(digits[at : at + 2]) + 1 for at in range(0, len(digits), 2)), 0))

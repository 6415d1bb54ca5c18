# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the index of many known chunks costs: in tables of a cache folder, and in memory.

    index.py [--chunks N] [--simulate N] [--work FOLDER] [--without-memory]

Each way is a process of its own. Both get the same footers, which are made up in the process itself, so reading a
repository is not measured; how long making them up takes is reported. ``--simulate`` opens an index of so many chunks
of which only a sample was written: lists and packs are complete, the other buckets are holes.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from blake3 import blake3
from saveset.format.footer import ROW, PackFooter
from saveset.keys.keys import KeyRing
from saveset.known import table
from saveset.known.cache import CacheFolder
from saveset.known.chunks import KnownChunks
from saveset.known.heap import Heap

#: As in a pack of real data that compresses to two fifths; four chunks to a frame.
CHUNKS_OF_A_PACK = 1280
LOOK_UPS = 100_000
RING = KeyRing("ab" * 16, b"m" * 32)
_TAILS = [ROW.pack(bytes(32), n // 4 * 400_000, 400_000, n % 4, 2, n, 0)[32:] for n in range(CHUNKS_OF_A_PACK)]
#: The shares of all chunks that are there from the beginning, and that runs have added since: three tables.
SHARES = (0.9, 0.091, 0.009)
#: Buckets of the simulated index that are written.
SAMPLE = 20_000
Find = t.Callable[[bytes], object]


def identities(pack: int) -> bytes:
    """The identities of a pack's chunks, one after the other."""
    return blake3(pack.to_bytes(8, "little")).digest(32 * CHUNKS_OF_A_PACK)


def footer(pack: int) -> PackFooter:
    """The footer of a pack."""
    names = identities(pack)
    rows = (names[32 * n : 32 * n + 32] + tail for n, tail in enumerate(_TAILS))
    return PackFooter(bytes(32) + b"".join(rows))


def pack_name(pack: int) -> str:
    """The name of a pack."""
    return f"packs/{pack >> 120:02x}/{pack:032x}"


class Repository:
    """Packs by number: the first ``count`` of them exist."""

    def __init__(self, count: int) -> None:
        self.count = count

    def names(self) -> list[str]:
        """The names of all packs."""
        return [pack_name(pack) for pack in range(self.count)]

    def read(self, name: str) -> PackFooter:
        """The footer of the pack with a name."""
        return footer(int(name[-32:], 16))


def anonymous_bytes() -> int:
    """The memory of this process that is not a file's."""
    with open("/proc/self/status", encoding="ascii") as stream:
        return next(int(line.split()[1]) << 10 for line in stream if line.startswith("RssAnon"))


def look_ups(find: Find, hits: t.Sequence[bytes]) -> dict[str, float]:
    """How many look-ups a second: of known chunks in random order, and of unknown ones."""
    misses = [os.urandom(32) for _miss in range(LOOK_UPS)]
    found = {}
    for name, wanted, known in (("hits", hits, True), ("misses", misses, False)):
        begun, worked = time.perf_counter(), time.process_time()
        for identity in wanted:
            assert bool(find(identity)) is known
        found[f"{name}_per_s"] = round(len(wanted) / (time.perf_counter() - begun))
        found[f"{name}_processor_us"] = round((time.process_time() - worked) / len(wanted) * 1e6, 1)
    return found


def some_chunks(packs: int) -> list[bytes]:
    """Known chunks, in random order."""
    generator = random.Random(1)
    found = []
    for _look_up in range(LOOK_UPS // 100):
        names = identities(generator.randrange(packs))
        found += [names[at : at + 32] for at in range(0, 3200, 32)]
    generator.shuffle(found)
    return found


def in_memory(packs: int, _work: Path) -> dict[str, t.Any]:
    """All footers are read, and their chunks kept in memory: every backup that meets a new chunk does this."""
    before, begun = anonymous_bytes(), time.perf_counter()
    heap = Heap()
    for pack in range(packs):
        heap.add(pack.to_bytes(16, "big"), footer(pack).raw_rows)
    heap.settle()
    loaded = time.perf_counter() - begun
    grown = anonymous_bytes() - before
    return {"open_s": loaded, "anonymous_bytes": grown, **look_ups(heap.find, some_chunks(packs))}


def build(packs: int, work: Path) -> dict[str, t.Any]:
    """The tables are made, and then brought up to date as by later runs; what it takes at most."""
    figures, so_far = {}, 0
    for number, share in enumerate(SHARES):
        so_far = packs if number == len(SHARES) - 1 else so_far + int(packs * share)
        begun, worked = time.perf_counter(), time.process_time()
        known = _open(Repository(so_far), work)
        name = "build" if number == 0 else f"update_{number}"
        figures[f"{name}_s"] = time.perf_counter() - begun
        figures[f"{name}_processor_s"] = time.process_time() - worked
        assert len(known) == so_far * CHUNKS_OF_A_PACK
    figures["disk_bytes"] = sum(path.stat().st_size for path in work.rglob("*.table"))
    figures["anonymous_bytes"] = anonymous_bytes()
    return figures


def in_tables(packs: int, work: Path) -> dict[str, t.Any]:
    """The tables are opened as by any later backup, and once more after one pack was added."""
    repository = Repository(packs)
    before, begun = anonymous_bytes(), time.perf_counter()
    known = _open(repository, work)
    opened = time.perf_counter() - begun
    hits = some_chunks(packs)
    figures = look_ups(lambda identity: next(known.find(identity), None), hits)
    grown = anonymous_bytes() - before
    repository.count += 1
    begun = time.perf_counter()
    _open(repository, work)
    more = time.perf_counter() - begun
    return {
        "open_s": opened,
        "open_after_one_more_pack_s": more,
        "anonymous_bytes": grown,
        "tables": len(list(work.rglob("*.table"))),
        **figures,
    }


def simulated(packs: int, work: Path) -> dict[str, t.Any]:
    """An index of which a sample of the buckets was written."""
    hits = _write_sample(packs, work)
    repository = Repository(packs)
    before, begun = anonymous_bytes(), time.perf_counter()
    known = _open(repository, work)
    opened = time.perf_counter() - begun
    begun = time.perf_counter()
    for identity in hits:
        assert next(known.find(identity), None)
    return {
        "open_s": opened,
        "anonymous_bytes": anonymous_bytes() - before,
        "hits_per_s": round(len(hits) / (time.perf_counter() - begun)),
        "length_bytes": sum(path.stat().st_size for path in work.rglob("*.table")),
    }


def _write_sample(packs: int, work: Path) -> list[bytes]:
    """Write the table; returns the chunks that are in it."""
    entries = packs * CHUNKS_OF_A_PACK
    bits = table.bits_for(entries)
    mean = entries >> bits
    entries = mean << bits
    key = table.bucket_key(RING, b"i" * 16)
    folder = CacheFolder(str(work), RING)
    folder.prepare()
    found = []
    with open(Path(folder.path) / f"{'0' * 32}.table", "wb") as stream:
        for number in sorted(random.Random(1).sample(range(1 << bits), SAMPLE)):
            prefix = number << 32 - bits
            names = [(prefix + n).to_bytes(4, "big") + os.urandom(28) for n in range(mean)]
            data = table.NUMBER.pack(number) + b"".join(
                name + (number % packs).to_bytes(16, "big") + _TAILS[0][:16] for name in names
            )
            stream.seek(number * (mean * table.ENTRY_BYTES + table.NUMBER.size + table.MAC_BYTES))
            stream.write(data + blake3(data, key=key).digest(table.MAC_BYTES))
            found.append(names[0])
        stream.seek((mean * table.ENTRY_BYTES + table.NUMBER.size + table.MAC_BYTES) << bits)
        starts = array.array("I", range(0, entries + 1, mean)).tobytes()
        lists = starts + b"".join(table.PACK.pack(pack.to_bytes(16, "big"), bytes(8)) for pack in range(packs))
        foot = table.FOOT.pack(table.MAGIC, b"i" * 16, entries, packs, bits, blake3(lists, key=key).digest())
        stream.write(lists + foot + table.foot_mac(RING, foot))
    random.Random(2).shuffle(found)
    return found


def _open(repository: Repository, work: Path) -> KnownChunks:
    known = KnownChunks(CacheFolder(str(work), RING), repository.names, repository.read, sys.exit)
    known.load()
    return known


def made_up(packs: int, _work: Path) -> dict[str, t.Any]:
    """Only make the footers up."""
    begun = time.perf_counter()
    for pack in range(packs):
        footer(pack)
    return {"seconds": time.perf_counter() - begun}


WAYS = {way.__name__: way for way in (made_up, in_memory, build, in_tables, simulated)}


def measure(way: str, chunks: int, work: Path) -> dict[str, t.Any]:
    """Do this in a process of its own."""
    words = [sys.executable, __file__, "--way", way, "--chunks", str(chunks), "--work", str(work)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chunks", type=int, default=4_000_000)
    parser.add_argument("--simulate", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--without-memory", action="store_true", help="measure the tables alone")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(WAYS[arguments.way](arguments.chunks // CHUNKS_OF_A_PACK, arguments.work)))
        return
    result: dict[str, t.Any] = {"chunks": arguments.chunks}
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        for way in (*(() if arguments.without_memory else ("made_up", "in_memory")), "build", "in_tables"):
            result[way] = measure(way, arguments.chunks, work)
            print(way, result[way], file=sys.stderr)
        if arguments.simulate:
            shutil.rmtree(work / RING.repository_id)
            result["simulated"] = {"chunks": arguments.simulate, **measure("simulated", arguments.simulate, work)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

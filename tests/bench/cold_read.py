# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of a cold read of 4 KiB goes, in the process that serves a saveset: without network and LUN.

    cold_read.py [--size 1G] [--rounds 5] [--reads 60] [--before CHECKOUT] [--work FOLDER]

Each round, every contender reads other blocks, far apart, one at a time, with nothing of repository and image in the
page cache: a plain file; this version; with ``--before`` another one, in a process with that one's modules and with a
repository that it wrote, and this version with that repository.  Prints medians, and what the backups took and stored.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import data, instant_reads, measure
from bench.change import used_extents
from bench.instant import scattered_offsets
from bench.run import parse_size

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("read", "decrypt", "decompress", "hash")
Sample = dict[str, float]


class Stopwatch:
    """Seconds by stage, since the last reset()."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def reset(self) -> None:
        """Begin anew."""
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def put_on(self, owner: t.Any, name: str, stage: str) -> None:
        """Time what ``owner`` calls by this name; nothing if that version has none."""
        function = getattr(owner, name, None)
        if function is None:
            return

        @functools.wraps(function)
        def timed(*arguments: t.Any, **options: t.Any) -> t.Any:
            begun = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - begun

        setattr(owner, name, timed)


def read_saveset(checkout: Path, repository: Path, offsets: t.Sequence[int]) -> list[Sample]:
    """Read blocks of the latest saveset as a server does; of each, the seconds by stage, and ``all`` of them."""
    sys.path.insert(0, str(checkout / "plugins" / "module_utils"))
    from saveset.format import codec
    from saveset.keys import keys, secret
    from saveset.repository import Repository
    from saveset.serve.serving import ServedSaveset
    from saveset.store import local, registry

    opened = Repository.open(registry.open_store(str(repository)), secret.Secret(b"only a benchmark"))
    served = ServedSaveset(opened.find("bench/image"), readahead=True)
    watch = Stopwatch()
    watch.put_on(local.LocalStore, "get", "read")
    watch.put_on(keys.Cipher, "decrypt", "decrypt")
    for name in ("_unpack", "_unpack_first", "_unpack_into"):
        watch.put_on(codec, name, "decompress")
    watch.put_on(keys.KeyRing, "identity", "hash")
    samples = []
    for offset in offsets:
        block = bytearray(instant_reads.BLOCK)
        watch.reset()
        begun = time.perf_counter()
        served.read_into(offset, block)
        samples.append({"all": time.perf_counter() - begun, **watch.seconds})
    served.close()
    return samples


def read_file(path: Path, offsets: t.Sequence[int]) -> list[Sample]:
    """The same of a plain file."""
    samples = []
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        for offset in offsets:
            begun = time.perf_counter()
            os.pread(fd, instant_reads.BLOCK, offset)
            samples.append({"all": time.perf_counter() - begun})
    finally:
        os.close(fd)
    return samples


class Contender(t.NamedTuple):
    """Whose modules read which repository; those of nobody read the image itself."""

    name: str
    checkout: Path | None
    store: Path

    def read(self, offsets: t.Sequence[int]) -> list[Sample]:
        """Read blocks, in a process of its own."""
        instant_reads.forget(self.store)
        if self.checkout is None:
            return read_file(self.store, offsets)
        command = [sys.executable, __file__, "--reader", self.checkout, "--repository", self.store]
        done = subprocess.run(command, input=json.dumps(offsets), capture_output=True, text=True, check=True)
        return t.cast("list[Sample]", json.loads(done.stdout))


def back_up(checkout: Path, image: Path, repository: Path) -> str:
    """Back the image up with a version's own engine; what that took, for people."""
    engine = [sys.executable, str(checkout / "tests" / "bench" / "engine.py"), str(repository)]
    subprocess.run([*engine, "create"], check=True, capture_output=True)
    measure.warm(image)
    done = subprocess.run([*engine, "backup", "--number", "0", str(image)], check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    return f"backup {figures['seconds']:.2f} s, {figures['bytes_stored'] / (1 << 20):.2f} MiB stored"


def measured(arguments: argparse.Namespace, work: Path) -> t.Iterator[str]:
    """Measure; the lines of the result."""
    shares = data.DEFAULT_SHARES
    image = work / "image"
    data.make_image(image, arguments.size, shares)
    contenders = [Contender("file", None, image), Contender("this", ROOT, work / "this")]
    yield f"this:   {back_up(ROOT, image, work / 'this')}"
    if arguments.before:
        before = arguments.before.resolve()
        yield f"before: {back_up(before, image, work / 'before')}"
        contenders += [Contender("before", before, work / "before"), Contender("this_old", ROOT, work / "before")]
    count = arguments.rounds * arguments.reads
    offsets = scattered_offsets(used_extents(data.layout(arguments.size, shares), arguments.size), count)
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(arguments.rounds):
        part = offsets[number * arguments.reads : (number + 1) * arguments.reads]
        for contender in contenders:
            samples[contender.name] += contender.read(part)
    yield f"{'median ms':10}" + "".join(f"{name:>12}" for name in ("all", *STAGES, "rest", "p95 of all"))
    yield from (line(name, taken) for name, taken in samples.items())


def line(name: str, taken: t.Sequence[Sample]) -> str:
    """A contender's line of the table: medians of all, of each stage and of the rest."""
    everything = sorted(sample["all"] for sample in taken)
    figures = [statistics.median(everything)]
    for stage in STAGES:
        figures.append(statistics.median(sample.get(stage, 0.0) for sample in taken))
    figures.append(statistics.median(2 * sample["all"] - sum(sample.values()) for sample in taken))
    figures.append(everything[int(0.95 * len(everything))])
    return f"{name:10}" + "".join(f"{1000 * figure:12.3f}" for figure in figures)


def main() -> None:
    """Measure and print; as a reader, print the samples as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=parse_size, default="1G", help="size of the image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--reads", type=int, default=60, help="reads in a round (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="another checkout, to be measured too")
    parser.add_argument("--work", type=Path, help="where to make the scratch folder (default: the temporary folder)")
    parser.add_argument("--reader", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--repository", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.reader:
        print(json.dumps(read_saveset(arguments.reader, arguments.repository, json.load(sys.stdin))))
        return
    with tempfile.TemporaryDirectory(prefix="isb-cold-read-", dir=arguments.work) as folder:
        for text in measured(arguments, Path(folder)):
            print(text, flush=True)


if __name__ == "__main__":
    main()

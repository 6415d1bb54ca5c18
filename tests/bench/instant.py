# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The instant LUN: a saveset served over the network, read as a disk, beside plain restoring (make bench-instant).

python -m bench.instant [--size 2G] [--rounds 3] [--work DIR] [--json FILE] [--before PYZ]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import typing as t
from pathlib import Path

from . import data, instant_query, instant_reads, instant_result, measure
from .change import used_extents
from .contender import last_json
from .instant_lun import attached, mounted, run
from .instant_serve import Serve, older, plain_file, product
from .measure import ContenderError
from .ours import engine_command
from .run import check_room, filesystem, machine, parse_size

READS = 200
LIBNBD = Path("/usr/lib/python3/dist-packages")
_MIB = 1 << 20

Figures = dict[str, t.Any]


class Bench:
    """A repository with one saveset of an image, the image as it is restored, and what is measured of them."""

    def __init__(self, work: Path, size: int, before: Path | None) -> None:
        self.work = work
        self.size = size
        self.image, self.repository, self.log = work / "image", work / "repository", work / "log"
        self.servers: dict[str, Serve] = {"instant": product}
        if before:
            self.servers["before"] = older(before)
        self.samples: dict[str, list[float]] = {}
        #: libnbd's Python module alone of the system's packages.
        self.library = work / "library"

    def prepare(self) -> None:
        """Make the image, and back it up."""
        self.library.mkdir()
        for path in LIBNBD.glob("*nbd*"):
            (self.library / path.name).symlink_to(path)
        shares = data.DEFAULT_SHARES
        say(f"making an image of {self.size >> 20} MiB")
        data.make_image(self.image, self.size, shares)
        self.offsets = scattered_offsets(used_extents(data.layout(self.size, shares), self.size), 2 * READS)
        self.engine(self.repository, "create")
        self.engine(self.repository, "backup", "--number", "0", str(self.image))

    def engine(self, repository: Path, *words: str) -> Figures:
        """Run an operation of the engine in a process of its own; its figures."""
        measure.run(engine_command(repository, *words), {"PYTHONPATH": str(self.library)}, self.log)
        return last_json(self.log)

    def round(self, number: int) -> None:
        """One of everything, in turn."""
        say(f"round {number + 1}: restoring, and reading in order")
        self.take("restore", self.restore())
        self.take("restore_to_lun", self.restore_to_lun())
        for name, serve in {**self.servers, "file": t.cast("Serve", plain_file)}.items():
            store = self.image if serve is plain_file else self.repository
            measure.warm(store)
            with serve(store, self.work) as address:
                self.take(f"{name}_in_order", instant_reads.in_order(address, self.work))
            with serve(store, self.work) as address:
                self.take(f"{name}_by_pages", instant_reads.by_pages(address, self.work))
            with serve(store, self.work) as address:
                self.take(f"{name}_copied", instant_reads.copied(address))
        say(f"round {number + 1}: reading at random, cold")
        for name, serve in {**self.servers, "file": t.cast("Serve", plain_file)}.items():
            self.random_reads(name, serve, self.image if serve is plain_file else self.repository)

    def restore(self) -> float:
        """Seconds of a plain restore to a new file, by the engine's own account, without its start."""
        target = self.work / "target"
        measure.warm(self.repository)
        seconds = self.engine(self.repository, "restore", str(target))["seconds"]
        self.check(target)
        return float(seconds)

    def restore_to_lun(self) -> float:
        """The same to a file of the DR host, over the network and encrypted, as restore.yml does it."""
        target = self.work / "target"
        target.touch()
        os.truncate(target, self.size)
        measure.warm(self.repository)
        with plain_file(target, self.work, readonly=False) as address:
            uri = f"{address.uri}?tls-psk-file={address.psk}"
            seconds = self.engine(self.repository, "restore", uri)["seconds"]
        self.check(target)
        return float(seconds)

    def check(self, target: Path) -> None:
        """See that what was restored is the image, and remove it."""
        if subprocess.run(["cmp", "-s", target, self.image], check=False).returncode:
            raise ContenderError("what was restored is not the image")
        target.unlink()

    def random_reads(self, name: str, serve: Serve, store: Path) -> None:
        """Single reads of 4 KiB, through the LUN and over NBD alone; each touches what nothing else has touched."""
        half = len(self.offsets) // 2
        instant_reads.forget(store)
        with serve(store, self.work) as address:
            taken = instant_reads.at_random(address, self.work, self.offsets[:half])
        self.samples.setdefault(f"{name}_random", []).extend(taken)
        instant_reads.forget(store)
        with serve(store, self.work) as address:
            taken = instant_reads.at_random_by_nbd(address, self.offsets[half:])
        self.samples.setdefault(f"{name}_random_nbd", []).extend(taken)

    def take(self, name: str, seconds: float) -> None:
        """Keep a sample."""
        self.samples.setdefault(name, []).append(seconds)

    def writes_stay_apart(self) -> bool:
        """Write all over the LUN, as a disk and as a filesystem; whether the repository is what it was, to the bit."""
        say("writing to the LUN")
        before = fingerprint(self.repository)
        with product(self.repository, self.work) as address, attached(address, self.work) as device:
            with open(device, "r+b") as stream:
                for offset in self.offsets:
                    stream.seek(offset)
                    stream.write(os.urandom(instant_reads.BLOCK))
                stream.flush()
                os.fsync(stream.fileno())
            run("mkfs.ext4", "-q", "-F", device)
            with mounted(device, self.work / "mounted", "rw") as folder:
                (folder / "file").write_bytes(os.urandom(16 * _MIB))
        return fingerprint(self.repository) == before

    def first_queries(self, rounds: int) -> dict[str, dict[str, float]]:
        """By the volume's GiB, the medians of the seconds of each step to the first query."""
        for gib in instant_result.VOLUMES:
            say(f"making a sparse volume of {gib} GiB")
            volume, repository = self.work / "volume", self.sparse(gib)
            instant_query.make_volume(volume, gib << 30, self.work)
            self.engine(repository, "create")
            self.engine(repository, "backup", "--number", "0", str(volume))
            volume.unlink()
        say("time to the first query of these volumes")
        taken = [
            {gib: instant_query.first_query(product, self.sparse(gib), self.work) for gib in instant_result.VOLUMES}
            for _round in range(rounds)
        ]
        return {
            str(gib): {step: statistics.median(each[gib][step] for each in taken) for step in taken[0][gib]}
            for gib in instant_result.VOLUMES
        }

    def sparse(self, gib: int) -> Path:
        """The repository of the sparse volume of so many GiB."""
        return self.work / f"repository-{gib}"


def scattered_offsets(used: t.Sequence[tuple[int, int]], count: int) -> list[int]:
    """Offsets of blocks in data, each in a MiB of its own."""
    starts = [at for offset, length in used for at in range(offset, offset + length - _MIB + 1, _MIB)]
    if len(starts) < count:
        raise ContenderError(f"the image has data in {len(starts)} MiB, and {count} are needed: choose a larger SIZE")
    generator = random.Random(1)
    chosen = generator.sample(starts, count)
    return [start + generator.randrange(0, _MIB, instant_reads.BLOCK) for start in chosen]


def fingerprint(folder: Path) -> str:
    """A hash over the names, times and contents of all files of a folder."""
    hasher = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        hasher.update(f"{path} {path.stat().st_mtime_ns}\n".encode())
        with open(path, "rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=parse_size, default="2G", help="size of the image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/instant"), help="scratch folder, removed at the end")
    parser.add_argument("--json", type=Path, default=Path("build/instant.json"), help="result (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="another version's isb-saveset.pyz, to be measured too")
    return parser.parse_args()


def main() -> int:
    """Measure, print, write the JSON file; the work folder is removed however it ends."""
    arguments = parse_arguments()
    work: Path = arguments.work.resolve()
    if work.exists() and any(work.iterdir()):
        sys.exit(f"bench: {work} is not empty: remove it, or name another folder with WORK=")
    work.mkdir(parents=True, exist_ok=True)
    about = machine()
    try:
        check_room(work, arguments.size)
        bench = Bench(work, arguments.size, arguments.before and arguments.before.resolve())
        bench.prepare()
        for number in range(arguments.rounds):
            bench.round(number)
        apart = bench.writes_stay_apart()
        found = instant_result.summary(
            bench.samples, arguments.size, bench.first_queries(2 * arguments.rounds + 1), apart
        )
        about["filesystem"] = filesystem(work)
    except (ContenderError, RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
    finally:
        shutil.rmtree(work)
    content = {"format": 1, "machine": about, "size": arguments.size, "rounds": arguments.rounds, **found}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({**content, "samples": bench.samples}, indent=2) + "\n")
    print(f"image of {arguments.size >> 20} MiB, {about['processors']} processors, load before {about['load_before']}")
    print(instant_result.table(found))
    print(*(found["targets_missed"] or ["all targets are met"]), sep="\n")
    return 1 if found["targets_missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

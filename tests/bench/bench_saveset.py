# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare the saveset engine's full backup and restore with the bare pipeline zstd | openssl, and with restic.

An image is made of this machine's own files (/usr), random bytes, written zeros and holes; its shares are told with
the result.  Every contender reads the same image from the page cache, writes to an empty folder of the same
filesystem, and takes its turn in every round.  Wall seconds end after a sync of what was written; processor seconds
include child processes.  Restores are compared with the image, byte for byte, outside the time taken.

    python3 tests/bench/bench_saveset.py [--work DIR] [--size GIB] [--rounds N] [--json FILE]

The Python that runs it needs blake3, zstandard and cryptography.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import filecmp
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from saveset import repository, secret, source, store, target

MIB = 1 << 20
PASSPHRASE = b"only a benchmark"


@dataclasses.dataclass
class Shares:
    """What the image holds, in bytes."""

    size: int = 0
    files: int = 0
    random: int = 0
    zeros: int = 0
    holes: int = 0

    @property
    def non_zero(self) -> int:
        """Bytes that have to be compressed."""
        return self.files + self.random


@dataclasses.dataclass
class Result:
    """One contender's one operation in one round."""

    contender: str
    operation: str
    wall_s: float
    cpu_s: float
    stored_bytes: int


def make_image(path: Path, size: int) -> Shares:
    """Write the image: 80 % files of /usr, 5 % random, 5 % written zeros, 10 % holes, in stretches of 64 MiB."""
    shares = Shares(size=size)
    pieces = _system_files()
    with open(path, "wb") as image:
        image.truncate(size)
        for number, offset in enumerate(range(0, size, 64 * MIB)):
            length = min(64 * MIB, size - offset)
            image.seek(offset)
            turn = number % 20
            if turn in (7, 17):
                shares.holes += length
            elif turn == 3:
                image.write(bytes(length))
                shares.zeros += length
            elif turn == 13:
                image.write(os.urandom(length))
                shares.random += length
            else:
                image.write(_take(pieces, length))
                shares.files += length
    return shares


def _system_files() -> t.Iterator[bytes]:
    """The bytes of this machine's files, each file padded to 4 KiB as a filesystem would lay it out."""
    for folder, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.isfile(path):
                with contextlib.suppress(OSError):
                    data = Path(path).read_bytes()
                    yield data + bytes(-len(data) % 4096)


def _take(pieces: t.Iterator[bytes], length: int) -> bytes:
    """``length`` bytes of the stream of files; the last file taken is cut."""
    taken: list[bytes] = []
    missing = length
    while missing > 0:
        piece = next(pieces, None)
        if piece is None:
            sys.exit("/usr holds too few files for an image of this size: choose a smaller --size")
        taken.append(piece[:missing])
        missing -= len(taken[-1])
    return b"".join(taken)


class Contender:
    """Something that backs an image up into a folder and restores it from there."""

    name = ""

    def backup(self, image: Path, folder: Path) -> None:
        """Back up."""
        raise NotImplementedError

    def restore(self, folder: Path, output: Path) -> None:
        """Restore."""
        raise NotImplementedError


class Saveset(Contender):
    """This project's engine, encryption on."""

    name = "saveset"

    def backup(self, image: Path, folder: Path) -> None:
        repo = repository.Repository.create(store.open_store(str(folder)), secret.Secret(PASSPHRASE))
        now = datetime.datetime.now(datetime.UTC)
        with source.open_source(str(image)) as opened:
            repo.backup(opened, "bench/image", run_id="bench", time=now, verdict="crash-consistent")

    def restore(self, folder: Path, output: Path) -> None:
        saveset = self._open(folder).find("bench/image")
        with target.open_target(str(output), saveset.size) as opened:
            saveset.restore(opened)

    def again(self, image: Path, folder: Path) -> None:
        """Back up the unchanged image once more."""
        now = datetime.datetime.now(datetime.UTC)
        with source.open_source(str(image)) as opened:
            self._open(folder).backup(opened, "bench/image", run_id="again", time=now, verdict="crash-consistent")

    def verify(self, folder: Path) -> None:
        """Decrypt and rehash everything."""
        report = self._open(folder).verify(depth="full")
        if not report.ok:
            sys.exit(f"the benchmark's own repository does not verify: {report.problems}")

    @staticmethod
    def _open(folder: Path) -> repository.Repository:
        return repository.Repository.open(store.open_store(str(folder)), secret.Secret(PASSPHRASE))


class Pipeline(Contender):
    """zstd -1 -T2 | openssl enc aes-256-ctr: no deduplication, no check of what is read back."""

    name = "zstd|openssl"
    _key = "-K " + "ab" * 32 + " -iv " + "cd" * 16

    def backup(self, image: Path, folder: Path) -> None:
        folder.mkdir()
        _shell(f"zstd -q -1 -T2 -c {image} | openssl enc -aes-256-ctr {self._key} -out {folder}/data")

    def restore(self, folder: Path, output: Path) -> None:
        _shell(f"openssl enc -d -aes-256-ctr {self._key} -in {folder}/data | zstd -q -d -c > {output}")


class Restic(Contender):
    """restic with its defaults, as packaged by the distribution."""

    name = "restic"

    def backup(self, image: Path, folder: Path) -> None:
        self._run(folder, "init", "--repository-version", "2")
        with open(image, "rb") as stream:
            self._run(folder, "backup", "--stdin", "--stdin-filename", "image", stdin=stream)

    def restore(self, folder: Path, output: Path) -> None:
        with open(output, "wb") as stream:
            self._run(folder, "dump", "latest", "/image", stdout=stream)

    @staticmethod
    def _run(folder: Path, *arguments: str, **streams: t.Any) -> None:
        streams.setdefault("stdout", subprocess.DEVNULL)
        environment = {**os.environ, "RESTIC_PASSWORD": PASSPHRASE.decode(), "RESTIC_CACHE_DIR": f"{folder}.cache"}
        subprocess.run(["restic", "-q", "-r", str(folder), *arguments], check=True, env=environment, **streams)


def _shell(command: str) -> None:
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)


def measure(contender: str, operation: str, folder: Path, function: t.Callable[[], None]) -> Result:
    """Run once in a child process, so that one contender's memory and caches do not help the next."""
    os.sync()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            os.sync()
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(f"{contender}: {operation} failed")
    wall = time.monotonic() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Result(contender, operation, wall, cpu, _folder_bytes(folder))


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run_turn(contender: Contender, image: Path, folder: Path, output: Path) -> list[Result]:
    """One contender's turn: back up into an empty folder, restore to a new file, compare."""
    shutil.rmtree(folder, ignore_errors=True)
    output.unlink(missing_ok=True)
    results = [
        measure(contender.name, "full backup", folder, lambda: contender.backup(image, folder)),
        measure(contender.name, "restore", folder, lambda: contender.restore(folder, output)),
    ]
    if not filecmp.cmp(image, output, shallow=False):
        sys.exit(f"{contender.name}: what was restored differs from the image")
    if isinstance(contender, Saveset):
        results.append(measure(contender.name, "again", folder, lambda: contender.again(image, folder)))
        results.append(measure(contender.name, "verify full", folder, lambda: contender.verify(folder)))
    return results


def run_round(contenders: list[Contender], image: Path, work: Path) -> list[Result]:
    """Every contender's turn, once."""
    results = []
    for contender in contenders:
        results += run_turn(contender, image, work / "repository", work / "restored")
    shutil.rmtree(work / "repository")
    (work / "restored").unlink()
    return results


def summarise(results: list[Result], shares: Shares) -> list[dict[str, t.Any]]:
    """Medians over the rounds, a row for each contender and operation."""
    rows = []
    for key in dict.fromkeys((result.contender, result.operation) for result in results):
        same = [result for result in results if (result.contender, result.operation) == key]
        wall = statistics.median(result.wall_s for result in same)
        rows.append(
            {
                "contender": key[0],
                "operation": key[1],
                "wall_s": round(wall, 2),
                "wall_s_all": [round(result.wall_s, 2) for result in same],
                "cpu_s": round(statistics.median(result.cpu_s for result in same), 2),
                "mib_per_s_non_zero": round(shares.non_zero / MIB / wall, 1),
                "mib_per_s_volume": round(shares.size / MIB / wall, 1),
                "stored_mib": round(same[-1].stored_bytes / MIB, 1),
            }
        )
    return rows


def print_table(rows: list[dict[str, t.Any]], shares: Shares, rounds: int) -> None:
    """The result for people."""
    print(
        f"image: {shares.size / MIB:.0f} MiB = files {shares.files / MIB:.0f}, random {shares.random / MIB:.0f}, "
        f"written zeros {shares.zeros / MIB:.0f}, holes {shares.holes / MIB:.0f}; "
        f"{os.cpu_count()} processors; medians of {rounds} rounds"
    )
    print(f"{'':14}{'':12} {'wall s':>8} {'CPU s':>8} {'MiB/s':>8} {'stored MiB':>11}   (MiB/s of non-zero data)")
    for row in rows:
        print(
            f"{row['contender']:14}{row['operation']:12} {row['wall_s']:8.2f} {row['cpu_s']:8.2f} "
            f"{row['mib_per_s_non_zero']:8.1f} {row['stored_mib']:11.1f}"
        )


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", default="build/bench", type=Path, help="scratch folder (default: %(default)s)")
    parser.add_argument("--size", default=2.0, type=float, help="size of the image in GiB (default: %(default)s)")
    parser.add_argument("--rounds", default=3, type=int, help="rounds (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the result there too")
    parser.add_argument("--without", action="append", default=[], help="leave a contender out, by name")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    contenders: list[Contender] = [Saveset(), Pipeline()]
    if shutil.which("restic"):
        contenders.append(Restic())
    else:
        print("restic is not installed: left out", file=sys.stderr)
    contenders = [contender for contender in contenders if contender.name not in arguments.without]
    image = work / "image"
    shares = make_image(image, int(arguments.size * 1024) * MIB)
    results = []
    for _round in range(arguments.rounds):
        results += run_round(contenders, image, work)
    image.unlink()
    rows = summarise(results, shares)
    print_table(rows, shares, arguments.rounds)
    if arguments.json:
        machine = {"processors": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()}
        content = {"image": dataclasses.asdict(shares), "machine": machine, "rounds": arguments.rounds, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

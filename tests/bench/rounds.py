# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A round: each operation by every contender in turn, on the same image."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

from . import change, measure
from .contender import (
    FULL,
    INCREMENTAL,
    PRUNE,
    RESTORE,
    RESTORE_CHANGED,
    UNCHANGED,
    VERIFY,
    Backup,
    Contender,
)
from .measure import ContenderError, Sample

_FILL_BYTES = 8 << 20


@dataclasses.dataclass
class Bench:
    """What all rounds share."""

    work: Path
    image: Path
    used: list[change.Extent]
    samples: list[Sample] = dataclasses.field(default_factory=list)
    say: t.Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    @property
    def target(self) -> Path:
        """What restores write over."""
        return self.work / "target"


class Round:
    """One round; contenders keep their repositories until its end."""

    def __init__(self, bench: Bench, number: int, contenders: t.Sequence[Contender]) -> None:
        """:param contenders: in the order in which they take their turns."""
        self._bench = bench
        self._number = number
        self._contenders = contenders
        self._backups = dict.fromkeys(contenders, 0)

    def run(self) -> None:
        """Do all operations but pruning; the image is at the end what it was at the beginning."""
        for contender in self._contenders:
            contender.folder.mkdir(parents=True)
            self._unmeasured(contender, contender.prepare())
        self._back_up(FULL, None)
        self._back_up(UNCHANGED, [])
        self._restore(RESTORE)
        self._verify()
        changed = []
        for operation, share in INCREMENTAL.items():
            seed = f"{operation}/{self._number}"
            extents = change.scattered(self._bench.used, share, seed)
            change.apply(self._bench.image, extents, seed)
            changed.append((extents, seed))
            self._back_up(operation, extents)
        self._restore(RESTORE_CHANGED)
        for extents, seed in changed:
            change.apply(self._bench.image, extents, seed)
        for contender in self._contenders:
            shutil.rmtree(contender.folder)

    def _turn(self, operation: str) -> list[Contender]:
        return [contender for contender in self._contenders if operation in contender.operations]

    def _back_up(self, operation: str, extents: list[change.Extent] | None) -> None:
        for contender in self._turn(operation):
            backup = Backup(self._bench.image, self._backups[contender], extents)
            self._backups[contender] += 1
            measure.warm(self._bench.image)
            run_measured(self._bench, contender, operation, self._number, contender.backup(backup))

    def _restore(self, operation: str) -> None:
        for contender in self._turn(operation):
            fill(self._bench.target, self._bench.image.stat().st_size)
            measure.warm(contender.folder)
            run_measured(
                self._bench,
                contender,
                operation,
                self._number,
                contender.restore(self._bench.target, self._backups[contender] - 1),
            )
            if subprocess.run(["cmp", self._bench.image, self._bench.target], check=False).returncode:
                raise ContenderError(f"{contender.name}: what it restored differs from the image")
        self._bench.target.unlink()

    def _verify(self) -> None:
        for contender in self._turn(VERIFY):
            measure.warm(contender.folder)
            run_measured(self._bench, contender, VERIFY, self._number, contender.verify(self._backups[contender] - 1))

    def _unmeasured(self, contender: Contender, command: str) -> None:
        measure.run(command, contender.environment, contender.folder / "log")


def prune_rounds(bench: Bench, contenders: t.Sequence[Contender], rounds: int, savesets: int) -> None:
    """Make ``savesets`` backups, each with 1 % of the image changed; then, every round, prune a copy to one."""
    able = [contender for contender in contenders if PRUNE in contender.operations]
    for contender in able:
        contender.folder.mkdir(parents=True)
        measure.run(contender.prepare(), contender.environment, contender.folder / "log")
    for number in range(savesets):
        extents = change.scattered(bench.used, 0.01, f"prune/{number}") if number else None
        if extents:
            change.apply(bench.image, extents, f"prune/{number}")
        for contender in able:
            backup = contender.backup(Backup(bench.image, number, extents))
            measure.run(backup, contender.environment, contender.folder / "log")
    for number in range(rounds):
        for contender in turns(able, number):
            kept = contender.folder.with_suffix(".kept")
            subprocess.run(["cp", "-a", contender.folder, kept], check=True)
            run_measured(bench, contender, PRUNE, number, contender.prune(savesets - 1))
            shutil.rmtree(contender.folder)
            os.rename(kept, contender.folder)
    for contender in able:
        shutil.rmtree(contender.folder)


def turns(contenders: t.Sequence[Contender], number: int) -> list[Contender]:
    """The order of round ``number``: forwards and backwards in alternation, beginning one further each time."""
    shift = number // 2 % max(1, len(contenders))
    order = [*contenders[shift:], *contenders[:shift]]
    return order if number % 2 == 0 else order[::-1]


def run_measured(bench: Bench, contender: Contender, operation: str, number: int, command: str) -> None:
    """Run a command as a contender's operation, and add the sample."""
    log = contender.folder / "log"
    before = measure.stored_bytes(contender.repository)
    try:
        usage = measure.run_durably(command, contender.environment, bench.work, log)
    except ContenderError as error:
        raise ContenderError(f"{contender.name}, {operation}: {error}") from error
    grown = measure.stored_bytes(contender.repository) - before
    told = contender.source_read_bytes(log) if operation in (FULL, UNCHANGED, *INCREMENTAL) else None
    sample = Sample(contender.name, operation, number, *usage, stored_bytes=grown, source_read_bytes=told)
    bench.samples.append(sample)
    bench.say(f"round {number + 1}  {operation:19} {contender.name:16} {sample.wall_s:8.2f} s")


def fill(path: Path, size: int) -> None:
    """Write other data over the whole target, so that all of it is allocated and nothing of it is right."""
    block = os.urandom(_FILL_BYTES)
    with open(path, "r+b" if path.exists() else "wb", buffering=0) as file:
        for offset in range(0, size, _FILL_BYTES):
            file.write(block[: size - offset])
        os.fsync(file.fileno())

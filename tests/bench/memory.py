# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory test: what a backup of 1 TiB takes, without and with millions of known chunks; see known_chunks.py."""

from __future__ import annotations

import json
import shutil
import sys
import typing as t
from pathlib import Path

from . import measure
from .contender import quote
from .ours import engine_command
from .rounds import Bench

_SPARSE_BYTES = 1 << 40
_STRETCH_BYTES = 1 << 20
_STRETCHES = 64


def run(bench: Bench, chunks: int) -> dict[str, t.Any]:
    """Peak memory in bytes with no chunk, half of them and all ``chunks`` known, bytes for each chunk of the second
    half, and the seconds of a backup with nothing changed."""
    volume, repository = bench.work / "sparse", bench.work / "known"
    _engine(bench, repository, "create")
    unknown = _back_up_new_data(bench, repository, volume, 0)
    half = _learn(bench, repository, chunks // 2)
    some = _back_up_new_data(bench, repository, volume, 1)
    other_half = _learn(bench, repository, chunks - half)
    known = _back_up_new_data(bench, repository, volume, 2)
    changes = bench.work / "changes.json"
    changes.write_text(json.dumps([]))
    unchanged = _engine(bench, repository, "backup", "--number", "3", "--changes", str(changes), str(volume))
    volume.unlink()
    shutil.rmtree(repository)
    shutil.rmtree(f"{repository}.cache")
    return {
        "volume_bytes": _SPARSE_BYTES,
        "known_chunks": chunks,
        "peak_bytes": known.peak_bytes,
        "peak_bytes_half_known": some.peak_bytes,
        "peak_bytes_nothing_known": unknown.peak_bytes,
        "bytes_per_known_chunk": (known.peak_bytes - some.peak_bytes) / other_half,
        "backup_s": known.wall_s,
        "unchanged_s": unchanged.wall_s,
        "unchanged_peak_bytes": unchanged.peak_bytes,
    }


def told(figures: dict[str, t.Any]) -> str:
    """The figures for people."""
    return (
        f"backup of a sparse volume of 1 TiB with {figures['known_chunks']} chunks known: "
        f"{figures['peak_bytes'] / (1 << 20):.0f} MiB of memory "
        f"({figures['peak_bytes_nothing_known'] / (1 << 20):.0f} MiB with none known, "
        f"{figures['bytes_per_known_chunk']:.0f} bytes for each more); nothing changed: {figures['unchanged_s']:.2f} s"
    )


def _back_up_new_data(bench: Bench, repository: Path, volume: Path, number: int) -> measure.Usage:
    """Back up a sparse file with 1 MiB of data never seen before in each of 64 places: every stage has some work."""
    with open(volume, "wb") as file, open("/dev/urandom", "rb") as random:
        file.truncate(_SPARSE_BYTES)
        for offset in range(0, _SPARSE_BYTES, _SPARSE_BYTES // _STRETCHES):
            file.seek(offset)
            file.write(random.read(_STRETCH_BYTES))
    return _engine(bench, repository, "backup", "--number", str(number), str(volume))


def _learn(bench: Bench, repository: Path, chunks: int) -> int:
    bench.say(f"making packs that tell of {chunks} chunks")
    builder = Path(__file__).with_name("known_chunks.py")
    measure.run(quote(sys.executable, builder, repository, chunks), {}, bench.work / "log")
    return chunks


def _engine(bench: Bench, repository: Path, *words: str) -> measure.Usage:
    return measure.run_durably(engine_command(repository, *words), {}, bench.work, bench.work / "log")

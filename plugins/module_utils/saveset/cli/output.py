# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, times, tables and progress as people read them, and savesets as programs read them."""

from __future__ import annotations

import datetime
import io
import json
import sys
import time
import typing as t

from ..base.progress import Progress
from ..format.commit import SavesetInfo

#: The digits of a saveset's id that tables show.
ID_DIGITS = 8

_LINE_EVERY_S = 10.0  # when progress does not go to a terminal


def show_all() -> None:
    """Let stdout and stderr accept every text: what the locale cannot encode is escaped, as ``\\xe9``.

    Names, reasons and paths come from the site, and must not abort a listing on an ISO-8859-1 or ASCII terminal.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have replaced it with something else
            stream.reconfigure(errors="backslashreplace")


def say(text: str, stream: t.TextIO | None = None) -> None:
    """Write a line and flush it; to standard output by default."""
    stream = stream or sys.stdout
    stream.write(text + "\n")
    stream.flush()


def size_text(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def duration_text(seconds: float) -> str:
    """Seconds for people: ``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rate_text(count: float, seconds: float) -> str:
    """Bytes per second for people."""
    return f"{size_text(count / max(seconds, 0.001))}/s"


def time_text(moment: datetime.datetime) -> str:
    """A consistency point for people, in UTC."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def saveset_text(info: SavesetInfo) -> str:
    """A saveset as a phrase that identifies it uniquely."""
    return f"{info.volume} of {time_text(info.time)} UTC (run {info.run_id}, saveset {info.id}, {info.verdict})"


def saveset_facts(info: SavesetInfo) -> dict[str, t.Any]:
    """A saveset as plain values; times in ISO 8601, UTC."""
    return {
        "id": info.id,
        "volume": info.volume,
        "run_id": info.run_id,
        "sequence": info.sequence,
        "time": info.time.astimezone(datetime.UTC).isoformat(),
        "verdict": info.verdict,
        "size": info.size,
        "chunk_size": info.chunk_size,
        "parent": info.parent,
        "digest": info.digest,
        "origin": info.origin,
        "stats": info.stats.as_dict(),
        "metadata": info.metadata,
    }


def print_json(value: t.Any) -> None:
    """Print a value as JSON; times as ISO 8601."""
    say(json.dumps(value, indent=2, sort_keys=True, default=datetime.datetime.isoformat))


def print_table(rows: t.Sequence[t.Sequence[str]], right: t.Collection[int] = ()) -> None:
    """Print rows, the first of them the heading; the columns in ``right`` are right-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        say("  ".join(cells).rstrip())


def warn(text: str) -> None:
    """Write a line to stderr, prefixed with the program's name."""
    say(f"isb-saveset: {text}", sys.stderr)


class Meter:
    """Shows progress on stderr: on a terminal in one line that is rewritten, else in a new line every ten seconds."""

    def __init__(self, quiet: bool, stream: t.TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._told = time.monotonic()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Show progress, unless it was shown only a moment ago."""
        if self._quiet:
            return
        if self._terminal:
            text = progress_text(progress)
            self._stream.write(f"\r{text.ljust(self._width)}")
            self._stream.flush()
            self._width = len(text)
        elif time.monotonic() - self._told >= _LINE_EVERY_S:
            say(progress_text(progress), self._stream)
            self._told = time.monotonic()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_exc: object) -> None:
        """End the line, so that later output begins on a new one."""
        if self._width:
            say("", self._stream)


def progress_text(progress: Progress) -> str:
    """Progress with its rate and the time left."""
    done, total, elapsed = progress.bytes_done, progress.bytes_total, progress.elapsed_s
    share = 100 * done / total if total else 100.0
    text = f"{share:5.1f} %  {size_text(done)} of {size_text(total)}  {rate_text(done, elapsed)}"
    if 0 < done < total:
        text += f"  {duration_text(elapsed * (total - done) / done)} left"
    return text

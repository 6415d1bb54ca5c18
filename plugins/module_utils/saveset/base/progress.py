# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress and statistics of a backup, a restore or a verification."""

from __future__ import annotations

import dataclasses
import threading
import time
import typing as t


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a running operation; all figures in bytes, and seconds since it began.

    ``bytes_total`` is the volume's size (verify: the bytes to verify); ``bytes_done`` how much of it is done,
    including holes; ``bytes_read`` what was read from the source; ``bytes_new`` what was not yet in the repository,
    before compression; ``bytes_stored`` its size in packs.
    """

    bytes_total: int = 0
    bytes_done: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    elapsed_s: float = 0.0


ProgressCallback = t.Callable[[Progress], None]

#: The states of a volume in a job.
WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"


class VolumeProgress(t.NamedTuple):
    """How far one volume of a job is."""

    volume: str
    state: str
    progress: Progress


VolumesCallback = t.Callable[[t.Sequence[VolumeProgress]], None]


@dataclasses.dataclass(frozen=True)
class BackupStats:
    """What a backup did; bytes, and seconds of wall time.

    ``bytes_size = holes + bytes_zero + bytes_unchanged + bytes_known + bytes_new``, where ``bytes_zero`` counts zeros
    that were read or that the source reported, ``bytes_unchanged`` what was taken over from the parent unread,
    ``bytes_known`` what an earlier or interrupted backup had already stored, and ``bytes_stored`` what was added to
    packs.  Volumes of one job are backed up at once, so their ``seconds`` overlap.

    ``slow_reads`` is the number of reads from the source that took longer than the backup's ``read_latency``, and
    ``seconds_paused`` is how long reading was paused because of them, averaged over the job's reading threads.
    """

    bytes_size: int = 0
    bytes_read: int = 0
    bytes_zero: int = 0
    bytes_unchanged: int = 0
    bytes_known: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0
    slow_reads: int = 0
    seconds_paused: float = 0.0

    def as_dict(self) -> dict[str, int | float]:
        """The figures as a plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, figures: t.Mapping[str, t.Any]) -> BackupStats:
        """The figures from a commit; missing ones become 0, unknown ones are ignored."""
        return cls(**{field.name: figures.get(field.name, field.default) for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class RestoreStats:
    """What a restore did; bytes, and seconds of wall time.

    ``bytes_written`` is data written, ``bytes_zeroed`` what was zeroed, punched or, on a fresh file, left as a hole.
    If only differences were written, ``bytes_compared`` of the target were compared first, and ``bytes_kept`` were
    already right: ``bytes_size = bytes_written + bytes_zeroed + bytes_kept``.  ``bytes_checked`` were read back and
    compared after writing.  ``bytes_stored`` were read from packs.
    """

    bytes_size: int = 0
    bytes_written: int = 0
    bytes_zeroed: int = 0
    bytes_compared: int = 0
    bytes_kept: int = 0
    bytes_checked: int = 0
    bytes_stored: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, int | float]:
        """The figures as a plain dictionary."""
        return dataclasses.asdict(self)


class Counters:
    """Sums to which several threads add."""

    NAMES = (
        *("done", "read", "zero", "unchanged", "known", "new", "stored"),
        *("written", "zeroed", "compared", "kept", "checked"),
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = dict.fromkeys(self.NAMES, 0)
        self._begun = time.monotonic()

    def add(self, **amounts: int) -> None:
        """Add to the named sums."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    def __getitem__(self, name: str) -> int:
        return self._sums[name]

    @property
    def seconds(self) -> float:
        """Seconds since the counters were made."""
        return time.monotonic() - self._begun

    def progress(self, total: int) -> Progress:
        """The current state."""
        with self._lock:
            sums = dict(self._sums)
        return Progress(total, sums["done"], sums["read"], sums["new"], sums["stored"], self.seconds)

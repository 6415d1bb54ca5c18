# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup is asked to do: made once by the caller, and read by every part of the backup."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from ..base.errors import InvalidValue
from ..base.parallel import default_workers
from ..base.volume import check_distinct, check_volume
from ..format.bounds import LEAVES_MAX
from ..format.commit import SavesetInfo, check_metadata, commit_name, utc
from ..format.directory import Geometry
from ..format.fields import RUN_TEXT, SOURCE_ID
from ..format.order import CLOCK_LIMIT
from ..store.names import kind_of
from .changes import Changes
from .packs import PACK_BYTES

LATEST = "latest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackupRequest:
    """One volume at one consistency point, and how to read and store it.

    :param volume: the volume id, like ``fs1/m``.
    :param run_id: the run that the saveset belongs to.
    :param time: the consistency point, an aware datetime. It may be before that of the latest saveset, for example
        after a wrong clock was corrected: savesets that are ahead of it are then set aside.
    :param verdict: the run's verdict, stored as it is.
    :param metadata: anything that JSON can represent, stored encrypted.
    :param parent: the saveset whose map pages are shared where nothing changed: a saveset of the same volume, None for
        no parent, or ``latest``, the latest in the order.
    :param source_id: identifies the point in time that the source shows, such as a snapshot's UUID; empty if nothing
        does.  Changed extents of the next backup refer to it, and an interrupted backup of the same source is resumed.
    :param changes: what changed since the parent; only that is read.  If it does not match the parent exactly,
        everything is read, and the saveset's origin says why.
    :param paranoid: read everything anyway, and record in the origin whether the changed extents are right.
    :param level: zstd level, 1 to 19.
    :param workers: threads of the whole job; None for two or three.
    :param rate_limit: the most bytes per second to read from the sources of the whole job; None for no limit.
    :param read_latency: reading slows down while a read of up to 1 MiB takes longer than this many seconds; None for no
        guard.
    :param pack_bytes: about how many bytes a pack has.
    :param cache_dir: where this host keeps the index of the repository's chunks between backups; None for the folder of
        known.cache.default_folder().
    :param clock_limit: how far ahead of this host's clock the consistency point may be.
    """

    volume: str
    run_id: str
    time: datetime.datetime
    verdict: str
    metadata: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    parent: SavesetInfo | str | None = LATEST
    source_id: str = ""
    changes: Changes | None = None
    paranoid: bool = False
    level: int = 1
    workers: int | None = None
    rate_limit: int | None = None
    read_latency: float | None = None
    pack_bytes: int = PACK_BYTES
    cache_dir: str | None = None
    clock_limit: datetime.timedelta = CLOCK_LIMIT

    @property
    def moment(self) -> datetime.datetime:
        """The consistency point in UTC.  Raises InvalidValue if it has no time zone."""
        return utc(self.time)

    @property
    def threads(self) -> int:
        """How many workers there are."""
        return self.workers or default_workers()

    def check(self, size: int, chunk_size: int) -> None:
        """Raise InvalidValue, before anything is read, for what could not be done or not be committed in the end.

        :param size: the source's, in bytes.
        :param chunk_size: the repository's, in bytes.
        """
        self._check_moment()
        self._check_kept()
        if Geometry(size, chunk_size).leaves > LEAVES_MAX:
            raise InvalidValue(
                f"volume {self.volume}",
                f"it has {size} bytes, more than a repository with chunks of {chunk_size} bytes can map",
                "Use a repository with larger chunks",
            )
        check_volume(self.volume)
        if not self.run_id or not self.verdict:
            raise InvalidValue("run id and verdict", "one of them is empty", "Pass both")
        if not 1 <= self.level <= 19:
            raise InvalidValue(
                f"level {self.level}", "zstd has levels 1 to 19", "Use 1 unless the store is the bottleneck"
            )

    def _check_moment(self) -> None:
        ahead = self.moment - datetime.datetime.now(datetime.UTC)
        if ahead > self.clock_limit:
            raise InvalidValue(
                f"consistency point {self.moment:%Y-%m-%dT%H:%M:%SZ}",
                f"it is {ahead.total_seconds():.0f} s ahead of this host's clock; the limit is "
                f"{self.clock_limit.total_seconds():g} s",
                "Correct the wrong clock, this host's or the one that set the consistency point, and back up again",
            )

    def _check_kept(self) -> None:
        """What the commit stores."""
        kind_of(commit_name(self.volume, self.moment, "0" * 32))
        for what, value, check in (
            ("source id", self.source_id, SOURCE_ID),
            ("run id", self.run_id, RUN_TEXT),
            ("verdict", self.verdict, RUN_TEXT),
        ):
            try:
                check(value)
            except ValueError as error:
                raise InvalidValue(
                    f"{what} {value!r}", f"a saveset cannot store it: {error}", "Pass another one"
                ) from error
        check_metadata(self.metadata)


def check_together(requests: t.Sequence[BackupRequest]) -> None:
    """Raise InvalidValue unless these can be one job: of different volumes, with the same settings of the job."""
    check_distinct(request.volume for request in requests)
    for request in requests:
        if _of_the_job(request) != _of_the_job(requests[0]):
            raise InvalidValue(
                f"volume {request.volume!r}",
                f"its workers, rate limit or cache folder are not the job's, which are those of {requests[0].volume!r}",
                "Pass the same for all volumes of a job",
            )


def _of_the_job(request: BackupRequest) -> tuple[t.Any, ...]:
    return request.workers, request.rate_limit, request.cache_dir

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job: several volumes backed up at once, each with its own lease, session, map and commit.

They share what would cost as much again for each: the workers, the two threads that write packs, the index of chunks,
and the rate limit.  What remains for each is small while it runs, and released when it ends: an open pack, some pages
of its parent's map, at most one frame of grains for each worker.  A volume that fails takes nothing with it: its lease
ends, what it has published stays for the next backup of the same source, as after any interruption.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import typing as t

from .alike import check_alone, check_listed
from .backup.backup import Hand
from .backup.index import ChunkIndex
from .backup.packs import PackWriter
from .backup.pool import Pool, Work
from .backup.request import BackupRequest, check_together
from .backup.writing import BackupRun, Parent, Shared, Written, session_of
from .base.errors import Cancelled, InvalidValue, SavesetError
from .base.progress import FAILED, FINISHED, RUNNING, WAITING, Progress, VolumeProgress, VolumesCallback
from .collect.lease import Lease, writing
from .collect.tombstone import Withheld
from .format.commit import SavesetInfo, encode_commit
from .format.container import PACK_KIND, object_name
from .format.directory import Geometry
from .format.order import next_sequence
from .io.source import Source
from .io.throttle import RateLimit
from .keys.keys import KeyRing
from .known.cache import default_folder
from .program.tool import try_refresh
from .store.store import Store

#: The saveset of a volume, or why there is none.
Outcome: t.TypeAlias = "SavesetInfo | SavesetError | OSError"


class Place(t.NamedTuple):
    """The repository that a job writes to."""

    store: Store
    ring: KeyRing
    chunk_size: int
    #: The savesets of a volume, in their order.
    savesets: t.Callable[[str], list[SavesetInfo]]
    #: The parent to use, if any, given the volume's savesets.
    parent: t.Callable[[BackupRequest, t.Sequence[SavesetInfo]], Parent | None]
    #: Is called with what the user should know, although the backup goes on.
    warn: t.Callable[[str], object]


class VolumeBackup(Work[Hand]):
    """One volume of a job."""

    def __init__(self, place: Place, source: Source, request: BackupRequest) -> None:
        self.request = request
        self.outcome: Outcome | None = None
        self._place = place
        self._source = source
        self._state = WAITING
        self._last: Progress | None = None  # once it has ended
        self._held = contextlib.ExitStack()
        self._lease: Lease
        self._before: list[SavesetInfo]
        self._run: BackupRun | None = None

    def attempt(self, step: t.Callable[[], object]) -> None:
        """Take a step before the pool runs, unless one has failed; a failure is this volume's outcome."""
        if self.outcome is not None:
            return
        try:
            step()
        except (SavesetError, OSError) as error:
            self.close(error)

    def check(self) -> None:
        """Raise InvalidValue for what could not be done or not be committed in the end."""
        self.request.check(self._source.size, self._place.chunk_size)

    def take_lease(self) -> None:
        """Have the repository keep what this backup uses and stores.  Raises StoreFull, StoreError, RepositoryBusy."""
        session = session_of(self._place.ring, self.request)
        self._lease = self._held.enter_context(
            writing(self._place.store, self._place.ring, self.request.volume, session)
        )

    def prepare(self, shared: Shared) -> None:
        """Find what this backup builds on; reads nothing of the source.  Raises InvalidValue, StoreError."""
        check_alone(self._place.store, self.request.volume)
        self._before = self._place.savesets(self.request.volume)
        self._run = BackupRun(
            self._place.store,
            self._place.ring,
            self.request,
            self._source,
            geometry=Geometry(self._source.size, self._place.chunk_size),
            parent=self._place.parent(self.request, self._before),
            shared=shared,
        )
        self._held.callback(self._run.abort)

    @property
    def withheld(self) -> Withheld:
        """What its lease says that it does not use."""
        return self._lease.withheld

    @property
    def progress(self) -> VolumeProgress:
        """How far it is."""
        running = self._run.progress if self._run else Progress(self._source.size)
        return VolumeProgress(self.request.volume, self._state, self._last or running)

    # -- in the pool

    @property
    def run(self) -> BackupRun:
        """What writes packs and map."""
        if self._run is None:
            raise RuntimeError("prepare() comes first")
        return self._run

    def begin(self) -> None:
        self._state = RUNNING
        self.run.begin()

    def step(self, hand: Hand) -> bool:
        return self.run.step(hand)

    def finish(self, hand: Hand, then: t.Callable[[], object]) -> None:
        self.run.finish(hand, then)

    def stop(self) -> None:
        if self._run:
            self._run.stop()

    def conclude(self) -> None:
        self.outcome = self._commit(self.run.publish())
        self._state = FINISHED
        self.run.committed()

    def close(self, error: BaseException | None) -> None:
        self._last = self._last or self.progress.progress
        # What cannot be removed only costs disk space until the next backup sweeps, and must not hide what happened.
        with contextlib.suppress(SavesetError, OSError):
            self._held.close()
        if self.outcome is None:
            self._state = FAILED
            self.outcome = error if isinstance(error, (SavesetError, OSError)) else _stopped()
        self._run = None

    def _commit(self, written: Written) -> SavesetInfo:
        store, ring, request = self._place.store, self._place.ring, self.request
        info = SavesetInfo(
            id=secrets.token_hex(16),
            volume=request.volume,
            run_id=request.run_id,
            sequence=next_sequence(info.place for info in self._before),
            time=request.moment,
            verdict=request.verdict,
            size=self._source.size,
            chunk_size=self._place.chunk_size,
            map_id=written.map_id.hex(),
            root=written.root.hex(),
            digest=written.digest.hex(),
            parent=self.run.parent_id,
            origin=written.origin,
            stats=written.stats,
            metadata=dict(request.metadata),
        )
        # The map may name packs that another writer has just published and not yet made durable.
        store.settle(object_name(PACK_KIND, pack) for pack in written.new_packs)
        self._lease.commit(info.name, encode_commit(info, ring))
        try:
            check_listed(store, request.volume, info.name)
        except InvalidValue:
            store.delete(info.name)
            raise
        return info


def back_up(
    place: Place, volumes: t.Sequence[tuple[Source, BackupRequest]], progress: VolumesCallback | None
) -> list[Outcome]:
    """Back up volumes at once; what came of each, in their order.

    :param progress: as for Repository.backup_all().
    Raises InvalidValue if the requests cannot be one job, StoreError, and what progress raises.
    """
    check_together([request for _source, request in volumes])
    backups = [VolumeBackup(place, source, request) for source, request in volumes]
    for backup in backups:
        backup.attempt(backup.check)
    if any(backup.outcome is None for backup in backups):
        _run(place, backups, progress)
    return [backup.outcome or _stopped() for backup in backups]


def _run(place: Place, backups: t.Sequence[VolumeBackup], progress: VolumesCallback | None) -> None:
    request = backups[0].request
    threads = request.threads
    try_refresh(place.store, place.ring)
    with contextlib.ExitStack() as stack:
        # All leases come first, so that every volume may use what the others store: see volume_index.py.
        for backup in backups:
            stack.callback(backup.close, None)
            backup.attempt(backup.take_lease)
        withheld = Withheld.of_all(backup.withheld for backup in backups if backup.outcome is None)
        place.store.sweep()
        writer = PackWriter()
        stack.callback(writer.close)
        index = ChunkIndex(place.store, place.ring, withheld, request.cache_dir or default_folder(), place.warn)
        stack.callback(index.close)
        shared = Shared(
            index=index,
            writer=writer,
            rate=RateLimit(request.rate_limit),
            threads=threads,
            withheld=withheld,
        )
        for backup in backups:
            backup.attempt(functools.partial(backup.prepare, shared))
        works = [backup for backup in backups if backup.outcome is None]

        def tell() -> None:
            if progress:
                progress([backup.progress for backup in backups])

        Pool(threads, lambda: Hand(place.chunk_size)).run(works, tell if progress else None)


def _stopped() -> Cancelled:
    return Cancelled("the backup", "it was stopped", "Run it again")

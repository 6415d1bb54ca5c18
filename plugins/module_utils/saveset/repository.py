# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repositories: create, open, back up, list, find, prune, verify."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import secrets
import typing as t

from .access.keyfile import SCRYPT, Unlocked, passphrase_key, unlock
from .access.keyfiles import KeyFiles
from .backup.request import LATEST, BackupRequest
from .backup.writing import Parent, readable
from .backup_job import Place, back_up
from .base.deps import require
from .base.errors import (
    Damaged,
    InvalidValue,
    NotARepository,
    NotEncrypted,
    NotFound,
    RepositoryExists,
    SavesetError,
    StoreError,
    UnsupportedFormat,
)
from .base.extent import DATA, Extent
from .base.linux import keep_freed_memory
from .base.parallel import default_workers
from .base.progress import BackupStats, ProgressCallback, RestoreStats, VolumeProgress, VolumesCallback
from .base.volume import check_volume, volume_folder
from .collect.collect import is_going
from .collect.lease import RESTORE, VERIFY, reading
from .collect.pins import Pin, is_pinned, pin_name, pin_texts, put_pin, read_pins
from .collect.prune import PruneOptions, Pruner, PruneReport
from .collect.retention import Policy
from .format.bounds import CHUNK_SIZES
from .format.commit import SavesetInfo, commit_name, decode_commit, parse_name
from .format.document import Document, decode_document, encode_document
from .format.features import read_features, read_only_error
from .format.leafmap import CACHE_LEAVES, CACHE_LEAVES_IN_ORDER, LeafMap
from .format.order import set_aside
from .format.page import LEAF_ENTRIES
from .io.source import Source
from .io.target import Target
from .keys.keys import KeyRing, public_master, write_only_error
from .keys.secret import Secret
from .program.tool import problems as tool_problems
from .program.tool import refresh
from .restore.compare import Comparer
from .restore.reader import ChunkReader
from .restore.restore import RestoreJob
from .restore.sample import is_on
from .store.store import Store
from .trial import try_out
from .verify.packcheck import Limits
from .verify.records import FULL
from .verify.scrub import DOCUMENTS, objects_in, stray_problem
from .verify.verify import Scope, Verifier, VerifyReport

CHUNK_SIZE = 256 << 10
AES_256_GCM = "aes-256-gcm"
NO_ENCRYPTION = "none"

_REPO = "repo.json"
#: Folders of documents that verify() verifies besides commits and keys.
SIGNED = ("pins", "gc/punched", "gc/tombstones", "gc/forgotten")
_CHANGED = "Put back a copy of the object; nothing else in the repository needs to be changed"


class Saveset:
    """One restore point of one volume; reading needs only the repository."""

    def __init__(self, repository: Repository, info: SavesetInfo) -> None:
        self._repository = repository
        self.info = info

    def __repr__(self) -> str:
        return f"<Saveset {self.volume} {self.time:%Y-%m-%dT%H:%M:%SZ} {self.id}>"

    @property
    def id(self) -> str:
        """32 hex digits."""
        return self.info.id

    @property
    def volume(self) -> str:
        """The volume id, like ``fs1/m``."""
        return self.info.volume

    @property
    def run_id(self) -> str:
        """The run that made it."""
        return self.info.run_id

    @property
    def time(self) -> datetime.datetime:
        """The consistency point, UTC."""
        return self.info.time

    @property
    def verdict(self) -> str:
        """The run's verdict on its consistency."""
        return self.info.verdict

    @property
    def size(self) -> int:
        """The volume's size in bytes."""
        return self.info.size

    @property
    def stats(self) -> BackupStats:
        """What the backup did."""
        return self.info.stats

    @property
    def metadata(self) -> dict[str, t.Any]:
        """The metadata given to backup()."""
        return self.info.metadata

    @functools.cached_property
    def map(self) -> LeafMap:
        """The saveset's map.  Raises NotFound, Damaged."""
        return self._repository.open_map(self.info)

    @functools.cached_property
    def reader(self) -> ChunkReader:
        """The reader of its chunks, with a cache.  Raises WrongSecret (a write-only key)."""
        return self._repository.reader()

    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        """The extents of the volume, or of a range of it, in order, with neighbours of one kind merged.

        Kinds are HOLE, ZERO and DATA.  Raises NotFound, Damaged.
        """
        end = self.size if length is None else min(offset + length, self.size)
        for kind, group in itertools.groupby(self._kinds(offset, end)):
            chunks = offset // self.info.chunk_size + sum(1 for _chunk in group)
            stop = min(chunks * self.info.chunk_size, end)
            yield Extent(offset, stop - offset, kind)
            offset = stop

    def _kinds(self, begin: int, end: int) -> t.Iterator[int]:
        """The kind of each chunk from ``begin`` to ``end``."""
        number, stop = begin // self.info.chunk_size, -(-end // self.info.chunk_size)
        while number < stop and begin < end:
            leaf, position = divmod(number, LEAF_ENTRIES)
            for kind in self.map.page(leaf).kinds(position, position + stop - number):
                yield min(kind, DATA)  # a chunk in pieces is data too
                number += 1

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes of the volume from ``offset``, fewer at its end; every chunk is verified.

        Threads may read concurrently.  Within Repository.reading(), nothing that it needs is removed meanwhile.
        Raises InvalidValue, NotFound, Damaged, WrongSecret (a write-only key).
        """
        if offset < 0 or length < 0:
            raise InvalidValue(f"range {offset}+{length}", "it is negative", "Ask for a range inside the volume")
        end = min(offset + length, self.size)
        pieces = []
        while offset < end:
            number, skip = divmod(offset, self.info.chunk_size)
            chunk_length = self.map.geometry.chunk_length(number)
            take = min(chunk_length - skip, end - offset)
            pieces.append(self._chunk(number, chunk_length)[skip : skip + take])
            offset += take
        return b"".join(pieces)

    def _chunk(self, number: int, length: int) -> bytes | bytearray | memoryview:
        leaf, position = divmod(number, LEAF_ENTRIES)
        return self.reader.chunk(self.map.page(leaf), position, length)

    def restore(
        self,
        target: Target,
        *,
        only_changed: bool = False,
        check: bool = False,
        base: Saveset | None = None,
        progress: ProgressCallback | None = None,
        workers: int | None = None,
    ) -> RestoreStats:
        """Make ``target`` hold the whole volume, durably.

        :param only_changed: read the target first, and write only what differs: to revert a volume, to update a
            standby, or to resume an interrupted restore.
        :param check: after writing, read everything back and compare it.
        :param base: the saveset that the target is known to hold: only what differs between the two is written, and
            the target is not read. The caller must know that nothing was written to it since; see is_on(). It is
            ignored if the volume had another size.
        Raises WrongSecret (a write-only key), TargetTooSmall, TargetError, TargetMismatch (check), NotFound, Damaged;
        see RestoreJob.run().
        """
        used = base if base and base.map.geometry == self.map.geometry else None
        with self._repository.reading(RESTORE, self.info, *([used.info] if used else [])):
            comparer = self._repository.comparer(self.reader)
            job = RestoreJob(
                self.map, comparer, self.reader, target, only_changed, check, base=used.map if used else None
            )
            # Two more workers than usual, because writing past the page cache waits for the disk.
            return job.run(workers or default_workers() + 2, progress)

    def is_on(self, target: Target) -> bool:
        """Whether a sample of the volume's chunks is on ``target``.

        Raises WrongSecret (a write-only key), TargetError, NotFound, Damaged.
        """
        with self._repository.reading(RESTORE, self.info):
            return is_on(self.map, self._repository.comparer(self.reader), target)


class Repository:
    """An open repository.  Any number of processes and hosts may read and write it concurrently."""

    def __init__(self, store: Store, document: Document, unlocked: Unlocked, read_only: bool) -> None:
        self.store = store
        self.id: str = document.fields["id"]
        self.chunk_size: int = document.fields["chunk_size"]
        self.encryption: str = document.fields["encryption"]
        #: True if a newer version added a feature that this version could break by writing.
        self.read_only = read_only
        self._ring = unlocked.ring
        #: Warnings for the user, as sentences.
        self.warnings: list[str] = []
        #: Called at once with each new warning.
        self.on_warning: t.Callable[[str], object] | None = None
        #: The key files: list, add, remove, export.
        self.key_files = KeyFiles(store, unlocked.ring, unlocked.key_id, not read_only)

    # -- create and open

    @classmethod
    def create(
        cls,
        store: Store,
        secret: Secret,
        *,
        encryption: str = AES_256_GCM,
        chunk_size: int = CHUNK_SIZE,
    ) -> Repository:
        """Create a repository in an empty store.

        :param encryption: ``aes-256-gcm`` (the secret needs a passphrase) or ``none``.
        :param chunk_size: bytes, a power of two from 4 KiB to 4 MiB.
        Raises RepositoryExists, InvalidValue, StoreError (also if the store does not support what backups need).
        """
        require()
        _check_create(secret, encryption, chunk_size)
        store.prepare()
        told = try_out(store)
        repository_id = secrets.token_hex(16)
        encrypted = encryption == AES_256_GCM
        master = secrets.token_bytes(32) if encrypted else public_master(repository_id)
        ring = KeyRing(repository_id, master, encrypted)
        refresh(store, ring)
        if encrypted:
            info, data = passphrase_key(SCRYPT, ring, secret.passphrase or b"", secret.cost, {})
            store.put(info.name, data)
        fields = {
            "id": repository_id,
            "chunk_size": chunk_size,
            "encryption": encryption,
            "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        # Written last: without it there is no repository, and creation can be retried.
        store.put(_REPO, encode_document("repository", fields, ring.mac))
        repository = cls.open(store, dataclasses.replace(secret, unencrypted=not encrypted))
        if repository.id != repository_id:  # possible if the filesystem cannot take names exclusively
            raise RepositoryExists(
                store.location, "another process created a repository there at the same time", "Open that one"
            )
        repository.warnings += told
        return repository

    @classmethod
    def open(cls, store: Store, secret: Secret) -> Repository:
        """Open a repository.

        Raises NotARepository, WrongSecret, NotEncrypted, UnsupportedFormat, Damaged, StoreError.
        """
        require()
        keep_freed_memory()
        try:
            data = store.get(_REPO)
        except NotFound as error:
            raise NotARepository(
                store.location, "it holds no repo.json", "Check the path, or create a repository there"
            ) from error
        document = decode_document(_REPO, data, "repository")
        fields = document.fields
        encryption: str = fields["encryption"]
        repository_id: str = fields["id"]
        if encryption not in (AES_256_GCM, NO_ENCRYPTION):
            raise UnsupportedFormat(_REPO, f"its encryption {encryption!r} is unknown", "Use a newer version")
        if encryption == NO_ENCRYPTION:
            _check_unencrypted(store.location, secret)
            unlocked = Unlocked(KeyRing(repository_id, public_master(repository_id), False), None)
            document.check_mac(_REPO, unlocked.ring.mac)
        else:
            unlocked = unlock(store, secret, repository_id, lambda ring: document.check_mac(_REPO, ring.mac))
        ring = unlocked.ring
        return cls(store, document, unlocked, document.read_only or read_features(store, ring).read_only)

    @property
    def write_only(self) -> bool:
        """Whether it was opened with a write-only key: savesets can be created, listed and verified, but not read."""
        return self._ring.write_only

    def require_reading(self) -> None:
        """Raise WrongSecret if the repository was opened with a write-only key."""
        if self.write_only:
            raise write_only_error(self.location)

    def reading_secret(self) -> Secret:
        """A secret that opens it again for reading, without the cost of a passphrase.  Raises WrongSecret."""
        self.require_reading()
        return Secret(master=self._ring.master) if self.encryption != NO_ENCRYPTION else Secret(unencrypted=True)

    def try_writing(self) -> None:
        """Test with temporary objects that the store supports what backups need; each fallback is a warning.

        Raises UnsupportedFormat (read-only); StoreError, naming what is refused.
        """
        self._check_writable()
        for text in try_out(self.store):
            self.warn(text)

    def warn(self, text: str) -> None:
        """Add a warning, and pass it to ``on_warning``."""
        if text not in self.warnings:
            self.warnings.append(text)
            if self.on_warning is not None:
                self.on_warning(text)

    @property
    def location(self) -> str:
        """Where the repository is, for people."""
        return self.store.location

    def free_bytes(self) -> int | None:
        """Free disk space of the store in bytes; None if it is unknown."""
        return self.store.free_bytes()

    # -- back up

    def backup(self, source: Source, request: BackupRequest, progress: ProgressCallback | None = None) -> Saveset:
        """Back up a whole volume; the saveset exists if, and only if, this returns.

        :param progress: called about twice a second in this thread; an exception from it stops the backup.
        Raises InvalidValue, SourceError, StoreFull, StoreError, UnsupportedFormat (read-only), and what progress
        raises; in any case, earlier savesets stay intact and nothing incomplete stays visible.
        """

        def tell(volumes: t.Sequence[VolumeProgress]) -> None:
            if progress:
                progress(volumes[0].progress)

        (outcome,) = self.backup_all([(source, request)], tell if progress else None)
        if not isinstance(outcome, Saveset):
            raise outcome
        return outcome

    def backup_all(
        self, volumes: t.Sequence[tuple[Source, BackupRequest]], progress: VolumesCallback | None = None
    ) -> list[Saveset | SavesetError | OSError]:
        """Back up several volumes at once, by as many threads and at the rate that one would have.

        Returns what came of each, in their order: its saveset, or the error for which it has none.  A volume is
        committed as soon as it is done, and one that fails does not stop the others.

        :param progress: called about twice a second in this thread; an exception from it stops all volumes that are not
            committed yet.
        Raises InvalidValue if the requests cannot be one job, StoreError, UnsupportedFormat (read-only), and what
        progress raises; in any case, earlier savesets stay intact and nothing incomplete stays visible.
        """
        self._check_writable()
        place = Place(self.store, self._ring, self.chunk_size, self.savesets, self._parent, self.warn)
        found = back_up(place, volumes, progress)
        return [self.saveset(item) if isinstance(item, SavesetInfo) else item for item in found]

    def _check_writable(self) -> None:
        if self.read_only:
            raise read_only_error(self.store, self._ring)

    def _parent(self, request: BackupRequest, before: t.Sequence[SavesetInfo]) -> Parent | None:
        """The parent to use; None if there is none that can be read.  ``before``: the volume's savesets."""
        parent = request.parent
        if isinstance(parent, str):
            if parent != LATEST:
                raise InvalidValue(
                    f"parent {parent!r}", "it is neither a saveset nor 'latest'", "Pass a saveset or 'latest'"
                )
            parent = next(reversed(_fitting(before)), None)
        if parent is None:
            return None
        if parent.volume != request.volume:
            raise InvalidValue(
                f"parent {parent.id}", f"it belongs to volume {parent.volume}", f"Pass one of volume {request.volume}"
            )
        if parent.chunk_size != self.chunk_size or not self._is_there(parent):
            return None
        return readable(parent, lambda info: self.open_map(info, CACHE_LEAVES_IN_ORDER))

    # -- list and find

    def scan(self, volume: str | None = None) -> tuple[list[SavesetInfo], list[tuple[str, SavesetError]]]:
        """All savesets, by volume and then in their order, and the unreadable commits, as (name, error)."""
        infos: list[SavesetInfo] = []
        problems: list[tuple[str, SavesetError]] = []
        prefix = f"savesets/{volume_folder(volume)}" if volume else "savesets"
        for name in self.store.list(prefix):
            try:
                infos.append(decode_commit(name, self.store.get(name), self._ring))
            except StoreError:
                raise
            except NotFound:
                continue  # removed since it was listed
            except SavesetError as error:
                problems.append((name, error))
        infos.sort(key=lambda info: info.place)
        return infos, problems

    def savesets(self, volume: str | None = None) -> list[SavesetInfo]:
        """All savesets, or those of a volume, by volume and then in their order; reads no pack.

        Damaged commits are left out: scan() and verify() report them.
        """
        return self.scan(volume)[0]

    def find(self, volume: str, saveset_id: str | None = None, run_id: str | None = None) -> Saveset:
        """The latest saveset of a volume, or the one with that id (its first digits are enough) or run id.

        The latest is the last one in the order that is not set aside; see :mod:`.order`.

        Raises NotFound; Damaged if a damaged commit may be the wanted one; InvalidValue if several savesets match the
        digits or the run id.
        """
        infos, problems = self.scan(check_volume(volume))
        found = [
            info
            for info in (infos if saveset_id or run_id else _fitting(infos))
            if (not saveset_id or info.id.startswith(saveset_id)) and (not run_id or info.run_id == run_id)
        ]
        if saveset_id and len(found) > 1:
            raise InvalidValue(
                f"saveset id {saveset_id}", f"{len(found)} savesets of {volume} begin with it", "Give more digits"
            )
        if run_id and len(found) > 1:
            ids = ", ".join(info.id for info in found)
            raise InvalidValue(f"run id {run_id}", f"{len(found)} savesets of {volume} have it", f"Name one: {ids}")
        latest = commit_name(volume, found[-1].time, "") if found else ""
        for name, error in problems:
            parsed = parse_name(name)
            could_be = name > latest if not saveset_id else not found
            if could_be and (not saveset_id or parsed is None or parsed[2].startswith(saveset_id)):
                raise error
        if not found:
            wanted = " ".join([f"id {saveset_id}"] * bool(saveset_id) + [f"run id {run_id}"] * bool(run_id))
            raise NotFound(
                f"saveset {wanted} of volume {volume}" if wanted else f"volume {volume}",
                f"{self.location} has no such saveset",
                "List the savesets to see which exist",
            )
        return Saveset(self, found[-1])

    def set_aside(self, volume: str | None = None) -> dict[str, str]:
        """The savesets that are set aside, by id, with the reason: none of them is ever the latest."""
        return set_aside(info.place for info in self.savesets(volume))

    def saveset(self, info: SavesetInfo) -> Saveset:
        """The saveset of a listed ``info``."""
        return Saveset(self, info)

    # -- keep and remove

    def pin(self, saveset: Saveset | SavesetInfo, who: str, why: str) -> Pin:
        """Keep a saveset regardless of the retention policy; pinning it again replaces who and why.

        Raises NotFound if it is removed or about to be removed; InvalidValue, StoreError.
        """
        self._check_writable()
        info = saveset.info if isinstance(saveset, Saveset) else saveset
        pin = put_pin(self.store, self._ring, info.id, who, why)
        if is_going(self.store, info.id) or not self._is_there(info):
            self.store.delete_all([pin_name(info.id)])
            raise NotFound(f"saveset {info.id}", "it has been forgotten", "Pin another one of the volume")
        return pin

    def unpin(self, saveset_id: str) -> bool:
        """Make a saveset subject to the retention policy again; False if it was not pinned.  Raises StoreError."""
        self._check_writable()
        pinned = is_pinned(self.store, saveset_id)
        self.store.delete_all([pin_name(saveset_id)])
        return pinned

    def pins(self) -> dict[str, Pin]:
        """The readable pins, by saveset id."""
        return read_pins(self.store, self._ring)[0]

    def pinned(self) -> dict[str, str]:
        """Who pinned which savesets, and why, by saveset id, for people; includes unreadable pins, which count too."""
        return pin_texts(self.store, self._ring)

    def forget(self, saveset_ids: t.Collection[str]) -> list[str]:
        """Remove savesets, also damaged ones, by their full ids; the next prune collects what only they used.

        Returns the ids of the removed ones: all except those that were pinned meanwhile.  Raises NotFound,
        InvalidValue (pinned; then nothing is removed), RepositoryBusy, StoreError.
        """
        self._check_writable()
        return Pruner(self.store, self._ring, self.scan, PruneOptions(), None).forget(saveset_ids)

    def prune(
        self,
        policy: Policy | None,
        *,
        options: PruneOptions | None = None,
        dry_run: bool = False,
        progress: ProgressCallback | None = None,
    ) -> PruneReport:
        """Forget what a retention policy does not keep, and remove what no saveset uses; see :mod:`.collect`.

        :param policy: applied to each volume separately; None forgets nothing.
        :param dry_run: only report what would be done.
        :param progress: called with the bytes freed and expected; an exception from it stops the work, which the next
            prune resumes.
        Raises RepositoryBusy if another prune is running; Damaged, NotFound if a saveset cannot be read, before
        anything is changed; StoreFull, StoreError.
        """
        if not dry_run:
            self._check_writable()
        pruner = Pruner(self.store, self._ring, self.scan, options or PruneOptions(), progress, self.warn)
        return pruner.preview(policy) if dry_run else pruner.run(policy)

    @contextlib.contextmanager
    def reading(self, role: str, *savesets: SavesetInfo) -> t.Iterator[None]:
        """Protect what these savesets use from removal during the block; warns if no lease could be put.

        :param role: the purpose, such as lease.SERVE.
        Raises NotFound if a saveset is already removed, or was removed meanwhile together with what was read.
        """
        with reading(self.store, self._ring, role) as warning:
            if warning:
                self.warn(warning)
            self._check_there(savesets, "it has been forgotten")
            try:
                yield
            except (NotFound, Damaged):
                if warning:
                    self._check_there(
                        savesets, "it was forgotten while it was being read, and there was no lease to prevent that"
                    )
                raise

    def _check_there(self, savesets: t.Iterable[SavesetInfo], problem: str) -> None:
        for info in savesets:
            if not self._is_there(info):
                raise NotFound(
                    f"saveset {info.id} of volume {info.volume}", problem, "List the savesets to see which exist"
                )

    def _is_there(self, info: SavesetInfo) -> bool:
        try:
            self.store.size(info.name)
        except NotFound:
            return False
        return True

    # -- verify

    def verify(
        self,
        savesets: t.Iterable[Saveset | SavesetInfo] | None = None,
        depth: str = "structure",
        *,
        older_than: datetime.timedelta | None = None,
        limit_bytes: int | None = None,
        limit_seconds: float | None = None,
        record: bool = True,
        progress: ProgressCallback | None = None,
        workers: int | None = None,
    ) -> VerifyReport:
        """Verify savesets, by default all of the repository; damage is reported, not raised.

        What was verified is recorded in the repository if ``record`` is set and the repository can be written.

        :param depth: ``structure``, ``stored`` or ``full``; see :mod:`.verify`.
        :param older_than: skip packs that were verified to this depth or a deeper one within this time.
        :param limit_bytes: begin no further pack after this many bytes of packs; those verified longest ago come first.
        :param limit_seconds: begin no further pack after this many seconds.
        :param record: whether to record what was verified; never done read-only or with a write-only key.
        Raises InvalidValue; WrongSecret for ``full`` with a write-only key.
        """
        if depth == FULL:
            self.require_reading()
        with self.reading(VERIFY):
            records = record and not (self.read_only or self.write_only)
            verifier = Verifier(self.store, self._ring, depth, records, self.warn)
            self._verify_documents(verifier)
            if savesets is None:
                infos, problems = self._scan_all()
                for name, error in problems:
                    parsed = parse_name(name)
                    verifier.add_problem(name, error.cause, volume=parsed[0] if parsed else "")
            else:
                wanted = [item.info if isinstance(item, Saveset) else item for item in savesets]
                infos = [info for info in wanted if self._commit_is_whole(info, verifier)]
            scope = Scope(older_than, Limits(limit_bytes, limit_seconds), savesets is None)
            return verifier.run(infos, self.open_map, scope, workers or default_workers(), progress)

    def _verify_documents(self, verifier: Verifier) -> None:
        """Verify repo.json, the key files and other documents again: they may have changed since it was opened."""
        try:
            decode_document(_REPO, self.store.get(_REPO), "repository").check_mac(_REPO, self._ring.mac)
        except SavesetError as error:
            verifier.add_problem(_REPO, error.cause)
        for name, problem in (*self.key_files.problems(), *read_features(self.store, self._ring).problems):
            verifier.add_problem(name, problem)
        for stray in self.store.strays():
            verifier.add_problem(stray.name, stray_problem(stray))
        for folder in SIGNED:
            for name in objects_in(self.store, folder):
                try:
                    decode_document(name, self.store.get(name), DOCUMENTS[folder]).check_mac(name, self._ring.mac)
                except NotFound:
                    continue  # removed since it was listed
                except SavesetError as error:
                    verifier.add_problem(name, error.cause)
        for name, problem in tool_problems(self.store, self._ring):
            verifier.add_problem(name, problem)

    def _scan_all(self) -> tuple[list[SavesetInfo], list[tuple[str, SavesetError]]]:
        try:
            return self.scan()
        except Damaged as error:  # not a folder: it cannot contain anything
            return [], [(error.thing, error)]

    def _commit_is_whole(self, info: SavesetInfo, verifier: Verifier) -> bool:
        try:
            decode_commit(info.name, self.store.get(info.name), self._ring)
        except SavesetError as error:
            verifier.add_problem(info.name, error.cause, info)
            return False
        return True

    # -- for savesets

    def open_map(self, info: SavesetInfo, cache_leaves: int = CACHE_LEAVES) -> LeafMap:
        """The map of a saveset.  Raises NotFound, Damaged."""
        map_id = bytes.fromhex(info.map_id)
        leaf_map = LeafMap(self.store, self._ring, volume_folder(info.volume), map_id, cache_leaves)
        if (leaf_map.geometry.size, leaf_map.geometry.chunk_size) != (info.size, info.chunk_size):
            raise Damaged(leaf_map.name, "its size is not the one in the commit", _CHANGED)
        return leaf_map

    def reader(self) -> ChunkReader:
        """A reader of chunks.  Raises WrongSecret with a write-only key."""
        self.require_reading()
        return ChunkReader(self.store, self._ring)

    def comparer(self, reader: ChunkReader) -> Comparer:
        """A comparer of targets with savesets."""
        return Comparer(self._ring, reader)


def _check_unencrypted(location: str, secret: Secret) -> None:
    """Raise NotEncrypted unless a repository without encryption was explicitly requested.

    Otherwise somebody could replace an encrypted repository with one in which writers store plain text and that
    readers trust.
    """
    if not secret.is_empty:
        raise NotEncrypted(
            location,
            "a secret was given, but the repository is not encrypted",
            "Somebody may have put it in place of yours. Open it without a secret if it is what you expect",
        )
    if not secret.unencrypted:
        raise not_encrypted(location)


def not_encrypted(location: str) -> NotEncrypted:
    """The error for a repository without encryption that was not explicitly requested."""
    return NotEncrypted(
        location,
        "it is not encrypted, so nothing proves who wrote it; somebody may have put it in place of yours",
        "Request it explicitly as unencrypted if that is what you expect",
    )


def looks_unencrypted(store: Store) -> bool:
    """Whether a repository claims to be unencrypted, as far as can be determined without a key.

    Raises NotFound, StoreError; False if it is damaged.
    """
    try:
        return bool(decode_document(_REPO, store.get(_REPO), "repository").fields.get("encryption") == NO_ENCRYPTION)
    except (Damaged, UnsupportedFormat):
        return False


def _fitting(infos: t.Sequence[SavesetInfo]) -> list[SavesetInfo]:
    """The savesets of one volume, in order, without those that are set aside."""
    aside = set_aside(info.place for info in infos)
    return [info for info in infos if info.id not in aside]


def _check_create(secret: Secret, encryption: str, chunk_size: int) -> None:
    if encryption not in (AES_256_GCM, NO_ENCRYPTION):
        raise InvalidValue(f"encryption {encryption!r}", "it is unknown", f"Use {AES_256_GCM} or {NO_ENCRYPTION}")
    if encryption == AES_256_GCM and not secret.passphrase:
        raise InvalidValue("the passphrase", "none was given", "Give one, or choose encryption 'none' on purpose")
    if encryption == NO_ENCRYPTION and secret.passphrase:
        raise InvalidValue("the passphrase", "an unencrypted repository has none", "Leave it out")
    if chunk_size not in CHUNK_SIZES:
        raise InvalidValue(f"chunk size {chunk_size}", "it is not a power of two from 4 KiB to 4 MiB", "Use 262144")

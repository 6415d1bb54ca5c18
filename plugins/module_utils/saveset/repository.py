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

from .backup import ProgressCallback, default_workers
from .bounds import CHUNK_SIZES, LEAVES_MAX
from .changes import Changes
from .checks import FULL
from .collect import is_going
from .commit import SavesetInfo, check_metadata, commit_name, decode_commit, encode_commit, parse_name, utc
from .compare import Comparer
from .container import PACK_KIND, object_name
from .deps import require
from .directory import Geometry
from .document import Document, decode_document, encode_document
from .errors import (
    Damaged,
    InvalidValue,
    NotARepository,
    NotEncrypted,
    NotFound,
    SavesetError,
    StoreError,
    UnsupportedFormat,
)
from .extent import DATA, Extent
from .features import read_features, read_only_error
from .fields import RUN_TEXT, SOURCE_ID
from .keyfile import SCRYPT, Unlocked, passphrase_key, unlock
from .keyfiles import KeyFiles
from .keys import KeyRing, public_master, write_only_error
from .leafmap import LeafMap
from .lease import RESTORE, VERIFY, reading, writing
from .linux import keep_freed_memory
from .names import kind_of
from .order import next_sequence, set_aside
from .packcheck import Limits
from .packs import PACK_BYTES
from .page import LEAF_ENTRIES
from .pins import Pin, is_pinned, pin_name, pin_texts, put_pin, read_pins
from .progress import BackupStats, RestoreStats
from .prune import CLOCK_LIMIT, PruneOptions, Pruner, PruneReport
from .reader import ChunkReader
from .restore import RestoreJob
from .retention import Policy
from .sample import is_on
from .scrub import DOCUMENTS, objects_in, stray_problem
from .secret import Secret
from .source import Source
from .store import Store
from .target import Target
from .tool import problems as tool_problems
from .tool import refresh, try_refresh
from .verify import Scope, Verifier, VerifyReport
from .volume import check_volume, volume_folder
from .writing import BackupOptions, BackupRun, Parent, readable, session_of

CHUNK_SIZE = 256 << 10
AES_256_GCM = "aes-256-gcm"
NO_ENCRYPTION = "none"
LATEST = "latest"

_REPO = "repo.json"
#: Folders of documents that verify() checks besides commits and keys.
SIGNED = ("pins", "gc/punched", "gc/tombstones", "gc/forgotten")
_CHANGED = "Put back a copy of the object; nothing else in the repository needs to be touched"


class Saveset:
    """One restore point of one volume; reading needs nothing but the repository."""

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
        """What the caller of backup() wanted kept."""
        return self.info.metadata

    @functools.cached_property
    def map(self) -> LeafMap:
        """The saveset's map.  Raises NotFound, Damaged."""
        return self._repository.open_map(self.info)

    @functools.cached_property
    def reader(self) -> ChunkReader:
        """What reads its chunks, and keeps some.  Raises WrongSecret (a write-only key)."""
        return self._repository.reader()

    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        """The extents of the volume, or of a range of it, in order, neighbours of one kind merged.

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
        """``length`` bytes of the volume from ``offset``, fewer at its end, every chunk checked.

        Threads may read at once.  Within Repository.reading() nothing that it needs is removed meanwhile.
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

        :param only_changed: read what the target holds first, and write only what differs: to revert a volume, to keep
            a standby close, or to take up a restore that was interrupted.
        :param check: read everything back when all is written, and compare it.
        :param base: the saveset that the target is known to hold: only what differs between the two is written, and
            nothing is read of the target. Whoever gives it must know that nothing was written since; see is_on(). It
            is not used where the volume had another size.
        Raises WrongSecret (a write-only key), TargetTooSmall, TargetError, TargetMismatch (check), NotFound, Damaged;
        see RestoreJob.run().
        """
        used = base if base and base.map.geometry == self.map.geometry else None
        with self._repository.reading(RESTORE, self.info, *([used.info] if used else [])):
            comparer = self._repository.comparer(self.reader)
            job = RestoreJob(
                self.map, comparer, self.reader, target, only_changed, check, base=used.map if used else None
            )
            # Two more than processors, as writing past the page cache waits for the disk.
            return job.run(workers or default_workers() + 2, progress)

    def is_on(self, target: Target) -> bool:
        """Whether a sample of the volume's chunks is on ``target``.

        Raises WrongSecret (a write-only key), TargetError, NotFound, Damaged.
        """
        with self._repository.reading(RESTORE, self.info):
            return is_on(self.map, self._repository.comparer(self.reader), target)


class Repository:
    """An open repository.  Any number of processes and hosts may read and write one at once."""

    def __init__(self, store: Store, document: Document, unlocked: Unlocked, read_only: bool) -> None:
        self.store = store
        self.id: str = document.fields["id"]
        self.chunk_size: int = document.fields["chunk_size"]
        self.encryption: str = document.fields["encryption"]
        #: True when a newer version put a feature into it that this one could break by writing.
        self.read_only = read_only
        self._ring = unlocked.ring
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
        """Make a new repository in an empty store.

        :param encryption: ``aes-256-gcm`` (the secret needs a passphrase) or ``none``.
        :param chunk_size: bytes, a power of two from 4 KiB to 4 MiB.
        Raises RepositoryExists, InvalidValue, StoreError.
        """
        require()
        _check_create(secret, encryption, chunk_size)
        store.prepare()
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
            "created": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        # Last: without it there is no repository, and creating can be tried again.
        store.put(_REPO, encode_document("repository", fields, ring.mac))
        return cls.open(store, dataclasses.replace(secret, unencrypted=not encrypted))

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
        """Whether it was opened with a write-only key: savesets can be made, listed and checked, but not read."""
        return self._ring.write_only

    def require_reading(self) -> None:
        """Raise WrongSecret when the repository was opened with a write-only key."""
        if self.write_only:
            raise write_only_error(self.location)

    def reading_secret(self) -> Secret:
        """What opens it again for reading, without the work that a passphrase costs.  Raises WrongSecret."""
        self.require_reading()
        return Secret(master=self._ring.master) if self.encryption != NO_ENCRYPTION else Secret(unencrypted=True)

    @property
    def location(self) -> str:
        """Where the repository is, for people."""
        return self.store.location

    def free_bytes(self) -> int | None:
        """Free room of the store in bytes, None when it cannot tell."""
        return self.store.free_bytes()

    # -- back up

    def backup(
        self,
        source: Source,
        volume: str,
        *,
        run_id: str,
        time: datetime.datetime,
        verdict: str,
        metadata: dict[str, t.Any] | None = None,
        level: int = 1,
        workers: int | None = None,
        progress: ProgressCallback | None = None,
        rate_limit: int | None = None,
        read_latency: float | None = None,
        parent: Saveset | str | None = LATEST,
        source_id: str = "",
        changes: Changes | None = None,
        paranoid: bool = False,
        pack_bytes: int = PACK_BYTES,
        clock_limit: datetime.timedelta = CLOCK_LIMIT,
    ) -> Saveset:
        """Back up a whole volume; the saveset exists when, and only when, this returns.

        :param time: the consistency point, an aware datetime. It may lie before that of the latest saveset, as it does
            when a clock was wrong before and is right now: what is ahead of it then is set aside.
        :param verdict: the run's verdict, kept as it is.
        :param metadata: anything that JSON can hold, kept encrypted.
        :param level: zstd level, 1 to 19.
        :param workers: threads; by default two or three.
        :param progress: called about twice a second in this thread; what it raises stops the backup.
        :param rate_limit: at most so many bytes a second are read from the source.
        :param read_latency: reading slows down while a read of up to 1 MiB takes longer than so many seconds.
        :param parent: whose map pages are shared where nothing changed: a saveset of the same volume, None for
            no parent, or ``latest``, the latest in the order.
        :param source_id: names the point in time that the source shows, such as a snapshot's UUID.  Changed extents of
            the next backup are bound to it, and a backup of the same source that was interrupted is taken up again.
        :param changes: what changed since the parent; only that is read.  Where they do not fit the parent exactly,
            everything is read, and the saveset's origin tells why.
        :param paranoid: read everything all the same, and tell in the origin whether the changed extents are true.
        :param clock_limit: how far ahead of this host's clock the consistency point may be.
        Raises InvalidValue, SourceError, StoreFull, StoreError, UnsupportedFormat (read-only), and what progress
        raises; whatever is raised, earlier savesets stay whole and nothing half-made stays visible.
        """
        moment = _not_in_the_future(utc(time), clock_limit)
        self._check_kept(source, volume, moment, {"run id": run_id, "verdict": verdict}, source_id, metadata or {})
        self._check_backup(volume, run_id, verdict, level)
        try_refresh(self.store, self._ring)
        with writing(self.store, self._ring, volume, session_of(self._ring, volume, source_id)) as lease:
            before = self.savesets(volume)
            run = BackupRun(
                self.store,
                self._ring,
                self.chunk_size,
                source=source,
                volume=volume,
                parent=self._parent(parent, volume, before),
                source_id=source_id,
                changes=changes,
                options=BackupOptions(level, workers, rate_limit, read_latency, paranoid, pack_bytes),
                withheld=lease.withheld,
            )
            written = run.run(progress)
            info = SavesetInfo(
                id=secrets.token_hex(16),
                volume=volume,
                run_id=run_id,
                sequence=next_sequence(info.place for info in before),
                time=moment,
                verdict=verdict,
                size=source.size,
                chunk_size=self.chunk_size,
                map_id=written.map_id.hex(),
                root=written.root.hex(),
                digest=written.digest.hex(),
                parent=run.parent_id,
                origin=written.origin,
                stats=written.stats,
                metadata=dict(metadata or {}),
            )
            # It may name packs that another writer has published this moment and not made durable yet.
            self.store.settle(object_name(PACK_KIND, pack) for pack in written.new_packs)
            lease.commit(info.name, encode_commit(info, self._ring))
            run.committed()
        return Saveset(self, info)

    def _check_backup(self, volume: str, run_id: str, verdict: str, level: int) -> None:
        check_volume(volume)
        if not run_id or not verdict:
            raise InvalidValue("run id and verdict", "one is empty", "Pass both")
        if not 1 <= level <= 19:
            raise InvalidValue(f"level {level}", "zstd has levels 1 to 19", "Use 1 unless the store is the bottleneck")
        self._check_writable()

    def _check_kept(
        self,
        source: Source,
        volume: str,
        moment: datetime.datetime,
        texts: t.Mapping[str, str],
        source_id: str,
        metadata: t.Mapping[str, t.Any],
    ) -> None:
        """Raise InvalidValue before anything is read for what could not be committed, however long it was read."""
        kind_of(commit_name(volume, moment, "0" * 32))
        for what, value, check in [
            ("source id", source_id, SOURCE_ID),
            *((what, text, RUN_TEXT) for what, text in texts.items()),
        ]:
            try:
                check(value)
            except ValueError as error:
                raise InvalidValue(
                    f"{what} {value!r}", f"no saveset can keep it: {error}", "Pass another one"
                ) from error
        check_metadata(metadata)
        if Geometry(source.size, self.chunk_size).leaves > LEAVES_MAX:
            raise InvalidValue(
                f"volume {volume}",
                f"it has {source.size} bytes, more than a repository with chunks of {self.chunk_size} bytes can map",
                "Use a repository with larger chunks",
            )

    def _check_writable(self) -> None:
        if self.read_only:
            raise read_only_error(self.store, self._ring)

    def _parent(self, parent: Saveset | str | None, volume: str, before: t.Sequence[SavesetInfo]) -> Parent | None:
        """The parent to use, None when there is none that can be read.  ``before``: what the volume has."""
        if parent is None:
            return None
        if isinstance(parent, str):
            if parent != LATEST:
                raise InvalidValue(f"parent {parent!r}", "it is neither a saveset nor 'latest'", "Pass one of these")
            fitting = _fitting(before)
            if not fitting:
                return None
            parent = Saveset(self, fitting[-1])
        if parent.volume != volume:
            raise InvalidValue(f"parent {parent.id}", f"it is of volume {parent.volume}", f"Pass one of {volume}")
        if parent.info.chunk_size != self.chunk_size or not self._is_there(parent.info):
            return None
        return readable(parent.info, self.open_map)

    # -- list and find

    def scan(self, volume: str | None = None) -> tuple[list[SavesetInfo], list[tuple[str, SavesetError]]]:
        """All savesets, by volume and then in the order in which they came, and the commits that cannot be read, as
        (name, error)."""
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
        """All savesets, or those of a volume, by volume and then in the order in which they came; no pack is read.

        Damaged commits are left out here: scan() and verify() tell them.
        """
        return self.scan(volume)[0]

    def find(self, volume: str, saveset_id: str | None = None, run_id: str | None = None) -> Saveset:
        """The latest saveset of a volume, or the one with that id (its first digits do) or of that run.

        The latest is the last one in the order that fits into it; see :mod:`.order`.

        Raises NotFound; Damaged when a commit is damaged that may be the one asked for; InvalidValue when several
        savesets begin with the digits given, or are of the run.
        """
        infos, problems = self.scan(check_volume(volume))
        found = [
            info
            for info in (infos if saveset_id or run_id else _fitting(infos))
            if (not saveset_id or info.id.startswith(saveset_id)) and (not run_id or info.run_id == run_id)
        ]
        if saveset_id and len(found) > 1:
            raise InvalidValue(
                f"saveset id {saveset_id}", f"{len(found)} savesets of {volume} begin so", "Give more digits"
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
                "List the savesets to see what is there",
            )
        return Saveset(self, found[-1])

    def set_aside(self, volume: str | None = None) -> dict[str, str]:
        """The savesets that do not fit into the order, by id, and why: none of them is a latest one."""
        return set_aside(info.place for info in self.savesets(volume))

    def saveset(self, info: SavesetInfo) -> Saveset:
        """The saveset that a listing told of."""
        return Saveset(self, info)

    # -- keep and remove

    def pin(self, saveset: Saveset | SavesetInfo, who: str, why: str) -> Pin:
        """Keep a saveset whatever a retention policy says; pinning it again replaces who and why.

        Raises NotFound when it is gone or about to go; InvalidValue, StoreError.
        """
        self._check_writable()
        info = saveset.info if isinstance(saveset, Saveset) else saveset
        pin = put_pin(self.store, self._ring, info.id, who, why)
        if is_going(self.store, info.id) or not self._is_there(info):
            self.store.delete_all([pin_name(info.id)])
            raise NotFound(f"saveset {info.id}", "it has been forgotten", "Pin another one of the volume")
        return pin

    def unpin(self, saveset_id: str) -> bool:
        """Leave a saveset to the retention policy again; False when it was not pinned.  Raises StoreError."""
        self._check_writable()
        pinned = is_pinned(self.store, saveset_id)
        self.store.delete_all([pin_name(saveset_id)])
        return pinned

    def pins(self) -> dict[str, Pin]:
        """The pins that can be read, by saveset id."""
        return read_pins(self.store, self._ring)[0]

    def pinned(self) -> dict[str, str]:
        """Who keeps which savesets, and why, for people, by saveset id; also where a pin cannot be read: it counts."""
        return pin_texts(self.store, self._ring)

    def forget(self, saveset_ids: t.Collection[str]) -> list[str]:
        """Remove savesets, damaged ones too, by their whole ids; the next prune collects what only they used.

        Returns the ids of those that are gone: all but the ones that somebody pinned at this very moment.  Raises
        NotFound, InvalidValue (pinned; nothing is removed then), RepositoryBusy, StoreError.
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

        :param policy: put to each volume by itself; None forgets nothing.
        :param dry_run: only tell what would be done.
        :param progress: told the bytes freed and those expected; what it raises stops the work, which the next prune
            takes up.
        Raises RepositoryBusy when another prune runs; Damaged, NotFound when a saveset cannot be read, before anything
        is changed; StoreFull, StoreError.
        """
        if not dry_run:
            self._check_writable()
        pruner = Pruner(self.store, self._ring, self.scan, options or PruneOptions(), progress)
        return pruner.preview(policy) if dry_run else pruner.run(policy)

    @contextlib.contextmanager
    def reading(self, role: str, *savesets: SavesetInfo) -> t.Iterator[None]:
        """Nothing that these savesets use is removed before the block is left.

        :param role: what for, such as lease.SERVE.
        Raises NotFound when one is gone already.
        """
        with reading(self.store, self._ring, role):
            for info in savesets:
                if not self._is_there(info):
                    raise NotFound(
                        f"saveset {info.id} of volume {info.volume}",
                        "it has been forgotten",
                        "List the savesets to see what is there",
                    )
            yield

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
        """Verify savesets, all of the repository by default; damage is reported, not raised.

        What was verified is written down in the repository, unless it is not to be written, or cannot.

        :param depth: ``structure``, ``stored`` or ``full``; see :mod:`.verify`.
        :param older_than: packs that were verified to this depth or a deeper one within that time are passed over.
        :param limit_bytes: begin no further pack after so many bytes of packs; those verified longest ago come first.
        :param limit_seconds: nor after so many seconds.
        :param record: whether to write down what was verified; never done read-only or with a write-only key.
        Raises InvalidValue; WrongSecret for ``full`` with a write-only key.
        """
        if depth == FULL:
            self.require_reading()
        with self.reading(VERIFY):
            verifier = Verifier(self.store, self._ring, depth, record and not (self.read_only or self.write_only))
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
        """Check repo.json, the key files and others once more: they may have changed since it was opened."""
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
        except Damaged as error:  # no folder: nothing can be in it
            return [], [(error.thing, error)]

    def _commit_is_whole(self, info: SavesetInfo, verifier: Verifier) -> bool:
        try:
            decode_commit(info.name, self.store.get(info.name), self._ring)
        except SavesetError as error:
            verifier.add_problem(info.name, error.cause, info)
            return False
        return True

    # -- for savesets

    def open_map(self, info: SavesetInfo) -> LeafMap:
        """The map of a saveset.  Raises NotFound, Damaged."""
        leaf_map = LeafMap(self.store, self._ring, volume_folder(info.volume), bytes.fromhex(info.map_id))
        if (leaf_map.geometry.size, leaf_map.geometry.chunk_size) != (info.size, info.chunk_size):
            raise Damaged(leaf_map.name, "its size is not the one in the commit", _CHANGED)
        return leaf_map

    def reader(self) -> ChunkReader:
        """A reader of chunks.  Raises WrongSecret with a write-only key."""
        self.require_reading()
        return ChunkReader(self.store, self._ring)

    def comparer(self, reader: ChunkReader) -> Comparer:
        """What compares a target with savesets."""
        return Comparer(self._ring, reader)


def _check_unencrypted(location: str, secret: Secret) -> None:
    """Raise NotEncrypted unless a repository without encryption is what was asked for.

    Else somebody could swap an encrypted one for one that makes writers store plain text, and readers believe it.
    """
    if not secret.is_empty:
        raise NotEncrypted(
            location,
            "a secret was given, and the repository is not encrypted",
            "Somebody may have put it in the place of yours. Open it without a secret if it is what you expect",
        )
    if not secret.unencrypted:
        raise not_encrypted(location)


def not_encrypted(location: str) -> NotEncrypted:
    """What is raised where a repository without encryption was not asked for as such."""
    return NotEncrypted(
        location,
        "it is not encrypted, so nothing proves who wrote it; somebody may have put it in the place of yours",
        "Ask for it as an unencrypted one if that is what you expect",
    )


def looks_unencrypted(store: Store) -> bool:
    """Whether a repository says, as far as can be told without a key, that it is not encrypted.

    Raises NotFound, StoreError; one that is damaged says nothing.
    """
    try:
        return bool(decode_document(_REPO, store.get(_REPO), "repository").fields.get("encryption") == NO_ENCRYPTION)
    except (Damaged, UnsupportedFormat):
        return False


def _fitting(infos: t.Sequence[SavesetInfo]) -> list[SavesetInfo]:
    """The savesets of one volume, in order, without those that do not fit into it."""
    aside = set_aside(info.place for info in infos)
    return [info for info in infos if info.id not in aside]


def _not_in_the_future(moment: datetime.datetime, limit: datetime.timedelta) -> datetime.datetime:
    """The consistency point; InvalidValue where it is ahead of this host's clock by more than ``limit``."""
    ahead = moment - datetime.datetime.now(datetime.timezone.utc)
    if ahead > limit:
        raise InvalidValue(
            f"consistency point {moment:%Y-%m-%dT%H:%M:%SZ}",
            f"it is {ahead.total_seconds():.0f} s ahead of this host's clock, and may be {limit.total_seconds():g} s",
            "Set the clock right that is wrong, this host's or that of whoever named the moment, and back up again",
        )
    return moment


def _check_create(secret: Secret, encryption: str, chunk_size: int) -> None:
    if encryption not in (AES_256_GCM, NO_ENCRYPTION):
        raise InvalidValue(f"encryption {encryption!r}", "it is unknown", f"Use {AES_256_GCM} or {NO_ENCRYPTION}")
    if encryption == AES_256_GCM and not secret.passphrase:
        raise InvalidValue("the passphrase", "none was given", "Give one, or choose encryption 'none' on purpose")
    if encryption == NO_ENCRYPTION and secret.passphrase:
        raise InvalidValue("the passphrase", "an unencrypted repository has none", "Leave it out")
    if chunk_size not in CHUNK_SIZES:
        raise InvalidValue(f"chunk size {chunk_size}", "it is not a power of two from 4 KiB to 4 MiB", "Use 262144")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases: ``gc/leases/<id>`` says that a process uses the repository, and which tombstones it has seen.

A process puts its lease before it reads anything else.  At first the lease is *unsettled*: nothing may be removed.
The process then reads the tombstones and replaces the lease with one that names them, which means: I use nothing that
these name.  A collector puts its tombstone first and reads the leases afterwards.  So either the process sees the
tombstone, or the collector sees a lease that does not name it, and waits.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import socket
import typing as t

from ..base.errors import Damaged, NameTaken, NotFound, RepositoryBusy, SavesetError, StoreError, StoreFull
from ..format.document import decode_document, encode_document
from ..keys.keys import KeyRing
from ..store.store import Hold, Store
from .tombstone import Withheld, read_tombstones

KIND = "lease"
FOLDER = "gc/leases"
COLLECTOR = "gc/collector"
#: The most tombstones that a lease names, because it is limited to 1 MiB; other tombstones wait for its end.
_SEEN_MAX = 10_000

#: The roles of leases; only a backup writes.
BACKUP, RESTORE, VERIFY, PREVIEW = "backup", "restore", "verify", "dry run of prune"
EXPORT, SERVE = "export", "serve"


class LeaseInfo(t.NamedTuple):
    """A lease as others see it; ``seen`` are the names of the tombstones that it names, None while unsettled."""

    name: str
    role: str
    volume: str
    session: str
    owner: str
    seen: frozenset[str] | None

    def has_seen(self, tombstone: str) -> bool:
        """Whether its owner uses nothing that a tombstone names."""
        return self.seen is not None and tombstone in self.seen

    def __str__(self) -> str:
        volume = f" of {self.volume}" if self.volume else ""
        return f"{self.role}{volume} by {self.owner}"


class Lease:
    """This process's lease."""

    def __init__(self, store: Store, hold: Hold, withheld: Withheld) -> None:
        self._store = store
        self._hold = hold
        #: What this backup must not use.
        self.withheld = withheld

    def commit(self, name: str, data: bytes) -> None:
        """Put the object that makes a saveset exist; if the lease is lost, the saveset does not exist.

        A collector removes the lease of a process that it takes for dead before it reads commits, so checking the
        lease again after putting the commit leaves no race.  Raises StoreFull, StoreError, RepositoryBusy.
        """
        self._check()
        try:
            self._store.put(name, data)
            self._check()
        except NameTaken:
            raise  # it belongs to another process
        except BaseException as error:
            self._withdraw(name, error)
            raise

    def _check(self) -> None:
        if not self._hold.is_kept():
            raise _lost(self._store)

    def _withdraw(self, name: str, why: BaseException) -> None:
        """Remove the commit after any failure: a failed backup must leave no visible saveset."""
        try:
            with contextlib.suppress(NotFound):
                self._store.delete(name)
        except SavesetError as error:
            raise StoreError(
                f"{name} in {self._store.location}",
                f"the backup failed ({why}), and its commit, which was already written, could not be removed ({error})",
                f"Forget saveset {name[-32:]} by its id before anything relies on it, and back up again",
            ) from why


def _lost(store: Store) -> RepositoryBusy:
    return RepositoryBusy(
        store.location,
        "the lease of this backup is gone: another process took this one for dead, and may have removed what it uses",
        "Run the backup again; if the repository is on a network filesystem, make sure that locks work there",
    )


@contextlib.contextmanager
def writing(store: Store, ring: KeyRing, volume: str, session: bytes) -> t.Iterator[Lease]:
    """Hold a lease as a backup.  Raises StoreFull, StoreError, RepositoryBusy."""
    try:
        hold, withheld = _take(store, ring, {"role": BACKUP, "volume": volume, "session": session.hex()})
    except NotFound as error:
        raise _lost(store) from error
    try:
        yield Lease(store, hold, withheld)
    finally:
        hold.release()


@contextlib.contextmanager
def reading(store: Store, ring: KeyRing, role: str) -> t.Iterator[str]:
    """Hold a lease as a reader; yields an empty text, or a warning.

    If no lease can be put, for whatever reason, reading goes on without one, with a warning: reading must not depend on
    writing.  A collector then does not know about the reader, who may find objects missing, but never wrong data.
    """
    hold, warning = None, ""
    try:
        hold, _withheld = _take(store, ring, {"role": role, "volume": "", "session": ""})
    except (SavesetError, OSError) as error:
        warning = (
            f"No lease protects this {role}, because none could be written ({error}). It continues without one. Make "
            "sure that nothing it reads is pruned meanwhile: pin the saveset, or prune later"
        )
    try:
        yield warning
    finally:
        if hold is not None:
            hold.release()


@contextlib.contextmanager
def collecting(store: Store, ring: KeyRing) -> t.Iterator[t.Callable[[], None]]:
    """Be the only collector.

    Yields a function that raises RepositoryBusy if another process took this one for dead.
    Raises RepositoryBusy if another collector is alive; StoreFull, StoreError.
    """
    store.abandoned(COLLECTOR, remove=True)
    try:
        try:
            hold = store.hold(COLLECTOR, encode_document(KIND, {"role": "collector", **_owner()}, ring.mac))
        except StoreFull:
            hold = store.hold(COLLECTOR, b"")  # its content is only for people; collecting frees the disk space
    except NameTaken as error:
        raise _other_collector(store) from error

    def check() -> None:
        if not hold.is_kept():
            raise _other_collector(store)

    try:
        yield check
    finally:
        hold.release()


def _other_collector(store: Store) -> RepositoryBusy:
    return RepositoryBusy(
        store.location,
        "another process is collecting what is no longer used",
        "Wait until it ends, then try again; if verify reports that gc/collector is not a file, remove it",
    )


def living_leases(store: Store, ring: KeyRing, remove_dead: bool = False) -> list[LeaseInfo]:
    """The leases of processes that are, or may be, alive.  One that cannot be read counts as unsettled."""
    found = []
    for name in store.list(FOLDER):
        if not store.abandoned(name, remove=remove_dead):
            with contextlib.suppress(NotFound):
                found.append(_read(store, ring, name))
    return found


def sweep(store: Store) -> None:
    """Remove the leases of processes that are known to be dead; a collector does so too."""
    for name in store.list(FOLDER):
        with contextlib.suppress(StoreError):  # the store may be read-only
            store.abandoned(name, remove=True)


def _take(store: Store, ring: KeyRing, fields: dict[str, t.Any]) -> tuple[Hold, Withheld]:
    fields = {"id": secrets.token_hex(16), **fields, **_owner()}
    hold = store.hold(f"{FOLDER}/{fields['id']}", encode_document(KIND, {**fields, "seen": None}, ring.mac))
    try:
        tombstones, _unreadable = read_tombstones(store, ring)
        seen = [tombstone.name for tombstone in tombstones[:_SEEN_MAX]]
        hold.replace(encode_document(KIND, {**fields, "seen": seen}, ring.mac))
    except BaseException:
        hold.release()
        raise
    return hold, Withheld(tombstones)


def _owner() -> dict[str, t.Any]:
    """Who holds a lease, and since when, for people."""
    now = datetime.datetime.now(datetime.UTC)
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{now:%Y-%m-%dT%H:%M:%SZ}"}


def _read(store: Store, ring: KeyRing, name: str) -> LeaseInfo:
    try:
        document = decode_document(name, store.get(name), KIND)
        document.check_mac(name, ring.mac)
        fields = document.fields
        if fields["role"] == BACKUP and not fields["volume"]:
            raise Damaged(name, "it does not name the volume that is backed up", "Remove it once no backup is running")
        owner = f"process {fields['pid']} on {fields['host']} since {fields['since']}"
        seen = None if fields["seen"] is None else frozenset(fields["seen"])
        return LeaseInfo(name, fields["role"], fields["volume"], fields["session"], owner, seen)
    except NotFound:
        raise
    except (SavesetError, KeyError):
        return LeaseInfo(name, "unknown", "", "", "an owner that cannot be read", None)

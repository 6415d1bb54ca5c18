# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases: ``gc/leases/<id>`` says that somebody uses the repository, and which tombstones he knows of.

A lease is there before its owner looks at anything.  At first it is *unsettled*: nothing may be removed.  Its owner
then reads the tombstones and replaces it by one that names them, which says: of what these name I use nothing.  A
collector puts its tombstone first and looks at the leases then.  So either the owner sees the tombstone, or the
collector sees a lease that does not name it, and waits.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import secrets
import socket
import typing as t

from .document import decode_document, encode_document
from .errors import Damaged, NameTaken, NotFound, RepositoryBusy, SavesetError, StoreFull, StoreReadOnly
from .hold import Hold
from .keys import KeyRing
from .store import Store
from .tombstone import Withheld, read_tombstones

KIND = "lease"
FOLDER = "gc/leases"
COLLECTOR = "gc/collector"
#: Tombstones that a lease names at most, as it may have no more than 1 MiB; others have to wait for it.
_SEEN_MAX = 10_000

#: What leases are for; only a backup writes.
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
        """Whether its owner uses nothing of what a tombstone names."""
        return self.seen is not None and tombstone in self.seen

    def __str__(self) -> str:
        volume = f" of {self.volume}" if self.volume else ""
        return f"{self.role}{volume} by {self.owner}"


class Lease:
    """This process's lease."""

    def __init__(self, store: Store, hold: Hold, withheld: Withheld) -> None:
        self._store = store
        self._hold = hold
        #: What not to build upon.
        self.withheld = withheld

    def commit(self, name: str, data: bytes) -> None:
        """Put the object that makes a saveset exist, unless the lease is lost; the saveset then does not exist.

        A collector removes a lease that it takes for a dead process's before it looks at commits, so looking at the
        lease after the commit is there leaves no gap.  Raises StoreFull, StoreError, RepositoryBusy.
        """
        self._check()
        self._store.put(name, data)
        try:
            self._check()
        except RepositoryBusy:
            self._store.delete(name)
            raise

    def _check(self) -> None:
        if not self._hold.is_kept():
            raise RepositoryBusy(
                self._store.location,
                "the lease of this backup is gone: somebody took its process for dead, and may have removed what it "
                "builds upon",
                "Run the backup again; if it is kept on a network filesystem, see that locks work there",
            )


@contextlib.contextmanager
def writing(store: Store, ring: KeyRing, volume: str, session: bytes) -> t.Iterator[Lease]:
    """Hold a lease as a backup.  Raises StoreFull, StoreError."""
    hold, withheld = _take(store, ring, {"role": BACKUP, "volume": volume, "session": session.hex()})
    try:
        yield Lease(store, hold, withheld)
    finally:
        hold.release()


@contextlib.contextmanager
def reading(store: Store, ring: KeyRing, role: str) -> t.Iterator[None]:
    """Hold a lease as a reader.  Where none can be put, as the store is read-only, full or damaged there, reading goes
    on without: whatever a collector then removes under a reader, it meets as missing and never as wrong data."""
    hold = None
    with contextlib.suppress(StoreReadOnly, StoreFull, Damaged):
        hold, _withheld = _take(store, ring, {"role": role, "volume": "", "session": ""})
    try:
        yield
    finally:
        if hold is not None:
            hold.release()


@contextlib.contextmanager
def collecting(store: Store, ring: KeyRing) -> t.Iterator[t.Callable[[], None]]:
    """Be the only collector.  The function given raises RepositoryBusy when somebody took this process for dead.

    Raises RepositoryBusy when another collector lives; StoreFull, StoreError.
    """
    store.abandoned(COLLECTOR, remove=True)
    try:
        try:
            hold = store.hold(COLLECTOR, encode_document(KIND, {"role": "collector", **_owner()}, ring.mac))
        except StoreFull:
            hold = store.hold(COLLECTOR, b"")  # its content is for people; collecting is what makes room
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
        "another process is collecting what is not used any more",
        "Let it end, then try again; if verify says that gc/collector is no file, remove that",
    )


def living_leases(store: Store, ring: KeyRing, remove_dead: bool = False) -> list[LeaseInfo]:
    """The leases of processes that live, or may live.  One that cannot be read counts as unsettled."""
    found = []
    for name in store.list(FOLDER):
        if not store.abandoned(name, remove=remove_dead):
            with contextlib.suppress(NotFound):
                found.append(_read(store, ring, name))
    return found


def sweep(store: Store) -> None:
    """Remove the leases of processes that are known to be dead; whoever collects does so too."""
    for name in store.list(FOLDER):
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
    """Who holds a lease and since when, for people."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": f"{now:%Y-%m-%dT%H:%M:%SZ}"}


def _read(store: Store, ring: KeyRing, name: str) -> LeaseInfo:
    try:
        document = decode_document(name, store.get(name), KIND)
        document.check_mac(name, ring.mac)
        fields = document.fields
        if fields["role"] == BACKUP and not fields["volume"]:
            raise Damaged(name, "it does not say which volume is backed up", "Remove it once nobody backs up")
        owner = f"process {fields['pid']} on {fields['host']} since {fields['since']}"
        seen = None if fields["seen"] is None else frozenset(fields["seen"])
        return LeaseInfo(name, fields["role"], fields["volume"], fields["session"], owner, seen)
    except NotFound:
        raise
    except (SavesetError, KeyError):
        return LeaseInfo(name, "unknown", "", "", "an owner that cannot be read", None)

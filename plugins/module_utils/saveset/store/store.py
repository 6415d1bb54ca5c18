# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores: where a repository's objects are.  Objects are written once; parts of packs may later be punched out.

The interface is small on purpose, so that an object store can implement it: put, stream in, get a range, size, list,
delete.  A name is one of those in :mod:`.names`, and nothing above this folder knows what it is in the store: a file, a
key, a row.  Offsets, lengths and sizes are in bytes.

**Atomic**: an upload is invisible until it is published, then whole and durable at once; publishing under a name that
is taken fails unless the caller replaces on purpose, and then readers see the old object or the new one.
**Untrusted**: an invalid name raises InvalidValue before anything is touched; an object that is larger than its kind
allows, or that is no object, raises Damaged.  **Errors** are those of :mod:`..base.errors` alone.
**Concurrent**: any number of threads, processes and hosts use a store at once; one Upload or Hold is used by one thread
at a time.

tests/unit/saveset/store/conformance runs against every store of :mod:`.registry`.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import typing as t

from ..base.errors import Damaged, InvalidValue, NotFound, StoreError
from .names import TOP_FOLDERS, kind_of

Buffer: t.TypeAlias = "bytes | bytearray | memoryview"

#: The most bytes in one read; callers that read a part of an object have smaller limits.
_READ_MAX = 160 << 20
#: What to do about a damaged object.
WAY_OUT = "Put back a copy of the object; verify shows what else is damaged"


class Upload(abc.ABC):
    """An object that is being written; it is invisible before publish()."""

    @abc.abstractmethod
    def write(self, buffers: t.Sequence[Buffer]) -> None:
        """Append buffers.  Raises StoreFull, StoreError."""

    @abc.abstractmethod
    def publish(self, exclusive: bool = True) -> None:
        """Make the object durable and visible, whole and at once.

        Without ``exclusive`` it replaces the object that has the name.  Raises NameTaken, StoreFull, StoreError.
        """

    @abc.abstractmethod
    def abort(self) -> None:
        """Discard what was written; safe to call at any time, also after publish()."""


class Hold(abc.ABC):
    """An object that stands for this process."""

    @abc.abstractmethod
    def replace(self, data: bytes) -> None:
        """Replace its content.  Raises StoreFull; StoreError, NotFound if it is lost."""

    @abc.abstractmethod
    def is_kept(self) -> bool:
        """Whether it still exists: others remove it if they take this process for dead.

        Raises StoreError if that cannot be determined.
        """

    @abc.abstractmethod
    def release(self) -> None:
        """Remove it; safe to call again.  If that fails, others still see that it is abandoned."""


class Stray(t.NamedTuple):
    """Something in a folder of objects that is not an object: its name, for people, and its kind, such as a link."""

    name: str
    what: str


class Store(abc.ABC):
    """A place for immutable objects."""

    #: Where it is, for people and for registry.open_store(), which opens it again; holds no secret.
    location: str

    @classmethod
    @abc.abstractmethod
    def at(cls, location: str) -> Store:
        """The store at a location of its scheme, which need not exist yet; touches nothing.  Raises InvalidValue."""

    @abc.abstractmethod
    def prepare(self) -> None:
        """Prepare the store for a new repository.

        Raises RepositoryExists if it holds anything but the leftovers of an interrupted creation.
        """

    @abc.abstractmethod
    def create(self, name: str) -> Upload:
        """Begin an object that is written in parts.  Raises StoreFull, StoreError."""

    def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
        """Write a whole object; it is durable when this returns.

        Raises NameTaken if ``exclusive`` is set and the name taken; StoreFull, StoreError; InvalidValue if the object
        is too large to be read again.
        """
        check_size(name, len(data))
        upload = self.create(name)
        try:
            upload.write([data])
            upload.publish(exclusive)
        finally:
            upload.abort()

    @abc.abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read ``length`` bytes (by default all) from ``offset``; fewer at the end of the object, none behind it.

        Raises NotFound, StoreError; Damaged for a whole object that is larger than its kind allows, and for a part that
        is larger than any reader needs; InvalidValue for a whole object of a kind that is read in parts.
        """

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """The object's size in bytes.  Raises NotFound, StoreError; Damaged if something else has its name."""

    @abc.abstractmethod
    def list(self, prefix: str) -> builtins.list[str]:
        """The sorted names of all objects under the folder ``prefix``; empty if there are none.

        Names that no object can have are left out: see strays().  Raises Damaged if ``prefix`` is not a folder;
        StoreError.
        """

    def folders(self, prefix: str) -> builtins.list[str]:
        """The sorted names, without ``prefix``, of the folders in ``prefix`` that objects can be in, as the store
        spells them.  Raises the errors of list()."""
        return sorted({name[len(prefix) + 1 :].partition("/")[0] for name in self.list(prefix)})

    def strays(self, folders: t.Iterable[str] = TOP_FOLDERS) -> builtins.list[Stray]:
        """What is in the folders of objects but is not an object, or has an object's name.  Raises StoreError."""
        return []

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object; the removal is durable when this returns.  Raises NotFound, StoreError."""

    def delete_all(self, names: t.Iterable[str]) -> None:
        """Remove objects, in any order; missing ones are not an error.  Raises StoreError."""
        for name in names:
            with contextlib.suppress(NotFound):
                self.delete(name)

    @abc.abstractmethod
    def hold(self, name: str, data: bytes) -> Hold:
        """Put an object that stands for this process.  Raises NameTaken, StoreFull, StoreError."""

    @abc.abstractmethod
    def abandoned(self, name: str, remove: bool = False) -> bool:
        """Whether the owner of an object of hold() is known to be dead; with ``remove``, removes the object then.

        A store that cannot know returns False: a person must then remove stale objects.
        """

    def room(self, name: str) -> int:
        """The bytes that removing an object would free.  Raises NotFound, StoreError."""
        return self.size(name)

    def can_punch(self) -> bool:
        """Whether punch() works here."""
        return False

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        """Free the disk space of ``ranges`` (offset, length) of an object; its other bytes stay unchanged.

        Returns the bytes freed; only whole blocks of the store are freed.  Raises NotFound, StoreError.
        """
        kind_of(name)
        raise StoreError(f"{name} in {self.location}", "parts of objects cannot be removed here", "Leave them in place")

    def punchable(self, offset: int, length: int) -> int:
        """How many bytes punch() would free in a fully allocated range."""
        return 0

    @abc.abstractmethod
    def settle(self, names: t.Iterable[str]) -> None:
        """Make objects durable that other writers published, perhaps just now.  Raises StoreError."""

    @abc.abstractmethod
    def free_bytes(self) -> int | None:
        """Free disk space in bytes; None if it is unknown."""

    def lacks(self) -> t.Sequence[str]:
        """A sentence for each operation that the store turned out not to support: the cause, and what the fallback that
        was used instead means."""
        return ()

    @abc.abstractmethod
    def sweep(self) -> int:
        """Remove half-written objects of dead writers; returns how many.  Never touches those of a living writer."""


def check_size(name: str, length: int) -> None:
    """Raise InvalidValue if an object with this name and length would be larger than its kind allows."""
    largest = kind_of(name).max_bytes
    if largest is not None and length > largest:
        raise InvalidValue(
            f"object {name}", f"it would have {length} bytes; the limit is {largest}", "Put less into it"
        )


def length_to_read(name: str, size: int, offset: int, length: int | None) -> int:
    """How many bytes of an object of ``size`` bytes get() returns; negative if it ends before ``offset``.

    Raises Damaged if that is more than a reader has memory for, InvalidValue for a whole object of a kind that is read
    in parts.
    """
    if length is None:
        _check_whole(name, size)
    wanted = size - offset if length is None else min(length, size - offset)
    if wanted > _READ_MAX:
        raise Damaged(name, f"a part of it has {wanted} bytes; the limit is {_READ_MAX}", WAY_OUT)
    return wanted


def _check_whole(name: str, size: int) -> None:
    largest = kind_of(name).max_bytes
    if largest is None:
        raise InvalidValue(f"object {name}", "it is never read whole", "Read it in parts")
    if size > largest:
        raise Damaged(name, f"it has {size} bytes; the limit is {largest}", WAY_OUT)


def begin_object(store: Store, name: str, head: bytes) -> Upload:
    """Begin an object with its first bytes; leaves nothing behind if that fails."""
    upload = store.create(name)
    try:
        upload.write([head])
    except BaseException:
        upload.abort()
        raise
    return upload

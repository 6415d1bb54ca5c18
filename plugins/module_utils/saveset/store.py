# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores: where a repository's objects live.  Objects are written once; of packs, parts may be punched out later.

A store is small on purpose, so that an object store can be one: put, stream in, get a range, size, list, delete.
Names are like ``packs/ab/abcd``; an upload is invisible until it is published, and publishing is exclusive.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import errno
import fcntl
import os
import secrets
import typing as t

from .appending import AppendedFile
from .errors import InvalidValue, NameTaken, NotFound, RepositoryExists, StoreError, StoreFull, StoreReadOnly
from .hold import Hold, LocalHold, is_abandoned
from .linux import punch_hole

Buffer = t.Union[bytes, bytearray, memoryview]

_PUNCH_BLOCK = 4096
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Upload(abc.ABC):
    """An object on its way into a store; nobody sees it before publish() returns."""

    @abc.abstractmethod
    def write(self, buffers: t.Sequence[Buffer]) -> None:
        """Append buffers.  Raises StoreFull, StoreError."""

    @abc.abstractmethod
    def publish(self, exclusive: bool = True) -> None:
        """Make the object durable and visible.  Raises StoreError, also when the name is taken and ``exclusive``."""

    @abc.abstractmethod
    def abort(self) -> None:
        """Forget what was written; safe to call at any time, also after publish()."""


class Store(abc.ABC):
    """A place for immutable objects."""

    #: How a person knows the place.
    location: str

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make the store ready for a new repository.  Raises RepositoryExists when it holds anything but the rests of
        a creation that was cut short."""

    @abc.abstractmethod
    def create(self, name: str) -> Upload:
        """Begin an object that is written in pieces."""

    def put(self, name: str, data: bytes, exclusive: bool = True) -> None:
        """Write a whole object: durable when this returns.  Raises StoreFull; StoreError, also when the name is taken
        and ``exclusive`` is set."""
        upload = self.create(name)
        try:
            upload.write([data])
            upload.publish(exclusive)
        finally:
            upload.abort()

    @abc.abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read ``length`` bytes (to the end by default) from ``offset``; fewer where the object ends.

        Raises NotFound, StoreError.
        """

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """The object's size in bytes.  Raises NotFound, StoreError."""

    @abc.abstractmethod
    def list(self, prefix: str) -> builtins.list[str]:
        """The sorted names of all objects under the folder ``prefix``; empty when there is none."""

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object: durable when this returns.  Raises NotFound, StoreError."""

    def delete_all(self, names: t.Iterable[str]) -> None:
        """Remove objects, in any order; those that are not there are no error.  Raises StoreError."""
        for name in names:
            with contextlib.suppress(NotFound):
                self.delete(name)

    @abc.abstractmethod
    def hold(self, name: str, data: bytes) -> Hold:
        """Put an object that stands for this process; Raises NameTaken, StoreFull, StoreError."""

    @abc.abstractmethod
    def abandoned(self, name: str, remove: bool = False) -> bool:
        """Whether the process that an object of hold() stands for is known to be dead; removes it if so and asked to.

        A store that cannot know says no: what is held there without need is removed by a person.
        """

    def room(self, name: str) -> int:
        """The bytes that removing an object would free.  Raises NotFound, StoreError."""
        return self.size(name)

    def can_punch(self) -> bool:
        """Whether punch() works here."""
        return False

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        """Give back the room of ``ranges`` (offset, length) of an object, whose other bytes stay as they are.

        Returns the bytes that this freed; only whole blocks of the store are.  Raises NotFound, StoreError.
        """
        raise StoreError(f"{name} in {self.location}", "parts of objects cannot be removed here", "Do without")

    def punchable(self, offset: int, length: int) -> int:
        """How many bytes punch() would free of a range that is all there."""
        return 0

    @abc.abstractmethod
    def settle(self, names: t.Iterable[str]) -> None:
        """Have objects that other writers published, perhaps a moment ago, survive a power loss.  Raises StoreError."""

    @abc.abstractmethod
    def free_bytes(self) -> int | None:
        """Free room in bytes, None when the store cannot tell."""

    @abc.abstractmethod
    def sweep(self) -> int:
        """Remove what writers that died left half-written; returns how many.  Never touches a living writer's."""


def begin_object(store: Store, name: str, head: bytes) -> Upload:
    """Begin an object with its first bytes; nothing is left behind when that fails."""
    upload = store.create(name)
    try:
        upload.write([head])
    except BaseException:
        upload.abort()
        raise
    return upload


def open_store(spec: str) -> Store:
    """Open a store by its spec: the path of a local folder, which need not exist yet."""
    if "://" in spec:
        raise InvalidValue(
            f"store {spec}", "only local folders can be stores in this version", "Name a folder, like /srv/repository"
        )
    return LocalStore(spec)


class LocalStore(Store):
    """A store in a folder of a local or network filesystem."""

    _TEMP = "tmp"

    def __init__(self, path: str) -> None:
        self.location = os.path.abspath(path)
        self._durable: set[str] = set()  # folders whose own names are known to survive a power loss

    #: What creating a repository writes before repo.json makes it one.
    _UNFINISHED = {"README.txt", "isb-saveset.pyz", "tool.json", "keys", _TEMP, "lost+found"}

    def prepare(self) -> None:
        try:
            self.make_folder(self.location)
            content = sorted(set(os.listdir(self.location)) - self._UNFINISHED)
        except OSError as error:
            raise self._error(self.location, error) from error
        if content:
            raise RepositoryExists(
                self.location,
                f"the folder is not empty (it holds {content[0]})",
                "Open the repository that is there, or name a folder that is new or empty",
            )

    def create(self, name: str) -> Upload:
        return _LocalUpload(self, name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                wanted = os.fstat(fd).st_size - offset if length is None else length
                return _pread_all(fd, wanted, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(name, error) from error

    def size(self, name: str) -> int:
        try:
            return os.stat(self.path(name)).st_size
        except OSError as error:
            raise self._error(name, error) from error

    def list(self, prefix: str) -> builtins.list[str]:
        names = []
        try:
            for folder, _folders, files in os.walk(self.path(prefix), onerror=self._walk_error):
                relative = os.path.relpath(folder, self.location)
                names += [f"{relative}/{name}" for name in files]
        except OSError as error:
            raise self._error(prefix, error) from error
        return sorted(names)

    def delete(self, name: str) -> None:
        try:
            os.unlink(self.path(name))
            sync_folder(os.path.dirname(self.path(name)))
        except OSError as error:
            raise self._error(name, error) from error

    def delete_all(self, names: t.Iterable[str]) -> None:
        folders = set()
        for name in names:
            try:
                os.unlink(self.path(name))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(name, error) from error
            folders.add(os.path.dirname(self.path(name)))
        for folder in sorted(folders):
            sync_folder(folder)

    def hold(self, name: str, data: bytes) -> Hold:
        try:
            self.make_folder(os.path.dirname(self.path(name)))
        except OSError as error:
            raise self._error(name, error) from error
        path = self.path(name)
        return LocalHold(
            path, data, lambda: _open_locked(self), _rename_exclusive, lambda error: self._error(name, error)
        )

    def abandoned(self, name: str, remove: bool = False) -> bool:
        try:
            return is_abandoned(self.path(name), remove)
        except OSError as error:
            raise self._error(name, error) from error

    def room(self, name: str) -> int:
        try:
            status = os.stat(self.path(name))
        except OSError as error:
            raise self._error(name, error) from error
        return status.st_blocks * 512 if status.st_nlink == 1 else 0

    def can_punch(self) -> bool:
        try:
            path, fd = _open_locked(self)
            try:
                os.ftruncate(fd, 1 << 16)
                punch_hole(fd, 0, 1 << 16)
            finally:
                os.unlink(path)
                os.close(fd)
        except OSError:
            return False
        return True

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        try:
            fd = os.open(self.path(name), os.O_RDWR | os.O_CLOEXEC)
            try:
                before = os.fstat(fd).st_blocks
                for offset, length in ranges:
                    begin, end = self._whole_blocks(offset, length)
                    if end > begin:
                        punch_hole(fd, begin, end - begin)
                os.fsync(fd)
                return max(0, before - os.fstat(fd).st_blocks) * 512
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(name, error) from error

    def punchable(self, offset: int, length: int) -> int:
        begin, end = self._whole_blocks(offset, length)
        return max(0, end - begin)

    def _whole_blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Begin and end of the blocks inside a range: blocks that hold anything else are never written."""
        block = max(_PUNCH_BLOCK, os.stat(self.location).st_blksize)
        return -(-offset // block) * block, (offset + length) // block * block

    def settle(self, names: t.Iterable[str]) -> None:
        for folder in sorted({os.path.dirname(self.path(name)) for name in names}):
            try:
                self.make_folder(folder)
                sync_folder(folder)
            except OSError as error:
                raise self._error(folder, error) from error

    def free_bytes(self) -> int | None:
        path = self.location
        while not os.path.exists(path):  # before the repository is made, its nearest folder tells
            path = os.path.dirname(path)
        try:
            status = os.statvfs(path)
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    def sweep(self) -> int:
        removed = 0
        for name in self.list(self._TEMP):
            removed += _remove_if_abandoned(self.path(name))
        return removed

    def path(self, name: str) -> str:
        """The path of an object."""
        return os.path.join(self.location, name)

    def temp_path(self) -> str:
        """A new path for a half-written object."""
        folder = self.path(self._TEMP)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.path.join(folder, secrets.token_hex(16))

    def make_folder(self, path: str) -> None:
        """Make a folder and its parents, durably: one that is there may be another writer's that is not synced yet."""
        if path in self._durable:
            return
        parent = os.path.dirname(path)
        if path != self.location or not os.path.isdir(parent):  # what is above the repository is not its affair
            self.make_folder(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        sync_folder(parent)
        self._durable.add(path)

    @staticmethod
    def _walk_error(error: OSError) -> None:
        if error.errno != errno.ENOENT:
            raise error

    def _error(self, name: str, error: OSError) -> Exception:
        return store_error(self.location, name, error)


class _LocalUpload(Upload):
    """A file under tmp/, locked as long as its writer lives, linked to its name when published."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._store = store
        self._name = name
        try:
            self._temp, self._fd = _open_locked(store)
        except OSError as error:
            raise _writing_error(store.location, name, error) from error
        self._file = AppendedFile(self._fd)

    def write(self, buffers: t.Sequence[Buffer]) -> None:
        try:
            self._file.write(buffers)
        except OSError as error:
            raise _writing_error(self._store.location, self._name, error) from error

    def publish(self, exclusive: bool = True) -> None:
        final = self._store.path(self._name)
        folder = os.path.dirname(final)
        try:
            self._file.sync()
            self._store.make_folder(folder)
            if exclusive:
                _rename_exclusive(self._temp, final)
            else:
                os.rename(self._temp, final)
            sync_folder(folder)
        except OSError as error:
            raise _writing_error(self._store.location, self._name, error) from error
        self.abort()

    def abort(self) -> None:
        if self._fd < 0:
            return
        # What cannot be removed now, as the medium is gone, a later writer sweeps up.
        with contextlib.suppress(OSError):  # also when it was published by a rename
            os.unlink(self._temp)
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1


def _writing_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError while object ``name`` is written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return StoreError(
            f"{name} in {location}",
            f"the folder that it goes to is gone ({error.strerror})",
            "Check that the storage is there and mounted, then run it again; earlier savesets are whole",
        )
    return store_error(location, name, error)


def store_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError on object ``name``."""
    thing = f"{name} in {location}" if name != location else location
    if error.errno == errno.ENOENT:
        return NotFound(thing, "there is no such object", "Check the repository's path; verify tells what it hurts")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            thing,
            f"the store has no room left ({error.strerror})",
            "Free or add space, then run the backup again; earlier savesets are whole",
        )
    kind = StoreReadOnly if error.errno in _READ_ONLY else NameTaken if error.errno == errno.EEXIST else StoreError
    return kind(
        thing, f"{error.strerror or error}", "Check the folder's rights and the storage below it, then try again"
    )


def sync_folder(path: str) -> None:
    """Make the names in a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _pread_all(fd: int, length: int, offset: int) -> bytes:
    data = os.pread(fd, max(length, 0), offset)
    if len(data) >= length:
        return data
    pieces = [data]
    done = len(data)
    while done < length:
        piece = os.pread(fd, length - done, offset + done)
        if not piece:
            break
        pieces.append(piece)
        done += len(piece)
    return b"".join(pieces)


def _open_locked(store: LocalStore) -> tuple[str, int]:
    """A new file under tmp/ that is locked before another writer's sweep can take it for abandoned."""
    while True:
        path = store.temp_path()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return path, fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _rename_exclusive(temp: str, final: str) -> None:
    """Give a file its final name; FileExistsError when that is taken."""
    try:
        os.link(temp, final)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A filesystem without hard links: ids are random, so looking first is as good as it gets.
        if os.path.exists(final):
            raise FileExistsError(errno.EEXIST, "the name is taken", final) from error
        os.rename(temp, final)
        return
    os.unlink(temp)


def _remove_if_abandoned(path: str) -> int:
    """Remove a half-written file unless its writer lives and so holds its lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
        return 1
    except (BlockingIOError, FileNotFoundError):
        return 0
    finally:
        os.close(fd)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores: where a repository's objects live.  Objects are written once; of packs, parts may be punched out later.

A store is small on purpose, so that an object store can be one: put, stream in, get a range, size, list, delete.
Names are those of :mod:`.names` and no others; an upload is invisible until it is published, and publishing is
exclusive.

What a store holds was written by others: a name that is none raises InvalidValue, an object that is larger than its
kind may be, or no file, Damaged.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import errno
import fcntl
import os
import re
import secrets
import typing as t

from .appending import AppendedFile
from .beneath import Beneath, NotAFile
from .errors import Damaged, InvalidValue, NameTaken, NotFound, RepositoryExists, StoreError, StoreFull, StoreReadOnly
from .hold import Hold, LocalHold, is_abandoned
from .linux import punch_hole
from .names import TOP_FOLDERS, check_folder, find_kind, is_folder, kind_of, printable

Buffer = t.Union[bytes, bytearray, memoryview]

_PUNCH_BLOCK = 4096
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: What filesystems put there by themselves, most of it files that were removed while somebody had them open.
_FILESYSTEMS_OWN = re.compile(r"\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+|\.smbdelete\w+|lost\+found")
#: The most bytes read at once, whatever asks: whoever reads a part of an object knows a smaller bound.
_READ_MAX = 160 << 20
_WAY_OUT = "Put back a copy of the object; verify tells what else is hurt"


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


class Stray(t.NamedTuple):
    """What is in a folder of objects and is none: its name, for people, and what it is: a file, a folder, a link."""

    name: str
    what: str


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
        and ``exclusive`` is set; InvalidValue when nobody would read it again, as it is too large."""
        check_size(name, len(data))
        upload = self.create(name)
        try:
            upload.write([data])
            upload.publish(exclusive)
        finally:
            upload.abort()

    @abc.abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Read ``length`` bytes (to the end by default) from ``offset``; fewer where the object ends.

        Raises NotFound, StoreError; Damaged for a whole object that is larger than its kind may be.
        """

    @abc.abstractmethod
    def size(self, name: str) -> int:
        """The object's size in bytes.  Raises NotFound, StoreError."""

    @abc.abstractmethod
    def list(self, prefix: str) -> builtins.list[str]:
        """The sorted names of all objects under the folder ``prefix``; empty when there is none.

        What has no object's name is left out: see strays().  Raises Damaged when ``prefix`` is no folder; StoreError.
        """

    def strays(self, folders: t.Iterable[str] = TOP_FOLDERS) -> builtins.list[Stray]:
        """What is in the folders of objects and is none, be it in their place or not.  Raises StoreError."""
        return []

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


def check_size(name: str, length: int) -> None:
    """Raise InvalidValue when an object of this name and length would be larger than its kind may be."""
    largest = kind_of(name).max_bytes
    if largest is not None and length > largest:
        raise InvalidValue(
            f"object {name}", f"it would have {length} bytes, and may have {largest} at most", "Put less into it"
        )


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
        self._files = Beneath(self.location)
        self._durable: set[str] = set()  # folders whose own names are known to survive a power loss

    #: What creating a repository writes before repo.json makes it one.
    _UNFINISHED = {"README.txt", "isb-saveset.pyz", "tool.json", "keys", _TEMP, "lost+found"}

    def prepare(self) -> None:
        try:
            self.make_folder("")
            content = sorted(set(os.listdir(self.location)) - self._UNFINISHED)
        except OSError as error:
            raise self._error(self.location, error) from error
        if content:
            raise RepositoryExists(
                self.location,
                f"the folder is not empty (it holds {printable(content[0])})",
                "Open the repository that is there, or name a folder that is new or empty",
            )

    def create(self, name: str) -> Upload:
        kind_of(name)
        return _LocalUpload(self, name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        largest = kind_of(name).max_bytes
        try:
            fd = self._files.open(name, os.O_RDONLY)
            try:
                size = os.fstat(fd).st_size
                if length is None:
                    _check_whole(name, size, largest)
                wanted = size - offset if length is None else min(length, size - offset)
                _check_part(name, wanted)
                return _pread_all(fd, wanted, offset)
            finally:
                os.close(fd)
        except OSError as error:
            raise self._error(name, error) from error

    def size(self, name: str) -> int:
        return self._status(name).st_size

    def _status(self, name: str) -> os.stat_result:
        kind_of(name)
        try:
            return self._files.status(name)
        except OSError as error:
            raise self._error(name, error) from error

    def list(self, prefix: str) -> builtins.list[str]:
        return sorted(name for name, is_object, _what in self._walk(check_folder(prefix)) if is_object)

    def strays(self, folders: t.Iterable[str] = TOP_FOLDERS) -> builtins.list[Stray]:
        found = []
        for folder in folders:
            try:
                found += sorted(
                    Stray(printable(name), what)
                    for name, is_object, what in self._walk(folder)
                    if not is_object or what != "file"
                )
            except Damaged as error:
                found.append(Stray(error.thing, "link or file in the place of a folder"))
        return found

    def _walk(self, prefix: str) -> t.Iterator[tuple[str, bool, str]]:
        """Everything under a folder: names, whether an object has such a name, and what it is (see Beneath.scan()).

        Only folders that objects can be in are looked into, and no link is followed.
        """
        folders = [prefix]
        while folders:
            folder = folders.pop()
            try:
                entries = self._files.scan(folder)
            except FileNotFoundError:
                continue  # also one that was removed since it was listed
            except OSError as error:
                raise self._error(folder, error) from error
            for last, what in entries:
                name = f"{folder}/{last}"
                if what == "folder" and is_folder(name):
                    folders.append(name)
                elif not _FILESYSTEMS_OWN.fullmatch(last):
                    yield name, what != "folder" and find_kind(name) is not None, what

    def delete(self, name: str) -> None:
        kind_of(name)
        try:
            self._files.unlink(name)
            self._files.sync_folder(_folder_of(name))
        except OSError as error:
            raise self._error(name, error) from error

    def delete_all(self, names: t.Iterable[str]) -> None:
        folders = set()
        for name in names:
            kind_of(name)
            try:
                self._files.unlink(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._error(name, error) from error
            folders.add(_folder_of(name))
        for folder in sorted(folders):
            try:
                self._files.sync_folder(folder)
            except OSError as error:
                raise self._error(folder, error) from error

    def hold(self, name: str, data: bytes) -> Hold:
        check_size(name, len(data))
        try:
            self.make_folder(_folder_of(name))
        except OSError as error:
            raise self._error(name, error) from error
        return LocalHold(self._files, name, data, self.open_temporary, lambda error: self._error(name, error))

    def abandoned(self, name: str, remove: bool = False) -> bool:
        kind_of(name)
        try:
            return is_abandoned(self._files, name, remove)
        except OSError as error:
            raise self._error(name, error) from error

    def room(self, name: str) -> int:
        status = self._status(name)
        return status.st_blocks * 512 if status.st_nlink == 1 else 0

    def can_punch(self) -> bool:
        try:
            name, fd = self.open_temporary()
            try:
                os.ftruncate(fd, 1 << 16)
                punch_hole(fd, 0, 1 << 16)
            finally:
                self._files.unlink(name)
                os.close(fd)
        except OSError:
            return False
        return True

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        kind_of(name)
        try:
            fd = self._files.open(name, os.O_RDWR)
            try:
                status = os.fstat(fd)
                if status.st_nlink > 1:
                    return 0  # a copy by hard links needs its bytes, or a file that is no part of the repository does
                for offset, length in ranges:
                    begin, end = self._whole_blocks(offset, length)
                    if end > begin:
                        punch_hole(fd, begin, end - begin)
                os.fsync(fd)
                return max(0, status.st_blocks - os.fstat(fd).st_blocks) * 512
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
        for folder in sorted({_folder_of(name) for name in names if kind_of(name)}):
            try:
                self.make_folder(folder)
                self._files.sync_folder(folder)
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
        return sum(_remove_if_abandoned(self._files, name) for name in self.list(self._TEMP))

    def make_folder(self, folder: str) -> None:
        """Make a folder (the repository's own where it is empty) and those above it, durably: one that is there may be
        another writer's that is not synced yet.  Raises OSError."""
        if folder in self._durable:
            return
        if folder:
            self.make_folder(_folder_of(folder))
            self._files.make_folder(folder)
        else:
            _make_path(self.location)
        self._durable.add(folder)

    def publish(self, temporary: str, name: str, exclusive: bool) -> None:
        """Give a half-written file its name, durably.  Raises OSError."""
        folder = _folder_of(name)
        self.make_folder(folder)
        if exclusive:
            self._files.rename_exclusive(temporary, name)
        else:
            self._files.rename(temporary, name)
        self._files.sync_folder(folder)

    def open_temporary(self) -> tuple[str, int]:
        """Name and descriptor of a new file under tmp/ that is locked before another writer's sweep can take it for
        abandoned.  Raises OSError."""
        while True:
            name = f"{self._TEMP}/{secrets.token_hex(16)}"
            try:
                fd = self._files.make(name)
            except FileNotFoundError:
                _make_path(self.location)
                self._files.make_folder(self._TEMP)
                fd = self._files.make(name)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.fstat(fd).st_nlink:
                    return name, fd
            except OSError:
                os.close(fd)
                raise
            os.close(fd)

    def remove_temporary(self, name: str) -> None:
        """Remove a half-written file, if it is there and that is possible: a later writer sweeps up what is left."""
        with contextlib.suppress(OSError):
            self._files.unlink(name)

    def _error(self, name: str, error: OSError) -> Exception:
        return store_error(self.location, name, error)


class _LocalUpload(Upload):
    """A file under tmp/, locked as long as its writer lives, linked to its name when published."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._store = store
        self._name = name
        try:
            self._temp, self._fd = store.open_temporary()
        except OSError as error:
            raise _writing_error(store.location, name, error) from error
        self._file = AppendedFile(self._fd)

    def write(self, buffers: t.Sequence[Buffer]) -> None:
        try:
            self._file.write(buffers)
        except OSError as error:
            raise _writing_error(self._store.location, self._name, error) from error

    def publish(self, exclusive: bool = True) -> None:
        try:
            self._file.sync()
            self._store.publish(self._temp, self._name, exclusive)
        except OSError as error:
            raise _writing_error(self._store.location, self._name, error) from error
        self.abort()

    def abort(self) -> None:
        if self._fd < 0:
            return
        self._store.remove_temporary(self._temp)  # also when it was published by a rename
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd = -1


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _check_whole(name: str, size: int, largest: int | None) -> None:
    if largest is None:
        raise InvalidValue(f"object {name}", "it is never read whole", "Read it in parts")
    if size > largest:
        raise Damaged(name, f"it has {size} bytes, and may have {largest} at most", _WAY_OUT)


def _check_part(name: str, length: int) -> None:
    if length > _READ_MAX:
        raise Damaged(name, f"a part of it has {length} bytes, and may have {_READ_MAX} at most", _WAY_OUT)


def _writing_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError while object ``name`` is written."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return StoreError(
            f"{name} in {location}",
            f"the folder that it goes to is gone, or is none ({error.strerror})",
            "Check that the storage is there and mounted, and that no link is in the repository, then run it again; "
            "earlier savesets are whole",
        )
    return store_error(location, name, error)


def store_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError on object ``name``."""
    thing = f"{name} in {location}" if name != location else location
    if isinstance(error, NotAFile):
        return Damaged(name, str(error.strerror), _WAY_OUT)
    if error.errno in (errno.ENOTDIR, errno.ELOOP) and error.filename != location and name != location:
        return Damaged(name, "a link or a file is in the place of its folder, and links lead nowhere here", _WAY_OUT)
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


def _make_path(path: str) -> None:
    """Make a folder and those above it, durably.  Raises OSError."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):  # what is above the repository is not its affair
        _make_path(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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


def _remove_if_abandoned(files: Beneath, name: str) -> int:
    """Remove a half-written file unless its writer lives and so holds its lock."""
    try:
        fd = files.open(name, os.O_RDWR)
    except (FileNotFoundError, NotAFile):
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files.unlink(name)
        return 1
    except (BlockingIOError, FileNotFoundError):
        return 0
    finally:
        os.close(fd)

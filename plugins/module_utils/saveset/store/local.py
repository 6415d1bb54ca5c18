# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store in a folder of a local or network filesystem: an object is a file of the same name below it."""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import re
import secrets
import typing as t
import urllib.parse

from ..base.errors import (
    Damaged,
    InvalidValue,
    NameTaken,
    NotFound,
    RepositoryExists,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from ..base.linux import punch_hole
from .appending import AppendedFile
from .beneath import Beneath, NoLink, NotAFile
from .liveness import LocalHold, has_name, is_abandoned, lock
from .names import TEMPORARY_FOLDER, TOP_FOLDERS, UNFINISHED, check_folder, find_kind, is_folder, kind_of, printable
from .refusal import LINK, MAKE_FOLDER, SYNC, SYNC_FOLDER, cause_of, doing, sync_folder, way_out_of
from .store import WAY_OUT, Buffer, Hold, Store, Stray, Upload, check_size, length_to_read

_PUNCH_BLOCK = 4096
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
#: What filesystems create on their own, mostly files that were removed while open.
_FILESYSTEMS_OWN = re.compile(r"\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+|\.smbdelete\w+|lost\+found")
#: What the fallback for an operation means.
_MEANS = {
    LINK: "Files are renamed instead, which is just as good",
    SYNC_FOLDER: "After a power failure of the storage the newest savesets may be missing or damaged, unless its "
    "server prevents that: verify the repository after one",
}
#: What may be in the folder of a store that is new, besides what an interrupted creation left.
_OWN = {TEMPORARY_FOLDER, "lost+found"}


class LocalStore(Store):
    """A store in a folder of a local or network filesystem."""

    def __init__(self, path: str) -> None:
        self.location = os.path.abspath(path)
        self._files = Beneath(self.location)
        self._durable: set[str] = set()  # folders whose own names are known to survive a power loss

    @classmethod
    def at(cls, location: str) -> LocalStore:
        """The store in a folder, which is named by its path or as ``file:///path``."""
        if not location.lower().startswith("file://"):
            return cls(location)
        url = urllib.parse.urlsplit(location)
        if url.netloc not in ("", "localhost") or not url.path or url.query or url.fragment:
            raise InvalidValue(
                f"store {location}", "it does not name a folder of this host", "Name one, like file:///srv/repository"
            )
        return cls(urllib.parse.unquote(url.path))

    def prepare(self) -> None:
        with self._errors_of(self.location):
            self.make_folder("")
            content = sorted(set(os.listdir(self.location)) - UNFINISHED - _OWN)
        if content:
            raise RepositoryExists(
                self.location,
                f"the folder is not empty (it holds {printable(content[0])})",
                "Open the existing repository, or name a new or empty folder",
            )

    def create(self, name: str) -> Upload:
        kind_of(name)
        return _LocalUpload(self, name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        kind_of(name)
        try:
            fd = self._files.open(name, os.O_RDONLY)
            try:
                return _pread_all(fd, length_to_read(name, os.fstat(fd).st_size, offset, length), offset)
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
                found.append(Stray(error.thing, "link or file in place of a folder"))
        return found

    def folders(self, prefix: str) -> builtins.list[str]:
        entries = self._entries(check_folder(prefix))
        return sorted(last for last, what in entries if what == "folder" and is_folder(f"{prefix}/{last}"))

    def _entries(self, folder: str) -> builtins.list[tuple[str, str]]:
        """What is in a folder (see Beneath.scan()); empty if it does not exist."""
        try:
            return self._files.scan(folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(folder, error) from error

    def _walk(self, prefix: str) -> t.Iterator[tuple[str, bool, str]]:
        """Everything under a folder: its name, whether an object can have that name, and its kind (see Beneath.scan()).

        Only folders that objects can be in are searched, and no link is followed.
        """
        folders = [prefix]
        while folders:
            folder = folders.pop()
            for last, what in self._entries(folder):
                name = f"{folder}/{last}"
                if what == "folder" and is_folder(name):
                    folders.append(name)
                elif not _FILESYSTEMS_OWN.fullmatch(last):
                    yield name, what != "folder" and find_kind(name) is not None, what

    def delete(self, name: str) -> None:
        kind_of(name)
        with self._errors_of(name):
            self._files.unlink(name)
            self._files.sync_folder(_folder_of(name))

    def delete_all(self, names: t.Iterable[str]) -> None:
        folders = set()
        for name in names:
            kind_of(name)
            with self._errors_of(name), contextlib.suppress(FileNotFoundError):
                self._files.unlink(name)
                folders.add(_folder_of(name))
        for folder in sorted(folders):
            with self._errors_of(folder):
                self._files.sync_folder(folder)

    def hold(self, name: str, data: bytes) -> Hold:
        check_size(name, len(data))
        with self._errors_of(name):
            self.make_folder(_folder_of(name))
        return LocalHold(self._files, name, data, self._open_locked, lambda error: self._error(name, error))

    def abandoned(self, name: str, remove: bool = False) -> bool:
        kind_of(name)
        with self._errors_of(name):
            return is_abandoned(self._files, name, remove)

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
                self.discard(name, fd)
        except OSError:
            return False
        return True

    def punch(self, name: str, ranges: t.Iterable[tuple[int, int]]) -> int:
        kind_of(name)
        with self._errors_of(name), contextlib.ExitStack() as stack:
            fd = self._files.open(name, os.O_RDWR)
            stack.callback(os.close, fd)
            status = os.fstat(fd)
            if status.st_nlink > 1:
                return 0  # another hard link, such as a copy of the repository, needs the bytes
            for offset, length in ranges:
                begin, end = self._whole_blocks(offset, length)
                if end > begin:
                    punch_hole(fd, begin, end - begin)
            with doing(SYNC):
                os.fsync(fd)
            return max(0, status.st_blocks - os.fstat(fd).st_blocks) * 512

    def punchable(self, offset: int, length: int) -> int:
        with self._errors_of(self.location):
            begin, end = self._whole_blocks(offset, length)
        return max(0, end - begin)

    def _whole_blocks(self, offset: int, length: int) -> tuple[int, int]:
        """Begin and end of the blocks completely inside a range: other blocks are never changed."""
        block = max(_PUNCH_BLOCK, os.stat(self.location).st_blksize)
        return -(-offset // block) * block, (offset + length) // block * block

    def settle(self, names: t.Iterable[str]) -> None:
        for folder in sorted({_folder_of(name) for name in names if kind_of(name)}):
            with self._errors_of(folder):
                self.make_folder(folder)
                self._files.sync_folder(folder)

    def free_bytes(self) -> int | None:
        path = self.location
        while not os.path.exists(path):  # before the repository exists, use its nearest existing parent
            path = os.path.dirname(path)
        try:
            status = os.statvfs(path)
        except OSError:
            return None
        return status.f_bavail * status.f_frsize

    def lacks(self) -> t.Sequence[str]:
        return [f"{self.location}: {cause}. {_MEANS[operation]}" for operation, cause in self._files.lacks.items()]

    def sweep(self) -> int:
        return sum(self._sweep(name) for name in self.list(TEMPORARY_FOLDER))

    def _sweep(self, name: str) -> int:
        """Remove a half-written file unless its writer is alive and so holds its lock; if that fails, it stays."""
        try:
            return int(is_abandoned(self._files, name, remove=True))
        except OSError:
            return 0

    def make_folder(self, folder: str) -> None:
        """Make a folder and its parents, durably; an empty name stands for the repository's own folder.

        An existing folder is synced too, because another writer may have made it just now.  Raises OSError.
        """
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
        if not exclusive:
            self._files.rename(temporary, name)
        else:
            try:
                self._files.rename_exclusive(temporary, name)
            except NoLink:  # ids are random, so checking first is good enough
                self._files.rename_unless_taken(temporary, name)
        self._files.sync_folder(folder)

    def open_temporary(self) -> tuple[str, int]:
        """Name and descriptor of a new file under tmp/.

        It is locked before another writer's sweep can take it for abandoned; without locks, no writer takes anything
        for abandoned.  Raises OSError.
        """
        return self._open_temporary(needs_lock=False)

    def _open_locked(self) -> tuple[str, int]:
        return self._open_temporary(needs_lock=True)

    def _open_temporary(self, needs_lock: bool) -> tuple[str, int]:
        while True:
            name = f"{TEMPORARY_FOLDER}/{secrets.token_hex(16)}"
            try:
                fd = self._files.make(name)
            except FileNotFoundError:
                _make_path(self.location)
                self._files.make_folder(TEMPORARY_FOLDER)
                fd = self._files.make(name)
            try:
                if not self._lock(fd, needs_lock) or has_name(self._files, name, fd):
                    return name, fd
            except OSError:
                self.discard(name, fd)
                raise
            os.close(fd)

    def _lock(self, fd: int, needs_lock: bool) -> bool:
        """Lock a file; False if that is not possible and not needed."""
        try:
            lock(fd)
        except OSError:
            if needs_lock:
                raise
            return False
        return True

    def discard(self, name: str, fd: int) -> None:
        """Close a half-written file and remove it, best effort: a later writer sweeps up what is left."""
        removed = self._removed(name)  # before another process gets its lock
        with contextlib.suppress(OSError):
            os.close(fd)
        if not removed:  # some filesystems cannot remove an open file
            self._removed(name)

    def _removed(self, name: str) -> bool:
        try:
            self._files.unlink(name)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _errors_of(self, name: str) -> t.Iterator[None]:
        """Raise the engine's errors for those of the system on an object."""
        try:
            yield
        except OSError as error:
            raise self._error(name, error) from error

    def _error(self, name: str, error: OSError) -> Exception:
        return _store_error(self.location, name, error)


class _LocalUpload(Upload):
    """A file under tmp/, locked as long as its writer lives, and linked to its name when published."""

    def __init__(self, store: LocalStore, name: str) -> None:
        self._store = store
        self._name = name
        with self._errors():
            self._temp, self._fd = store.open_temporary()
        self._file = AppendedFile(self._fd)

    def write(self, buffers: t.Sequence[Buffer]) -> None:
        with self._errors():
            self._file.write(buffers)

    def publish(self, exclusive: bool = True) -> None:
        with self._errors():
            self._file.sync()
            self._store.publish(self._temp, self._name, exclusive)
        self.abort()

    def abort(self) -> None:
        if self._fd < 0:
            return
        fd, self._fd = self._fd, -1
        self._store.discard(self._temp, fd)  # also if it was published by a rename

    @contextlib.contextmanager
    def _errors(self) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _writing_error(self._store.location, self._name, error) from error


def _folder_of(name: str) -> str:
    return name.rpartition("/")[0]


def _writing_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError while writing object ``name``."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return StoreError(
            f"{name} in {location}",
            f"its folder is missing, or is not a folder ({error.strerror})",
            "Check that the storage is available and mounted, and that there is no link in the repository, then run "
            "it again; earlier savesets are intact",
        )
    return _store_error(location, name, error)


def _store_error(location: str, name: str, error: OSError) -> Exception:
    """The engine's error for an OSError on object ``name``."""
    thing = f"{name} in {location}" if name != location else location
    if isinstance(error, NotAFile):
        return Damaged(name, str(error.strerror), WAY_OUT)
    if error.errno in (errno.ENOTDIR, errno.ELOOP) and error.filename != location and name != location:
        return Damaged(name, "a link or a file is in place of its folder, and links are not followed here", WAY_OUT)
    if error.errno == errno.ENOENT:
        return NotFound(thing, "there is no such object", "Check the repository's path; verify shows what is affected")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            thing,
            f"the store has no disk space left ({error.strerror})",
            "Free or add disk space, then run the backup again; earlier savesets are intact",
        )
    if error.errno == errno.EEXIST:
        return NameTaken(thing, f"{error.strerror}", "Find out what has this name, and use another one")
    kind = StoreReadOnly if error.errno in _READ_ONLY else StoreError
    return kind(thing, cause_of(error), way_out_of(error))


def _make_path(path: str) -> None:
    """Make a folder and its parents, durably if this user may open the parents.  Raises OSError."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):  # existing folders above the repository stay as they are
        _make_path(parent)
    try:
        with doing(MAKE_FOLDER):
            os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError:  # some filesystems refuse it before they check whether it exists
        if not os.path.isdir(path):
            raise
    try:
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        sync_folder(fd)
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

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A filesystem that loses power: records what a program does to a folder, and tells what may be left of it.

What POSIX promises and no more: a file's bytes are there after fsync() of the file, its name after fsync() of the
folder.  Anything else may be there, be there in part, or be missing, in any combination.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import threading
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import beneath

#: What is left: the bytes of files, None for folders, by path below the root.
Left = dict[str, bytes | None]


@dataclasses.dataclass
class File:
    """A file's bytes as the program sees them, and those that are durable."""

    data: bytearray
    durable: bytes = b""


@dataclasses.dataclass
class Folder:
    """A folder's names as the program sees them, and as the disk has them for sure."""

    names: dict[str, File | Folder] = dataclasses.field(default_factory=dict)
    durable: dict[str, File | Folder] = dataclasses.field(default_factory=dict)


class Least:
    """Of what is not durable, nothing is left."""

    def name(self) -> bool:
        """Whether a change of a name has reached the disk."""
        return False

    def data(self, file: File) -> bytes:
        """What a file holds."""
        return file.durable


class NamesOnly(Least):
    """All names, none of the bytes that were not synced: what delayed allocation is known for."""

    def name(self) -> bool:
        return True


class Most(NamesOnly):
    """All is left: as if the program had been killed."""

    def data(self, file: File) -> bytes:
        return file.durable if file.data == file.durable else bytes(file.data)


class Some(Least):
    """Each name by chance; bytes cut off anywhere, or zeros in their place."""

    def __init__(self, generator: random.Random) -> None:
        self._random = generator

    def name(self) -> bool:
        return self._random.random() < 0.5

    def data(self, file: File) -> bytes:
        if file.data == file.durable:
            return file.durable
        size = self._random.randrange(len(file.data) + 1)
        kept = size if self._random.random() < 0.5 else size // 2
        return bytes(file.data[:kept]) + bytes(size - kept)


class Disk:
    """What is below ``root``; changes are noted within recording(), and ``on_change`` is called after each."""

    def __init__(self, root: Path) -> None:
        self.on_change: t.Callable[[], None] = lambda: None
        self._folders: dict[str, Folder] = {}
        self._open: dict[int, File | Folder] = {}
        self._lock = threading.RLock()
        self._root = self._take(root)

    def _take(self, path: Path) -> Folder:
        """What is there already is durable."""
        folder = self._folders[str(path)] = Folder()
        for child in path.iterdir():
            if child.is_dir():
                folder.names[child.name] = self._take(child)
            else:
                folder.names[child.name] = File(bytearray(child.read_bytes()), child.read_bytes())
        folder.durable = dict(folder.names)
        return folder

    def left(self, choice: Least) -> Left:
        """What may be left when the power fails now."""
        left: Left = {}
        with self._lock:
            self._collect(self._root, "", choice, left)
        return left

    def _collect(self, folder: Folder, path: str, choice: Least, left: Left) -> None:
        for name in sorted({*folder.names, *folder.durable}):
            now, then = folder.names.get(name), folder.durable.get(name)
            found = now if now is then or choice.name() else then
            if isinstance(found, Folder):
                left[path + name] = None
                self._collect(found, f"{path}{name}/", choice, left)
            elif found is not None:
                left[path + name] = choice.data(found)

    @contextlib.contextmanager
    def recording(self, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[None]:
        """Stand between the program and the calls of os that change files."""
        with monkeypatch.context() as patch:
            for name in ("open", "close", "write", "writev", "mkdir", "link", "rename", "unlink", "fsync"):
                patch.setattr(os, name, self._noting(getattr(os, name), getattr(self, f"_note_{name}")))
            renaming = self._noting(beneath.rename_noreplace, self._note_rename_noreplace)
            patch.setattr(beneath, "rename_noreplace", renaming)
            for name in ("truncate", "ftruncate", "pwrite", "pwritev", "rmdir", "replace", "symlink"):
                patch.setattr(os, name, self._unknown(getattr(os, name)))
            yield

    def _noting(self, real: t.Callable[..., t.Any], note: t.Callable[..., bool]) -> t.Callable[..., t.Any]:
        def call(*arguments: t.Any, **names: t.Any) -> t.Any:
            with self._lock:
                result = real(*arguments, **names)
                if note(result, *arguments, **names):
                    self.on_change()
                return result

        return call

    def _unknown(self, real: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def call(what: t.Any, *arguments: t.Any, **names: t.Any) -> t.Any:
            folder = names.get("dir_fd", names.get("src_dir_fd"))
            known = what in self._open if isinstance(what, int) else self._place(what, folder) is not None
            assert not known, f"the recorder does not know {real.__name__}: teach it"
            return real(what, *arguments, **names)

        return call

    def _place(self, path: t.Any, dir_fd: int | None = None) -> tuple[Folder, str] | None:
        """The folder and the name of a path below the root, or of a name in a folder there; None for others."""
        if dir_fd is not None:
            parent = self._open.get(dir_fd)
            return (parent, os.fspath(path)) if isinstance(parent, Folder) else None
        folder, name = os.path.split(os.path.abspath(os.fspath(path)))
        return (self._folders[folder], name) if folder in self._folders else None

    # One for each call: notes what it did, and tells whether anything changed.

    def _note_open(self, fd: int, path: t.Any, _flags: int, *_mode: int, dir_fd: int | None = None) -> bool:
        self._open.pop(fd, None)
        place = self._place(path, dir_fd)
        opened: File | Folder | None = None
        if dir_fd is None:
            opened = self._folders.get(os.path.abspath(os.fspath(path)))
        created = False
        if opened is None and place is not None:
            folder, name = place
            created = name not in folder.names
            opened = folder.names.setdefault(name, File(bytearray()))
        if opened is not None:
            self._open[fd] = opened
        return created

    def _note_close(self, _result: None, fd: int) -> bool:
        self._open.pop(fd, None)
        return False

    def _note_write(self, written: int, fd: int, data: t.Any) -> bool:
        return self._note_writev(written, fd, [data])

    def _note_writev(self, written: int, fd: int, buffers: t.Sequence[t.Any]) -> bool:
        file = self._open.get(fd)
        if isinstance(file, File):
            file.data += b"".join(bytes(buffer) for buffer in buffers)[:written]
        return isinstance(file, File)

    def _note_mkdir(self, _result: None, path: t.Any, *_mode: int, dir_fd: int | None = None) -> bool:
        place = self._place(path, dir_fd)
        if place is not None:
            folder, name = place
            folder.names[name] = made = Folder()
            if dir_fd is None:
                self._folders[os.path.abspath(os.fspath(path))] = made
        return place is not None

    def _note_link(
        self,
        _result: None,
        source: t.Any,
        target: t.Any,
        *,
        src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
        follow_symlinks: bool = True,
    ) -> bool:
        assert not follow_symlinks or src_dir_fd is None
        from_, to = self._place(source, src_dir_fd), self._place(target, dst_dir_fd)
        if from_ is not None and to is not None:
            to[0].names[to[1]] = from_[0].names[from_[1]]
        return to is not None

    def _note_rename(
        self, result: None, source: t.Any, target: t.Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> bool:
        linked = self._note_link(
            result, source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False
        )
        return linked and self._note_unlink(result, source, dir_fd=src_dir_fd)

    def _note_rename_noreplace(self, result: None, folder: int, name: str, new_folder: int, new_name: str) -> bool:
        return self._note_rename(result, name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder)

    def _note_unlink(self, _result: None, path: t.Any, *, dir_fd: int | None = None) -> bool:
        place = self._place(path, dir_fd)
        if place is not None:
            del place[0].names[place[1]]
        return place is not None

    def _note_fsync(self, _result: None, fd: int) -> bool:
        what = self._open.get(fd)
        if isinstance(what, File):
            what.durable = bytes(what.data)
        elif isinstance(what, Folder):
            what.durable = dict(what.names)
        return what is not None

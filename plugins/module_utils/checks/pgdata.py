# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepares a copied PostgreSQL data directory so that a server can start on it without leaving the copy.

PostgreSQL follows every link, blocks on every FIFO that it opens, and obeys a settings file in the directory itself. So
the whole directory is inspected first, and the directories that its links lead to.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Iterator, NamedTuple

from .bench import Bench
from .beneath import read_file
from .errors import CheckFailed
from .isolation import MS_BIND, User, bind, may, mount
from .owned import Volumes
from .places import Places
from .space import copy_folder, writable

STANDBY = ("standby.signal", "recovery.signal", "recovery.conf")
OF_ITS_SERVER = ("postmaster.pid", "postmaster.opts")
SETTINGS = "postgresql.auto.conf"
"""The settings of ALTER SYSTEM: read by every server, wherever its other settings are."""
SPACES = "tablespace_map"
"""The links that a server creates when it starts from a backup: lines of a number and a path."""
LARGEST_MAP = 1024 * 1024
OF_THE_HOST = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "usr")
"""Directories over which nothing of a copy is mounted, not even for one check: this host's programs are there."""
ESCAPED = "\n\r\\"
"""Characters that ``tablespace_map`` escapes."""


class Link(NamedTuple):
    """A link in the data directory or below its links. ``target``: its text. ``real``: where that is on this host."""

    path: str
    target: str
    real: str


def entries(folder: str, bench: Bench, deep: int = 1 << 30) -> Iterator[os.DirEntry[str]]:
    """All entries of a directory and ``deep`` levels below, following no links. Raises CheckFailed, OSError."""
    ahead = [(folder, deep)]
    while ahead:
        bench.left()
        path, left = ahead.pop()
        with os.scandir(path) as found:
            for entry in found:
                yield entry
                if left and entry.is_dir(follow_symlinks=False):
                    ahead.append((entry.path, left - 1))


class DataFolder:
    """``found``: its path in the copy, free of links. ``path``: where the server's programs find it."""

    def __init__(self, found: str, places: Places, bench: Bench) -> None:
        self.path = found
        self._found = found
        self._name = places.there(found)
        self._places = places
        self._bench = bench
        self._folders = [found]
        self._links: list[Link] = []
        self._spaces: list[Link] = []

    def make_startable(self) -> None:
        """Make it startable. Raises OSError, and CheckFailed if a server cannot or must not start on it."""
        for name in STANDBY:
            if os.path.lexists(os.path.join(self._found, name)):
                raise CheckFailed(f"this is a copy of a standby server ({name} is in it): check its primary's instead")
        self._look()
        status = os.stat(self._found)
        volumes = Volumes(self._places, User(status.st_uid, status.st_gid), self._bench)
        in_place = writable(self._found)
        inside = [link for link in self._links if link.path.startswith(f"{self._found}/")]
        outside = [link for link in self._links if link not in inside]
        if self._bench.disposable:
            self._set_right([*outside, *(inside if in_place else [])])
        if self._bench.disposable and in_place:
            self._set_map_right(self._found)
        if not in_place:
            self._copy(inside)  # before owners are mapped: then root may not read unmapped files
        volumes.map()
        if in_place and not volumes.lend(self._found):
            in_place = False
            self._copy(inside)
        self._refuse_wrong([*outside, *inside, *self._spaces] if in_place else outside)
        self._lend_folders(volumes)
        self._check_access()
        for link in [*self._links, *self._spaces]:
            self._cover(link)
        self._leave_settings()
        for name in OF_ITS_SERVER:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))

    # What is in it

    def _look(self) -> None:
        """Find all links, also below their targets, and refuse what PostgreSQL never creates."""
        for link in self._map():
            self._follow(link, self._spaces)
        for folder in self._folders:  # grows during the loop
            for entry in entries(folder, self._bench):
                mode = entry.stat(follow_symlinks=False).st_mode
                name = self._places.there(entry.path)
                if stat.S_ISLNK(mode):
                    real = self._places.resolve(entry.path)
                    self._follow(Link(entry.path, os.readlink(entry.path), real), self._links)
                elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
                    raise CheckFailed(
                        f"{name} is not a file, directory or link, and PostgreSQL creates nothing else: find out who "
                        "put it there, and remove it from production"
                    )

    def _follow(self, link: Link, links: list[Link]) -> None:
        if not os.path.lexists(link.real):
            raise CheckFailed(
                f"{self._places.there(link.path)} leads to {link.target}, which is not in the copy: back up and mount "
                "its volume too, or remove the link from production"
            )
        links.append(link)
        if os.path.isdir(link.real) and not any(f"{link.real}/".startswith(f"{each}/") for each in self._folders):
            self._folders.append(link.real)

    def _map(self) -> Iterator[Link]:
        """The tablespaces that a server would create links to."""
        path = os.path.join(self._found, SPACES)
        if not os.path.lexists(path):
            return
        text = os.fsdecode(read_file(self._found, SPACES, LARGEST_MAP, self._places.there(path)))
        for line in filter(None, text.split("\n")):
            number, _space, target = line.partition(" ")
            if not number.isdigit() or not os.path.isabs(target) or set(target) & set(ESCAPED):
                raise CheckFailed(f"{self._places.there(path)} has the line '{line}', which PostgreSQL never writes")
            yield Link(f"{path} {number}", target, self._places.resolve(self._places.here(target)))

    # What is changed

    def _copy(self, links: list[Link]) -> None:
        """Have the server work on a copy, with links that lead to the targets of the original links."""
        self.path = os.path.join(self._bench.work, "data")
        copy_folder(self._found, self.path, self._name, self._bench)
        self._set_right([Link(*(_moved(path, self._found, self.path) for path in link)) for link in links])
        self._set_map_right(self.path)

    def _set_right(self, links: list[Link]) -> None:
        """Point links to the places of their targets in the copy."""
        for path, _target, real in links:
            if os.path.realpath(path) == os.path.realpath(real):
                continue
            entry = os.lstat(path)
            os.unlink(path)
            os.symlink(real, path)
            os.lchown(path, entry.st_uid, entry.st_gid)

    def _set_map_right(self, folder: str) -> None:
        if all(each.real == each.target for each in self._spaces):
            return
        path = os.path.join(folder, SPACES)
        entry = os.lstat(path)
        os.unlink(path)
        with open(path, "x", encoding="utf-8", errors="surrogateescape") as stream:
            stream.writelines(f"{each.path.rpartition(' ')[2]} {each.real}\n" for each in self._spaces)
        os.chown(path, entry.st_uid, entry.st_gid)

    def _refuse_wrong(self, links: list[Link]) -> None:
        """Refuse wrong links if nothing may be changed, as on the disks of a failover."""
        wrong = [] if self._bench.disposable else [link for link in links if self._is_wrong(link)]
        if wrong:
            raise CheckFailed(
                f"{self._places.there(wrong[0].path)} leads to {wrong[0].target}, which is {wrong[0].real} here: mount "
                "the volumes where production has them, or correct the link"
            )

    def _is_wrong(self, link: Link) -> bool:
        """Whether the link leads elsewhere on this host than on production."""
        if link in self._spaces:
            return link.real != link.target
        return os.path.realpath(link.path) != os.path.realpath(link.real)

    def _lend_folders(self, volumes: Volumes) -> None:
        for folder in self._folders[1:]:
            if not writable(folder) or not volumes.lend(folder):
                raise CheckFailed(
                    f"{self._places.there(folder)}, to which {self._name} leads, is not writable here for the check's "
                    "user: mount it from an overlay; if it is not a drill's mount, use kernel 5.12 or newer"
                )

    def _cover(self, link: Link) -> None:
        """Mount the copy over this host's directory at production's path, for the duration of the check.

        Replayed WAL names tablespaces by their original paths, and PostgreSQL recreates them there.
        """
        target, here = link.target, link.real
        if not os.path.isabs(target) or not os.path.isdir(target) or not os.path.isdir(here):
            return
        if os.path.samefile(target, here):
            return
        real = os.path.realpath(target)
        free = not any(f"{os.path.realpath(path)}/".startswith(f"{real}/") for path in (here, self._bench.work))
        if not self._bench.own_mounts or not free or real.split("/")[1] in ("", *OF_THE_HOST):
            raise CheckFailed(
                f"{target} also exists on this host, and the copy might write to it: check the copy on another host"
            )
        mount(here, real, MS_BIND)

    def _leave_settings(self) -> None:
        """Hide the copy's settings from the server. Raises CheckFailed if that is not possible."""
        path = os.path.join(self.path, SETTINGS)
        if not os.path.lexists(path):
            return
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise CheckFailed(f"{self._name}/{SETTINGS} is not a regular file: correct it on production")
        if self._bench.own_mounts:
            empty = os.path.join(self._bench.work, SETTINGS)
            with open(empty, "x", encoding="ascii"):
                pass
            if self._bench.user is not None:
                os.chown(empty, *self._bench.user)
            bind(empty, path)
        elif self._bench.disposable or self.path != self._found:
            os.unlink(path)
        else:
            raise CheckFailed(
                f"{self._name}/{SETTINGS} would take effect: this host cannot give the check its own mounts, and the "
                "file must not be changed"
            )

    def _check_access(self) -> None:
        wanted = [(os.path.join(self.path, "PG_VERSION"), os.R_OK), (self._bench.work, os.X_OK)]
        for path, how in wanted + [(folder, os.R_OK | os.W_OK | os.X_OK) for folder in self._folders[1:]]:
            if not may(self._bench.user, path, how):
                who = os.geteuid() if self._bench.user is None else self._bench.user.uid
                raise CheckFailed(
                    f"user {who}, as whom the check runs, cannot access {path}: make the directories above accessible "
                    "(chmod o+x), or set 'scratch' to another directory"
                )


def _moved(path: str, before: str, after: str) -> str:
    return after + path[len(before) :] if path.startswith(f"{before}/") else path

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether a block device or file may be overwritten, and holds it from then on until all is written.

One descriptor is opened, everything is determined through it, and it stays open: what was checked is what is written.
On a block device it prevents mounts and every other exclusive claim in the kernel (O_EXCL); on a file, other restores
(a lock). Standard library only, Python 3.8: this also runs on hosts without the engine.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shlex
import stat
import time
import typing as t

from ..base.errors import TargetBusy, TargetError, TargetOccupied
from .device_users import in_words, users_of
from .disk_identity import Identity, identity_of, size_of
from .signatures import content_of

#: Seconds that a device may be open elsewhere: udev and the like probe a device that was just closed.
SETTLE = 3.0
_POLL = 0.1

Vouch = t.Callable[["Held"], bool]


class Held:
    """A block device or file that nothing else uses, held open for writing until close()."""

    def __init__(self, path: str, fd: int, is_new: bool) -> None:
        self.path = path
        self.fd = fd
        self.is_new = is_new
        self.is_block = stat.S_ISBLK(os.fstat(fd).st_mode)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return size_of(self.fd)

    def identity(self) -> Identity:
        """Its identity, which names it even after devices were renumbered."""
        return identity_of(self.fd, self.path)

    def content(self) -> list[str]:
        """What is on it, as texts; empty if it is blank."""
        return content_of(self.fd, self.path)

    def is_still_at_its_path(self) -> bool:
        """Whether opening the path still gives what is held."""
        with contextlib.suppress(OSError):
            there, here = os.stat(self.path), os.fstat(self.fd)
            return there.st_rdev == here.st_rdev if self.is_block else os.path.samestat(there, here)
        return False

    def close(self) -> None:
        """Release it."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def hold(path: str, create: bool = False) -> Held:
    """Hold a block device or file of this host that nothing else uses; ``create``: create a missing file.

    Raises TargetBusy, which names the users, and TargetError.
    """
    path = os.path.realpath(path)
    fd, is_new = _open(path, create)
    held = Held(path, fd, is_new)
    try:
        if not held.is_block:
            _lock(held)
        users = [] if is_new else _settled(fd)
        if users:
            raise _busy(path, users)
    except BaseException:
        held.close()
        raise
    return held


def allow(
    held: Held, overwrite: t.Iterable[str] = (), vouched: Vouch | None = None, option: str = "--overwrite "
) -> None:
    """Refuse a target with content, unless ``overwrite`` names its identity or ``vouched`` says that it may go.

    ``option`` is what a user types before an identity. Raises TargetOccupied.
    """
    content = [] if held.is_new else held.content()
    if not content:
        return
    identity, named = held.identity(), [name for name in overwrite if name.strip()]
    if identity.is_among(named) or (vouched is not None and vouched(held)):
        return
    wrong = f" ({' and '.join(map(repr, named))}, which was named, is not it)" if named else ""
    raise TargetOccupied(
        held.path,
        f"it holds {' and '.join(content)}, which would be lost{wrong}",
        f"Name another target, or, if that may be lost, name it by its identity: {option}{shlex.quote(identity.shown)}",
    )


def _open(path: str, create: bool) -> tuple[int, bool]:
    """The descriptor of the device or file, and whether it was created."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        status = os.stat(path)
        _check_kind(path, status)
        # On a block device O_EXCL without O_CREAT asks the kernel to refuse one that is mounted or held.
        fd = os.open(path, flags | os.O_EXCL if stat.S_ISBLK(status.st_mode) else flags)
    except FileNotFoundError as error:
        if not create:
            raise _cannot(path, error) from error
        return _make(path, flags), True
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(path, _users_at(path)) from error
        raise _cannot(path, error) from error
    if stat.S_IFMT(os.fstat(fd).st_mode) != stat.S_IFMT(status.st_mode):
        os.close(fd)
        raise TargetError(path, "it was replaced while it was being opened", "Let nothing else change the target")
    return fd, False


def _make(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise _cannot(path, error) from error


def _check_kind(path: str, status: os.stat_result) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise TargetError(
            path, "it is neither a file nor a block device", "Name a file or a block device as the target"
        )


def _lock(held: Held) -> None:
    """Keep other restores away from a file."""
    try:
        fcntl.flock(held.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _busy(held.path, _settled(held.fd) or ["another restore writes to it"]) from error
    except OSError:
        pass  # a filesystem without locks


def _settled(fd: int) -> list[str]:
    """Who still uses it after SETTLE seconds."""
    deadline = time.monotonic() + SETTLE
    while True:
        users = users_of(fd)
        if not users or time.monotonic() > deadline or not all(user.startswith("open by") for user in users):
            return users
        time.sleep(_POLL)


def _users_at(path: str) -> list[str]:
    """Who uses a target that cannot be held."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return users_of(fd)
    finally:
        os.close(fd)


def _busy(path: str, users: list[str]) -> TargetBusy:
    return TargetBusy(
        path,
        f"it is in use: {in_words(users) or 'the kernel or another program holds it'}",
        "Unmount it and stop what uses it, or name another target",
    )


def _cannot(path: str, error: OSError) -> TargetError:
    return TargetError(
        path, f"it cannot be opened ({error.strerror})", "Check the path, its permissions and the free disk space"
    )

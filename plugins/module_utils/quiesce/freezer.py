# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes and thaws one filesystem with the kernel's own calls (FIFREEZE, FITHAW), in its own process.

Both calls can wait forever for storage that does not respond, and a thaw waits behind the freeze of the same
filesystem. The process that freezes a filesystem also thaws it: so it knows whether the freeze was its own, and thaws
as soon as a freeze that was given up has ended. It thaws on its own when its parent is gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import time
from typing import Any, NamedTuple

from ..host.clock import Deadline
from ..host.errors import DriverError
from ..host.mounts import current, descriptor_mount, mount_of, open_on
from ..host.processes import is_running
from .uncover import open_covered
from .workers import END

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
"""From linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int)."""

FREEZE, THAW = "freeze", "thaw"
"""Requests to the process. It answers with ``error``; to a thaw also with ``broken``: it was no longer frozen."""

RETRY_AFTER = 0.5
"""Seconds until a failed thaw is retried when the parent is gone."""

OWN_THAW = 0.2
"""Seconds that a freezing process has to thaw on its own after its parent is gone, before it is killed."""

POLL = 0.02


class Opened(NamedTuple):
    """An open mount: the descriptor, the filesystem's device as ``major:minor``, the mount's ID."""

    descriptor: int
    device: str
    number: int


def open_mount(point: str, expected: str | None) -> Opened:
    """Open a mount point. Raises DriverError if ``expected`` is given and another filesystem is mounted there."""
    try:
        descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DriverError(f"filesystem: {point} cannot be opened: {error.strerror}") from error
    mount = descriptor_mount(descriptor, current())
    if mount is not None and mount.device == (expected or mount.device):
        return Opened(descriptor, mount.device, mount.number)
    os.close(descriptor)
    raise DriverError(
        f"filesystem: {point} now shows {mount.device if mount else 'no filesystem'}, but showed {expected} when it "
        "was tested: start a new run once nobody changes its mount any more"
    )


class Freezer:
    """The work of the process that keeps one mount open."""

    def __init__(self, point: str, opened: Opened) -> None:
        self._point = point
        self._opened = opened
        self._frozen = False

    def carry_out(self, request: str) -> dict[str, Any]:
        """Handle a request; at the end, make sure that nothing stays frozen."""
        if request == FREEZE:
            return self._freeze()
        while True:
            try:
                return self._thaw()
            except OSError as error:
                if request != END:
                    return {"error": f"{self._point}: {error.strerror}: use 'fsfreeze --unfreeze' on that server"}
            time.sleep(RETRY_AFTER)

    def _freeze(self) -> dict[str, Any]:
        why = self._shows_another()
        if why:
            return {"error": why}
        try:
            fcntl.ioctl(self._opened.descriptor, FIFREEZE, 0)
        except OSError as error:
            return {"error": f"filesystem: {_why_not_frozen(self._point, error)}"}
        self._frozen = True
        return {}

    def _shows_another(self) -> str:
        """An error text if the path no longer shows what was opened, else empty."""
        try:
            shown, held = os.stat(self._point), os.fstat(self._opened.descriptor)
            if (shown.st_dev, shown.st_ino) == (held.st_dev, held.st_ino):
                return ""
            device = mount_of(self._point, current()).device
        except (OSError, KeyError):
            device = "no filesystem"
        if device == self._opened.device:
            return ""
        return (
            f"filesystem: {self._point} now shows {device}, but showed {self._opened.device} when the hold was armed: "
            "something was mounted over it, or it was unmounted; fix that, or correct 'mounts', and start a new run"
        )

    def _thaw(self) -> dict[str, Any]:
        """Thaw only what this process itself has frozen. Raises OSError."""
        broken = self._frozen and not thaw(self._opened.descriptor)
        self._frozen = False
        return {"broken": broken}


def _why_not_frozen(point: str, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return (
            f"{point} is already frozen by somebody else: wait until that ends, or thaw it with "
            f"'fsfreeze --unfreeze {point}' if nothing needs it"
        )
    return f"{point} cannot be frozen: {error.strerror}"


class Mender:
    """The work of a process that thaws what another process froze and cannot thaw. ``mark`` describes it."""

    def __init__(self, mark: dict[str, Any]) -> None:
        self._mark = mark

    def carry_out(self, request: str) -> dict[str, Any]:
        """Thaw, and answer once no freeze can follow any more."""
        if request == END:
            return {}
        try:
            return {"broken": not self._thaw()}
        except DriverError as error:
            return {"error": str(error)}
        except OSError as error:
            return {"error": f"{self._mark['path']}: {error.strerror}: use 'fsfreeze --unfreeze' on that server"}

    def _thaw(self) -> bool:
        """Whether it was frozen. During a freeze the kernel may still report "not frozen", so this repeats.

        Raises OSError, DriverError.
        """
        freezer, patience, was_frozen = self._mark.get("freezer"), Deadline(OWN_THAW), False
        while True:
            ended = not is_running(freezer)
            was_frozen = self._thaw_once(ended) or was_frozen
            if ended:
                return was_frozen
            if freezer is not None and not patience.left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(freezer["pid"], signal.SIGKILL)
            time.sleep(POLL)

    def _thaw_once(self, ended: bool) -> bool:
        try:
            descriptor = reach(self._mark)
        except DriverError:
            if ended:
                raise
            return False
        try:
            return thaw(descriptor)
        finally:
            os.close(descriptor)


def thaw(descriptor: int) -> bool:
    """Thaw; returns whether the filesystem was frozen until now. Raises OSError."""
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def reach(mark: dict[str, Any]) -> int:
    """A descriptor on the filesystem that was frozen, wherever it is mounted now. Raises DriverError."""
    path, device = mark["path"], mark["device"]
    mounts = current()
    same = sorted((mount for mount in mounts if mount.device == device), key=lambda each: each.number != mark["mount"])
    for point in (path, *(mount.point for mount in same)):
        descriptor = open_on(point, device, mounts)
        if descriptor is not None:
            return descriptor
    if not same:
        raise DriverError(
            f"{path}: the filesystem {device}, which was frozen there, is no longer mounted anywhere and stays frozen: "
            "mount it again at the same place, and thaw again"
        )
    descriptor = open_covered(device)
    if descriptor is None:
        raise DriverError(
            f"{path}: the filesystem {device}, which was frozen there, is covered by another mount and stays frozen: "
            f"unmount what is mounted over {same[0].point}, and thaw again"
        )
    return descriptor

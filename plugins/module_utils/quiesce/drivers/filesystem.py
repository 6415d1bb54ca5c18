# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes mounted filesystems with the kernel's own call (FIFREEZE, FITHAW): ext4, xfs and btrfs.

A path may show another filesystem later than the one that was frozen. So what counts is the filesystem itself, by its
device number, which the kernel gives to no other one as long as it is frozen.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any, NamedTuple

from ..errors import DriverError
from ..mounts import Mount, current, descriptor_mount, mount_of, open_on
from ..uncover import open_covered
from .base import Driver, Option, Surroundings

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
"""From linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int)."""

TYPES = ("btrfs", "ext4", "xfs")
MOUNTS = "mounts"


class Opened(NamedTuple):
    """An open mount: the descriptor, the filesystem's device as ``major:minor``, the mount's number."""

    descriptor: int
    device: str
    number: int


class FilesystemDriver(Driver):
    """Filesystems by mount point, frozen in the order listed and thawed in reverse.

    Marks: ``mounts``, each with its ``path``, ``device`` (``major:minor``) and ``mount`` (the mount's number). What the
    check has found: the device by path.
    """

    name = "filesystem"
    options = {MOUNTS: Option("list", "The mount points, in the order in which to freeze them.", required=True)}

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self.mounts: list[str] = [os.path.normpath(point) for point in values[MOUNTS]]
        self._opened: dict[str, Opened] = {}

    def check(self, surroundings: Surroundings) -> str:
        mounts = current()
        seen: dict[str, str] = {}
        for point in self.mounts:
            mount = self._check_mount(point, mounts)
            if mount.device in seen:
                raise DriverError(
                    f"filesystem: {seen[mount.device]} and {point} are one filesystem, and one freeze covers both: "
                    "list only one of them"
                )
            seen[mount.device] = point
        self._check_surroundings(seen, mounts, surroundings)
        self.findings = {point: device for device, point in seen.items()}
        return f"can freeze {', '.join(self.mounts)}"

    def _check_mount(self, point: str, mounts: list[Mount]) -> Mount:
        if point == "/":
            raise DriverError("filesystem: / holds the system itself and cannot be frozen: list the volumes' mounts")
        found = [mount for mount in mounts if mount.point == os.path.realpath(point)]
        if not found:
            raise DriverError(f"filesystem: {point} is not a mount point here: mount the volume or correct 'mounts'")
        if found[-1].type not in TYPES:
            raise DriverError(
                f"filesystem: {point} is of type {found[-1].type}, which cannot be frozen: only {', '.join(TYPES)} can"
            )
        return found[-1]

    def _check_surroundings(self, frozen: dict[str, str], mounts: list[Mount], surroundings: Surroundings) -> None:
        for path, purpose in {**surroundings.paths, "/": "the system"}.items():
            try:
                device = mount_of(path, mounts).device
            except (OSError, KeyError):
                continue
            if device in frozen:
                raise DriverError(
                    f"filesystem: {frozen[device]} must not be frozen, as {path} ({purpose}) is on it: "
                    "move one of them to another filesystem"
                )

    def prepare(self) -> None:
        """Open every mount, so that the path is not needed any more and nobody can unmount it."""
        for point in self.mounts:
            self._opened[point] = self._open(point)

    def close(self) -> None:
        while self._opened:
            os.close(self._opened.popitem()[1].descriptor)

    def freeze(self) -> None:
        for point in self.mounts:
            self.stop_if_cancelled()
            self._freeze_one(point)

    def _freeze_one(self, point: str) -> None:
        if point not in self._opened:
            self._opened[point] = self._open(point)
        opened = self._opened[point]
        self._check_shown(point, opened)
        mark = {"path": point, "device": opened.device, "mount": opened.number}
        self.mark_item(MOUNTS, mark, True)
        try:
            fcntl.ioctl(opened.descriptor, FIFREEZE, 0)
        except OSError as error:
            self.mark_item(MOUNTS, mark, False)
            if error.errno == errno.EBUSY:
                raise DriverError(
                    f"filesystem: {point} is frozen already, by somebody else: wait until that ends, or thaw it with "
                    f"'fsfreeze --unfreeze {point}' if nothing needs it"
                ) from error
            raise DriverError(f"filesystem: {point} cannot be frozen: {error.strerror}") from error
        # A thaw may have come between the mark and the freeze, and have taken the mark away.
        self.mark_item(MOUNTS, mark, True)

    def _check_shown(self, point: str, opened: Opened) -> None:
        """Raise DriverError unless the path still shows what was opened."""
        try:
            shown, held = os.stat(point), os.fstat(opened.descriptor)
            if (shown.st_dev, shown.st_ino) == (held.st_dev, held.st_ino):
                return
            device = mount_of(point, current()).device
        except (OSError, KeyError):
            device = "no filesystem"
        if device != opened.device:
            raise DriverError(
                f"filesystem: {point} shows {device} now, and {opened.device} when the hold was armed: something was "
                "mounted over it; unmount that, or correct 'mounts', and start a new run"
            )

    def thaw(self) -> list[str]:
        broken, failed = [], []
        for mark in reversed(list(self.marks.get(MOUNTS, []))):
            try:
                if not self._thaw_one(mark):
                    broken.append(f"filesystem: {mark['path']} was thawed by somebody else")
                self.mark_item(MOUNTS, mark, False)
            except OSError as error:
                failed.append(f"{mark['path']}: {error.strerror}: use 'fsfreeze --unfreeze' on that server")
            except DriverError as error:
                failed.append(str(error))
        if failed:
            raise DriverError(f"filesystem: cannot thaw {'; '.join(failed)}")
        return broken

    def _thaw_one(self, mark: dict[str, Any]) -> bool:
        """Whether it was frozen until now. Raises OSError, DriverError."""
        opened = self._opened.get(mark["path"])
        if opened is not None and opened.device == mark["device"]:
            return _thaw(opened.descriptor)
        descriptor = _reach(mark)
        try:
            return _thaw(descriptor)
        finally:
            os.close(descriptor)

    def status(self) -> dict[str, Any]:
        """The kernel does not tell whether a filesystem is frozen, so only what this driver froze is known."""
        paths = [mark["path"] for mark in self.marks.get(MOUNTS, [])]
        return {"frozen": bool(paths) or None, MOUNTS: paths}

    def _open(self, point: str) -> Opened:
        """Raises DriverError where that is not what the check has found, if there was one."""
        try:
            descriptor = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DriverError(f"filesystem: {point} cannot be opened: {error.strerror}") from error
        mount = descriptor_mount(descriptor, current())
        expected = self.findings.get(point)
        if mount is not None and mount.device == (expected or mount.device):
            return Opened(descriptor, mount.device, mount.number)
        os.close(descriptor)
        raise DriverError(
            f"filesystem: {point} shows {mount.device if mount else 'no filesystem'} now, and {expected} when it was "
            "checked: start a new run once nobody mounts there any more"
        )


def _thaw(descriptor: int) -> bool:
    """Whether the filesystem was frozen until now. Raises OSError."""
    try:
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _reach(mark: dict[str, Any]) -> int:
    """A descriptor on the very filesystem that was frozen, wherever that is mounted now. Raises DriverError."""
    path, device = mark["path"], mark["device"]
    mounts = current()
    same = sorted((mount for mount in mounts if mount.device == device), key=lambda each: each.number != mark["mount"])
    for point in (path, *(mount.point for mount in same)):
        descriptor = open_on(point, device, mounts)
        if descriptor is not None:
            return descriptor
    if not same:
        raise DriverError(
            f"{path}: the filesystem {device}, which was frozen there, is mounted nowhere any more, and stays frozen: "
            "mount it again, as it was, and thaw once more"
        )
    descriptor = open_covered(device)
    if descriptor is None:
        raise DriverError(
            f"{path}: the filesystem {device}, which was frozen there, is covered by another mount, and stays frozen: "
            f"unmount what is mounted over {same[0].point}, and thaw once more"
        )
    return descriptor

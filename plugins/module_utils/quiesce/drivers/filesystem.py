# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes mounted filesystems with the kernel's own call (FIFREEZE, FITHAW): ext4, xfs and btrfs."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Any

from ..errors import DriverError
from ..mounts import Mount, current, mount_of
from .base import Driver, Option, Surroundings

FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
"""From linux/fs.h: _IOWR('X', 119, int) and _IOWR('X', 120, int)."""

TYPES = ("btrfs", "ext4", "xfs")
MOUNTS = "mounts"


class FilesystemDriver(Driver):
    """Filesystems by mount point, frozen in the order listed and thawed in reverse. Marks: ``mounts``."""

    name = "filesystem"
    options = {MOUNTS: Option("list", "The mount points, in the order in which to freeze them.", required=True)}

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self.mounts: list[str] = [os.path.normpath(point) for point in values[MOUNTS]]
        self._descriptors: dict[str, int] = {}

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
            self._descriptors[point] = self._open(point)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def freeze(self) -> None:
        for point in self.mounts:
            self.stop_if_cancelled()
            self._freeze_one(point)

    def _freeze_one(self, point: str) -> None:
        self.mark_item(MOUNTS, point, True)
        try:
            fcntl.ioctl(self._descriptor(point), FIFREEZE, 0)
        except OSError as error:
            self.mark_item(MOUNTS, point, False)
            if error.errno == errno.EBUSY:
                raise DriverError(
                    f"filesystem: {point} is frozen already, by somebody else: wait until that ends, or thaw it with "
                    f"'fsfreeze --unfreeze {point}' if nothing needs it"
                ) from error
            raise DriverError(f"filesystem: {point} cannot be frozen: {error.strerror}") from error
        # A thaw may have come between the mark and the freeze, and have taken the mark away.
        self.mark_item(MOUNTS, point, True)

    def thaw(self) -> list[str]:
        broken, failed = [], []
        for point in reversed(list(self.marks.get(MOUNTS, []))):
            try:
                if not self._thaw_one(point):
                    broken.append(f"filesystem: {point} was thawed by somebody else")
                self.mark_item(MOUNTS, point, False)
            except OSError as error:
                failed.append(f"{point} ({error.strerror})")
        if failed:
            raise DriverError(f"filesystem: cannot thaw {', '.join(failed)}: use 'fsfreeze --unfreeze' on that server")
        return broken

    def _thaw_one(self, point: str) -> bool:
        """Whether it was frozen until now. Raises OSError."""
        try:
            fcntl.ioctl(self._descriptor(point), FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def status(self) -> dict[str, Any]:
        """The kernel does not tell whether a filesystem is frozen, so only what this driver froze is known."""
        return {"frozen": bool(self.marks.get(MOUNTS)) or None, MOUNTS: list(self.marks.get(MOUNTS, []))}

    def _descriptor(self, point: str) -> int:
        if point not in self._descriptors:
            self._descriptors[point] = self._open(point)
        return self._descriptors[point]

    def _open(self, point: str) -> int:
        try:
            return os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DriverError(f"filesystem: {point} cannot be opened: {error.strerror}") from error

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems that were left frozen, thawed so that their lab can be mended or removed.

Writers to a frozen filesystem cannot even be killed, and a filesystem whose host has died frozen keeps its loop device
although nothing mounts it any more: mounting it again finds it as it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from shell import attempt

# linux/fs.h
FITHAW = 0xC0045878
MAJOR = 7


def thaw_mounted(numbers: set[int]) -> None:
    """Thaw the filesystems on these loop devices wherever a process has them mounted. One not frozen is left alone."""
    for path in _mounted(numbers):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, FITHAW, 0)
            finally:
                os.close(descriptor)


def thaw_abandoned(device: str) -> None:
    """Thaw the filesystem on a device that nobody has mounted, in a mount namespace that ends with the command."""
    script = 'mount "$0" /mnt && { fsfreeze --unfreeze /mnt; umount /mnt; }'
    attempt(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, device])


def _mounted(numbers: set[int]) -> Iterator[Path]:
    """Mount points of these loop devices, as paths that the machine can open; of each mount namespace once."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            namespace = os.readlink(process / "ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            for line in (process / "mountinfo").read_text().splitlines():
                fields = line.split(" ")
                major, _colon, minor = fields[2].partition(":")
                if int(major) == MAJOR and int(minor) in numbers:
                    yield process / "root" / _unescaped(fields[4]).lstrip("/")


def _unescaped(text: str) -> str:
    """mountinfo writes blanks and the like as octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)

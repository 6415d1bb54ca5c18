# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thaws filesystems that were left frozen, so that their lab can be repaired or removed.

Writers to a frozen filesystem cannot even be killed. A filesystem whose host died while it was frozen keeps its loop
device in use although it is no longer mounted, and is still frozen when it is mounted again.
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
    """Thaw the filesystems on these loop devices wherever a process has them mounted; ignore those not frozen."""
    for path in _mounted(numbers):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, FITHAW, 0)
            finally:
                os.close(descriptor)


def thaw_abandoned(device: str) -> None:
    """Thaw the filesystem on an unmounted device, in a mount namespace that ends with the command."""
    script = 'mount "$0" /mnt && { fsfreeze --unfreeze /mnt; umount /mnt; }'
    attempt(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, device])


def _mounted(numbers: set[int]) -> Iterator[Path]:
    """Yield mount points of these loop devices as paths that the machine can open, once per mount namespace."""
    seen = {os.readlink("/proc/self/ns/mnt")}
    for process in Path("/proc").glob("[0-9]*"):
        # A process may end while it is examined.
        with contextlib.suppress(OSError):
            namespace = os.readlink(process / "ns/mnt")
            if namespace in seen:
                continue
            seen.add(namespace)
            for line in (process / "mountinfo").read_bytes().split(b"\n")[:-1]:
                fields = [os.fsdecode(field) for field in line.split(b" ")]
                major, _colon, minor = fields[2].partition(":")
                if int(major) == MAJOR and int(minor) in numbers:
                    yield process / "root" / _unescaped(fields[4]).lstrip("/")


def _unescaped(text: str) -> str:
    """Decode the octal escapes that mountinfo uses for spaces and similar characters."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)

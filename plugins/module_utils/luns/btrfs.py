# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel has to know, or to forget, of a device before a copied btrfs on it can be mounted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

from .errors import LunError

TYPE = "btrfs"
CONTROL = "/dev/btrfs-control"
TEMP_FSID = "/sys/fs/btrfs/features/temp_fsid"
"""Where a kernel says that it mounts a copy beside its original, under an identity of its own (from 6.7 on)."""

_FORGET_DEVICE = 0x50009405
_ARGUMENTS = struct.Struct("q4088s")


def prepare(device: str, uuid: str) -> None:
    """Make a btrfs of a copy ready to be mounted. Raises LunError where that is impossible on this host."""
    _check_collision(device, uuid)
    _forget(device)


def _check_collision(device: str, uuid: str) -> None:
    """Refuse a btrfs that an older kernel would confuse with its mounted original: both have the same UUID."""
    if not os.path.exists(TEMP_FSID) and os.path.exists(f"/sys/fs/btrfs/{uuid}"):
        raise LunError(
            f"a btrfs with the UUID of {device} ({uuid}) is mounted on this host, and its kernel cannot tell the two "
            "apart: unmount it, choose another DR host, or use kernel 6.7 or newer"
        )


def _forget(device: str) -> None:
    """Have the kernel forget what it knows of the device number.

    It remembers the members of a btrfs of several devices after its end, by their device numbers, and these are reused.
    A copy on such a number, mounted beside its original, would get the original's identity and fail with EEXIST.
    """
    with contextlib.suppress(OSError):  # a device that it does not know, or that is mounted
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(control, _FORGET_DEVICE, bytearray(_ARGUMENTS.pack(0, os.fsencode(device))))
        finally:
            os.close(control)

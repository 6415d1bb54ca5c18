# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loop devices, created and found by a label that the lab assigns.

`losetup` identifies a device by the path of its file, which is meaningless in another mount namespace. The label
(``lo_file_name``, free text to the kernel) identifies the lab and the LUN.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from shell import LabError

# linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_CLR_FD = 0x4C01
LOOP_GET_STATUS64 = 0x4C05
LOOP_CONFIGURE = 0x4C0A
MAJOR = 7
# device, inode, rdevice, offset, size limit, number, encryption type and key size, flags, names, key, two reserved
INFO = struct.Struct("=5Q4I64s64s32s2Q")
# fd, block size, info, eight reserved
CONFIG = struct.Struct(f"=2I{INFO.size}s64x")


def attach(file: str, label: str, offset: int = 0, size: int = 0) -> int:
    """Attach a file, or ``size`` bytes of it from ``offset`` on, to a free loop device; return its number."""
    info = INFO.pack(0, 0, 0, offset, size, 0, 0, 0, 0, label.encode(), b"", b"", 0, 0)
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _configure(CONFIG.pack(backing, 0, info), file)
    finally:
        os.close(backing)


def _configure(config: bytes, file: str) -> int:
    # Another program may take the free device first.
    for _try in range(64):
        with open("/dev/loop-control", "rb") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        device = os.open(node(number), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_CONFIGURE, config)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise LabError(f"{file}: cannot be attached to {node(number)}: {error}") from error
        else:
            return int(number)
        finally:
            os.close(device)
    raise LabError(f"{file}: every free loop device was taken by another program: try again")


def detach(number: int) -> None:
    """Detach a device; do nothing if it is already gone."""
    try:
        device = os.open(node(number), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(device, LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise LabError(f"{node(number)}: cannot be detached: {error}") from error
    finally:
        os.close(device)


def labelled(prefix: str) -> dict[str, int]:
    """Return attached devices whose label begins with ``prefix``, as label to number."""
    return {label: number for label, number in _labels() if label.startswith(prefix)}


def node(number: int) -> str:
    """Return the device's node on the machine; create it if /dev is not the kernel's own (containers)."""
    path = f"/dev/loop{number}"
    if not os.path.exists(path):
        os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(MAJOR, number))
    return path


def _labels() -> Iterator[tuple[str, int]]:
    for entry in Path("/sys/block").glob("loop*/loop"):
        number = int(entry.parent.name[4:])
        try:
            device = os.open(node(number), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = INFO.unpack(fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(INFO.size)))
        except OSError:
            continue  # detached in the meantime
        finally:
            os.close(device)
        yield info[9].rstrip(b"\0").decode(errors="replace"), number

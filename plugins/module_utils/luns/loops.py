# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loop devices, identified by their label.

``losetup`` identifies a device by the path of its file, which is meaningless in another mount namespace and ambiguous
if the file was replaced. The label (``lo_file_name``, free text for the kernel) identifies the LUN.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import stat
import struct

from ..saveset.io import blocks
from .errors import LunError

# linux/loop.h
LOOP_CTL_GET_FREE = 0x4C82
LOOP_SET_FD = 0x4C00
LOOP_CLR_FD = 0x4C01
LOOP_SET_STATUS64 = 0x4C04
LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_DIRECT_IO = 0x4C08
LOOP_SET_BLOCK_SIZE = 0x4C09
LOOP_CONFIGURE = 0x4C0A
READ_ONLY = 1
DIRECT_IO = 16
# linux/fs.h: the kernel's read-ahead, in sectors
BLKRASET = 0x1262
READ_AHEAD = 4 * 1024**2 // 512
MAJOR = 7
SECTOR = 512
# device, inode, rdevice, offset, size limit, number, encryption type and key size, flags, names, key, two reserved
INFO = struct.Struct("=5Q4I64s64s32s2Q")
# fd, block size, info, eight reserved
CONFIG = struct.Struct(f"=2I{INFO.size}s64x")


def attach(
    file: str,
    label: str,
    offset: int = 0,
    size: int = 0,
    sector: int = SECTOR,
    direct: bool = False,
) -> tuple[str, bool]:
    """Attach a file or device, or a part of it, to a free loop device. Returns that, and whether it is writable.

    With ``direct`` it bypasses the page cache of the file, so that nothing is cached twice.
    """
    backing, writable = _open(file)
    flags = (0 if writable else READ_ONLY) | (DIRECT_IO if direct else 0)
    info = INFO.pack(0, 0, 0, offset, size, 0, 0, 0, flags, label.encode(), b"", b"", 0, 0)
    try:
        device = _configure(CONFIG.pack(backing, sector, info), file)
    finally:
        os.close(backing)
    return device, writable


def detach(device: str) -> None:
    """Detach a device: at once, or after its last user. Idempotent."""
    try:
        opened = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(opened, LOOP_CLR_FD)
    except OSError as error:
        if error.errno not in (errno.ENXIO, errno.EBUSY):
            raise LunError(f"{device} cannot be detached: {error.strerror}") from error
    finally:
        os.close(opened)


def labelled(label: str) -> dict[str, str]:
    """Attached devices of a LUN, of the whole LUN and of its partitions: label -> device.

    A device whose label can no longer be read is identified by its file, which nbdfuse showed in the LUN's directory.
    """
    folder = f"/{label.partition('#')[2]}/"
    return {
        found: device
        for found, device in _labels()
        if found == label or found.startswith(label + "/p") or folder in found
    }


def is_lost(device: str) -> bool:
    """Whether an attached device's label cannot be read, because its file belongs to a killed nbdfuse."""
    return any(found.endswith(f" at {device}") for found, each in _labels() if each == device)


def sector_size(device: str) -> int:
    """A device's logical sector size."""
    opened = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return blocks.sector_size(opened)
    finally:
        os.close(opened)


def read_ahead(device: str, sectors: int = READ_AHEAD) -> None:
    """Increase the kernel's read-ahead: each request to a served LUN is slow, whatever its size."""
    with open(device, "rb") as stream, contextlib.suppress(OSError):
        fcntl.ioctl(stream, BLKRASET, sectors)


def node(number: int) -> str:
    """The device node of a loop device; created if the host has no udev."""
    path = f"/dev/loop{number}"
    if not os.path.exists(path):
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(MAJOR, number))
    return path


def _open(file: str) -> tuple[int, bool]:
    """The opened file, and whether it is writable."""
    try:
        return os.open(file, os.O_RDWR | os.O_CLOEXEC), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise LunError(f"{file} cannot be opened: {error.strerror}") from error
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC), False


def _configure(config: bytes, file: str) -> str:
    # Another program may take the free device first.
    for _try in range(64):
        number = _free()
        device = os.open(node(number), os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, LOOP_CONFIGURE, config)
        except OSError as error:
            if error.errno == errno.EBUSY:
                continue
            if error.errno != errno.EINVAL:
                raise LunError(f"{file} cannot be attached to {node(number)}: {error.strerror}") from error
            if not _configure_in_steps(device, config):
                continue
        finally:
            os.close(device)
        return node(number)
    raise LunError(f"{file}: every free loop device was taken by another program: try again")


def _configure_in_steps(device: int, config: bytes) -> bool:
    """Replace LOOP_CONFIGURE on kernels before 5.8. Returns whether the device was free."""
    backing, sector, packed = CONFIG.unpack(config)
    fields = list(INFO.unpack(packed))
    direct, fields[8] = fields[8] & DIRECT_IO, fields[8] & ~DIRECT_IO
    try:
        fcntl.ioctl(device, LOOP_SET_FD, backing)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise LunError(f"the kernel refuses the loop device: {error.strerror}") from error
    try:
        fcntl.ioctl(device, LOOP_SET_STATUS64, INFO.pack(*fields))
        if sector != SECTOR:
            fcntl.ioctl(device, LOOP_SET_BLOCK_SIZE, sector)
        if direct:
            with contextlib.suppress(OSError):  # without it, only slower
                fcntl.ioctl(device, LOOP_SET_DIRECT_IO, 1)
    except OSError as error:
        fcntl.ioctl(device, LOOP_CLR_FD)
        raise LunError(f"the kernel refuses the loop device: {error.strerror}") from error
    return True


def _free() -> int:
    try:
        with open("/dev/loop-control", "rb") as control:
            return fcntl.ioctl(control, LOOP_CTL_GET_FREE)
    except OSError as error:
        raise LunError(
            f"this host has no loop devices ({error.strerror}: /dev/loop-control): load the kernel module loop"
        ) from error


def _backing_file(entry: str) -> str:
    try:
        with open(os.path.join(entry, "backing_file"), "rb") as stream:
            return os.fsdecode(stream.read().rstrip(b"\n"))
    except OSError:
        return ""  # detached meanwhile


def _labels() -> list[tuple[str, str]]:
    found = []
    for entry in glob.glob("/sys/block/loop*/loop"):
        number = int(os.path.basename(os.path.dirname(entry))[4:])
        try:
            device = os.open(node(number), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            info = INFO.unpack(fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(INFO.size)))
            found.append((info[9].rstrip(b"\0").decode(errors="replace"), node(number)))
        except OSError as error:
            # For the status the kernel queries the file below, which fails if its nbdfuse was killed.
            if error.errno != errno.ENXIO:  # detached meanwhile
                found.append((f"{_backing_file(entry)} at {node(number)}", node(number)))
        finally:
            os.close(device)
    return found

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sector size of a disk, and the block size of the filesystem on it.

A filesystem that was made on a disk with 512-byte sectors cannot be mounted on one with 4096-byte sectors, and a
partition table counts in sectors of the disk that it was made on. Standard library only, Python 3.8: this also runs
on hosts without the engine.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import typing as t

from ..base.errors import TargetError

#: The possible sizes of sectors and blocks.
SECTORS = (512, 1024, 2048, 4096)
SIZES = (*SECTORS, 8192, 16384, 32768, 65536)

_BLKSSZGET = 0x1268
_BTRFS = 65536  # where its superblock is
_HEAD = _BTRFS + 4096


def is_size(value: object, sizes: t.Sequence[int] = SIZES) -> bool:
    """Whether a value is a possible block size; with SECTORS, a possible sector size."""
    return isinstance(value, int) and value in sizes


def told(metadata: t.Mapping[str, t.Any], name: str) -> int:
    """The ``sector_size`` or ``block_size`` in a saveset's metadata; 0 if it has no possible one."""
    value: t.Any = metadata.get(name)
    return int(value) if is_size(value, SECTORS if name == "sector_size" else SIZES) else 0


def sector_size(fd: int) -> int:
    """The logical sector size of the disk that ``fd`` has open; 0 for a file, which has none. Raises OSError."""
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        return 0
    return int(struct.unpack("i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0])


def block_size(fd: int) -> int:
    """The smallest block that the filesystem on the disk or file ``fd`` reads and writes; 0 if it is unknown."""
    head = os.pread(fd, _HEAD, 0).ljust(_HEAD, b"\0")
    found = 0
    if head.startswith(b"XFSB"):
        (found,) = struct.unpack_from(">H", head, 102)
    elif head[1080:1082] == b"\x53\xef":  # ext2, ext3, ext4
        (power,) = struct.unpack_from("<I", head, 1048)
        found = 1024 << min(power, 16)
    elif head[_BTRFS + 64 : _BTRFS + 72] == b"_BHRfS_M":
        (found,) = struct.unpack_from("<I", head, _BTRFS + 144)
    elif head[3:11] == b"NTFS    ":
        (found,) = struct.unpack_from("<H", head, 11)
    return found if is_size(found) else 0


def check_target(fd: int, path: str, needed: int) -> None:
    """Raise TargetError if a disk has larger sectors than the blocks of its future content (``needed``; 0: unknown)."""
    sectors = sector_size(fd)
    if needed and sectors > needed:
        raise TargetError(
            path,
            f"it is a disk with sectors of {sectors} bytes, and the volume's filesystem reads and writes blocks of "
            f"{needed}: it could not be mounted there",
            f"Name a disk with sectors of {needed} bytes, or a file",
        )

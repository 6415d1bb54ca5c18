# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of Linux that Python's os module lacks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import typing as t

_BLKGETSIZE64 = 0x80081272
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02

#: Errors that mean an operation is not supported, as opposed to failed.
CANNOT = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL)

_RENAME_NOREPLACE = 1
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

_libc = ctypes.CDLL(None, use_errno=True)


def keep_freed_memory() -> None:
    """Let the C library keep freed buffers of some MiB instead of returning their pages and faulting them in again."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        _libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def block_size_bytes(fd: int) -> int:
    """The size in bytes of the block device that ``fd`` has open."""
    answer = fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8))
    return int(struct.unpack("Q", answer)[0])


def zero_out_blocks(fd: int, offset: int, length: int) -> None:
    """Make a range of a block device read as zeros (BLKZEROOUT); OSError if it cannot."""
    fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", offset, length))


def discard_blocks(fd: int, offset: int, length: int) -> None:
    """Tell a block device that a range is not needed (BLKDISCARD); what the range then reads as is up to the device."""
    fcntl.ioctl(fd, _BLKDISCARD, struct.pack("QQ", offset, length))


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range of a file a hole, without changing its size; of a block device, deallocate it so it reads as zeros.

    Raises OSError if filesystem or device does not support it.
    """
    result = _libc.fallocate(
        fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, ctypes.c_int64(offset), ctypes.c_int64(length)
    )
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def rename_noreplace(folder: int, name: str, new_folder: int, new_name: str) -> None:
    """Rename a file atomically unless the new name is taken; names are relative to the folders' descriptors.

    Raises OSError: EEXIST if the name is taken; one of CANNOT if kernel or filesystem does not support it.
    """
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = _libc.renameat2(folder, os.fsencode(name), new_folder, os.fsencode(new_name), _RENAME_NOREPLACE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new_name)


def pwrite_all(fd: int, buffers: t.Sequence[bytes | bytearray | memoryview], offset: int) -> None:
    """Write every byte of ``buffers``, one after the other, from ``offset``."""
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while views:
        done = os.pwritev(fd, views, offset)
        offset += done
        views = _rest(views, done)


def pread_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill ``buffer`` from ``offset``, despite short reads; returns the bytes read, fewer only at the end."""
    done = 0
    while done < len(buffer):
        got = os.preadv(fd, [buffer[done:]], offset + done)
        if not got:
            break
        done += got
    return done


def _rest(views: list[memoryview], done: int) -> list[memoryview]:
    """What is left of ``views`` after their first ``done`` bytes."""
    while views and done >= len(views[0]):
        done -= len(views[0])
        views = views[1:]
    if done:
        views = [views[0][done:], *views[1:]]
    return views

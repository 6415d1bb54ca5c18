# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Appending to a large file past the page cache: less work per byte, and the cache keeps more useful data."""

from __future__ import annotations

import errno
import fcntl
import os
import typing as t

from ..io.buffers import AlignedBuffer
from .refusal import SYNC, WRITE, doing

_STAGE_BYTES = 4 << 20


class AppendedFile:
    """Appends to ``fd`` in large aligned writes, with direct I/O where the filesystem supports it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._stage: AlignedBuffer | None = None
        self._used = 0
        self._direct: bool | None = None  # not tried yet

    def write(self, buffers: t.Iterable[bytes | bytearray | memoryview]) -> None:
        """Append all bytes of ``buffers``.  Raises OSError."""
        stage = self._stage = self._stage or AlignedBuffer(_STAGE_BYTES)
        for buffer in buffers:
            data = memoryview(buffer)
            while data:
                taken = data[: len(stage) - self._used]
                stage.view[self._used : self._used + len(taken)] = taken
                self._used += len(taken)
                data = data[len(taken) :]
                if self._used == len(stage):
                    self._write_stage(stage.view)

    def sync(self) -> None:
        """Write what is left and make all of it durable.  Raises OSError."""
        if self._stage and self._used:
            self._set_direct(False)  # the end of the file is not aligned
            self._write_stage(self._stage.view[: self._used])
        self._stage = None
        with doing(SYNC):
            os.fsync(self._fd)

    def _write_stage(self, data: memoryview) -> None:
        if self._direct is None:
            self._set_direct(True)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    error.add_note(WRITE)
                    raise
                # Some filesystems accept the flag and refuse the write; all refuse the remainder of a short write.
                self._set_direct(False)
        self._used = 0

    def _set_direct(self, direct: bool) -> None:
        if bool(self._direct) != direct:
            flags = fcntl.fcntl(self._fd, fcntl.F_GETFL) & ~os.O_DIRECT
            try:
                fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | (os.O_DIRECT if direct else 0))
            except OSError:
                direct = False
        self._direct = direct

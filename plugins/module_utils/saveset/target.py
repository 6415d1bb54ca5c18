# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets of a restore: a block device, a file, or a writable NBD export."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import stat
import threading
import typing as t

from .deps import require_nbd
from .errors import TargetBusy, TargetError, TargetTooSmall
from .linux import CANNOT, block_size_bytes, loop_device_of, punch_hole, pwrite_all, zero_out_blocks
from .source import is_nbd

Buffer = t.Union[bytes, bytearray, memoryview]
_ZEROS = bytes(1 << 20)
_NBD_STEP = 16 << 20  # bytes zeroed in one NBD request: small enough for servers that write zeros out


class Target(abc.ABC):
    """What a restore writes; several threads may write different ranges at once.

    ``fresh`` says that all of the target reads as zeros already, so that zeros need not be written.
    """

    size: int
    spec: str
    fresh: bool = False

    @abc.abstractmethod
    def write(self, offset: int, buffers: t.Sequence[Buffer]) -> None:
        """Write buffers one after the other from ``offset``.  Raises TargetError."""

    @abc.abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros.  Raises TargetError."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Make what was written durable.  Raises TargetError."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the target."""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def open_target(spec: str, size: int) -> Target:
    """Open a target for a volume of ``size`` bytes.

    A file is made when it does not exist; one that exists is overwritten in place.  A target shorter than the volume,
    a block device that is mounted or held, and anything else than a file, a block device or an NBD export is refused
    before a byte is written.  Raises TargetTooSmall, TargetBusy, TargetError.
    """
    if is_nbd(spec):
        return NbdTarget(spec, size)
    return FileTarget(spec, size)


def _check_size(spec: str, has: int, needs: int) -> None:
    if has < needs:
        raise TargetTooSmall(
            spec,
            f"it has {has} bytes, the volume needs {needs}",
            "Name a target of at least that size, or a new file",
        )


class FileTarget(Target):
    """A file or a block device."""

    def __init__(self, path: str, size: int) -> None:
        self.spec = path
        self.size = size
        self._fd = self._open(path)
        try:
            self._prepare(size)
        except OSError as error:
            os.close(self._fd)
            raise self._error("it cannot be prepared", error) from error
        except BaseException:
            os.close(self._fd)
            raise

    def _open(self, path: str) -> int:
        # On a block device O_EXCL without O_CREAT asks the kernel to refuse one that is mounted or held.
        try:
            is_block = stat.S_ISBLK(os.stat(path).st_mode)
        except FileNotFoundError:
            is_block = False
        except OSError as error:
            raise self._error("it cannot be opened", error) from error
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if is_block else os.O_CREAT)
        try:
            return os.open(path, flags, 0o600)
        except OSError as error:
            if is_block and error.errno == errno.EBUSY:
                raise TargetBusy(
                    path,
                    "the block device is mounted or held by another program",
                    "Unmount it and end what holds it, or name another target",
                ) from error
            raise self._error("it cannot be opened", error) from error

    def _prepare(self, size: int) -> None:
        status = os.fstat(self._fd)
        self._regular = stat.S_ISREG(status.st_mode)
        if self._regular:
            if status.st_size:
                _check_size(self.spec, status.st_size, size)
            loop = loop_device_of(self._fd)
            if loop:
                raise TargetBusy(
                    self.spec,
                    f"the file is in use as the loop device {loop}",
                    f"Detach it (losetup --detach {loop}), or name another target",
                )
            if not status.st_size:
                os.ftruncate(self._fd, size)
                self.fresh = True
        elif stat.S_ISBLK(status.st_mode):
            _check_size(self.spec, block_size_bytes(self._fd), size)
        else:
            raise TargetError(self.spec, "it is neither a file nor a block device", "Name one of these as the target")

    def write(self, offset: int, buffers: t.Sequence[Buffer]) -> None:
        try:
            pwrite_all(self._fd, buffers, offset)
        except OSError as error:
            raise self._error(f"writing at offset {offset} failed", error) from error

    def zero(self, offset: int, length: int) -> None:
        if self.fresh or not length:
            return
        try:
            if self._regular:
                punch_hole(self._fd, offset, length)
            else:
                self._zero_blocks(offset, length)
        except OSError as error:
            if error.errno not in CANNOT:
                raise self._error(f"zeroing at offset {offset} failed", error) from error
            self._write_zeros(offset, length)

    def _zero_blocks(self, offset: int, length: int) -> None:
        """BLKZEROOUT on whole sectors; what is left of a sector at the volume's end is written."""
        whole = length - length % 512
        if whole:
            zero_out_blocks(self._fd, offset, whole)
        self._write_zeros(offset + whole, length - whole)

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, len(_ZEROS))
            self.write(offset, [memoryview(_ZEROS)[:step]])
            offset += step
            length -= step

    def flush(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._error("what was written could not be made durable", error) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _error(self, what: str, error: OSError) -> TargetError:
        return TargetError(self.spec, f"{what} ({error.strerror})", "Check the path, its rights and its free space")


class NbdTarget(Target):
    """A writable NBD export; one connection a thread where the server allows several, else one for all."""

    def __init__(self, uri: str, size: int) -> None:
        self._nbd = require_nbd(uri)
        self.spec = uri
        self.size = size
        self._handles: list[t.Any] = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._first_lock = threading.Lock()
        self._first = self._call("it cannot be opened", self._connect)
        self._several = bool(self._first.can_multi_conn())
        self._can_zero = bool(self._first.can_zero())
        try:
            _check_size(uri, int(self._first.get_size()), size)
            if self._first.is_read_only():
                raise TargetError(uri, "the export is read-only", "Export it writable, or name another target")
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, buffers: t.Sequence[Buffer]) -> None:
        for buffer in buffers:
            data = bytes(buffer)
            self._run(f"writing at offset {offset} failed", lambda handle, d=data, o=offset: handle.pwrite(d, o))
            offset += len(data)

    def zero(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, _NBD_STEP)
            if self._can_zero:
                self._run(f"zeroing at offset {offset} failed", lambda handle, n=step, o=offset: handle.zero(n, o))
            else:
                step = min(step, len(_ZEROS))
                self.write(offset, [memoryview(_ZEROS)[:step]])
            offset += step
            length -= step

    def flush(self) -> None:
        with self._lock:
            handles = list(self._handles)
        for handle in handles:
            if handle.can_flush():
                self._call("what was written could not be made durable", handle.flush)

    def close(self) -> None:
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            with contextlib.suppress(self._nbd.Error):  # flush() has already told whether the data is safe
                handle.shutdown()

    def _run(self, what: str, function: t.Callable[..., t.Any]) -> None:
        if self._several:
            self._call(what, lambda: function(self._own_handle()))
            return
        with self._first_lock:
            self._call(what, lambda: function(self._first))

    def _own_handle(self) -> t.Any:
        if not hasattr(self._local, "handle"):
            self._local.handle = self._connect()
        return self._local.handle

    def _connect(self) -> t.Any:
        handle = self._nbd.NBD()
        handle.set_uri_allow_local_file(True)  # the key of an export with TLS is in a file
        handle.connect_uri(self.spec)
        with self._lock:
            self._handles.append(handle)
        return handle

    def _call(self, what: str, function: t.Callable[[], t.Any]) -> t.Any:
        try:
            return function()
        except self._nbd.Error as error:
            raise TargetError(
                self.spec, f"{what} ({error})", "Check that the NBD server runs and exports it writable, then try again"
            ) from error

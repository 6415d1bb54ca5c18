# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Targets of a restore: a block device, a file, or a writable NBD export."""

from __future__ import annotations

import abc
import contextlib
import ctypes
import errno
import os
import threading
import typing as t

from ..base.errors import TargetError, TargetTooSmall
from ..base.linux import CANNOT, discard_blocks, pread_into, punch_hole, pwrite_all, zero_out_blocks
from .blocks import check_target
from .buffers import AlignedBuffer, is_zero
from .claim import Held, allow, hold
from .nbd_connect import Connections
from .source import is_nbd

Buffer: t.TypeAlias = "bytes | bytearray | memoryview"
_ZEROS = bytes(1 << 20)
_NBD_STEP = 16 << 20  # bytes of one NBD request: small enough for servers that write zeros explicitly
_READ_BACK_STEP = 8 << 20
_DIRECT_ALIGN = 4096  # accepted by every disk with O_DIRECT: offset, length and address are multiples of it


class Target(abc.ABC):
    """What a restore writes; several threads may write different ranges concurrently.

    ``fresh`` means that all of the target already reads as zeros, so that zeros need not be written.
    """

    size: int
    spec: str
    fresh: bool = False

    @abc.abstractmethod
    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``; fastest from transfer_buffer().  Raises TargetError."""

    @abc.abstractmethod
    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``.  Raises TargetError."""

    def allocated(self, offset: int, length: int) -> t.Iterator[tuple[int, int]]:
        """The parts of a range, as (offset, length), that may hold anything other than zeros."""
        if length and not self.fresh:
            yield offset, length

    @abc.abstractmethod
    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros.  Raises TargetError."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Make what was written durable.  Raises TargetError."""

    @abc.abstractmethod
    def forget(self) -> None:
        """After flush(): make later reads come from the disk instead of memory, best effort."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the target."""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def transfer_buffer(length: int) -> memoryview:
    """A page-aligned buffer for writing to and reading from targets."""
    return AlignedBuffer(length).view


def open_target(
    spec: str, size: int, overwrite: t.Sequence[str] = (), held: Held | None = None, block_size: int = 0
) -> Target:
    """Open a target for a volume of ``size`` bytes.

    A missing file is created; an existing one is overwritten in place.  The following targets are refused before a
    byte is written: one that is shorter than the volume, is used by anything else, or has content and is not among
    ``overwrite`` (see claim.allow()); a disk with larger sectors than ``block_size`` (the smallest block of what is
    restored; 0: unknown); and anything other than a file, a block device or an NBD export.  The content of an NBD
    export is not checked: that is up to its server.  ``held``: the file or device, if it is already held and may be
    overwritten; it is released with the target.
    Raises TargetTooSmall, TargetBusy, TargetOccupied, TargetError.
    """
    if is_nbd(spec):
        return NbdTarget(spec, size)
    return FileTarget(spec, size, overwrite, held, block_size)


def _check_size(spec: str, has: int, needs: int) -> None:
    if has < needs:
        raise TargetTooSmall(
            spec,
            f"it has {has} bytes, but the volume needs {needs}",
            "Name a target of at least that size, or a new file",
        )


class FileTarget(Target):
    """A file or a block device."""

    def __init__(
        self,
        path: str,
        size: int,
        overwrite: t.Sequence[str] = (),
        held: Held | None = None,
        block_size: int = 0,
    ) -> None:
        self.spec = path
        self.size = size
        self._direct = -1
        self._discard_zeroes = True  # until a device shows the opposite
        self._held = held or hold(path, create=True)
        self._fd = self._held.fd
        self._regular = not self._held.is_block
        try:
            has = self._held.size
            if self._held.is_block or has:
                _check_size(path, has, size)
            check_target(self._fd, path, block_size)
            if held is None:
                allow(self._held, overwrite)
            if not self._held.is_block and not has:
                os.ftruncate(self._fd, size)
                self.fresh = True
        except OSError as error:
            self.close()
            raise self._error("it cannot be prepared", error) from error
        except BaseException:
            self.close()
            raise
        self._use_direct = self._open_direct()

    def _open_direct(self) -> bool:
        """Open the target again for reads and writes past the page cache; False if the system refuses."""
        try:
            # Through the open descriptor, so that it is certainly the same one; the first one's O_EXCL covers both.
            self._direct = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return False
        return True

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        try:
            done = self._write_direct(offset, view)
            if done < len(view):
                pwrite_all(self._fd, [view[done:]], offset + done)
        except OSError as error:
            raise self._error(f"writing at offset {offset} failed", error) from error

    def read(self, offset: int, buffer: memoryview) -> None:
        try:
            done = self._read_direct(offset, buffer)
            done += pread_into(self._fd, buffer[done:], offset + done)
        except OSError as error:
            raise self._error(f"reading at offset {offset} failed", error) from error
        if done < len(buffer):
            raise TargetError(self.spec, f"it ends at offset {offset + done}", "Let nothing else change the target")

    # Past the page cache: it costs a copy and memory, and the disk would be idle until the cache is written out.

    def _write_direct(self, offset: int, view: memoryview) -> int:
        """Write what can be written past the page cache; returns how many bytes."""
        length = self._direct_length(offset, view)
        done = 0
        while done < length:
            try:
                done += os.pwrite(self._direct, view[done:length], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._use_direct = False  # the disk needs another alignment
                break
            if done % _DIRECT_ALIGN:  # a short write ended inside a block: write it again
                done -= done % _DIRECT_ALIGN
        return done

    def _read_direct(self, offset: int, buffer: memoryview) -> int:
        length = self._direct_length(offset, buffer)
        if not length:
            return 0
        try:
            done = os.preadv(self._direct, [buffer[:length]], offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._use_direct = False
            return 0
        return done

    def _direct_length(self, offset: int, view: memoryview) -> int:
        """How many bytes from the start of ``view`` may go past the page cache."""
        if not self._use_direct or offset % _DIRECT_ALIGN or view.readonly or not view:
            return 0
        if ctypes.addressof(ctypes.c_char.from_buffer(view)) % _DIRECT_ALIGN:
            return 0
        return len(view) - len(view) % _DIRECT_ALIGN

    def allocated(self, offset: int, length: int) -> t.Iterator[tuple[int, int]]:
        if not self._regular:
            yield from super().allocated(offset, length)
            return
        end = offset + length
        while offset < end:
            begin = min(self._seek(offset, os.SEEK_DATA, end), end)
            offset = min(self._seek(begin, os.SEEK_HOLE, end), end) if begin < end else end
            if offset > begin:
                yield begin, offset - begin

    def _seek(self, offset: int, whence: int, end: int) -> int:
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end
                return end
            raise self._error("its allocation cannot be read", error) from error

    def zero(self, offset: int, length: int) -> None:
        if self.fresh or not length:
            return
        try:
            ways = [punch_hole] if self._regular else [punch_hole, self._discard, zero_out_blocks]
            done = self._zero_whole(ways, offset, length - length % _DIRECT_ALIGN)
        except OSError as error:
            raise self._error(f"zeroing at offset {offset} failed", error) from error
        self._write_zeros(offset + done, length - done)

    def _zero_whole(self, ways: t.Sequence[t.Callable[[int, int, int], None]], offset: int, length: int) -> int:
        """Zero whole blocks in the first way that filesystem or device supports; returns how many bytes were zeroed."""
        for way in ways if length else ():
            try:
                way(self._fd, offset, length)
                return length
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
        return 0

    def _discard(self, fd: int, offset: int, length: int) -> None:
        """Discard a range and read it back, because many devices do not guarantee zeros; OSError if it is not zero."""
        if self._discard_zeroes:
            discard_blocks(fd, offset, length)
            self._discard_zeroes = self._reads_zero(offset, length)
        if not self._discard_zeroes:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def _reads_zero(self, offset: int, length: int) -> bool:
        buffer = transfer_buffer(min(length, _READ_BACK_STEP))
        for begin in range(0, length, len(buffer)):
            view = buffer[: length - begin]
            self.read(offset + begin, view)
            if not is_zero(view):
                return False
        return True

    def _write_zeros(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, len(_ZEROS))
            self.write(offset, memoryview(_ZEROS)[:step])
            offset += step
            length -= step

    def flush(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._error("what was written could not be made durable", error) from error

    def forget(self) -> None:
        with contextlib.suppress(OSError):  # only advice; direct reads need it only for the tail
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
        self._held.close()
        self._fd = self._direct = -1

    def _error(self, what: str, error: OSError) -> TargetError:
        return TargetError(
            self.spec, f"{what} ({error.strerror})", "Check the path, its permissions and the free disk space"
        )


class NbdTarget(Target):
    """A writable NBD export, with one connection per thread if the server allows several, else one for all."""

    def __init__(self, uri: str, size: int) -> None:
        self.spec = uri
        self.size = size
        self._connections = Connections(uri)
        self._first_lock = threading.Lock()
        self._first = self._call("it cannot be opened", self._connections.own)
        self._several = bool(self._first.can_multi_conn())
        self._can_zero = bool(self._first.can_zero())
        try:
            _check_size(uri, int(self._first.get_size()), size)
            if self._first.is_read_only():
                raise TargetError(uri, "the export is read-only", "Export it writable, or name another target")
        except BaseException:
            self.close()
            raise

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        for begin in range(0, len(view), _NBD_STEP):
            part, at = bytes(view[begin : begin + _NBD_STEP]), offset + begin
            self._run(f"writing at offset {at} failed", lambda handle, d=part, o=at: handle.pwrite(d, o))

    def read(self, offset: int, buffer: memoryview) -> None:
        for begin in range(0, len(buffer), _NBD_STEP):
            part, at = buffer[begin : begin + _NBD_STEP], offset + begin
            length = len(part)
            part[:] = self._run(f"reading at offset {at} failed", lambda handle, n=length, o=at: handle.pread(n, o))

    def zero(self, offset: int, length: int) -> None:
        while length > 0:
            step = min(length, _NBD_STEP)
            if self._can_zero:
                self._run(f"zeroing at offset {offset} failed", lambda handle, n=step, o=offset: handle.zero(n, o))
            else:
                step = min(step, len(_ZEROS))
                self.write(offset, memoryview(_ZEROS)[:step])
            offset += step
            length -= step

    def flush(self) -> None:
        for handle in self._connections.all():
            if handle.can_flush():
                self._call("what was written could not be made durable", handle.flush)

    def forget(self) -> None:
        """Nothing is cached here; the server's cache cannot be dropped."""

    def close(self) -> None:
        self._connections.close()

    def _run(self, what: str, function: t.Callable[..., t.Any]) -> t.Any:
        if self._several:
            return self._call(what, lambda: function(self._connections.own()))
        with self._first_lock:
            return self._call(what, lambda: function(self._first))

    def _call(self, what: str, function: t.Callable[[], t.Any]) -> t.Any:
        try:
            return function()
        except self._connections.errors as error:
            raise TargetError(
                self.spec, f"{what} ({error})", "Check that the NBD server runs and exports it writable, then try again"
            ) from error

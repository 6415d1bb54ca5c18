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

from .buffers import AlignedBuffer, is_zero
from .claim import Held, allow, hold
from .deps import require_nbd
from .errors import TargetError, TargetTooSmall
from .linux import (
    CANNOT,
    discard_blocks,
    pread_into,
    punch_hole,
    pwrite_all,
    zero_out_blocks,
)
from .source import is_nbd

Buffer = t.Union[bytes, bytearray, memoryview]
_ZEROS = bytes(1 << 20)
_NBD_STEP = 16 << 20  # bytes of one NBD request: small enough for servers that write zeros out
_READ_BACK_STEP = 8 << 20
_DIRECT_ALIGN = 4096  # what every disk takes for O_DIRECT: offset, length and address are multiples of it


class Target(abc.ABC):
    """What a restore writes; several threads may write different ranges at once.

    ``fresh`` says that all of the target reads as zeros already, so that zeros need not be written.
    """

    size: int
    spec: str
    fresh: bool = False

    @abc.abstractmethod
    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset``; fastest out of transfer_buffer().  Raises TargetError."""

    @abc.abstractmethod
    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``.  Raises TargetError."""

    def allocated(self, offset: int, length: int) -> t.Iterator[tuple[int, int]]:
        """The parts of a range, as (offset, length), that may hold anything but zeros."""
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
        """After flush(): have later reads come from the disk, as far as that is possible, not from memory."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the target."""

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def transfer_buffer(length: int) -> memoryview:
    """A buffer, aligned to a page, for what is written to and read from targets."""
    return AlignedBuffer(length).view


def open_target(spec: str, size: int, overwrite: t.Sequence[str] = (), held: Held | None = None) -> Target:
    """Open a target for a volume of ``size`` bytes.

    A file is made when it does not exist; one that exists is overwritten in place.  A target that is shorter than the
    volume, that anything else uses, that holds something and is not among ``overwrite`` (see claim.allow()), and
    anything else than a file, a block device or an NBD export is refused before a byte is written.  What an NBD export
    holds, and whether it may go, is for its server to say.  ``held``: the file or device, where that was held already
    and may be written over; it is let go of with the target.
    Raises TargetTooSmall, TargetBusy, TargetOccupied, TargetError.
    """
    if is_nbd(spec):
        return NbdTarget(spec, size)
    return FileTarget(spec, size, overwrite, held)


def _check_size(spec: str, has: int, needs: int) -> None:
    if has < needs:
        raise TargetTooSmall(
            spec,
            f"it has {has} bytes, the volume needs {needs}",
            "Name a target of at least that size, or a new file",
        )


class FileTarget(Target):
    """A file or a block device."""

    def __init__(self, path: str, size: int, overwrite: t.Sequence[str] = (), held: Held | None = None) -> None:
        self.spec = path
        self.size = size
        self._direct = -1
        self._discard_zeroes = True  # until a device shows that it is not so
        self._held = held or hold(path, create=True)
        self._fd = self._held.fd
        self._regular = not self._held.is_block
        try:
            has = self._held.size
            if self._held.is_block or has:
                _check_size(path, has, size)
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
        """Open the target once more for reads and writes past the page cache; False where the system refuses."""
        try:
            # Through the open file, so that it is the same one for sure; the O_EXCL of the first holds for both.
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

    # Past the page cache: it costs a copy and memory, and the disk would stand idle until the cache is written out.

    def _write_direct(self, offset: int, view: memoryview) -> int:
        """Write what can be written past the page cache; how many bytes these were."""
        length = self._direct_length(offset, view)
        done = 0
        while done < length:
            try:
                done += os.pwrite(self._direct, view[done:length], offset + done)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._use_direct = False  # a disk that wants another alignment
                break
            if done % _DIRECT_ALIGN:  # cut short in the middle of a block: it is written again
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
        """Zero whole blocks in the first way that filesystem or device knows; how many bytes were zeroed."""
        for way in ways if length else ():
            try:
                way(self._fd, offset, length)
                return length
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
        return 0

    def _discard(self, fd: int, offset: int, length: int) -> None:
        """Discard a range and read it back, as many devices do not promise that it is zero then; else OSError."""
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
        with contextlib.suppress(OSError):  # only an advice; reads past the page cache need it for the tail alone
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._direct >= 0:
            os.close(self._direct)
        self._held.close()
        self._fd = self._direct = -1

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
        with self._lock:
            handles = list(self._handles)
        for handle in handles:
            if handle.can_flush():
                self._call("what was written could not be made durable", handle.flush)

    def forget(self) -> None:
        """Nothing is kept here; what the server keeps is its own affair."""

    def close(self) -> None:
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            with contextlib.suppress(self._nbd.Error):  # flush() has already told whether the data is safe
                handle.shutdown()

    def _run(self, what: str, function: t.Callable[..., t.Any]) -> t.Any:
        if self._several:
            return self._call(what, lambda: function(self._own_handle()))
        with self._first_lock:
            return self._call(what, lambda: function(self._first))

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

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of a backup: a block device, a file, or an NBD export."""

from __future__ import annotations

import abc
import errno
import os
import stat
import typing as t

from ..base.errors import SourceError
from ..base.extent import DATA, HOLE, ZERO, Extent
from ..base.linux import block_size_bytes, pread_into
from .nbd_connect import Connections

NBD_SCHEMES = ("nbd://", "nbds://", "nbd+unix://", "nbds+unix://")

_NBD_HOLE = 1
_NBD_ZERO = 2
_STATUS_STEP = 1 << 30  # bytes asked for in one block status request


class Source(abc.ABC):
    """What a backup reads; several threads may read concurrently.

    ``size`` is in bytes, ``spec`` names the source for people and for the saveset.
    """

    size: int
    spec: str

    @abc.abstractmethod
    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        """The extents of ``length`` bytes from ``offset`` (all by default), in order; gaps count as data."""

    @abc.abstractmethod
    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset``.  Raises SourceError, also if the source ends too early."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the source."""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def is_nbd(spec: str) -> bool:
    """Whether a spec names an NBD export."""
    return spec.startswith(NBD_SCHEMES)


def open_source(spec: str) -> Source:
    """Open ``/dev/x``, ``/path/of/a/file`` or ``nbd://host:port/export`` for reading.  Raises SourceError."""
    if is_nbd(spec):
        return NbdSource(spec)
    return FileSource(spec)


class FileSource(Source):
    """A regular file, of which only allocated parts are read, or a block device, which is read completely."""

    def __init__(self, path: str) -> None:
        self.spec = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                path, f"it cannot be opened ({error.strerror})", "Check its path and permissions"
            ) from error
        try:
            mode = os.fstat(self._fd).st_mode
            if stat.S_ISREG(mode):
                self._regular = True
                self.size = os.fstat(self._fd).st_size
            elif stat.S_ISBLK(mode):
                self._regular = False
                self.size = block_size_bytes(self._fd)
            else:
                raise SourceError(path, "it is neither a file nor a block device", "Name a file or a block device")
        except BaseException:
            os.close(self._fd)
            raise

    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        position, end = _range(offset, length, self.size)
        if not self._regular:
            yield Extent(position, end - position, DATA)
            return
        while position < end:
            begin = min(self._seek(position, os.SEEK_DATA), end)
            if begin > position:
                yield Extent(position, begin - position, HOLE)
            if begin >= end:
                return
            position = min(self._seek(begin, os.SEEK_HOLE), end)
            yield Extent(begin, position - begin, DATA)

    def _seek(self, position: int, whence: int) -> int:
        try:
            return min(os.lseek(self._fd, position, whence), self.size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end
                return self.size
            raise SourceError(
                self.spec, f"its allocation cannot be read ({error.strerror})", "Check the underlying disk"
            ) from error

    def read(self, offset: int, buffer: memoryview) -> None:
        try:
            done = pread_into(self._fd, buffer, offset)
        except OSError as error:
            raise SourceError(
                self.spec,
                f"reading {len(buffer)} bytes at offset {offset} failed ({error.strerror})",
                "Check the underlying disk or snapshot; no saveset was created",
            ) from error
        if done < len(buffer):
            raise SourceError(
                self.spec,
                f"it ends at offset {offset + done}, before its size of {self.size} bytes when opened",
                "Back up a snapshot, which does not change while it is read",
            )

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class NbdSource(Source):
    """An NBD export, with one connection per thread; only what ``base:allocation`` reports as data is read."""

    def __init__(self, uri: str) -> None:
        self.spec = uri
        self._connections = Connections(uri, "base:allocation")
        self.size = int(self._call("its size cannot be read", lambda handle: handle.get_size()))

    def extents(self, offset: int = 0, length: int | None = None) -> t.Iterator[Extent]:
        position, end = _range(offset, length, self.size)
        if not self._call("its allocation cannot be queried", lambda h: h.can_meta_context("base:allocation")):
            yield Extent(position, end - position, DATA)
            return
        while position < end:
            for extent in self._block_status(position, end):
                if position < end:  # the last one may extend beyond the requested range
                    yield extent._replace(length=min(extent.length, end - extent.offset))
                position = extent.offset + extent.length

    def _block_status(self, position: int, end: int) -> list[Extent]:
        found: list[Extent] = []

        def collect(_context: str, offset: int, entries: list[int], _error: t.Any) -> int:
            for length, flags in zip(entries[::2], entries[1::2], strict=True):
                kind = DATA
                if flags & _NBD_ZERO:
                    kind = HOLE if flags & _NBD_HOLE else ZERO
                found.append(Extent(offset, length, kind))
                offset += length
            return 0

        count = min(_STATUS_STEP, end - position)
        self._call("its allocation cannot be read", lambda handle: handle.block_status(count, position, collect))
        if not found or sum(extent.length for extent in found) <= 0:
            return [Extent(position, count, DATA)]  # the server does not know: read it
        return found

    def read(self, offset: int, buffer: memoryview) -> None:
        data = self._call(
            f"reading {len(buffer)} bytes at offset {offset} failed", lambda handle: handle.pread(len(buffer), offset)
        )
        buffer[:] = data

    def _call(self, what: str, function: t.Callable[[t.Any], t.Any]) -> t.Any:
        try:
            return function(self._connections.own())
        except self._connections.errors as error:
            raise SourceError(
                self.spec, f"{what} ({error})", "Check that the NBD server runs and exports it, then try again"
            ) from error

    def close(self) -> None:
        self._connections.close()


def _range(offset: int, length: int | None, size: int) -> tuple[int, int]:
    """Begin and end of a requested range."""
    return offset, size if length is None else min(offset + length, size)

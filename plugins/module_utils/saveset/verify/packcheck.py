# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifying the frames of packs: read in order in large parts, which several workers verify, even within one pack."""

from __future__ import annotations

import threading
import time
import typing as t

from ..base.errors import Damaged, SavesetError
from ..base.extent import GRAINS
from ..base.parallel import run_parallel
from ..base.progress import Counters
from ..collect.punched import Ranges
from ..format.container import Container
from ..format.footer import PackFooter, Row
from ..format.frame import check_hash, frame_length_max, parse_head
from ..format.page import GRAINS_PER_CHUNK
from ..keys.keys import KeyRing
from ..store.store import Store

_PART_BYTES = 8 << 20  # read at once


class _Frame(t.NamedTuple):
    """A frame as listed in a pack's index."""

    offset: int
    length: int
    rows: list[Row]


class _Part(t.NamedTuple):
    """Neighbouring frames of a pack."""

    container: Container
    frames: list[_Frame]


class Limits(t.NamedTuple):
    """When to stop: no pack is begun after this many bytes or seconds; at least one is verified."""

    bytes: int | None = None
    seconds: float | None = None


class PackChecker:
    """Verifies packs and collects the results."""

    def __init__(
        self, store: Store, ring: KeyRing, punched: t.Callable[[bytes], Ranges], decrypt: bool, counters: Counters
    ) -> None:
        """:param punched: returns what was punched out of a pack on purpose: it is skipped.
        :param decrypt: also decrypt, decompress and hash every chunk and piece.
        """
        self._store = store
        self._ring = ring
        self._punched = punched
        self._decrypt = decrypt
        self._counters = counters
        self._lock = threading.Lock()
        self._left: dict[bytes, int] = {}
        #: What is wrong with frames, by pack and the frame's offset.
        self.bad: dict[bytes, dict[int, str]] = {}
        #: Packs that were verified from end to end and are what was written.
        self.good: set[bytes] = set()

    def run(
        self,
        containers: t.Sequence[Container],
        limits: Limits,
        workers: int,
        tick: t.Callable[[], None] | None,
    ) -> None:
        """Verify packs in this order, as far as the limits allow."""
        run_parallel(self._parts(containers, limits), self._check_part, workers, tick)

    def _parts(self, containers: t.Sequence[Container], limits: Limits) -> t.Iterator[_Part]:
        begun = time.monotonic()
        handed = 0
        for container in containers:
            over = limits.bytes is not None and handed >= limits.bytes
            late = limits.seconds is not None and time.monotonic() - begun >= limits.seconds
            if handed and (over or late):
                return
            handed += container.layout.footer_offset
            pack = container.layout.container_id
            try:
                parts = [_Part(container, frames) for frames in self._grouped_frames(container)]
            except (SavesetError, ValueError) as error:
                self._spoil(pack, 0, error.cause if isinstance(error, SavesetError) else str(error))
                continue
            with self._lock:
                self._left[pack] = len(parts)
            if not parts:
                self.good.add(pack)
            yield from parts

    def _grouped_frames(self, container: Container) -> t.Iterator[list[_Frame]]:
        punched = self._punched(container.layout.container_id)
        return _grouped(frame for frame in _frames(container) if frame.offset not in punched)

    def _check_part(self, part: _Part) -> None:
        container = part.container
        frames = part.frames
        begin = frames[0].offset
        length = frames[-1].offset + frames[-1].length - begin
        try:
            data = memoryview(self._store.get(container.name, begin, length))
            problems = [
                (frame, self._check_frame(container, frame, data[frame.offset - begin :])) for frame in part.frames
            ]
        except SavesetError as error:
            problems = [(frame, error.cause) for frame in frames]
        self._counters.add(done=length, read=length)
        pack = container.layout.container_id
        for frame, problem in problems:
            if problem:
                self._spoil(pack, frame.offset, problem)
        with self._lock:
            self._left[pack] -= 1
            if not self._left[pack] and pack not in self.bad:
                self.good.add(pack)

    def _spoil(self, pack: bytes, offset: int, problem: str) -> None:
        with self._lock:
            self.bad.setdefault(pack, {})[offset] = problem

    def _check_frame(self, container: Container, frame: _Frame, data: memoryview) -> str:
        """What is wrong with a frame; empty if nothing is."""
        data = data[: frame.length]
        head = parse_head(data)
        if head is None or head.length != frame.length or not check_hash(container.layout.prefix, head, data):
            return f"its frame at offset {frame.offset} is damaged"
        if head.identities != tuple(row.identity for row in frame.rows):
            return f"its frame at offset {frame.offset} does not hold the chunks that its index lists"
        if not self._decrypt:
            return ""
        plain = container.open_frame(head, data)
        if plain is None:
            return f"its frame at offset {frame.offset} cannot be decrypted"
        chunk_size = container.layout.chunk_size
        grain = chunk_size // GRAINS_PER_CHUNK
        for row in frame.rows:
            unit, length = (grain, row.mask.bit_count() * grain) if row.kind == GRAINS else (chunk_size, chunk_size)
            stored = memoryview(plain)[row.place * unit : row.place * unit + length]
            if self._ring.identity(stored) != row.identity:
                return f"place {row.place} of its frame at offset {frame.offset} does not hash to its identity"
        return ""


def _frames(container: Container) -> t.Iterator[_Frame]:
    """The frames that a pack's index lists.  Raises Damaged unless they are exactly what the pack holds."""
    layout = container.layout
    frames: dict[int, _Frame] = {}
    for row in PackFooter(container.footer()).rows():
        frames.setdefault(row.offset, _Frame(row.offset, row.length, [])).rows.append(row)
    end = len(layout.prefix)
    for frame in sorted(frames.values()):
        if frame.offset != end or frame.length > frame_length_max(layout.kind.frame_max):
            break
        end += frame.length
        yield frame
    if end != layout.footer_offset:
        raise Damaged(container.name, f"its index does not list what is at offset {end}", "Use another copy of it")


def _grouped(frames: t.Iterable[_Frame]) -> t.Iterator[list[_Frame]]:
    """Frames in parts of about _PART_BYTES."""
    part: list[_Frame] = []
    for frame in frames:
        if part and frame.offset + frame.length - part[0].offset > _PART_BYTES:
            yield part
            part = []
        part.append(frame)
    if part:
        yield part

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing packs: frames get their place under a lock, workers encrypt them, and one writer appends them in order.

::

    worker:  compress -> reserve() -> seal() -> submit()        (in parallel)
    writer:  frames in the order of their numbers -> pack file  (one thread)
    closer:  fsync, publish                                     (one thread, while the writer fills the next pack)
"""

from __future__ import annotations

import collections
import concurrent.futures
import queue
import secrets
import threading
import typing as t

from ..base.errors import Cancelled
from ..base.extent import GRAINS
from ..format.bounds import PACK_FOOTER_MAX
from ..format.codec import Compressor
from ..format.container import PACK_KIND, make_end, make_header, object_name
from ..format.footer import ROW, SESSION_BYTES
from ..format.frame import UNIT_CHUNK, UNIT_GRAIN, frame_length, seal_frame
from ..keys.keys import KeyRing
from ..store.store import Store, begin_object
from .index import PLACE, ChunkIndex

PACK_BYTES = 128 << 20
_QUEUE_FRAMES = 32
_CLOSING_MAX = 2  # packs being made durable while the next one is written
_STOP_CHECK_S = 0.2


class _OpenPack:
    """A pack that is being written."""

    def __init__(self, store: Store, ring: KeyRing, chunk_size: int, session: bytes) -> None:
        self.pack_id = secrets.token_bytes(16)
        key = ring.new_pack(self.pack_id)
        self.prefix = make_header(PACK_KIND, self.pack_id, chunk_size, ring.encrypted, key.sealed)
        self.cipher = key.cipher
        self.end = len(self.prefix)  # where the next reserved frame goes
        self.reserved = 0
        self.rows = bytearray(session)
        self.sealed = False  # no more frames will be reserved
        # The writer's side.
        self.written = 0
        self.waiting: dict[int, tuple[bytes, bytes]] = {}
        self.ended = False
        self.upload = begin_object(store, object_name(PACK_KIND, self.pack_id), self.prefix)


class Stored(t.NamedTuple):
    """A chunk, or some grains of one, that goes into a frame; see footer.Row."""

    identity: bytes
    place: int
    kind: int
    chunk: int
    mask: int = 0


class Slot(t.NamedTuple):
    """A frame's place in a pack that is being written."""

    pack: _OpenPack
    number: int
    offset: int
    length: int
    stored: t.Sequence[Stored]

    def seal(self, codec: int, plain_length: int, data: t.Any) -> tuple[bytes, bytes]:
        """Encrypt the frame; returns what precedes the body, and the body."""
        identities = b"".join([item.identity for item in self.stored])
        unit = UNIT_GRAIN if self.stored[0].kind == GRAINS else UNIT_CHUNK
        return seal_frame(self.pack.prefix, self.pack.cipher, self.number, codec, identities, plain_length, data, unit)

    def place(self, number: int) -> bytes:
        """The place of the frame's item ``number``, as packed by PLACE."""
        item = self.stored[number]
        return PLACE.pack(self.pack.pack_id, self.offset, self.length, item.place, item.kind)


class PackSink:
    """Collects frames from several workers in packs of about ``pack_bytes``."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        index: ChunkIndex,
        chunk_size: int,
        pack_bytes: int = PACK_BYTES,
        session: bytes = bytes(SESSION_BYTES),
    ) -> None:
        """:param session: identifies the packs of this backup when it is resumed."""
        self._store = store
        self._ring = ring
        self._index = index
        self._chunk_size = chunk_size
        self._pack_bytes = pack_bytes
        self._session = session
        self._overhead = ring.overhead
        self._lock = threading.Lock()
        self._current: _OpenPack | None = None
        self._open: set[_OpenPack] = set()
        self._queue: queue.Queue[tuple[_OpenPack, int, bytes, bytes] | None] = queue.Queue(_QUEUE_FRAMES)
        self._closer = concurrent.futures.ThreadPoolExecutor(1, "saveset-closer")
        self._closing: collections.deque[concurrent.futures.Future[None]] = collections.deque()
        self._compressor = Compressor(1)
        self._failed = threading.Event()
        self._error: BaseException | None = None
        self._writer = threading.Thread(target=self._write_loop, name="saveset-writer", daemon=True)
        self._writer.start()

    def reserve(self, stored: t.Sequence[Stored], packed_length: int) -> Slot:
        """Reserve a place for a frame of items of one kind, whose compressed body has ``packed_length`` bytes."""
        length = frame_length(len(stored), packed_length + self._overhead)
        with self._lock:
            pack = self._current
            if pack is not None and pack.reserved and not self._has_room(pack, length, len(stored)):
                self._seal(pack)
                pack = None
            if pack is None:
                pack = self._current = _OpenPack(self._store, self._ring, self._chunk_size, self._session)
                self._open.add(pack)
            slot = Slot(pack, pack.reserved, pack.end, length, stored)
            for item in stored:
                pack.rows += ROW.pack(item.identity, slot.offset, length, item.place, item.kind, item.chunk, item.mask)
            pack.reserved += 1
            pack.end += length
        return slot

    def _has_room(self, pack: _OpenPack, length: int, rows: int) -> bool:
        """Whether one more frame fits; well compressed chunks can fill the footer before the pack."""
        return pack.end + length <= self._pack_bytes and len(pack.rows) + rows * ROW.size <= PACK_FOOTER_MAX

    def submit(self, slot: Slot, head: bytes, body: bytes) -> None:
        """Pass a sealed frame to the writer; waits while the writer is behind.  Raises the writer's error."""
        self._put((slot.pack, slot.number, head, body))

    def finish(self) -> None:
        """Write and publish what is left; returns when all packs are durable.  Raises the first error."""
        with self._lock:
            if self._current is not None:
                self._seal(self._current)
        self._put(None)
        self._writer.join()
        self._raise_error()
        while self._closing:
            self._closing.popleft().result()
        self._closer.shutdown()

    def abort(self) -> None:
        """Stop and remove every pack that is not published; safe after finish()."""
        self._failed.set()
        if self._writer.is_alive():
            self._writer.join()
        self._closer.shutdown(cancel_futures=True)
        for pack in self._open:
            pack.upload.abort()

    def _seal(self, pack: _OpenPack) -> None:
        pack.sealed = True
        self._put((pack, -1, b"", b""))  # wakes the writer, which may already have written the last frame
        self._current = None

    def _put(self, item: tuple[_OpenPack, int, bytes, bytes] | None) -> None:
        while True:
            self._raise_error()
            try:
                self._queue.put(item, timeout=_STOP_CHECK_S)
                return
            except queue.Full:
                continue

    def _raise_error(self) -> None:
        if self._failed.is_set():
            raise self._error or Cancelled("the backup", "it was stopped", "Run it again")

    def _write_loop(self) -> None:
        try:
            while not self._failed.is_set():
                try:
                    item = self._queue.get(timeout=_STOP_CHECK_S)
                except queue.Empty:
                    continue
                if item is None:
                    return
                self._take(*item)
        except BaseException as error:  # the workers and finish() raise it
            self._error = error
            self._failed.set()

    def _take(self, pack: _OpenPack, number: int, head: bytes, body: bytes) -> None:
        if number >= 0:
            pack.waiting[number] = (head, body)
        ready: list[bytes] = []
        while pack.written in pack.waiting:
            ready += pack.waiting.pop(pack.written)
            pack.written += 1
        if ready:
            pack.upload.write(ready)
        if pack.sealed and pack.written == pack.reserved and not pack.ended:
            self._end(pack)

    def _end(self, pack: _OpenPack) -> None:
        pack.ended = True
        plain = bytes(pack.rows)
        codec, data = self._compressor.compress(plain)
        footer = (codec, bytes(data), len(plain))
        cipher = self._ring.cipher(PACK_KIND.footer_key, pack.pack_id)
        pack.upload.write(make_end(pack.prefix, cipher, footer, pack.end, pack.reserved))
        while len(self._closing) >= _CLOSING_MAX:
            self._closing.popleft().result()
        self._closing.append(self._closer.submit(self._publish, pack, plain[SESSION_BYTES:]))

    def _publish(self, pack: _OpenPack, rows: bytes) -> None:
        pack.upload.publish()
        # Not under the lock: a worker may hold it while waiting for the writer, which may wait for this thread.
        self._open.discard(pack)
        self._index.pack_finished(pack.pack_id, rows)

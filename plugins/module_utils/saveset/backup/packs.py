# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing packs: frames get their place under a lock, workers encrypt them, and one writer appends them in order.

::

    worker:  compress -> reserve() -> seal() -> submit()        (in parallel)
    writer:  frames in the order of their numbers -> pack file  (one thread)
    closer:  fsync, publish                                     (one thread, while the writer fills the next packs)

A pack has frames of one volume.  All volumes of a job share the writer and the closer, so threads and waiting frames
are as many for ten volumes as for one.  An error belongs to the volume whose pack it is about.
"""

from __future__ import annotations

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
from ..format.footer import PLACE, ROW, SESSION_BYTES
from ..format.frame import UNIT_CHUNK, UNIT_GRAIN, frame_length, seal_frame
from ..keys.keys import KeyRing
from ..store.store import Store, begin_object
from .volume_index import VolumeIndex

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
        #: Held by whoever uses what follows: the writer, the closer, or who aborts.
        self.lock = threading.Lock()
        self.dropped = False  # nothing more happens to it
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


class PackWriter:
    """The two threads that write the packs of all volumes of a job."""

    def __init__(self) -> None:
        self._queue: queue.Queue[tuple[PackSink, _OpenPack, int, bytes, bytes] | None] = queue.Queue(_QUEUE_FRAMES)
        self._closer = concurrent.futures.ThreadPoolExecutor(1, "saveset-closer")
        self._closing = threading.Semaphore(_CLOSING_MAX)
        self._writer = threading.Thread(target=self._write_loop, name="saveset-writer", daemon=True)
        self._writer.start()

    def put(self, sink: PackSink, pack: _OpenPack, number: int, head: bytes, body: bytes) -> None:
        """Queue a frame of a pack (-1: none); waits while the writer is behind.  Raises the sink's error."""
        while True:
            sink.check()
            try:
                self._queue.put((sink, pack, number, head, body), timeout=_STOP_CHECK_S)
                return
            except queue.Full:
                continue

    def close(self) -> None:
        """End the threads, once they have done what is queued; what aborted sinks have queued is dropped."""
        self._queue.put(None)
        self._writer.join()
        self._closer.shutdown()

    def _write_loop(self) -> None:
        while (item := self._queue.get()) is not None:
            sink, pack, number, head, body = item
            rows = sink.write(pack, number, head, body)
            if rows is not None:
                self._closing.acquire()
                self._closer.submit(self._publish, sink, pack, rows)

    def _publish(self, sink: PackSink, pack: _OpenPack, rows: bytes) -> None:
        try:
            sink.publish(pack, rows)
        finally:
            self._closing.release()


class PackSink:
    """Collects frames of one volume from several workers in packs of about ``pack_bytes``."""

    def __init__(
        self,
        writer: PackWriter,
        store: Store,
        ring: KeyRing,
        index: VolumeIndex,
        chunk_size: int,
        pack_bytes: int = PACK_BYTES,
        session: bytes = bytes(SESSION_BYTES),
    ) -> None:
        """:param session: identifies the packs of this backup when it is resumed."""
        self._writer = writer
        self._store = store
        self._ring = ring
        self._index = index
        self._chunk_size = chunk_size
        self._pack_bytes = pack_bytes
        self._session = session
        self._overhead = ring.overhead
        self._lock = threading.Lock()
        self._current: _OpenPack | None = None
        self._compressor = Compressor(1)
        # Not self._lock: a worker may hold that one while it waits for the writer, who may wait for the closer.
        self._state = threading.Lock()
        self._open: set[_OpenPack] = set()
        self._error: BaseException | None = None
        self._then: t.Callable[[], object] | None = None

    def reserve(self, stored: t.Sequence[Stored], packed_length: int) -> Slot:
        """Reserve a place for a frame of items of one kind, whose compressed body has ``packed_length`` bytes."""
        length = frame_length(len(stored), packed_length + self._overhead)
        with self._lock:
            pack = self._current
            if pack is not None and pack.reserved and not self._has_room(pack, length, len(stored)):
                self._seal(pack)
                pack = None
            if pack is None:
                pack = self._current = self._new_pack()
            slot = Slot(pack, pack.reserved, pack.end, length, stored)
            for item in stored:
                pack.rows += ROW.pack(item.identity, slot.offset, length, item.place, item.kind, item.chunk, item.mask)
            pack.reserved += 1
            pack.end += length
        return slot

    def _new_pack(self) -> _OpenPack:
        pack = _OpenPack(self._store, self._ring, self._chunk_size, self._session)
        with self._state:
            self._open.add(pack)
        return pack

    def _has_room(self, pack: _OpenPack, length: int, rows: int) -> bool:
        """Whether one more frame fits; well compressed chunks can fill the footer before the pack."""
        return pack.end + length <= self._pack_bytes and len(pack.rows) + rows * ROW.size <= PACK_FOOTER_MAX

    def submit(self, slot: Slot, head: bytes, body: bytes) -> None:
        """Pass a sealed frame to the writer; waits while the writer is behind.  Raises the first error."""
        self._writer.put(self, slot.pack, slot.number, head, body)

    def finish(self, then: t.Callable[[], object]) -> None:
        """Have what is left written and published, once all frames are submitted.

        ``then`` is called once, in any thread, when all packs are durable or one has failed: see check().
        """
        with self._lock:
            if self._current is not None:
                self._seal(self._current)
        with self._state:
            self._then = then
        self._settle()

    def check(self) -> None:
        """Raise the first error."""
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        """Remove every pack that is not published; safe at any time, also after finish()."""
        self._fail(Cancelled("the backup", "it was stopped", "Run it again"))
        with self._state:
            left, self._open = self._open, set()
        for pack in left:
            with pack.lock:
                pack.dropped = True
                pack.waiting.clear()
                pack.upload.abort()

    def _seal(self, pack: _OpenPack) -> None:
        pack.sealed = True
        self._writer.put(self, pack, -1, b"", b"")  # wakes the writer, which may already have written the last frame
        self._current = None

    def _fail(self, error: BaseException) -> None:
        with self._state:
            self._error = self._error or error
        self._settle()

    def _settle(self) -> None:
        """Call ``then`` if there is nothing more to wait for."""
        with self._state:
            if self._open and self._error is None:
                return
            then, self._then = self._then, None
        if then is not None:
            then()

    # -- in the writer and the closer

    def write(self, pack: _OpenPack, number: int, head: bytes, body: bytes) -> bytes | None:
        """Write the frames that are next in a pack; returns its rows if that was the last one."""
        with pack.lock:
            if pack.dropped or self._error is not None:
                return None
            try:
                return self._write(pack, number, head, body)
            except BaseException as error:  # the workers raise it
                self._fail(error)
                return None

    def _write(self, pack: _OpenPack, number: int, head: bytes, body: bytes) -> bytes | None:
        if number >= 0:
            pack.waiting[number] = (head, body)
        ready: list[bytes] = []
        while pack.written in pack.waiting:
            ready += pack.waiting.pop(pack.written)
            pack.written += 1
        if ready:
            pack.upload.write(ready)
        if pack.sealed and pack.written == pack.reserved and not pack.ended:
            return self._end(pack)
        return None

    def _end(self, pack: _OpenPack) -> bytes:
        pack.ended = True
        plain = bytes(pack.rows)
        codec, data = self._compressor.compress(plain)
        footer = (codec, bytes(data), len(plain))
        cipher = self._ring.cipher(PACK_KIND.footer_key, pack.pack_id)
        pack.upload.write(make_end(pack.prefix, cipher, footer, pack.end, pack.reserved))
        return plain[SESSION_BYTES:]

    def publish(self, pack: _OpenPack, rows: bytes) -> None:
        """Make a pack durable, and let the whole job find its chunks."""
        try:
            with pack.lock:
                if pack.dropped:
                    return
                pack.upload.publish()
            self._index.pack_finished(pack.pack_id, rows)
        except BaseException as error:  # check() raises it
            self._fail(error)
            return
        with self._state:
            self._open.discard(pack)
        self._settle()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames of packs, as a reader keeps them: authenticated, and decompressed no further than needed."""

from __future__ import annotations

import threading

from ..format.codec import decompress_first
from ..format.frame import UNIT_GRAIN, FrameHead
from ..format.page import GRAINS_PER_CHUNK
from ..store.store import Buffer


class Frame:
    """An authenticated frame; threads may share it.

    A single read of a block needs what precedes the end of its chunk.  Whoever asks for more after that reads on, and
    will want the rest too.  So a frame is decompressed as far as the first request needs, then as a whole.
    """

    def __init__(self, head: FrameHead, packed: Buffer, chunk_size: int) -> None:
        """:param packed: the body, decrypted but still compressed."""
        self._codec = head.codec
        self._length = head.plain_length
        self._packed = packed
        self._plain: Buffer = b""
        self._lock = threading.Lock()
        #: The unit of places in it, in bytes.
        self.unit = chunk_size // GRAINS_PER_CHUNK if head.unit == UNIT_GRAIN else chunk_size
        self._most = self._length if self._length <= self.unit else self._length + len(packed)

    def size(self) -> int:
        """The most bytes that it takes: the body stays until all of it is decompressed."""
        return self._most

    def first(self, end: int) -> Buffer | None:
        """At least the first ``end`` plain bytes; None if there are fewer, or they cannot be decompressed."""
        with self._lock:
            if len(self._plain) >= end:
                return self._plain
            wanted = self._length if self._plain else end
            plain = decompress_first(self._codec, self._packed, self._length, wanted)
            if plain is None or len(plain) < end:
                return None
            self._plain = plain
            if len(plain) == self._length:
                self._packed = b""
            return plain

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames: the units that are compressed, encrypted and hashed together inside a container.

A frame holds one to ``FRAME_CHUNKS_MAX`` neighbouring chunks of a volume, or as many pieces of chunks, or one page of
a map, or a footer::

    head       20 bytes   magic "ISBF", number, codec, unit, count, plain length, body length
    identities 32 bytes each, ``count`` of them
    hash       32 bytes   BLAKE3 over container header, head, identities and body: needs no key
    body                  compressed, then encrypted; the AES-GCM tag at its end

The additional data of the encryption are container header, head and identities, so format, container id, frame
number, identities and lengths are all authenticated.
"""

from __future__ import annotations

import struct
import typing as t

from ..base.deps import blake3
from ..keys.keys import Cipher
from .bounds import DIRECTORY_MAX

_HEAD = struct.Struct("<4sIBBHII")
_MAGIC = b"ISBF"
HASH_BYTES = 32
IDENTITY_BYTES = 32
FRAME_CHUNKS_MAX = 1024
OVERHEAD_MAX = 16
FOOTER_NUMBER = 0xFFFFFFFF
#: The unit of a frame: whole chunks (also for frames without any), or grains.
UNIT_CHUNK = 0
UNIT_GRAIN = 1

Buffer: t.TypeAlias = "bytes | bytearray | memoryview"


class FrameHead(t.NamedTuple):
    """The parsed head of a frame; ``bound`` are head and identities, as encryption and hash authenticate them."""

    number: int
    codec: int
    unit: int
    identities: tuple[bytes, ...]
    plain_length: int
    body_length: int
    bound: bytes
    hash: bytes

    @property
    def length(self) -> int:
        """The whole frame's length in bytes."""
        return len(self.bound) + HASH_BYTES + self.body_length


def frame_length(count: int, body_length: int) -> int:
    """The length in bytes of a frame with ``count`` identities and an encrypted body of ``body_length`` bytes."""
    return _HEAD.size + count * IDENTITY_BYTES + HASH_BYTES + body_length


def frame_length_max(plain_length: int) -> int:
    """The largest length in bytes of a frame of at most ``plain_length`` plain bytes."""
    return frame_length(FRAME_CHUNKS_MAX, plain_length + OVERHEAD_MAX)


def seal_frame(
    prefix: bytes,
    cipher: Cipher,
    number: int,
    codec: int,
    identities: bytes,
    plain_length: int,
    data: Buffer,
    unit: int = UNIT_CHUNK,
) -> tuple[bytes, bytes]:
    """Encrypt and hash one frame; returns what precedes the body, and the body.

    :param prefix: the container's header.
    :param number: unique in the container.
    :param identities: of the chunks or pieces, one after the other.
    :param data: compressed as ``codec`` says.
    :param unit: UNIT_CHUNK or UNIT_GRAIN.
    """
    count = len(identities) // IDENTITY_BYTES
    body_length = len(data) + cipher.overhead
    bound = _HEAD.pack(_MAGIC, number, codec, unit, count, plain_length, body_length) + identities
    body = cipher.encrypt(number, data, prefix + bound)
    return bound + _hash(prefix, bound, body), body


def parse_head(data: Buffer) -> FrameHead | None:
    """The head at the start of ``data``, or None if there is no complete, valid one."""
    if len(data) < _HEAD.size:
        return None
    magic, number, codec, unit, count, plain_length, body_length = _HEAD.unpack_from(data)
    begin = _HEAD.size
    end = begin + count * IDENTITY_BYTES
    if magic != _MAGIC or unit > UNIT_GRAIN or count > FRAME_CHUNKS_MAX:
        return None
    # What compression does not make smaller is stored raw.
    if plain_length > DIRECTORY_MAX or body_length > plain_length + OVERHEAD_MAX:
        return None
    if len(data) < end + HASH_BYTES:
        return None
    view = memoryview(data)
    identities = tuple(bytes(view[at : at + IDENTITY_BYTES]) for at in range(begin, end, IDENTITY_BYTES))
    return FrameHead(
        number,
        codec,
        unit,
        identities,
        plain_length,
        body_length,
        bytes(view[:end]),
        bytes(view[end : end + HASH_BYTES]),
    )


def check_hash(prefix: bytes, head: FrameHead, data: Buffer) -> bool:
    """Whether a whole frame is what was written; needs no key."""
    body = memoryview(data)[len(head.bound) + HASH_BYTES :]
    return len(body) == head.body_length and _hash(prefix, head.bound, body) == head.hash


def decrypt_body(prefix: bytes, cipher: Cipher, head: FrameHead, data: Buffer) -> bytes | None:
    """The body of a whole frame, authenticated and decrypted but still compressed; None if it is not what was written.

    AES-GCM authenticates a body as a whole, so all of it is decrypted, however little of it is decompressed then.
    """
    body = memoryview(data)[len(head.bound) + HASH_BYTES :]
    if len(body) != head.body_length:
        return None
    return cipher.decrypt(head.number, body, prefix + head.bound)


def _hash(prefix: bytes, bound: bytes, body: Buffer) -> bytes:
    hasher = blake3(prefix)
    hasher.update(bound)
    hasher.update(body)
    return hasher.digest()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers: the common file layout of packs and maps.

::

    header    64 bytes, and an extra area: empty, or a pack's sealed key and a checksum
    frames    see frame.py
    footer    one more frame: a pack's index or a map's page directory, under a key of its own
    trailer   48 bytes: where the footer is, and a checksum

Header and trailer have unkeyed checksums and each frame has a hash, so a scrub needs no key.
"""

from __future__ import annotations

import functools
import struct
import typing as t

from ..base.deps import blake3
from ..base.errors import Damaged, UnsupportedFormat
from ..keys.keys import DERIVED, INDEX, MAP, PACK, SEALED, SEALED_BYTES, Cipher, KeyRing
from ..store.store import Buffer, Store
from .bounds import CHUNK_SIZES, DIRECTORY_MAX, PACK_FOOTER_MAX, PACK_FRAME_MAX, PAGE_MAX
from .codec import decompress
from .frame import FOOTER_NUMBER, FrameHead, check_hash, decrypt_body, frame_length_max, parse_head, seal_frame

_HEADER = struct.Struct("<8sHBBHHI16sI8x")
_TRAILER = struct.Struct("<8sQII8x")
_CHECK_BYTES = 16
HEADER_BYTES = _HEADER.size + _CHECK_BYTES
TRAILER_BYTES = _TRAILER.size + _CHECK_BYTES
_TRAILER_MAGIC = b"ISBEND\r\n"
_VERSION = 1

_SEALED_EXTRA = SEALED_BYTES + _CHECK_BYTES
_CIPHER_NONE = 0
_CIPHER_AES_256_GCM = 1


class Kind(t.NamedTuple):
    """What differs between packs and maps."""

    magic: bytes
    number: int
    frame_key: str
    footer_key: str
    label: str
    #: The most plain bytes of a frame, and of the footer.
    frame_max: int
    footer_max: int


PACK_KIND = Kind(b"ISBPACK\n", 1, PACK, INDEX, "pack", PACK_FRAME_MAX, PACK_FOOTER_MAX)
MAP_KIND = Kind(b"ISBMAP\r\n", 2, MAP, MAP, "map", PAGE_MAX, DIRECTORY_MAX)

#: Kind's number -> its possible key modes, each with the length of its extra area.
_EXTRA = {PACK_KIND.number: {(DERIVED, 0), (SEALED, _SEALED_EXTRA)}, MAP_KIND.number: {(DERIVED, 0)}}

_WAY_OUT = "Restore the object from another copy of the repository; the next backup stores its chunks again"


def make_header(kind: Kind, container_id: bytes, chunk_size: int, encrypted: bool, sealed_key: bytes = b"") -> bytes:
    """The header of a new container with its extra area; ``sealed_key`` is a pack's, empty if the key is derived."""
    cipher = _CIPHER_AES_256_GCM if encrypted else _CIPHER_NONE
    mode, extra = (SEALED, _SEALED_EXTRA) if sealed_key else (DERIVED, 0)
    head = _HEADER.pack(kind.magic, _VERSION, kind.number, cipher, 0, mode, chunk_size, container_id, extra)
    head += _check(head)
    return head + sealed_key + _check(head + sealed_key) if sealed_key else head


def make_end(prefix: bytes, cipher: Cipher, footer: tuple[int, bytes, int], offset: int, frames: int) -> list[bytes]:
    """The buffers of footer and trailer.

    :param footer: codec, compressed bytes, plain length.
    :param offset: where the footer begins.
    :param frames: how many frames precede it.
    """
    codec, data, plain_length = footer
    head, body = seal_frame(prefix, cipher, FOOTER_NUMBER, codec, b"", plain_length, data)
    trailer = _TRAILER.pack(_TRAILER_MAGIC, offset, len(head) + len(body), frames)
    return [head, body, trailer + _check(prefix + trailer)]


class ContainerLayout(t.NamedTuple):
    """A container as its header and trailer describe it; reading it needs no key.

    ``prefix`` is the header with its extra area, which the first frame follows.
    """

    name: str
    kind: Kind
    container_id: bytes
    chunk_size: int
    encrypted: bool
    key_mode: int
    sealed_key: bytes
    prefix: bytes
    footer_offset: int
    footer_length: int
    frames: int


def read_layout(store: Store, name: str, kind: Kind) -> ContainerLayout:
    """Read and check a container's header and trailer.

    Raises NotFound; Damaged (also if another container was put in its place); UnsupportedFormat.
    """
    size = store.size(name)
    if size < HEADER_BYTES + TRAILER_BYTES:
        raise Damaged(name, f"it is truncated to {size} bytes", _WAY_OUT)
    data = store.get(name, 0, HEADER_BYTES + _SEALED_EXTRA)
    prefix = data[:HEADER_BYTES]
    if len(prefix) != HEADER_BYTES:
        raise Damaged(name, "it became shorter while it was read", _WAY_OUT)
    magic, version, number, cipher, features, key_mode, chunk_size, container_id, extra = _HEADER.unpack_from(prefix)
    if magic != kind.magic or number != kind.number:
        raise Damaged(name, f"it is not a {kind.label}", _WAY_OUT)
    if prefix[_HEADER.size :] != _check(prefix[: _HEADER.size]):
        raise Damaged(name, "its header is damaged", _WAY_OUT)
    if version != _VERSION or features or cipher > _CIPHER_AES_256_GCM or (key_mode, extra) not in _EXTRA[kind.number]:
        raise UnsupportedFormat(name, "a newer version wrote it", "Use a newer version of the saveset engine")
    if container_id.hex() != name.rsplit("/", 1)[-1]:
        raise Damaged(name, f"it holds {kind.label} {container_id.hex()}: files were swapped", _WAY_OUT)
    if chunk_size not in CHUNK_SIZES:
        raise Damaged(name, f"its chunk size of {chunk_size} bytes is not a power of two from 4 KiB to 4 MiB", _WAY_OUT)
    if extra:
        prefix = data[: HEADER_BYTES + extra]
        if len(prefix) != HEADER_BYTES + extra or prefix[-_CHECK_BYTES:] != _check(prefix[:-_CHECK_BYTES]):
            raise Damaged(name, "its sealed key, in the header's extra area, is damaged", _WAY_OUT)
    trailer = store.get(name, size - TRAILER_BYTES, TRAILER_BYTES)
    if len(trailer) != TRAILER_BYTES:
        raise Damaged(name, "it became shorter while it was read", _WAY_OUT)
    end_magic, offset, length, frames = _TRAILER.unpack_from(trailer)
    if end_magic != _TRAILER_MAGIC or trailer[_TRAILER.size :] != _check(prefix + trailer[: _TRAILER.size]):
        raise Damaged(name, "its trailer is damaged, or it is truncated", _WAY_OUT)
    if offset + length + TRAILER_BYTES != size or offset < len(prefix):
        raise Damaged(name, f"its size of {size} bytes is not the one in its trailer", _WAY_OUT)
    if length > frame_length_max(kind.footer_max):
        raise Damaged(name, f"its footer of {length} bytes is larger than allowed", _WAY_OUT)
    return ContainerLayout(
        name,
        kind,
        container_id,
        chunk_size,
        cipher == _CIPHER_AES_256_GCM,
        key_mode,
        prefix[HEADER_BYTES:-_CHECK_BYTES] if extra else b"",
        prefix,
        offset,
        length,
        frames,
    )


class Container:
    """A published container, open for reading; threads may share it."""

    def __init__(self, store: Store, name: str, kind: Kind, ring: KeyRing) -> None:
        self._store = store
        self._ring = ring
        self.name = name
        self.layout = read_layout(store, name, kind)
        if self.layout.encrypted != ring.encrypted:
            raise Damaged(name, "its encryption is not that of the repository", _WAY_OUT)

    @functools.cached_property
    def _cipher(self) -> Cipher:
        """The frames' cipher.  Raises WrongSecret (a pack, and the key is write-only), Damaged (its sealed key)."""
        layout = self.layout
        if layout.kind is PACK_KIND:
            return self._ring.pack_cipher(self.name, layout.container_id, layout.key_mode, layout.sealed_key)
        return self._ring.cipher(layout.kind.frame_key, layout.container_id)

    def footer(self) -> bytes:
        """The footer's plain bytes.  Raises Damaged."""
        layout = self.layout
        data = self._store.get(self.name, layout.footer_offset, layout.footer_length)
        cipher = self._ring.cipher(layout.kind.footer_key, layout.container_id)
        head = parse_head(data)
        if (
            head is None
            or head.number != FOOTER_NUMBER
            or head.length != layout.footer_length
            or head.plain_length > layout.kind.footer_max
        ):
            raise Damaged(self.name, "its footer is damaged", _WAY_OUT)
        packed = self._unseal(head, data, cipher, True)
        plain = decompress(head.codec, packed, head.plain_length) if packed is not None else None
        if plain is None:
            raise Damaged(self.name, "its footer is damaged or was written with another key", _WAY_OUT)
        return bytes(plain)

    def frame(self, offset: int, length: int) -> tuple[FrameHead, Buffer]:
        """Head and plain bytes of the frame at ``offset``.  Raises Damaged, NotFound, WrongSecret."""
        head, packed = self.packed_frame(offset, self.read(offset, length))
        plain = decompress(head.codec, packed, head.plain_length)
        if plain is None:
            raise self.damaged_frame(offset)
        return head, plain

    def read(self, offset: int, length: int) -> memoryview:
        """The bytes of a frame, or of neighbouring ones, as stored: nothing about them is checked yet.

        :param length: of all of them together, no more than one frame may have.
        Raises Damaged, NotFound.
        """
        layout = self.layout
        if (
            offset < len(layout.prefix)
            or offset + length > layout.footer_offset
            or length > frame_length_max(layout.kind.frame_max)
        ):
            raise Damaged(self.name, f"it has no frame of {length} bytes at offset {offset}", _WAY_OUT)
        return memoryview(self._store.get(self.name, offset, length))

    def packed_frame(self, offset: int, data: Buffer) -> tuple[FrameHead, bytes]:
        """Head and body of a whole frame that was read at ``offset``, authenticated and decrypted, still compressed.

        Raises Damaged, WrongSecret.
        """
        head = parse_head(data)
        packed = self._open(head, data) if head is not None and head.length == len(data) else None
        if head is None or packed is None:
            raise self.damaged_frame(offset)
        return head, packed

    def damaged_frame(self, offset: int) -> Damaged:
        """The error for a frame that is not what was written."""
        return Damaged(self.name, f"its frame at offset {offset} is damaged", _WAY_OUT)

    def open_frame(self, head: FrameHead, data: Buffer) -> Buffer | None:
        """The plain bytes of a whole frame, as frame() returns them; None if it is not what was written."""
        packed = self._open(head, data)
        return None if packed is None else decompress(head.codec, packed, head.plain_length)

    def _open(self, head: FrameHead, data: Buffer) -> bytes | None:
        if head.plain_length > self.layout.kind.frame_max:
            return None
        return self._unseal(head, data, self._cipher, self.layout.kind is not PACK_KIND)

    def _unseal(self, head: FrameHead, data: Buffer, cipher: Cipher, hashed: bool) -> bytes | None:
        # AES-GCM alone authenticates the many frames of packs; the hash is also checked where that costs little.
        if (hashed or not self._ring.encrypted) and not check_hash(self.layout.prefix, head, data):
            return None
        return decrypt_body(self.layout.prefix, cipher, head, data)


def object_name(kind: Kind, container_id: bytes, folder: str = "") -> str:
    """The name of a pack, or of a map in its volume's folder."""
    text = container_id.hex()
    if kind is PACK_KIND:
        return f"packs/{text[:2]}/{text}"
    return f"maps/{folder}/{text}"


def _check(data: bytes) -> bytes:
    return blake3(data).digest()[:_CHECK_BYTES]

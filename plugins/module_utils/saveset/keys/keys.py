# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a repository: one master key, and everything else derived from it.

::

    master -- data   -- one key per pack (frames)
           |- seal   -- X25519 pair; pack keys are sealed to its public key
           \\- writer -- identity, index (pack footers), map, document, mac

A holder of ``writer`` and the public key can write, deduplicate, list and collect, but cannot read a volume's data.
:mod:`.keyfile` stores the master key itself.
"""

from __future__ import annotations

import functools
import secrets
import typing as t
from dataclasses import dataclass, field

from ..base.deps import AESGCM, HKDF, SHA256, InvalidTag, blake3
from ..base.errors import Damaged, WrongSecret
from .sealing import SEAL_OVERHEAD, open_sealed, public_key_of, seal

#: Kinds of objects that each have their own key; that of PACK is derived from data, the others from writer.
PACK = "pack"
INDEX = "index"
MAP = "map"
DOCUMENT = "document"

KEY_BYTES = 32

#: The key of a pack's frames: derived from the master key, or sealed to the repository's public key.
DERIVED = 0
SEALED = 1

#: Length of a sealed pack key.
SEALED_BYTES = KEY_BYTES + SEAL_OVERHEAD


class Cipher:
    """AES-256-GCM with one key, or no encryption; the frame's number is the nonce, so never use a number twice."""

    def __init__(self, key: bytes | None) -> None:
        self._aead = None if key is None else AESGCM(key)
        self.overhead = 0 if key is None else 16

    def encrypt(self, number: int, data: bytes | bytearray | memoryview, bound: bytes) -> bytes:
        """Encrypt ``data`` with nonce ``number``, bound to ``bound``; a copy of it in an unencrypted repository."""
        if self._aead is None:
            return bytes(data)
        return self._aead.encrypt(number.to_bytes(12, "little"), data, bound)

    def decrypt(self, number: int, data: bytes | bytearray | memoryview, bound: bytes) -> bytes | None:
        """The plain bytes, or None if they are not what was encrypted."""
        if self._aead is None:
            return bytes(data)
        try:
            return self._aead.decrypt(number.to_bytes(12, "little"), data, bound)
        except InvalidTag:
            return None


@dataclass(frozen=True)
class WriterKeys:
    """What a write-only server holds: the writer key and the public key for sealing pack keys, 32 bytes each."""

    writer: bytes = field(repr=False)
    public_key: bytes

    @classmethod
    def of_master(cls, master: bytes) -> WriterKeys:
        """The writer keys of a master key."""
        return cls(derive(master, "writer"), public_key_of(derive(master, "seal")))


class PackKey(t.NamedTuple):
    """The key of a new pack's frames: its sealed form for the pack's header (empty if derived), and the cipher."""

    sealed: bytes
    cipher: Cipher


class KeyRing:
    """All keys of an open repository.

    :param repository_id: 32 hex digits.
    :param keys: the 32-byte master key (in an unencrypted repository derived from its id, so not secret), or what a
        write-only server holds.
    :param encrypted: whether objects are encrypted.
    """

    def __init__(self, repository_id: str, keys: bytes | WriterKeys, encrypted: bool = True) -> None:
        self.encrypted = encrypted
        self.repository_id = repository_id
        #: The master key; None if opened with a write-only key.
        self.master = keys if isinstance(keys, bytes) else None
        self.writer_keys = WriterKeys.of_master(keys) if isinstance(keys, bytes) else keys
        writer = self.writer_keys.writer
        self.identity_key = derive(writer, "identity")
        self._mac_key = derive(writer, "mac")
        self._parents = {label: derive(writer, label) for label in (INDEX, MAP, DOCUMENT)}
        if self.master is not None:
            self._parents[PACK] = derive(self.master, "data")
        #: What encryption adds to each body, in bytes.
        self.overhead = Cipher(bytes(KEY_BYTES)).overhead if encrypted else 0
        self.cipher = functools.lru_cache(maxsize=256)(self._cipher)

    @property
    def write_only(self) -> bool:
        """Whether the data of packs cannot be read."""
        return self.master is None

    def _cipher(self, label: str, object_id: bytes) -> Cipher:
        if not self.encrypted:
            return Cipher(None)
        return Cipher(derive(self._parents[label], label, object_id))

    def new_pack(self, pack_id: bytes) -> PackKey:
        """The key for a new pack: derived if possible, else random and sealed so that only the master key opens it."""
        if not self.write_only:
            return PackKey(b"", self.cipher(PACK, pack_id))
        key = secrets.token_bytes(KEY_BYTES)
        sealed = seal(self.writer_keys.public_key, self._pack_info(pack_id), key)
        return PackKey(sealed, Cipher(key))

    def pack_cipher(self, name: str, pack_id: bytes, mode: int, sealed: bytes) -> Cipher:
        """The cipher of a published pack's frames.

        Raises WrongSecret with a write-only key; Damaged if the sealed key is not one of this pack.
        """
        if self.master is None:
            raise write_only_error(name)
        if mode == DERIVED:
            return self.cipher(PACK, pack_id)
        key = open_sealed(derive(self.master, "seal"), self._pack_info(pack_id), sealed)
        if key is None or len(key) != KEY_BYTES:
            raise Damaged(
                name,
                "its sealed key cannot be opened with this repository's key",
                "Restore the object from another copy of the repository, or use another saveset of the volume",
            )
        return Cipher(key)

    def _pack_info(self, pack_id: bytes) -> bytes:
        return f"openisb saveset 1 pack {self.repository_id} {pack_id.hex()}".encode()

    def identity(self, data: bytes | memoryview) -> bytes:
        """The identity of a chunk: keyed BLAKE3, 32 bytes."""
        return blake3(data, key=self.identity_key).digest()

    def mac(self, label: str, data: bytes) -> bytes:
        """The MAC of a document or a list of hashes, 32 bytes."""
        return blake3(label.encode() + b"\0" + data, key=self._mac_key).digest()


def write_only_error(thing: str) -> WrongSecret:
    """The error for operations for which a write-only key is not enough."""
    return WrongSecret(
        thing,
        "the repository was opened with a write-only key, which cannot read data",
        "Open it with the repository's passphrase or an escrow private key",
    )


def derive(parent: bytes, label: str, context: bytes = b"") -> bytes:
    """A 32-byte key, derived from ``parent`` for ``label`` and ``context`` with HKDF-SHA256."""
    info = b"openisb saveset 1 " + label.encode() + b"\0" + context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(parent)


def public_master(repository_id: str) -> bytes:
    """The "master key" of an unencrypted repository: anyone can compute it."""
    return derive(bytes.fromhex(repository_id), "unencrypted")

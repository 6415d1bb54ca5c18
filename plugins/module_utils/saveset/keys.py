# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a repository: one master key, everything else derived from it, and the files that wrap it.

::

    master -- data   -- one key a pack (frames)
           \\- writer -- identity, index (pack footers), map, document, mac

Who holds ``writer`` and a public key can write and deduplicate without being able to read a volume's data; the format
has room for that (``SEALED`` in :mod:`.container`), this version always derives pack keys from the master.
"""

from __future__ import annotations

import functools
import secrets

from .deps import AESGCM, HKDF, SHA256, InvalidTag, Scrypt, blake3
from .document import Document, encode_document
from .errors import Damaged, InvalidValue, UnsupportedFormat, WrongSecret
from .secret import ScryptCost, Secret

#: Object kinds that have a key of their own each: label -> whether it hangs under data (True) or writer.
PACK = "pack"
INDEX = "index"
MAP = "map"
DOCUMENT = "document"

_MAX_SCRYPT_MEMORY = 1 << 31
_WRAP_NONCE = bytes(12)  # the wrapping key is fresh for every key file: a random salt


class Cipher:
    """AES-256-GCM under one key, or nothing at all; the frame's number is the nonce, so never use a number twice."""

    def __init__(self, key: bytes | None) -> None:
        self._aead = None if key is None else AESGCM(key)
        self.overhead = 0 if key is None else 16

    def encrypt(self, number: int, data: bytes | bytearray | memoryview, bound: bytes) -> bytes:
        """Encrypt ``data`` with nonce ``number``, bound to ``bound``; a copy of it in an unencrypted repository."""
        if self._aead is None:
            return bytes(data)
        return self._aead.encrypt(number.to_bytes(12, "little"), data, bound)

    def decrypt(self, number: int, data: bytes | bytearray | memoryview, bound: bytes) -> bytes | None:
        """The plain bytes, or None when they are not what was encrypted."""
        if self._aead is None:
            return bytes(data)
        try:
            return self._aead.decrypt(number.to_bytes(12, "little"), data, bound)
        except InvalidTag:
            return None


class KeyRing:
    """All keys of an open repository.

    :param master: the 32-byte master key; in an unencrypted repository derived from its id, thus no secret.
    :param encrypted: whether objects are encrypted.
    """

    def __init__(self, master: bytes, encrypted: bool) -> None:
        self.encrypted = encrypted
        self._data = derive(master, "data")
        writer = derive(master, "writer")
        self.identity_key = derive(writer, "identity")
        self._mac_key = derive(writer, "mac")
        self._parents = {label: derive(writer, label) for label in (INDEX, MAP, DOCUMENT)}
        self._parents[PACK] = self._data
        self.cipher = functools.lru_cache(maxsize=256)(self._cipher)

    def _cipher(self, label: str, object_id: bytes) -> Cipher:
        if not self.encrypted:
            return Cipher(None)
        return Cipher(derive(self._parents[label], label, object_id))

    def identity(self, data: bytes | memoryview) -> bytes:
        """The identity of a chunk: keyed BLAKE3, 32 bytes."""
        return blake3(data, key=self.identity_key).digest()

    def mac(self, label: str, data: bytes) -> bytes:
        """The MAC of a document or a list of hashes, 32 bytes."""
        return blake3(label.encode() + b"\0" + data, key=self._mac_key).digest()


def derive(parent: bytes, label: str, context: bytes = b"") -> bytes:
    """A 32-byte key by HKDF-SHA256 from ``parent`` for ``label`` and ``context``."""
    info = b"openisb saveset 1 " + label.encode() + b"\0" + context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(parent)


def public_master(repository_id: str) -> bytes:
    """The "master key" of an unencrypted repository: anyone can compute it."""
    return derive(bytes.fromhex(repository_id), "unencrypted")


def wrap(master: bytes, secret: Secret, repository_id: str, key_id: str) -> bytes:
    """The content of a key file that holds ``master`` under the secret's passphrase."""
    if not secret.passphrase:
        raise InvalidValue(
            "the passphrase", "it is empty", "Give one, or create the repository with encryption 'none' on purpose"
        )
    salt = secrets.token_bytes(32)
    cost = secret.cost
    key = _stretch(secret.passphrase, salt, cost)
    fields = {
        "id": key_id,
        "repository": repository_id,
        "method": "scrypt",
        "salt": salt.hex(),
        "n": cost.n,
        "r": cost.r,
        "p": cost.p,
    }
    fields["wrapped"] = AESGCM(key).encrypt(_WRAP_NONCE, master, _wrap_bound(repository_id, key_id)).hex()
    return encode_document("key", fields)


def unwrap(name: str, document: Document, secret: Secret, repository_id: str) -> bytes:
    """The master key from a key file.

    Raises WrongSecret, UnsupportedFormat (a method of a newer version), Damaged.
    """
    fields = document.fields
    if fields.get("method") != "scrypt":
        raise UnsupportedFormat(
            name, f"its method {fields.get('method')!r} is unknown here", "Use a newer version of the saveset engine"
        )
    if fields.get("repository") != repository_id:
        raise Damaged(name, "it belongs to another repository", "Put back this repository's own key file")
    try:
        cost = ScryptCost(int(fields["n"]), int(fields["r"]), int(fields["p"]))
        salt, wrapped, key_id = bytes.fromhex(fields["salt"]), bytes.fromhex(fields["wrapped"]), str(fields["id"])
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(name, f"a field is missing or malformed ({error})", "Put back a copy of the key file") from error
    if 128 * cost.n * cost.r > _MAX_SCRYPT_MEMORY or cost.p > 64:
        raise Damaged(name, "its cost is absurd", "Put back a copy of the key file")
    key = _stretch(secret.passphrase or b"", salt, cost)
    try:
        return AESGCM(key).decrypt(_WRAP_NONCE, wrapped, _wrap_bound(repository_id, key_id))
    except InvalidTag:
        raise WrongSecret(name, "the passphrase does not open it", "Give the repository's passphrase") from None


def _wrap_bound(repository_id: str, key_id: str) -> bytes:
    return f"openisb saveset 1 key {repository_id} {key_id}".encode()


def _stretch(passphrase: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(passphrase)

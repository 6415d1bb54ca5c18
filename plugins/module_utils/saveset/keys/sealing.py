# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealing short secrets to an X25519 public key, and the PEM files in which such keys are kept.

HPKE (RFC 9180), base mode, X25519 / HKDF-SHA256 / AES-256-GCM: the sealer keeps nothing that could open it again.
"""

from __future__ import annotations

import typing as t

from ..base.deps import InvalidTag, X25519PrivateKey, X25519PublicKey, hpke, serialization
from ..base.errors import InvalidValue, WrongSecret

#: The bytes that sealing adds: the encapsulated key and the AES-GCM tag.
SEAL_OVERHEAD = 32 + 16


def seal(public_key: bytes, info: bytes, secret: bytes) -> bytes:
    """``secret`` sealed to a raw 32-byte public key and bound to ``info``; ``SEAL_OVERHEAD`` bytes longer."""
    try:
        return _suite().encrypt(secret, X25519PublicKey.from_public_bytes(public_key), info)
    except ValueError as error:  # a point of low order, whose shared secret is not secret
        raise InvalidValue(
            "the public key", f"nothing can be sealed to it ({error})", "Create a new key pair"
        ) from error


def open_sealed(private_key: bytes, info: bytes, sealed: bytes) -> bytes | None:
    """What was sealed with the same ``info`` to the public key of a raw private key; None if it does not open."""
    try:
        return _suite().decrypt(sealed, X25519PrivateKey.from_private_bytes(private_key), info)
    except (InvalidTag, ValueError):
        return None


def public_key_of(private_key: bytes) -> bytes:
    """The raw public key of a raw private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def generate_escrow_pair(password: bytes) -> tuple[bytes, bytes]:
    """A new X25519 key pair as PEM: the private key encrypted with ``password``, and the public key.

    PKCS #8 hardly stretches the password: make it long and random, and keep the file offline.
    """
    if not password:
        raise InvalidValue("the password", "it is empty", "Give one: the private key opens the whole repository")
    private = X25519PrivateKey.generate()
    return (
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password),
        ),
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def load_private_key(pem: bytes, password: bytes | None) -> bytes:
    """The raw private key in a PEM file.  Raises WrongSecret (the password), InvalidValue (the file)."""
    try:
        # A superfluous password is not an error: the environment may provide one for another key.
        key: t.Any = serialization.load_pem_private_key(pem, password if b"BEGIN ENCRYPTED" in pem else None)
    except TypeError:
        raise WrongSecret("the private key", "it is encrypted", "Give its password") from None
    except ValueError as error:
        if b"BEGIN ENCRYPTED" in pem:
            raise WrongSecret("the private key", "the password does not open it", "Give the right password") from error
        raise InvalidValue("the private key", "it is not a private key in PEM form", _PAIR) from error
    if not isinstance(key, X25519PrivateKey):
        raise InvalidValue("the private key", "it is not an X25519 key", _PAIR)
    return key.private_bytes_raw()


def load_public_key(pem: bytes) -> bytes:
    """The raw public key in a PEM file.  Raises InvalidValue."""
    if b"PRIVATE KEY" in pem:
        raise InvalidValue("the public key", "it is a private key, which must not be given here", "Give its public key")
    try:
        key: t.Any = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidValue("the public key", "it is not a public key in PEM form", _PAIR) from error
    if not isinstance(key, X25519PublicKey):
        raise InvalidValue("the public key", "it is not an X25519 key", _PAIR)
    return key.public_bytes_raw()


_PAIR = "Create a pair with generate_escrow_pair(), or with openssl genpkey -algorithm X25519"


def _suite() -> hpke.Suite:
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

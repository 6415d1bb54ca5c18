# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures of reports and journal heads: Ed25519, in base64, with the key that the role idr_report creates."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

AGAIN = "fetch the file that ends in .sig again"


class SignatureProblem(ValueError):
    """A signature or a key that cannot be used; the text says why, and what to do."""


def signature_facts(document: bytes, signature: bytes, public_key: bytes) -> dict[str, Any]:
    """Verify that the key signed ``document`` with ``signature``: a dict of valid, fingerprint and sha256.

    ``signature``: base64, as in the file. ``public_key``: PEM. ``fingerprint``: SHA-256 of the key in DER form, as in
    the report. Raises SignatureProblem where key or signature are malformed.
    """
    key = ed25519_key(public_key)
    return {
        "valid": is_signed(document, signature, key),
        "fingerprint": fingerprint(key),
        "sha256": hashlib.sha256(document).hexdigest(),
    }


def signature_of_files(document: str, signature_file: str, public_key: str) -> dict[str, Any]:
    """The same for what M(ansible.builtin.slurp) returns of three files: their content in base64."""
    return signature_facts(*map(base64.b64decode, (document, signature_file, public_key)))


def is_signed(document: bytes, signature: bytes, key: Any) -> bool:
    """Whether the key signed ``document`` with ``signature`` (base64). Raises SignatureProblem."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(raw_signature(signature), document)
    except InvalidSignature:
        return False
    return True


def sign(document: bytes, private_key: Any) -> str:
    """The signature of a document, in base64."""
    return base64.b64encode(private_key.sign(document)).decode()


def fingerprint(key: Any) -> str:
    """SHA-256 of a public key in DER form, as 64 hex digits."""
    from cryptography.hazmat.primitives import serialization

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def ed25519_private_key(pem: bytes) -> Any:
    """The private key in a PEM file without a passphrase. Raises SignatureProblem, which reveals nothing of the key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise SignatureProblem("it is not a private key in PEM form without a passphrase") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureProblem("it is not an Ed25519 key")
    return key


def ed25519_key(pem: bytes) -> Any:
    """The public key in a PEM file."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise SignatureProblem(
            f"the public key cannot be read ({error}): name the PEM file that begins with '-----BEGIN PUBLIC KEY-----'"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureProblem("the public key is not an Ed25519 key, and reports are signed with one: name that one")
    return key


def raw_signature(text: bytes) -> bytes:
    """The signature's 64 bytes."""
    try:
        raw = base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError as error:
        raise SignatureProblem(f"the signature is not base64 ({error}): {AGAIN}") from error
    if len(raw) != 64:
        raise SignatureProblem(f"the signature has {len(raw)} bytes instead of 64: {AGAIN}")
    return raw

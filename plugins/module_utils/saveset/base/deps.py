# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The third-party libraries of the engine, imported in one place.

Importing a module must not fail when a library is missing (Ansible imports module_utils on hosts that never run the
engine), so each missing name becomes a stand-in that raises :class:`.errors.MissingLibrary` when used.
"""

from __future__ import annotations

import importlib
import typing as t

from .errors import MissingLibrary

#: What is missing: the library's name on PyPI -> the text of the ImportError.
MISSING: dict[str, str] = {}


class _Missing:
    """Stands in for a name of a library that could not be imported."""

    def __init__(self, library: str) -> None:
        self._library = library

    def _fail(self) -> t.NoReturn:
        raise MissingLibrary(
            f"Python library {self._library}",
            f"it cannot be imported ({MISSING.get(self._library, 'unknown reason')})",
            "Install it into the Python that runs the saveset engine: 'isb-saveset requirements' prints the list for "
            "pip install --require-hashes -r",
        )

    def __call__(self, *args: t.Any, **kwargs: t.Any) -> t.NoReturn:
        self._fail()

    def __getattr__(self, name: str) -> t.NoReturn:
        self._fail()


class _Later:
    """Stands in for a module of an installed library; imports it on first use, because importing is slow."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> t.Any:
        return getattr(importlib.import_module(self._name), name)


if t.TYPE_CHECKING:
    import zstandard
    from blake3 import blake3
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives import hpke, serialization
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    nbd: t.Any
else:
    try:
        from blake3 import blake3
    except ImportError as error:
        MISSING["blake3"] = str(error)
        blake3 = _Missing("blake3")

    try:
        import zstandard
    except ImportError as error:
        MISSING["zstandard"] = str(error)
        zstandard = _Missing("zstandard")

    try:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives import hpke
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        serialization = _Later("cryptography.hazmat.primitives.serialization")
    except ImportError as error:
        MISSING["cryptography"] = str(error)
        AESGCM = SHA256 = HKDF = Scrypt = _Missing("cryptography")
        X25519PrivateKey = X25519PublicKey = hpke = serialization = _Missing("cryptography")

        class InvalidTag(Exception):
            """Never raised: without the library nothing is decrypted."""

    try:
        import nbd
    except ImportError as error:
        # Optional: only NBD sources and targets need libnbd.
        MISSING["nbd"] = str(error)
        nbd = None


def require() -> None:
    """Raise MissingLibrary unless every library that the engine always needs is installed."""
    for library in ("blake3", "zstandard", "cryptography"):
        if library in MISSING:
            _Missing(library)()


def require_nbd(spec: str) -> t.Any:
    """The libnbd module; raises MissingLibrary, naming ``spec``, which needs it."""
    if nbd is None:
        raise MissingLibrary(
            spec,
            f"NBD needs the Python module nbd of libnbd ({MISSING.get('nbd', 'not imported')})",
            "Install Debian's python3-libnbd and create the virtual environment with --system-site-packages",
        )
    return nbd


__all__ = [
    "AESGCM",
    "HKDF",
    "MISSING",
    "SHA256",
    "InvalidTag",
    "Scrypt",
    "X25519PrivateKey",
    "X25519PublicKey",
    "blake3",
    "hpke",
    "nbd",
    "require",
    "require_nbd",
    "serialization",
    "zstandard",
]

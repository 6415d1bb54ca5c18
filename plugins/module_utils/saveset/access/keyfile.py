# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file in ``keys``: it holds the master key, or what a write-only server needs, wrapped by one method.

================  ==========================================  =====================
method            opened with                                 gives
================  ==========================================  =====================
``scrypt``        a passphrase                                the master key
``x25519``        the private key of an escrow key pair       the master key
``writer``        a passphrase of its own                     the write-only keys
================  ==========================================  =====================

There may be any number of each; :mod:`.keyfiles` adds and removes them.
"""

from __future__ import annotations

import datetime
import secrets
import typing as t
from dataclasses import dataclass

from ..base.deps import AESGCM, InvalidTag, Scrypt
from ..base.errors import Damaged, InvalidValue, NotFound, SavesetError, UnsupportedFormat, WrongSecret
from ..format.document import Document, decode_document, encode_document
from ..format.fields import check_key
from ..keys.keys import KEY_BYTES, KeyRing, WriterKeys, write_only_error
from ..keys.sealing import load_private_key, open_sealed, public_key_of, seal
from ..keys.secret import SCRYPT_WORK_ALL, ScryptCost, Secret
from ..store.store import Store

SCRYPT = "scrypt"
X25519 = "x25519"
WRITER = "writer"

#: The methods that give the master key, and all of them in the order in which they are tried.
MASTER_METHODS = (X25519, SCRYPT)
METHODS = (*MASTER_METHODS, WRITER)

FOLDER = "keys"
EXPORTED = "the exported key"
_NONCE = bytes(12)  # each key file has its own wrapping key, from a random salt
WAY_OUT = "Put back a copy of the key file; the other key files still open the repository"

#: Labels that bind a key file's content to its method, besides the repository and the file's id.
_LABELS = {SCRYPT: "key", X25519: "escrow", WRITER: "writer"}


@dataclass(frozen=True)
class KeyInfo:
    """The part of a key file that is readable without opening it.

    ``method`` is one of ``METHODS`` (or a newer one), ``created`` is ISO 8601 in UTC, ``public_key`` the raw escrow
    key in hex, None for other methods.
    """

    id: str
    method: str
    created: str
    label: str
    public_key: str | None = None

    @property
    def name(self) -> str:
        """The name of the file in the store."""
        return f"{FOLDER}/{self.id}.json"

    @property
    def gives_master(self) -> bool:
        """Whether opening it allows savesets to be read."""
        return self.method in MASTER_METHODS


class Unlocked(t.NamedTuple):
    """The keys of a repository, and the id of the key file that gave them (None: not from a file)."""

    ring: KeyRing
    key_id: str | None


# -- making


def passphrase_key(
    method: str, ring: KeyRing, passphrase: bytes, cost: ScryptCost, fields: dict[str, t.Any]
) -> tuple[KeyInfo, bytes]:
    """A key file of method ``scrypt`` or ``writer``; ``fields`` are added to the others.  Raises InvalidValue."""
    if not passphrase:
        raise InvalidValue(
            "the passphrase", "it is empty", "Give one, or create the repository with encryption 'none' on purpose"
        )
    if cost.problem():
        raise InvalidValue("the cost of a passphrase", cost.problem(), "Use the usual one, ScryptCost()")
    key_id, salt = secrets.token_hex(16), secrets.token_bytes(32)
    content = master_of(ring) if method == SCRYPT else ring.writer_keys.writer + ring.writer_keys.public_key
    bound = _bound(method, ring.repository_id, key_id)
    wrapped = AESGCM(_stretch(passphrase, salt, cost)).encrypt(_NONCE, content, bound)
    own = {"salt": salt.hex(), "n": cost.n, "r": cost.r, "p": cost.p, "wrapped": wrapped.hex()}
    return _key_file(ring, key_id, method, {**fields, **own})


def escrow_key(ring: KeyRing, public_key: bytes, label: str) -> tuple[KeyInfo, bytes]:
    """A key file of method ``x25519`` for a raw public key."""
    key_id = secrets.token_hex(16)
    sealed = seal(public_key, _bound(X25519, ring.repository_id, key_id), master_of(ring))
    own = {"label": label, "public_key": public_key.hex(), "sealed": sealed.hex()}
    return _key_file(ring, key_id, X25519, own)


def _key_file(ring: KeyRing, key_id: str, method: str, fields: dict[str, t.Any]) -> tuple[KeyInfo, bytes]:
    common = {"id": key_id, "repository": ring.repository_id, "method": method, "created": utc_now(), "label": ""}
    fields = {**common, **fields}
    check_key(fields)
    return key_info(fields), encode_document("key", fields, ring.mac)


def key_info(fields: t.Mapping[str, t.Any]) -> KeyInfo:
    """The KeyInfo of a key file's fields."""
    return KeyInfo(
        id=fields["id"],
        method=fields["method"],
        created=fields.get("created", ""),
        label=fields.get("label", ""),
        public_key=fields.get("public_key"),
    )


def master_of(ring: KeyRing) -> bytes:
    """The master key.  Raises WrongSecret if it is not available."""
    if ring.master is None:
        raise write_only_error("the key files")
    return ring.master


def _bound(method: str, repository_id: str, key_id: str) -> bytes:
    return f"openisb saveset 1 {_LABELS[method]} {repository_id} {key_id}".encode()


def _stretch(passphrase: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(passphrase)


def utc_now() -> str:
    """The current time in the format of key files."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- opening


def unlock(store: Store, secret: Secret, repository_id: str, check: t.Callable[[KeyRing], None]) -> Unlocked:
    """The keys from the first key file that a secret opens; files that give the master key are tried first.

    :param check: raises Damaged unless the keys are those with which the repository was created.
    Raises WrongSecret, Damaged, UnsupportedFormat, InvalidValue (an invalid private key).
    """
    if secret.is_empty:
        raise WrongSecret(store.location, "the repository is encrypted", "Give its passphrase, or a private key")
    if secret.master is not None:
        return _with_master(store, secret.master, repository_id, check)
    files, problems = read_key_files(store, repository_id)
    if secret.exported is not None:
        files.append((EXPORTED, decode_exported(secret.exported, repository_id)))
    private_key = load_private_key(secret.private_key, secret.private_key_password) if secret.private_key else None
    tried = 0
    budget = Budget()
    for name, document in in_order(files):
        try:
            method = document.fields["method"]
            if method == X25519 and private_key:
                tried += 1
                content = _open_escrow(name, document.fields, private_key)
            elif method in (SCRYPT, WRITER) and secret.passphrase:
                content = open_passphrase(name, document.fields, secret.passphrase, budget)
                tried += 1
            else:
                continue
            if content is not None:
                ring = KeyRing(repository_id, _keys(name, method, content))
                check(ring)
                return Unlocked(ring, document.fields["id"])
        except SavesetError as error:
            problems.append(error)
    raise _why_locked(store, [document for _name, document in files], problems, tried)


def _with_master(store: Store, master: bytes, repository_id: str, check: t.Callable[[KeyRing], None]) -> Unlocked:
    if len(master) != KEY_BYTES:
        raise InvalidValue("the recovery key", f"it has {len(master)} bytes, not {KEY_BYTES}", "Read it from its sheet")
    ring = KeyRing(repository_id, master)
    try:
        check(ring)
    except Damaged as error:
        raise WrongSecret(
            store.location,
            f"the recovery key is not this repository's ({error})",
            "Find the sheet with this repository's id",
        ) from error
    return Unlocked(ring, None)


def read_key_files(store: Store, repository_id: str) -> tuple[list[tuple[str, Document]], list[SavesetError]]:
    """The repository's own key files, and the errors of files that cannot be read."""
    files: list[tuple[str, Document]] = []
    problems: list[SavesetError] = []
    try:
        names = store.list(FOLDER)
    except Damaged as error:
        return files, [error]
    for name in names:
        try:
            document = _decode(name, store.get(name))
        except NotFound:
            continue  # removed since it was listed
        except SavesetError as error:
            problems.append(error)
            continue
        if document.fields["repository"] == repository_id:
            files.append((name, document))
    return files, problems


def _decode(name: str, data: bytes) -> Document:
    document = decode_document(name, data, "key")
    try:
        check_key(document.fields)
        cost = cost_of(document)
        problem = cost.problem() if cost else ""
    except ValueError as error:
        problem = str(error)
    if problem:
        raise Damaged(name, f"its fields are not those of a key: {problem}", WAY_OUT)
    return document


def cost_of(document: Document) -> ScryptCost | None:
    """The cost of trying a passphrase on a key file; None if it has no passphrase."""
    fields = document.fields
    return ScryptCost(fields["n"], fields["r"], fields["p"]) if fields["method"] in (SCRYPT, WRITER) else None


def in_order(files: t.Iterable[tuple[str, Document]]) -> list[tuple[str, Document]]:
    """Key files in the order in which they are tried.

    Those that give the master key come first, and in each method those of at most the usual cost before costlier ones.
    """
    usual = ScryptCost().work

    def rank(file: tuple[str, Document]) -> tuple[int, int, str]:
        cost = cost_of(file[1])
        return _order(file[1]), max(cost.work, usual) if cost else 0, file[0]

    return sorted(files, key=rank)


class Budget:
    """Limits the work spent on passphrases: anyone who can write to the medium can add any number of key files."""

    def __init__(self) -> None:
        self._left = SCRYPT_WORK_ALL

    def pay(self, name: str, cost: ScryptCost) -> None:
        """Raise Damaged if trying one more key file would cost too much in total."""
        if cost.work > self._left:
            raise Damaged(
                name,
                "it was not tried: all key files together take too long to try",
                "Remove the key files that nobody needs, especially those that nobody here created",
            )
        self._left -= cost.work


def decode_exported(data: bytes, repository_id: str) -> Document:
    """Parse an exported key.  Raises Damaged, also if it belongs to another repository."""
    document = _decode(EXPORTED, data)
    if document.fields["repository"] != repository_id:
        raise Damaged(EXPORTED, "it belongs to another repository", "Give the key of this repository")
    return document


def _order(document: Document) -> int:
    method = document.fields["method"]
    return METHODS.index(method) if method in METHODS else len(METHODS)


def _keys(name: str, method: str, content: bytes) -> bytes | WriterKeys:
    if method == WRITER and len(content) == 2 * KEY_BYTES:
        return WriterKeys(content[:KEY_BYTES], content[KEY_BYTES:])
    if method != WRITER and len(content) == KEY_BYTES:
        return content
    raise Damaged(name, f"it holds {len(content)} bytes, which is not a key of method {method}", WAY_OUT)


def open_passphrase(name: str, fields: t.Mapping[str, t.Any], passphrase: bytes, budget: Budget) -> bytes | None:
    """The content of a ``scrypt`` or ``writer`` key file; None if the passphrase is wrong.  Raises Damaged."""
    cost = ScryptCost(fields["n"], fields["r"], fields["p"])
    budget.pay(name, cost)
    salt, wrapped = bytes.fromhex(fields["salt"]), bytes.fromhex(fields["wrapped"])
    bound = _bound(fields["method"], fields["repository"], fields["id"])
    try:
        key = _stretch(passphrase, salt, cost)
    except (MemoryError, ValueError) as error:
        raise Damaged(name, f"its passphrase cannot be tried ({error})", WAY_OUT) from error
    try:
        return AESGCM(key).decrypt(_NONCE, wrapped, bound)
    except InvalidTag:
        return None


def _open_escrow(name: str, fields: t.Mapping[str, t.Any], private_key: bytes) -> bytes | None:
    """The master key; None if it is sealed to another public key.  Raises Damaged."""
    public_key, sealed = bytes.fromhex(fields["public_key"]), bytes.fromhex(fields["sealed"])
    bound = _bound(X25519, fields["repository"], fields["id"])
    if public_key != public_key_of(private_key):
        return None
    master = open_sealed(private_key, bound, sealed)
    if master is None:
        raise Damaged(name, "the private key of its public key does not open it", WAY_OUT)
    return master


def _why_locked(
    store: Store, documents: t.Sequence[Document], problems: t.Sequence[SavesetError], tried: int
) -> SavesetError:
    """The error that explains most: damage takes precedence over a wrong secret."""
    if problems:
        return problems[-1]
    if not documents:
        return Damaged(
            f"keys in {store.location}",
            "there is no key file",
            "Put back a copy of the keys folder, or open the repository with an exported key or a recovery sheet",
        )
    methods = sorted({document.fields["method"] for document in documents})
    if tried:
        return WrongSecret(
            store.location,
            f"the secret opens none of its key files ({tried} tried)",
            "Give the passphrase, or the private key, of one of them",
        )
    if not set(methods) & set(METHODS):
        return UnsupportedFormat(
            store.location, f"its key files are of unknown methods ({', '.join(methods)})", "Use a newer version"
        )
    return WrongSecret(
        store.location,
        f"it has no key file for this kind of secret, only {', '.join(methods)}",
        "Give another kind of secret",
    )

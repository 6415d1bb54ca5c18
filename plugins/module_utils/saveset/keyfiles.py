# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files in ``keys``: each holds the master key, or what a write-only server needs, wrapped in one way.

================  ==========================================  =====================
method            opened with                                 gives
================  ==========================================  =====================
``scrypt``        a passphrase                                the master key
``x25519``        the private key of an escrow key pair       the master key
``writer``        a passphrase of its own                     the write-only keys
================  ==========================================  =====================

Any number of each may be there.  None of them is ever changed: rotating writes a new file and removes the old one.
"""

from __future__ import annotations

import datetime
import secrets
import typing as t
from dataclasses import dataclass

from .deps import AESGCM, InvalidTag, Scrypt
from .document import Document, decode_document, encode_document
from .errors import Damaged, InvalidValue, NotFound, SavesetError, UnsupportedFormat, WrongSecret
from .keys import KEY_BYTES, KeyRing, WriterKeys, write_only_error
from .recovery import write_sheet
from .sealing import load_private_key, load_public_key, open_sealed, public_key_of, seal
from .secret import ScryptCost, Secret
from .store import Store

SCRYPT = "scrypt"
X25519 = "x25519"
WRITER = "writer"

#: The methods that give the master key, and all of them in the order in which they are tried.
MASTER_METHODS = (X25519, SCRYPT)
METHODS = (*MASTER_METHODS, WRITER)

_FOLDER = "keys"
_EXPORTED = "the exported key"
_MAX_SCRYPT_MEMORY = 1 << 31
_NONCE = bytes(12)  # the wrapping key is fresh for every key file: a random salt
_WAY_OUT = "Put back a copy of the key file; the other key files still open the repository"

#: What a key file's content is bound to, beside the repository and the file's id; no method's passes for another's.
_LABELS = {SCRYPT: "key", X25519: "escrow", WRITER: "writer"}


@dataclass(frozen=True)
class KeyInfo:
    """What a key file tells without being opened.

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
        return f"{_FOLDER}/{self.id}.json"

    @property
    def gives_master(self) -> bool:
        """Whether who opens it can read savesets."""
        return self.method in MASTER_METHODS


class Unlocked(t.NamedTuple):
    """The keys of a repository, and the id of the key file that gave them (None: no file did)."""

    ring: KeyRing
    key_id: str | None


# -- making


def passphrase_key(
    method: str, ring: KeyRing, repository_id: str, passphrase: bytes, cost: ScryptCost, fields: dict[str, t.Any]
) -> tuple[KeyInfo, bytes]:
    """A key file of method ``scrypt`` or ``writer``; ``fields`` are kept beside the others.  Raises InvalidValue."""
    if not passphrase:
        raise InvalidValue(
            "the passphrase", "it is empty", "Give one, or create the repository with encryption 'none' on purpose"
        )
    key_id, salt = secrets.token_hex(16), secrets.token_bytes(32)
    content = _master(ring) if method == SCRYPT else ring.writer_keys.writer + ring.writer_keys.public_key
    wrapped = AESGCM(_stretch(passphrase, salt, cost)).encrypt(_NONCE, content, _bound(method, repository_id, key_id))
    own = {"salt": salt.hex(), "n": cost.n, "r": cost.r, "p": cost.p, "wrapped": wrapped.hex()}
    return _key_file(ring, repository_id, key_id, method, {**fields, **own})


def escrow_key(ring: KeyRing, repository_id: str, public_key: bytes, label: str) -> tuple[KeyInfo, bytes]:
    """A key file of method ``x25519`` for a raw public key."""
    key_id = secrets.token_hex(16)
    sealed = seal(public_key, _bound(X25519, repository_id, key_id), _master(ring))
    own = {"label": label, "public_key": public_key.hex(), "sealed": sealed.hex()}
    return _key_file(ring, repository_id, key_id, X25519, own)


def _key_file(
    ring: KeyRing, repository_id: str, key_id: str, method: str, fields: dict[str, t.Any]
) -> tuple[KeyInfo, bytes]:
    common = {"id": key_id, "repository": repository_id, "method": method, "created": _now(), "label": ""}
    fields = {**common, **fields}
    return _info(fields), encode_document("key", fields, ring.mac)


def _info(fields: t.Mapping[str, t.Any]) -> KeyInfo:
    public_key = fields.get("public_key")
    return KeyInfo(
        id=str(fields.get("id")),
        method=str(fields.get("method")),
        created=str(fields.get("created", "")),
        label=str(fields.get("label", "")),
        public_key=public_key if isinstance(public_key, str) else None,
    )


def _master(ring: KeyRing) -> bytes:
    if ring.master is None:
        raise write_only_error("the key files")
    return ring.master


def _bound(method: str, repository_id: str, key_id: str) -> bytes:
    return f"openisb saveset 1 {_LABELS[method]} {repository_id} {key_id}".encode()


def _stretch(passphrase: bytes, salt: bytes, cost: ScryptCost) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(passphrase)


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- opening


def unlock(store: Store, secret: Secret, repository_id: str, check: t.Callable[[KeyRing], None]) -> Unlocked:
    """The keys that a secret gives: from the first key file that it opens, those that give the master first.

    :param check: raises Damaged unless the keys are those that the repository was made with.
    Raises WrongSecret, Damaged, UnsupportedFormat, InvalidValue (a private key that is none).
    """
    if secret.is_empty:
        raise WrongSecret(store.location, "the repository is encrypted", "Give its passphrase, or a private key")
    if secret.master is not None:
        return _with_master(store, secret.master, repository_id, check)
    files, problems = _read(store, repository_id)
    if secret.exported is not None:
        files.append((_EXPORTED, _decode_exported(secret.exported, repository_id)))
    private_key = load_private_key(secret.private_key, secret.private_key_password) if secret.private_key else None
    tried = 0
    for name, document in sorted(files, key=lambda file: _order(file[1])):
        try:
            method = document.fields.get("method")
            if method == X25519 and private_key:
                tried += 1
                content = _open_escrow(name, document.fields, private_key)
            elif method in (SCRYPT, WRITER) and secret.passphrase:
                tried += 1
                content = _open_passphrase(name, document.fields, secret.passphrase)
            else:
                continue
            if content is not None:
                ring = KeyRing(repository_id, _keys(name, method, content))
                check(ring)
                return Unlocked(ring, str(document.fields["id"]))
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
            store.location, f"the recovery key is not this repository's ({error})", "Find the sheet that names its id"
        ) from error
    return Unlocked(ring, None)


def _read(store: Store, repository_id: str) -> tuple[list[tuple[str, Document]], list[SavesetError]]:
    """The repository's own key files, and why others cannot be read."""
    files: list[tuple[str, Document]] = []
    problems: list[SavesetError] = []
    for name in store.list(_FOLDER):
        try:
            document = decode_document(name, store.get(name), "key")
        except SavesetError as error:
            problems.append(error)
            continue
        if document.fields.get("repository") == repository_id:
            files.append((name, document))
    return files, problems


def _decode_exported(data: bytes, repository_id: str) -> Document:
    document = decode_document(_EXPORTED, data, "key")
    if document.fields.get("repository") != repository_id:
        raise Damaged(_EXPORTED, "it is of another repository", "Give this repository's own")
    return document


def _order(document: Document) -> int:
    method = document.fields.get("method")
    return METHODS.index(method) if method in METHODS else len(METHODS)


def _keys(name: str, method: str, content: bytes) -> bytes | WriterKeys:
    if method == WRITER and len(content) == 2 * KEY_BYTES:
        return WriterKeys(content[:KEY_BYTES], content[KEY_BYTES:])
    if method != WRITER and len(content) == KEY_BYTES:
        return content
    raise Damaged(name, f"it holds {len(content)} bytes, which is no key of method {method}", _WAY_OUT)


def _open_passphrase(name: str, fields: t.Mapping[str, t.Any], passphrase: bytes) -> bytes | None:
    try:
        cost = ScryptCost(int(fields["n"]), int(fields["r"]), int(fields["p"]))
        salt, wrapped = bytes.fromhex(fields["salt"]), bytes.fromhex(fields["wrapped"])
        bound = _bound(fields["method"], fields["repository"], fields["id"])
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(name, error) from error
    if 128 * cost.n * cost.r > _MAX_SCRYPT_MEMORY or cost.p > 64:
        raise Damaged(name, "its cost is absurd", _WAY_OUT)
    try:
        return AESGCM(_stretch(passphrase, salt, cost)).decrypt(_NONCE, wrapped, bound)
    except InvalidTag:
        return None


def _open_escrow(name: str, fields: t.Mapping[str, t.Any], private_key: bytes) -> bytes | None:
    """The master key; None when it is sealed to another public key.  Raises Damaged."""
    try:
        public_key, sealed = bytes.fromhex(fields["public_key"]), bytes.fromhex(fields["sealed"])
        bound = _bound(X25519, fields["repository"], fields["id"])
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(name, error) from error
    if public_key != public_key_of(private_key):
        return None
    master = open_sealed(private_key, bound, sealed)
    if master is None:
        raise Damaged(name, "it does not open with the private key of the public key that it names", _WAY_OUT)
    return master


def _malformed(name: str, error: Exception) -> Damaged:
    return Damaged(name, f"a field is missing or malformed ({error})", _WAY_OUT)


def _why_locked(
    store: Store, documents: t.Sequence[Document], problems: t.Sequence[SavesetError], tried: int
) -> SavesetError:
    """The error that explains most: damage more than that a secret did not fit."""
    if problems:
        return problems[-1]
    if not documents:
        return Damaged(
            f"keys in {store.location}",
            "no key file is there",
            "Put back a copy of the keys folder, or open it with an exported key or a recovery sheet",
        )
    methods = sorted({str(document.fields.get("method")) for document in documents})
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
        f"it has no key file for such a secret, only {', '.join(methods)}",
        "Give another kind of secret",
    )


# -- managing


class KeyFiles:
    """The key files of an open repository.  Whoever opened it may list them; changing them takes the master key.

    :param opened_by: the id of the key file that opened the repository.
    :param writable: False when a newer version forbids this one to write.
    """

    def __init__(
        self, store: Store, repository_id: str, ring: KeyRing, opened_by: str | None = None, writable: bool = True
    ) -> None:
        self._store = store
        self._repository_id = repository_id
        self._ring = ring
        self._writable = writable
        self.opened_by = opened_by

    def all(self) -> list[KeyInfo]:
        """The whole key files of this repository, oldest first; problems() tells of the others."""
        infos = [_info(document.fields) for _name, document in self._whole()[0]]
        return sorted(infos, key=lambda info: (info.created, info.id))

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong with the key files, as (object, text)."""
        if not self._ring.encrypted:
            return []
        whole, problems = self._whole()
        if not problems and not any(_info(document.fields).gives_master for _name, document in whole):
            problems.append(
                (_FOLDER, "no key file is left that gives the master key: nobody could read savesets again")
            )
        return problems

    def _whole(self) -> tuple[list[tuple[str, Document]], list[tuple[str, str]]]:
        files, errors = _read(self._store, self._repository_id)
        problems = [(error.thing, error.cause) for error in errors]
        whole = []
        for name, document in files:
            try:
                document.check_mac(name, self._ring.mac)
                if _info(document.fields).name != name:
                    raise Damaged(name, "it is the file of another id: files were renamed", _WAY_OUT)
                whole.append((name, document))
            except Damaged as error:
                problems.append((name, error.cause))
        return whole, sorted(problems)

    def check_change(self) -> None:
        """Raise what every change raises when it cannot be: InvalidValue (not encrypted), WrongSecret (write-only),
        UnsupportedFormat (a newer version's repository)."""
        if not self._ring.encrypted:
            raise InvalidValue(
                self._store.location, "the repository is not encrypted and has no keys", "Create an encrypted one"
            )
        if self._ring.write_only:
            raise WrongSecret(
                self._store.location,
                "the repository was opened with a write-only key, which cannot change or export keys",
                "Open it with the repository's passphrase or an escrow private key",
            )
        if not self._writable:
            raise UnsupportedFormat(
                self._store.location,
                "a newer version gave it features that forbid this one to write",
                "Use a newer one",
            )

    def add_passphrase(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> KeyInfo:
        """Let one more passphrase open the repository.  Raises InvalidValue, WrongSecret (write-only), StoreError."""
        return self._add_passphrase(SCRYPT, passphrase, label, cost)

    def add_writer(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> KeyInfo:
        """Let a passphrase of its own open the repository for writing only.

        Raises InvalidValue (also when the passphrase gives the master key), WrongSecret (write-only), StoreError.
        """
        return self._add_passphrase(WRITER, passphrase, label, cost)

    def add_escrow(self, public_key: bytes, *, label: str = "") -> KeyInfo:
        """Let the private key of ``public_key`` (PEM) open the repository.

        Raises InvalidValue, WrongSecret (write-only), StoreError.
        """
        self.check_change()
        return self._put(escrow_key(self._ring, self._repository_id, load_public_key(public_key), label))

    def find_passphrase(self, method: str, passphrase: bytes) -> KeyInfo | None:
        """The key file of ``method`` that a passphrase opens, None when there is none.  Costs one try a file."""
        for name, document in self._whole()[0]:
            if (
                document.fields.get("method") == method
                and _open_passphrase(name, document.fields, passphrase) is not None
            ):
                return _info(document.fields)
        return None

    def find_escrow(self, public_key: bytes) -> KeyInfo | None:
        """The key file of a public key (PEM), None when there is none.  Raises InvalidValue."""
        wanted = load_public_key(public_key).hex()
        return next((info for info in self.all() if info.method == X25519 and info.public_key == wanted), None)

    def change_passphrase(
        self, passphrase: bytes, key_id: str | None = None, *, cost: ScryptCost | None = None
    ) -> KeyInfo:
        """Replace the passphrase of a key file, by default of the one that opened the repository.

        The new file keeps method and label; no other object is touched.  Who kept the old file and knows the old
        passphrase can still open it: see docs/keys.md.
        Raises InvalidValue, NotFound, WrongSecret (write-only), StoreError.
        """
        self.check_change()
        old = self._get(key_id or self.opened_by or "")
        if old.method == X25519:
            raise InvalidValue(
                f"key {old.id}", "an escrow key has no passphrase", "Add the new key, remove the old one"
            )
        new = self._add_passphrase(old.method, passphrase, old.label, cost)
        self._store.delete(old.name)
        if old.id == self.opened_by:
            self.opened_by = new.id
        return new

    def remove(self, key_id: str) -> None:
        """Remove a key file, also a damaged one.

        Raises InvalidValue for the last one that gives the master key; NotFound, WrongSecret (write-only), StoreError.
        """
        self.check_remove(key_id)
        self._store.delete(f"{_FOLDER}/{key_id}.json")

    def check_remove(self, key_id: str) -> None:
        """Raise what remove() would raise, and remove nothing."""
        self.check_change()
        if f"{_FOLDER}/{key_id}.json" not in self._store.list(_FOLDER):
            raise NotFound(f"key {key_id}", f"{self._store.location} has no such key file", "List the keys")
        if not any(info.gives_master for info in self.all() if info.id != key_id):
            raise InvalidValue(
                f"key {key_id}", "no other key file would be left that gives the master key", "Add another one first"
            )

    # -- export

    def export(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> bytes:
        """The master key under a passphrase as one JSON document, a key file to be kept outside of the repository.

        It is not put into the repository.  Raises InvalidValue, WrongSecret (write-only).
        """
        self.check_change()
        self._check_apart(SCRYPT, passphrase)
        fields = {"label": label, "location": self._store.location}
        return passphrase_key(SCRYPT, self._ring, self._repository_id, passphrase, cost or ScryptCost(), fields)[1]

    def add_exported(self, data: bytes) -> KeyInfo:
        """Put an exported key into the repository, as one of its key files.

        Raises Damaged (also when it is of another repository), WrongSecret (write-only), StoreError (it is there).
        """
        self.check_change()
        document = _decode_exported(data, self._repository_id)
        document.check_mac(_EXPORTED, self._ring.mac)
        return self._put((_info(document.fields), data))

    def recovery_sheet(self) -> str:
        """A page to print, with the master key in clear.  Raises InvalidValue, WrongSecret (write-only)."""
        self.check_change()
        return write_sheet(_master(self._ring), self._repository_id, self._store.location, _now()[:10])

    # -- inside

    def _add_passphrase(self, method: str, passphrase: bytes, label: str, cost: ScryptCost | None) -> KeyInfo:
        self.check_change()
        self._check_apart(method, passphrase)
        fields = {"label": label}
        return self._put(
            passphrase_key(method, self._ring, self._repository_id, passphrase, cost or ScryptCost(), fields)
        )

    def _check_apart(self, method: str, passphrase: bytes) -> None:
        """A passphrase that opens both would make a write-only server one that reads."""
        other = WRITER if method == SCRYPT else SCRYPT
        if passphrase and self.find_passphrase(other, passphrase):
            raise InvalidValue(
                "the passphrase",
                "a write-only server must not have one that also gives the master key",
                "Choose different passphrases",
            )

    def _get(self, key_id: str) -> KeyInfo:
        for info in self.all():
            if info.id == key_id:
                return info
        raise NotFound(
            f"key {key_id or 'that opened the repository'}", "there is no such key file", "Name one by its id"
        )

    def _put(self, key: tuple[KeyInfo, bytes]) -> KeyInfo:
        info, data = key
        self._store.put(info.name, data)
        return info

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key files of an open repository: list, add, rotate, remove, export.

A key file is never changed: rotating writes a new file, then removes the old one, and does not touch data.
"""

from __future__ import annotations

from ..base.errors import Damaged, InvalidValue, NotFound, UnsupportedFormat, WrongSecret
from ..format.document import Document
from ..keys.keys import KeyRing
from ..keys.sealing import load_public_key
from ..keys.secret import SCRYPT_WORK_ALL, ScryptCost
from ..program import tool
from ..store.store import Store
from .keyfile import (
    EXPORTED,
    FOLDER,
    SCRYPT,
    WAY_OUT,
    WRITER,
    X25519,
    Budget,
    KeyInfo,
    cost_of,
    decode_exported,
    escrow_key,
    in_order,
    key_info,
    master_of,
    open_passphrase,
    passphrase_key,
    read_key_files,
    utc_now,
)
from .recovery import write_sheet


class KeyFiles:
    """The key files of an open repository.  Listing them is always possible; changing them needs the master key.

    Only one process at a time may change them: the check that a key remains which can read takes no lock.

    :param opened_by: the id of the key file that opened the repository.
    :param writable: False if a newer version forbids this one to write.
    """

    def __init__(self, store: Store, ring: KeyRing, opened_by: str | None = None, writable: bool = True) -> None:
        self._store = store
        self._ring = ring
        self._writable = writable
        self.opened_by = opened_by

    def all(self) -> list[KeyInfo]:
        """The undamaged key files of this repository, oldest first; problems() reports the others."""
        infos = [key_info(document.fields) for _name, document in self._whole()[0]]
        return sorted(infos, key=lambda info: (info.created, info.id))

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong with the key files, as (object, text)."""
        if not self._ring.encrypted:
            return []
        whole, problems = self._whole()
        if not problems and not any(key_info(document.fields).gives_master for _name, document in whole):
            problems.append((FOLDER, "no key file gives the master key: savesets can no longer be read"))
        return problems

    def _whole(self) -> tuple[list[tuple[str, Document]], list[tuple[str, str]]]:
        files, errors = read_key_files(self._store, self._ring.repository_id)
        problems = [(error.thing, error.cause) for error in errors]
        whole = []
        for name, document in files:
            try:
                document.check_mac(name, self._ring.mac)
                if key_info(document.fields).name != name:
                    raise Damaged(name, "it is the file with another id: files were renamed", WAY_OUT)
                whole.append((name, document))
            except Damaged as error:
                problems.append((name, error.cause))
        return whole, sorted(problems)

    def check_change(self) -> None:
        """Raise what every change raises if it is not possible.

        That is InvalidValue (not encrypted), WrongSecret (write-only) or UnsupportedFormat (a newer version's
        repository).
        """
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
                "Use a newer version",
            )

    def add_passphrase(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> KeyInfo:
        """Add a passphrase that opens the repository.  Raises InvalidValue, WrongSecret (write-only), StoreError."""
        return self._add_passphrase(SCRYPT, passphrase, label, cost)

    def add_writer(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> KeyInfo:
        """Add a separate passphrase that opens the repository for writing only.

        Raises InvalidValue (also if the passphrase gives the master key), WrongSecret (write-only), StoreError.
        """
        return self._add_passphrase(WRITER, passphrase, label, cost)

    def add_escrow(self, public_key: bytes, *, label: str = "") -> KeyInfo:
        """Add a key file that the private key of ``public_key`` (PEM) opens.

        Raises InvalidValue, WrongSecret (write-only), StoreError.
        """
        self.check_change()
        return self._put(escrow_key(self._ring, load_public_key(public_key), label))

    def find_passphrase(self, method: str, passphrase: bytes) -> KeyInfo | None:
        """The key file of ``method`` that a passphrase opens; None if there is none.  Costs one attempt per file.

        Raises Damaged if there are too many to try them all.
        """
        budget = Budget()
        for name, document in in_order(self._whole()[0]):
            if (
                document.fields["method"] == method
                and open_passphrase(name, document.fields, passphrase, budget) is not None
            ):
                return key_info(document.fields)
        return None

    def find_escrow(self, public_key: bytes) -> KeyInfo | None:
        """The key file of a public key (PEM); None if there is none.  Raises InvalidValue."""
        wanted = load_public_key(public_key).hex()
        return next((info for info in self.all() if info.method == X25519 and info.public_key == wanted), None)

    def change_passphrase(
        self, passphrase: bytes, key_id: str | None = None, *, cost: ScryptCost | None = None
    ) -> KeyInfo:
        """Replace the passphrase of a key file, by default of the one that opened the repository.

        The new file keeps method and label; no other object is touched.  Anyone who kept the old file and knows the
        old passphrase can still open the repository: see docs/keys.md.
        Raises InvalidValue, NotFound, WrongSecret (write-only), StoreError.
        """
        self.check_change()
        old = self._get(key_id or self.opened_by or "")
        if old.method == X25519:
            raise InvalidValue(
                f"key {old.id}", "an escrow key has no passphrase", "Add the new key, then remove the old one"
            )
        new = self._add_passphrase(old.method, passphrase, old.label, cost, old)
        self._store.delete(old.name)
        if old.id == self.opened_by:
            self.opened_by = new.id
        return new

    def remove(self, key_id: str) -> None:
        """Remove a key file; it may be damaged.

        Raises InvalidValue for the last one that gives the master key; NotFound, WrongSecret (write-only), StoreError.
        """
        self.check_remove(key_id)
        self._store.delete(f"{FOLDER}/{key_id}.json")

    def check_remove(self, key_id: str) -> None:
        """Raise what remove() would raise, without removing anything."""
        self.check_change()
        if f"{FOLDER}/{key_id}.json" not in self._store.list(FOLDER):
            raise NotFound(f"key {key_id}", f"{self._store.location} has no such key file", "List the keys")
        if not any(info.gives_master for info in self.all() if info.id != key_id):
            raise InvalidValue(f"key {key_id}", "no other key file gives the master key", "Add another one first")

    # -- export

    def export(self, passphrase: bytes, *, label: str = "", cost: ScryptCost | None = None) -> bytes:
        """The master key wrapped with a passphrase, as a key file (one JSON document) to keep outside the repository.

        It is not put into the repository.  Raises InvalidValue, WrongSecret (write-only).
        """
        self.check_change()
        self.check_apart(SCRYPT, passphrase)
        fields = {"label": label, "location": self._store.location}
        return passphrase_key(SCRYPT, self._ring, passphrase, cost or ScryptCost(), fields)[1]

    def add_exported(self, data: bytes) -> KeyInfo:
        """Add an exported key to the repository as a key file.

        Raises Damaged (also if it belongs to another repository), WrongSecret (write-only), StoreError (it exists).
        """
        self.check_change()
        document = decode_exported(data, self._ring.repository_id)
        document.check_mac(EXPORTED, self._ring.mac)
        return self._put((key_info(document.fields), data))

    def recovery_sheet(self) -> str:
        """A page to print, with the master key in plain text.  Raises InvalidValue, WrongSecret (write-only)."""
        self.check_change()
        sha256 = tool.sha256(tool.build())
        master, repository_id = master_of(self._ring), self._ring.repository_id
        return write_sheet(master, repository_id, self._store.location, utc_now()[:10], sha256)

    # -- inside

    def _add_passphrase(
        self, method: str, passphrase: bytes, label: str, cost: ScryptCost | None, instead: KeyInfo | None = None
    ) -> KeyInfo:
        self.check_change()
        self._check_work(cost or ScryptCost(), instead)
        self.check_apart(method, passphrase)
        fields = {"label": label}
        return self._put(passphrase_key(method, self._ring, passphrase, cost or ScryptCost(), fields))

    def _check_work(self, cost: ScryptCost, instead: KeyInfo | None) -> None:
        """Raise InvalidValue if with one more key file a wrong passphrase would take too long to detect."""
        costs = [cost_of(document) for name, document in self._whole()[0] if not instead or name != instead.name]
        if cost.work + sum(other.work for other in costs if other) > SCRYPT_WORK_ALL:
            raise InvalidValue(
                "the passphrase",
                "the repository already has so many that trying them all would take too long",
                "Remove key files that nobody needs, or add escrow keys, which cost nothing to try",
            )

    def check_apart(self, method: str, passphrase: bytes) -> None:
        """Raise InvalidValue if a passphrase would open the repository both for reading and for writing only.

        A write-only server could then read.
        """
        other = WRITER if method == SCRYPT else SCRYPT
        if passphrase and self.find_passphrase(other, passphrase):
            raise InvalidValue(
                "the passphrase",
                "the passphrase of a write-only server must not also give the master key",
                "Choose different passphrases",
            )

    def _get(self, key_id: str) -> KeyInfo:
        for info in self.all():
            if info.id == key_id:
                return info
        raise NotFound(
            f"key {key_id or 'that opened the repository'}", "there is no such key file", "Give the id of a key file"
        )

    def _put(self, key: tuple[KeyInfo, bytes]) -> KeyInfo:
        info, data = key
        self._store.put(info.name, data)
        return info

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key files of an open repository: list, add, rotate, remove, export.

None of them is ever changed: rotating writes a new file and then removes the old one, and touches no data.
"""

from __future__ import annotations

from . import tool
from .document import Document
from .errors import Damaged, InvalidValue, NotFound, UnsupportedFormat, WrongSecret
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
from .keys import KeyRing
from .recovery import write_sheet
from .sealing import load_public_key
from .secret import SCRYPT_WORK_ALL, ScryptCost
from .store import Store


class KeyFiles:
    """The key files of an open repository.  Whoever opened it may list them; changing them takes the master key.

    One process at a time shall change them: that a key is left which reads is checked, and no lock taken.

    :param opened_by: the id of the key file that opened the repository.
    :param writable: False when a newer version forbids this one to write.
    """

    def __init__(self, store: Store, ring: KeyRing, opened_by: str | None = None, writable: bool = True) -> None:
        self._store = store
        self._ring = ring
        self._writable = writable
        self.opened_by = opened_by

    def all(self) -> list[KeyInfo]:
        """The whole key files of this repository, oldest first; problems() tells of the others."""
        infos = [key_info(document.fields) for _name, document in self._whole()[0]]
        return sorted(infos, key=lambda info: (info.created, info.id))

    def problems(self) -> list[tuple[str, str]]:
        """What is wrong with the key files, as (object, text)."""
        if not self._ring.encrypted:
            return []
        whole, problems = self._whole()
        if not problems and not any(key_info(document.fields).gives_master for _name, document in whole):
            problems.append((FOLDER, "no key file is left that gives the master key: nobody could read savesets again"))
        return problems

    def _whole(self) -> tuple[list[tuple[str, Document]], list[tuple[str, str]]]:
        files, errors = read_key_files(self._store, self._ring.repository_id)
        problems = [(error.thing, error.cause) for error in errors]
        whole = []
        for name, document in files:
            try:
                document.check_mac(name, self._ring.mac)
                if key_info(document.fields).name != name:
                    raise Damaged(name, "it is the file of another id: files were renamed", WAY_OUT)
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
        return self._put(escrow_key(self._ring, load_public_key(public_key), label))

    def find_passphrase(self, method: str, passphrase: bytes) -> KeyInfo | None:
        """The key file of ``method`` that a passphrase opens, None when there is none.  Costs one try a file.

        Raises Damaged when there are too many to try them all.
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
        new = self._add_passphrase(old.method, passphrase, old.label, cost, old)
        self._store.delete(old.name)
        if old.id == self.opened_by:
            self.opened_by = new.id
        return new

    def remove(self, key_id: str) -> None:
        """Remove a key file, also a damaged one.

        Raises InvalidValue for the last one that gives the master key; NotFound, WrongSecret (write-only), StoreError.
        """
        self.check_remove(key_id)
        self._store.delete(f"{FOLDER}/{key_id}.json")

    def check_remove(self, key_id: str) -> None:
        """Raise what remove() would raise, and remove nothing."""
        self.check_change()
        if f"{FOLDER}/{key_id}.json" not in self._store.list(FOLDER):
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
        self.check_apart(SCRYPT, passphrase)
        fields = {"label": label, "location": self._store.location}
        return passphrase_key(SCRYPT, self._ring, passphrase, cost or ScryptCost(), fields)[1]

    def add_exported(self, data: bytes) -> KeyInfo:
        """Put an exported key into the repository, as one of its key files.

        Raises Damaged (also when it is of another repository), WrongSecret (write-only), StoreError (it is there).
        """
        self.check_change()
        document = decode_exported(data, self._ring.repository_id)
        document.check_mac(EXPORTED, self._ring.mac)
        return self._put((key_info(document.fields), data))

    def recovery_sheet(self) -> str:
        """A page to print, with the master key in clear.  Raises InvalidValue, WrongSecret (write-only)."""
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
        """Raise InvalidValue when a wrong passphrase would take too long to find out with one more key file."""
        costs = [cost_of(document) for name, document in self._whole()[0] if not instead or name != instead.name]
        if cost.work + sum(other.work for other in costs if other) > SCRYPT_WORK_ALL:
            raise InvalidValue(
                "the passphrase",
                "the repository has so many already that trying them all would take too long",
                "Remove key files that nobody needs, or add escrow keys, which cost nothing to try",
            )

    def check_apart(self, method: str, passphrase: bytes) -> None:
        """Raise InvalidValue when a passphrase would open both for reading and for writing only.

        It would make a write-only server one that reads.
        """
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

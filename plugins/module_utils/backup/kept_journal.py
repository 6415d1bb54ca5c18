# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the head of a journal in a repository, on the backup server: signs it, and verifies it on reading."""

from __future__ import annotations

from typing import Any

from ..journal import head as journal_head
from ..journal import signature
from ..journal.head import Head, HeadError
from ..saveset.base.errors import NotFound
from ..saveset.format.document import decode_document
from ..saveset.store.registry import open_store

KEY_MAX = 1 << 16
ARGUMENTS = {
    "repository": {"type": "path", "required": True},
    "listener": {"type": "str", "required": True},
    "key": {"type": "path", "required": True, "no_log": False},
}


class KeptJournal:
    """The kept head of one listener's journal in ``repository`` (a store's spec), signed with the key in ``key``.

    Raises HeadError where the key cannot be used, SavesetError where the repository cannot.
    """

    def __init__(self, repository: str, listener: str, key: str) -> None:
        self.listener, self.repository = listener, repository
        self.name = journal_head.object_name(listener)
        self._store = open_store(repository)
        self._key = read_private_key(key)
        self.fingerprint: str = signature.fingerprint(self._key.public_key())

    def repository_id(self) -> str:
        """The id of the repository; empty where there is none (yet), which is reported elsewhere."""
        try:
            data = self._store.get("repo.json")
        except NotFound:
            return ""
        return str(decode_document("repo.json", data, "repository").fields["id"])

    def read(self) -> Head:
        """The kept head; an empty dict where there is none. Raises HeadError where it was not signed with the key."""
        try:
            data = self._store.get(self.name, 0, journal_head.MAX_BYTES + 1)
        except NotFound:
            return {}
        head = journal_head.decode(data, self.listener)
        if head["key"] != self.fingerprint:
            raise HeadError(
                f"it was signed with the key of SHA-256 {head['key']}, but the backup server's key has SHA-256 "
                f"{self.fingerprint}"
            )
        try:
            valid = signature.is_signed(journal_head.to_sign(head), head["signature"].encode(), self._key.public_key())
        except signature.SignatureProblem as error:
            raise HeadError(str(error)) from error
        if not valid:
            raise HeadError("its signature is not the backup server's: it was changed, or signed by somebody else")
        return head

    def sign(self, head: Head) -> Head:
        """Return the head with the fields that identify journal, repository and key, and with its signature."""
        whole = {
            "openisb": journal_head.KIND,
            "version": 1,
            "listener": self.listener,
            "repository": self.repository_id(),
            "key": self.fingerprint,
            **head,
        }
        return {**whole, "signature": signature.sign(journal_head.to_sign(whole), self._key)}

    def write(self, head: Head) -> None:
        """Replace the kept head with a signed one, durably and atomically."""
        self._store.put(self.name, journal_head.encode(head), exclusive=False)


def read_private_key(path: str) -> Any:
    """Read the key that signs reports and heads. Raises HeadError, which says how to create it."""
    try:
        with open(path, "rb") as stream:
            return signature.ed25519_private_key(stream.read(KEY_MAX))
    except (OSError, signature.SignatureProblem) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HeadError(
            f"the key {path}, which signs journal heads, cannot be used ({reason}): run 'ansible-playbook setup.yml', "
            "which creates it if it is missing"
        ) from error

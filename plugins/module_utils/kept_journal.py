# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the head of a journal in a repository, on the backup server: read with its signature checked, and signed."""

from __future__ import annotations

from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils import journal_head
from ansible_collections.openisb.backup.plugins.module_utils.idr import signature
from ansible_collections.openisb.backup.plugins.module_utils.journal_head import Head, HeadError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.document import decode_document
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store

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
        """The id of the repository; empty where there is none (yet), which others complain about."""
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
                f"it was signed with the key of SHA-256 {head['key']}, and the backup server has that of SHA-256 "
                f"{self.fingerprint}"
            )
        try:
            valid = signature.is_signed(journal_head.to_sign(head), head["signature"].encode(), self._key.public_key())
        except signature.SignatureProblem as error:
            raise HeadError(str(error)) from error
        if not valid:
            raise HeadError("its signature is not the backup server's: it was changed, or made by somebody else")
        return head

    def sign(self, head: Head) -> Head:
        """The head with all that belongs to this place, and the signature over it."""
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
        """Put a signed head in the place of the one that is kept: durable, and whole or not at all."""
        self._store.put(self.name, journal_head.encode(head), exclusive=False)


def read_private_key(path: str) -> Any:
    """The key that reports and heads are signed with. Raises HeadError, which says how it is made."""
    try:
        with open(path, "rb") as stream:
            return signature.ed25519_private_key(stream.read(KEY_MAX))
    except (OSError, signature.SignatureProblem) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HeadError(
            f"the key {path}, which journal heads are signed with, cannot be used ({reason}): run "
            "'ansible-playbook setup.yml', which makes it where it is missing"
        ) from error

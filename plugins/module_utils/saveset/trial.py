# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that a store does what backups and prunes need, before anything relies on it.

It must take a name only once, keep locks that other processes see, notice what others have removed, and return what
was written.  If a fallback exists it is used, and its consequence is reported.  The test uses its own objects, one
that stands for a lease and one under tmp/, and the same calls as writers, and leaves nothing behind.
"""

from __future__ import annotations

import secrets

from .base.errors import NameTaken, NotFound, StoreError
from .collect.lease import FOLDER as LEASES
from .store.names import TEMPORARY_FOLDER
from .store.store import Store

_DATA = bytes(range(256)) * 32
#: Other writers that start at the same time may sweep up the test object.
_TRIES = 5
_ELSEWHERE = "Keep the repository on another filesystem; existing savesets can still be read from here"


def try_out(store: Store) -> list[str]:
    """Test a store; returns a warning for each fallback used.  Raises StoreError, naming what is refused."""
    told = _try_hold(store)
    _try_upload(store)
    return [*store.lacks(), *told]


def _try_hold(store: Store) -> list[str]:
    name, told = f"{LEASES}/{secrets.token_hex(16)}", []
    hold = store.hold(name, b"")
    try:
        hold.replace(b"")
        if store.abandoned(name):
            raise _unfit(store, "a lock (flock) is not seen by other processes, so a running backup would look dead")
        if _is_free(store, name):
            raise _unfit(store, "a name that is taken can be taken again, so two prunes could run at once")
        if not hold.is_kept():
            raise _unfit(store, "a file that was just created is not found under its name")
        try:
            store.delete(name)
        except StoreError as error:
            told.append(f"{store.location}: {error.cause}, while the file is open. It is renamed first instead")
        else:
            if hold.is_kept():
                raise _unfit(store, "a file that another process removed still seems to exist")
    finally:
        hold.release()
    if not store.abandoned(name):
        raise _unfit(store, "a file that was removed still exists")
    return told


def _is_free(store: Store, name: str) -> bool:
    try:
        hold = store.hold(name, b"")
    except NameTaken:
        return False
    hold.release()
    return True


def _try_upload(store: Store) -> None:
    for left in reversed(range(_TRIES)):
        try:
            _upload(store, f"{TEMPORARY_FOLDER}/{secrets.token_hex(16)}")
        except NotFound:
            if not left:
                raise
        else:
            return


def _upload(store: Store, name: str) -> None:
    upload = store.create(name)
    try:
        upload.write([_DATA])
        upload.publish()
    finally:
        upload.abort()
    try:
        if store.get(name, 0, len(_DATA)) != _DATA:
            raise _unfit(store, "what is read back is not what was written")
    finally:
        store.delete(name)


def _unfit(store: Store, problem: str) -> StoreError:
    return StoreError(store.location, f"a repository cannot be written there: {problem}", _ELSEWHERE)

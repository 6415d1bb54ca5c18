# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the engine: each names the thing, the cause and the remedy."""

from __future__ import annotations


class SavesetError(Exception):
    """Base of every error that the engine raises on purpose.

    :param thing: what the error is about: a path, an object's name, a volume.
    :param cause: what is wrong with it.
    :param way_out: the remedy: what a person can do about it.
    """

    def __init__(self, thing: str, cause: str, way_out: str) -> None:
        super().__init__(thing, cause, way_out)
        self.thing = thing
        self.cause = cause
        self.way_out = way_out

    def __str__(self) -> str:
        return f"{self.thing}: {self.cause}. {self.way_out}"


class MissingLibrary(SavesetError):
    """A Python library that the engine needs is not installed."""


class InvalidValue(SavesetError):
    """An argument cannot be used as it is."""


class RepositoryExists(SavesetError):
    """A repository cannot be created where one, or anything else, already exists."""


class NotARepository(SavesetError):
    """The place holds no repository."""


class UnsupportedFormat(SavesetError):
    """The repository, or an object in it, was written by a newer version."""


class WrongSecret(SavesetError):
    """The secret given does not open the repository."""


class NotEncrypted(WrongSecret):
    """The repository is unexpectedly not encrypted: it may have been put in place of an encrypted one."""


class NotFound(SavesetError):
    """A saveset or an object does not exist."""


class Damaged(SavesetError):
    """An object exists but is not what was written.

    ``thing`` is the object's name in the repository.
    """


class StoreError(SavesetError):
    """The store refused to read or write."""


class StoreFull(StoreError):
    """The store has no disk space left."""


class StoreReadOnly(StoreError):
    """The store is read-only."""


class NameTaken(StoreError):
    """An object with that name already exists."""


class RepositoryBusy(SavesetError):
    """Another process does what only one may do at a time, or uses what is to be removed."""


class Unconfirmed(SavesetError):
    """More would be removed than is allowed without confirmation.

    :param count: how many savesets would be removed; giving this number confirms it.
    """

    def __init__(self, thing: str, cause: str, way_out: str, count: int) -> None:
        super().__init__(thing, cause, way_out)
        self.count = count


class SourceError(SavesetError):
    """The source of a backup cannot be opened or read."""


class TargetError(SavesetError):
    """The target of a restore cannot be opened or written."""


class TargetTooSmall(TargetError):
    """The target is shorter than the volume."""


class TargetBusy(TargetError):
    """The target is mounted, or held by another program."""


class TargetOccupied(TargetError):
    """The target holds content that nobody has allowed to be overwritten."""


class TargetMismatch(TargetError):
    """Read back after writing, the target does not hold what was written."""


class Cancelled(SavesetError):
    """The operation was stopped from outside before it was complete."""

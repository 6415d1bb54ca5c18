# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a command line to an open repository and a saveset."""

from __future__ import annotations

import argparse
import os
import re
import typing as t

from ..errors import NotEncrypted, NotFound, WrongSecret
from ..repository import LATEST, NO_ENCRYPTION, Repository, Saveset, looks_unencrypted, not_encrypted
from ..secret import Secret
from ..store import Store, open_store
from .credentials import add_secret_options, ask, given_secret
from .output import warn
from .usage import UsageError

#: The folder, or the archive, that holds the package ``saveset``.
PACKAGE_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

#: The environment variable that names the repository.
REPOSITORY = "OPENISB_REPOSITORY"

_TRIES = 3
_ID = re.compile(r"[0-9a-f]{1,32}\Z")


def add_repository(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    """Add the options that name and open the repository.

    :param positional: the repository can also be named without an option.
    """
    group = parser.add_argument_group("the repository and its secret")
    group.add_argument(
        "-r",
        "--repository",
        metavar="FOLDER",
        help=f"the repository's folder (default: the environment's {REPOSITORY}, else the folder that this program "
        "lies in, else the current one)",
    )
    if positional:
        parser.add_argument("folder", metavar="REPOSITORY", nargs="?", help="the same as --repository")
    add_secret_options(group)


def open_repository(options: argparse.Namespace) -> Repository:
    """The repository that a command line names.  Raises SavesetError; NotEncrypted unless --unencrypted is given.

    Who asked for one that is not encrypted is told what that means.
    """
    repository = _open(options)
    if repository.encryption == NO_ENCRYPTION:
        warn_unencrypted(repository.location)
    return repository


def _open(options: argparse.Namespace) -> Repository:
    store = repository_store(options)
    secret = given_secret(options)
    if secret is not None:
        return Repository.open(store, secret)
    try:
        return Repository.open(store, Secret())
    except NotEncrypted as error:
        raise _without_a_word(error) from error
    except WrongSecret:
        return _ask(store)


def _ask(store: Store) -> Repository:
    """Ask for the passphrase, again where it was mistyped."""
    tries = 1
    while True:
        try:
            return Repository.open(store, Secret(ask(f"Passphrase of {store.location}: ")))
        except WrongSecret as error:
            if tries == _TRIES:
                raise
            warn(f"{error}")
            tries += 1


def repository_store(options: argparse.Namespace) -> Store:
    """The store of the repository that a command line names.  Raises UsageError, InvalidValue."""
    folder = getattr(options, "folder", None)
    if folder and options.repository:
        raise UsageError(folder, "--repository names the repository already", "Name it once")
    return open_store(folder or options.repository or os.environ.get(REPOSITORY) or _nearest())


def _nearest() -> str:
    """The repository that the program lies in, or that is the current folder."""
    for folder in (os.path.dirname(PACKAGE_HOME) if os.path.isfile(PACKAGE_HOME) else "", os.getcwd()):
        if folder and os.path.isfile(os.path.join(folder, "repo.json")):
            return folder
    raise UsageError(
        "the repository",
        "none is named, and neither the folder of this program nor the current one is one",
        f"Name it by --repository FOLDER, or by {REPOSITORY}",
    )


def scrubbed_store(options: argparse.Namespace) -> Store:
    """The store of a repository that is not opened, for what needs no key.  Raises as open_repository().

    Who wrote it is never proven then; one that says that it is not encrypted is refused all the same.
    """
    store = repository_store(options)
    if looks_unencrypted(store):
        if not options.unencrypted:
            raise _without_a_word(not_encrypted(store.location))
        warn_unencrypted(store.location)
    return store


def _without_a_word(error: NotEncrypted) -> NotEncrypted:
    """The error as a command tells it."""
    return NotEncrypted(error.thing, error.cause, "Add --unencrypted if it is what you expect")


def warn_unencrypted(location: str) -> None:
    """Tell what is true of everything that comes from a repository without encryption."""
    warn(f"{location} is not encrypted: nothing proves who wrote it, or that it was not changed on purpose")


def protection(repository: Repository) -> dict[str, t.Any]:
    """What JSON tells of a repository: whether anything proves who wrote it."""
    return {"encryption": repository.encryption, "authenticated": repository.encryption != NO_ENCRYPTION}


def find_saveset(repository: Repository, wanted: str) -> Saveset:
    """The saveset named ``VOLUME``, ``VOLUME:latest``, ``VOLUME:RUN_ID`` or ``VOLUME:ID``.

    Raises NotFound, Damaged, InvalidValue.
    """
    volume, _colon, choice = wanted.partition(":")
    try:
        return _find(repository, volume, choice)
    except NotFound as error:
        raise NotFound(error.thing, error.cause, _what_there_is(repository, volume)) from error


def _find(repository: Repository, volume: str, choice: str) -> Saveset:
    if choice in ("", LATEST):
        latest = repository.find(volume)
        for saveset_id, why in repository.set_aside(volume).items():
            warn(f"saveset {saveset_id} of {volume} is set aside and not the latest: {why}")
        return latest
    try:
        return repository.find(volume, run_id=choice)
    except NotFound:
        if not _ID.match(choice):
            raise
    return repository.find(volume, saveset_id=choice)


def _what_there_is(repository: Repository, volume: str) -> str:
    volumes: t.Iterable[str] = sorted({info.volume for info in repository.savesets()})
    if volume in volumes:
        return f"See them with: list --volume {volume}"
    return f"It has savesets of: {', '.join(volumes) or 'no volume at all'}"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open the repository, and find the saveset, that a command line names."""

from __future__ import annotations

import argparse
import datetime
import os
import re
import typing as t

from ..backup.request import LATEST
from ..base.errors import NotEncrypted, NotFound, WrongSecret
from ..format.commit import SavesetInfo
from ..format.order import CLOCK_LIMIT, in_the_future
from ..keys.secret import Secret
from ..program.tool import PACKAGE_HOME
from ..repository import NO_ENCRYPTION, Repository, Saveset, looks_unencrypted, not_encrypted
from ..store.registry import open_store
from ..store.store import Store
from .credentials import add_secret_options, ask, given_secret
from .output import warn
from .usage import UsageError

#: The environment variable that names the repository.
REPOSITORY = "OPENISB_REPOSITORY"

_TRIES = 3
_ID = re.compile(r"[0-9a-f]{1,32}\Z")


def add_repository(parser: argparse.ArgumentParser, positional: bool = False) -> None:
    """Add the options that name and open the repository.

    :param positional: whether the repository can also be given as a positional argument.
    """
    group = parser.add_argument_group("the repository and its secret")
    group.add_argument(
        "-r",
        "--repository",
        metavar="FOLDER",
        help=f"the repository's folder, or its URL like file:///srv/repository (default: {REPOSITORY} in the "
        "environment, else the folder that contains this program, else the current folder)",
    )
    if positional:
        parser.add_argument("folder", metavar="REPOSITORY", nargs="?", help="the same as --repository")
    add_secret_options(group)


def open_repository(options: argparse.Namespace) -> Repository:
    """Open the repository that a command line names.

    Warns when it is not encrypted.  Raises SavesetError; NotEncrypted unless --unencrypted is given.
    """
    repository = _open(options)
    repository.on_warning = warn
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
    """Prompt for the passphrase, and again when it was mistyped."""
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
    """Return the store of the repository that a command line names.  Raises UsageError, InvalidValue."""
    folder = getattr(options, "folder", None)
    if folder and options.repository:
        raise UsageError(folder, "--repository already names the repository", "Name it once")
    return open_store(folder or options.repository or os.environ.get(REPOSITORY) or _nearest())


def _nearest() -> str:
    """Return the repository that contains this program, or else the current folder if it is a repository."""
    for folder in (os.path.dirname(PACKAGE_HOME) if os.path.isfile(PACKAGE_HOME) else "", os.getcwd()):
        if folder and os.path.isfile(os.path.join(folder, "repo.json")):
            return folder
    raise UsageError(
        "the repository",
        "none is named, and neither this program's folder nor the current folder is a repository",
        f"Name it with --repository FOLDER, or in {REPOSITORY}",
    )


def scrubbed_store(options: argparse.Namespace) -> Store:
    """Return the store of a repository that is not opened, for work that needs no key.  Raises as open_repository().

    Without the key nothing proves who wrote it.  One that says it is not encrypted is refused all the same.
    """
    store = repository_store(options)
    if looks_unencrypted(store):
        if not options.unencrypted:
            raise _without_a_word(not_encrypted(store.location))
        warn_unencrypted(store.location)
    return store


def _without_a_word(error: NotEncrypted) -> NotEncrypted:
    """The same error, with the remedy for a command line."""
    return NotEncrypted(error.thing, error.cause, "Add --unencrypted if that is what you expect")


def warn_unencrypted(location: str) -> None:
    """Warn of what a repository without encryption cannot prove."""
    warn(f"{location} is not encrypted: nothing proves who wrote it, or that it was not changed on purpose")


def protection(repository: Repository) -> dict[str, t.Any]:
    """What JSON output says of a repository: whether anything proves who wrote it."""
    return {"encryption": repository.encryption, "authenticated": repository.encryption != NO_ENCRYPTION}


def find_saveset(repository: Repository, wanted: str) -> Saveset:
    """Find the saveset named ``VOLUME``, ``VOLUME:latest``, ``VOLUME:RUN_ID`` or ``VOLUME:ID``.

    Raises NotFound, Damaged, InvalidValue.
    """
    volume, _colon, choice = wanted.partition(":")
    try:
        found = _find(repository, volume, choice)
    except NotFound as error:
        raise NotFound(error.thing, error.cause, _what_there_is(repository, volume)) from error
    _warn_of_order(repository, found.info, latest=choice in ("", LATEST))
    return found


def _warn_of_order(repository: Repository, info: SavesetInfo, latest: bool) -> None:
    """Warn when the saveset found is out of order or, when it is the latest, of every saveset that is set aside."""
    for saveset_id, why in repository.set_aside(info.volume).items():
        if latest:
            warn(f"saveset {saveset_id} of {info.volume} is set aside and not the latest: {why}")
        elif saveset_id == info.id:
            warn(f"saveset {saveset_id} of {info.volume} is out of order: {why}")
    for saveset_id, why in ahead_of_clock([info]).items():
        warn(f"saveset {saveset_id} of {info.volume} is out of order, or this host's clock is wrong: {why}")


def ahead_of_clock(infos: t.Iterable[SavesetInfo]) -> dict[str, str]:
    """The savesets whose time is in the future of this host's clock, by id, and why.

    None is skipped for that: the clock of a machine used for a restore may be wrong.
    """
    now = datetime.datetime.now(datetime.UTC)
    return in_the_future((info.place for info in infos), now + CLOCK_LIMIT)


def _find(repository: Repository, volume: str, choice: str) -> Saveset:
    if choice in ("", LATEST):
        return repository.find(volume)
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

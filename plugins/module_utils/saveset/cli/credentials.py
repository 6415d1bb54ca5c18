# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets from a file, the environment or a prompt; never from the command line, which every process can read."""

from __future__ import annotations

import argparse
import getpass
import os
import typing as t
import warnings

from ..access.recovery import read_sheet
from ..keys.secret import Secret
from .usage import UsageError

PASSPHRASE = "OPENISB_PASSPHRASE"
PRIVATE_KEY_PASSWORD = "OPENISB_PRIVATE_KEY_PASSWORD"

_FILE_MAX = 1 << 16
_ENCRYPTED_PEM = b"ENCRYPTED PRIVATE KEY"

Group = t.Any  # an argument group of argparse, whose type is private


def add_secret_options(group: Group) -> None:
    """Add the options that give the repository's secret."""
    group.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help=f"a file whose first line is the passphrase (default: {PASSPHRASE} in the environment, or a prompt)",
    )
    group.add_argument(
        "--private-key",
        metavar="FILE",
        help=f"the private key of an escrow key, in PEM; its password comes from {PRIVATE_KEY_PASSWORD} or a prompt",
    )
    group.add_argument("--recovery-sheet", metavar="FILE", help="the groups of a recovery sheet, typed into a file")
    group.add_argument(
        "--exported-key", metavar="FILE", help="an exported key, for a repository that has lost its folder keys/"
    )
    group.add_argument(
        "--unencrypted",
        action="store_true",
        help="accept a repository that is not encrypted, although nothing proves who wrote it",
    )


def given_secret(options: argparse.Namespace) -> Secret | None:
    """The secret that the options or the environment give, None when a prompt is needed.  Raises UsageError."""
    secret = _given(options)
    if not options.unencrypted:
        return secret
    if secret is not None:
        raise UsageError("--unencrypted", "a secret was given, too", f"Leave out one of the two, or unset {PASSPHRASE}")
    return Secret(unencrypted=True)


def _given(options: argparse.Namespace) -> Secret | None:
    if options.recovery_sheet:
        return Secret(master=read_sheet(read_file(options.recovery_sheet).decode(errors="replace")))
    exported = read_file(options.exported_key) if options.exported_key else None
    private_key = read_file(options.private_key) if options.private_key else None
    passphrase = given_passphrase(options.passphrase_file, PASSPHRASE)
    if exported is not None and passphrase is None:
        passphrase = ask("Passphrase of the exported key: ")
    if passphrase is None and private_key is None:
        return None
    password = _private_key_password(private_key) if private_key else None
    return Secret(passphrase, private_key=private_key, private_key_password=password, exported=exported)


def given_passphrase(path: str | None, variable: str) -> bytes | None:
    """A passphrase from a file's first line, else from the environment; None when neither has one."""
    if not path:
        return os.environb.get(variable.encode()) or None
    passphrase = read_file(path).partition(b"\n")[0].removesuffix(b"\r")
    if not passphrase:
        raise UsageError(path, "its first line is empty", "Write the passphrase into its first line")
    return passphrase


def read_file(path: str) -> bytes:
    """The content of a small file.  Raises UsageError."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_FILE_MAX)
    except OSError as error:
        raise UsageError(path, f"it cannot be read ({error.strerror})", "Name a file that you can read") from error


def ask(prompt: str) -> bytes:
    """A secret typed at the terminal.  Raises UsageError when there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # the secret would be echoed
            return os.fsencode(getpass.getpass(prompt))
    except (EOFError, OSError, getpass.GetPassWarning) as error:
        raise UsageError(
            prompt.strip(": "), "there is no terminal to prompt on", f"Use --passphrase-file, or set {PASSPHRASE}"
        ) from error


def ask_new(prompt: str) -> bytes:
    """A new secret, typed twice.  Raises UsageError when the two differ."""
    first = ask(f"{prompt}: ")
    if ask(f"{prompt}, again: ") != first:
        raise UsageError(prompt, "the two entries differ", "Type the same one twice")
    return first


def _private_key_password(pem: bytes) -> bytes | None:
    if _ENCRYPTED_PEM not in pem:
        return None
    return os.environb.get(PRIVATE_KEY_PASSWORD.encode()) or ask("Password of the private key: ")

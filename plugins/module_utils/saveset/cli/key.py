# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset key``: the keys that open a repository."""

from __future__ import annotations

import argparse
import os
import sys
import typing as t

from ..access.keyfile import KeyInfo
from ..access.keyfiles import KeyFiles
from ..base.errors import InvalidValue, StoreError
from .access import add_repository, open_repository, protection
from .credentials import ask_new, given_passphrase, read_file
from .output import print_json, print_table, say, warn
from .usage import Commands, add_command, add_json

NEW_PASSPHRASE = "OPENISB_NEW_PASSPHRASE"

_DETAILS = """
An encrypted repository has one master key, which never changes. Each secret that a person or server has opens one key
file in the repository's folder keys/: a passphrase, the private key of an escrow key, or the write-only passphrase of a
backup server. There can be any number of each. Adding and removing keys touches no data.

When the last passphrase is lost, open the repository with --recovery-sheet, --private-key or --exported-key and add a
new one:
  isb-saveset key add --recovery-sheet sheet.txt
"""


def add(commands: Commands) -> None:
    """Add the command and its subcommands."""
    parser = add_command(commands, "key", run_list, "list, add, remove and export keys", _DETAILS)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = add_command(actions, "list", run_list, "list the keys", "")
    add_json(listing)
    adding = add_command(actions, "add", run_add, "add a passphrase, a write-only passphrase or an escrow key", "")
    kind = adding.add_mutually_exclusive_group()
    kind.add_argument("--write-only", action="store_true", help="a passphrase that can write savesets, not read them")
    kind.add_argument("--escrow", metavar="PUBLIC_KEY", help="a file with an X25519 public key, in PEM")
    adding.add_argument("--label", default="", help="a name for the key; stored in clear")
    changing = add_command(actions, "change", run_change, "replace a passphrase with another", "")
    changing.add_argument("key", metavar="ID", nargs="?", help="the key (default: the one that opens the repository)")
    removing = add_command(actions, "remove", run_remove, "remove a key; the last one that can read is kept", "")
    removing.add_argument("key", metavar="ID", help="the key's id, as list shows it")
    exporting = add_command(
        actions, "export", run_export, "write the master key, protected by a passphrase, to a new file", ""
    )
    exporting.add_argument("file", metavar="FILE", help="the file, to be kept outside the repository")
    printing = add_command(
        actions, "sheet", run_sheet, "print a recovery sheet: the master key in clear, for paper in a safe", ""
    )
    for action in (adding, changing, exporting):
        action.add_argument(
            "--new-passphrase-file",
            metavar="FILE",
            help="a file whose first line is the new passphrase "
            f"(default: {NEW_PASSPHRASE} in the environment, or a prompt)",
        )
    for action in (listing, adding, changing, removing, exporting, printing):
        add_repository(action)


def run_list(options: argparse.Namespace) -> int:
    """List the keys."""
    repository = open_repository(options)
    files = repository.key_files
    infos, problems = files.all(), files.problems()
    if options.json:
        facts = protection(repository)
        print_json([{**vars(info), "reads": info.gives_master, **facts} for info in infos])
    elif infos:
        print_table([["ID", "METHOD", "READS", "CREATED", "LABEL"], *map(_row, infos)])
    for name, problem in problems:
        warn(f"{name}: {problem}")
    return 1 if problems else 0


def run_add(options: argparse.Namespace) -> int:
    """Add a key."""
    files = _files(options)
    files.check_change()
    if options.escrow:
        info = files.add_escrow(read_file(options.escrow), label=options.label)
    else:
        adding = files.add_writer if options.write_only else files.add_passphrase
        info = adding(_new_passphrase(options), label=options.label)
    say(f"Added key {info.id}")
    return 0


def run_change(options: argparse.Namespace) -> int:
    """Replace a passphrase."""
    files = _files(options)
    files.check_change()
    info = files.change_passphrase(_new_passphrase(options), options.key)
    say(f"The passphrase is changed; it now opens key {info.id}")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    """Remove a key."""
    _files(options).remove(options.key)
    say(f"Removed key {options.key}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Export the master key."""
    files = _files(options)
    files.check_change()
    _write_new(options.file, files.export(_new_passphrase(options)))
    say(f"Wrote {options.file}; its passphrase opens the repository with --exported-key {options.file}")
    return 0


def run_sheet(options: argparse.Namespace) -> int:
    """Print a recovery sheet."""
    sys.stdout.write(_files(options).recovery_sheet())
    return 0


def _files(options: argparse.Namespace) -> KeyFiles:
    return open_repository(options).key_files


def _new_passphrase(options: argparse.Namespace) -> bytes:
    return given_passphrase(options.new_passphrase_file, NEW_PASSPHRASE) or ask_new("New passphrase")


def _row(info: KeyInfo) -> list[str]:
    return [info.id, info.method, "yes" if info.gives_master else "no", info.created, info.label]


def _write_new(path: str, data: bytes) -> None:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    try:
        with t.cast(t.BinaryIO, open(path, "xb", opener=private)) as stream:
            stream.write(data)
    except FileExistsError as error:
        raise InvalidValue(path, "it exists already", "Name a new file") from error
    except OSError as error:
        raise StoreError(path, f"it cannot be written ({error.strerror})", "Name another file") from error

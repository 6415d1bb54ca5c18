# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands have in common: their parsers, and the usage error."""

from __future__ import annotations

import argparse
import re
import textwrap
import typing as t

from ..base.errors import SavesetError

_SIZE = re.compile(r"([1-9][0-9]*)([KMGT]?)\Z")

Commands = t.Any  # what argparse.ArgumentParser.add_subparsers() returns has no public type
Command = t.Callable[[argparse.Namespace], int]


class UsageError(SavesetError):
    """The command was called wrongly: exit status 2."""


def add_command(
    commands: Commands, name: str, run: Command, about: str, details: str, libraries: bool = True
) -> argparse.ArgumentParser:
    """Add a command; ``about`` is its line in the list of commands, ``details`` the rest of its help.

    :param libraries: whether it needs the libraries of the engine.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=textwrap.dedent(details).strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, libraries=libraries)
    return parser


def add_saveset(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """Add the argument that names one saveset."""
    parser.add_argument(
        "saveset",
        metavar="SAVESET",
        nargs="?" if optional else None,
        help="VOLUME for its latest saveset, VOLUME:RUN_ID, or VOLUME:ID with the first digits of the saveset's id",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add the option that hides progress."""
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the option for the number of threads."""
    parser.add_argument("--workers", type=positive, metavar="N", help="threads (default: as many as are useful)")


def add_servers(parser: argparse.ArgumentParser, about: str) -> None:
    """Add the option that names servers."""
    parser.add_argument("--server", metavar="NAME", action="append", help=f"{about}; can be given several times")


def words(text: str) -> str:
    """An option's value that is kept as text.  Bytes that the locale cannot decode are refused."""
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise argparse.ArgumentTypeError("it has bytes that are not text in this locale: write it in UTF-8")
    return text


def positive(text: str) -> int:
    """An option's value that must be 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def size(text: str) -> int:
    """Bytes from an option's value like ``4096`` or ``500G``."""
    match = _SIZE.match(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not a size like 4096, 512M or 500G")
    return int(match[1]) << 10 * " KMGT".index(match[2] or " ")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The entry point of ``isb-saveset``."""

from __future__ import annotations

import argparse
import os
import sys
import typing as t

from ..base.deps import require
from ..base.errors import SavesetError
from ..base.memory import keep_private
from ..base.version import VERSION
from . import export, forget, key, pin, program, prune, restore, serve, show, verify
from . import list as listing
from .output import show_all, warn
from .usage import UsageError

GOOD, FAILED, USAGE = 0, 1, 2

_ABOUT = """\
Lists, verifies, restores, serves and prunes the savesets of an OpenISB repository, with nothing but the repository and
its key.
"""

_DETAILS = """\
Secrets are never given on the command line, where every user of the machine could see them. A passphrase comes from
--passphrase-file, else from the environment variable OPENISB_PASSPHRASE, else from a prompt.

The repository is what --repository or the environment variable OPENISB_REPOSITORY names, else the folder that contains
this program, else the current folder. One that is not encrypted is refused unless --unencrypted is given.

Anyone who can write to a repository can replace the program in it. Run a copy that was kept elsewhere, or one whose
SHA-256 you have compared with sha256sum.

Exit status: 0 good, 1 a problem was found or something failed, 2 usage error.

Examples:
  isb-saveset list /srv/repository
  isb-saveset verify --volume fs1/m --depth stored
  isb-saveset restore fs1/m /dev/sdb --overwrite
  isb-saveset restore fs1/m:isb-20261123T021500Z-4f1c2a /srv/restored/fs1-m.img
  isb-saveset serve fs1/m --cow
  isb-saveset prune --keep-daily 7 --keep-monthly 12 --dry-run

See 'isb-saveset COMMAND --help' for each command. It needs Python 3.11 or newer and the packages that
'isb-saveset requirements' lists.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        "isb-saveset",
        description=_ABOUT,
        epilog=_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"isb-saveset {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    for module in (listing, show, verify, restore, export, serve, prune, pin, forget, key, program):
        module.add(commands)
    return parser


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status; wrong options end in SystemExit(2)."""
    show_all()
    options = make_parser().parse_args(arguments)
    keep_private()
    try:
        if options.libraries:
            require()
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except UsageError as error:
        warn(f"{error}")
        return USAGE
    except SavesetError as error:
        warn(f"{error}")
    except BrokenPipeError:
        # The reader of our output is gone; Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        warn("standard output: its reader is gone. The output is incomplete")
    except OSError as error:
        thing = os.fsdecode(error.filename) if error.filename else "the system"
        warn(f"{thing}: {error.strerror or error}. Check its path, its permissions and its disk")
    except KeyboardInterrupt:
        warn("interrupted. What it was writing is incomplete")
    return FAILED

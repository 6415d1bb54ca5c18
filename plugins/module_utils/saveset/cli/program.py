# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``version``, ``requirements`` and ``readme``: what this program is, what it needs, and how to restore with it.

All work before what it needs is installed.
"""

from __future__ import annotations

import argparse
import os
import sys

from .. import tool
from ..readme import README
from ..requirements import REQUIREMENTS
from ..version import VERSION
from .access import PACKAGE_HOME
from .output import print_json, say
from .usage import Commands, add_command, add_json

_VERSION_DETAILS = """
The SHA-256 is for the recovery sheet, or to be kept with a copy of this program away from the repository. It proves
nothing of the program that prints it: to prove a program before it is run, compare what sha256sum prints.
"""

_README_DETAILS = """
That is the README.txt of a repository, which whoever can write there could have replaced.
"""

_REQUIREMENTS_DETAILS = """
Exact versions with hashes, for pip. This command needs none of them.

Example:
  python3 -m venv /opt/isb
  python3 isb-saveset.pyz requirements > requirements.txt
  /opt/isb/bin/pip install --require-hashes -r requirements.txt

For machines without internet, beforehand, with the same version of Python and the same type of processor:
  pip download --require-hashes -r requirements.txt -d wheels
and there, in place of the last command:
  /opt/isb/bin/pip install --no-index --find-links wheels --require-hashes -r requirements.txt
"""


def add(commands: Commands) -> None:
    """Add the commands."""
    about = "tell the version and the SHA-256 of this program"
    add_json(add_command(commands, "version", run_version, about, _VERSION_DETAILS, libraries=False))
    about = "print the list of the Python packages that it needs"
    add_command(commands, "requirements", run_requirements, about, _REQUIREMENTS_DETAILS, libraries=False)
    about = "print how to restore, step by step"
    add_command(commands, "readme", run_readme, about, _README_DETAILS, libraries=False)


def run_version(options: argparse.Namespace) -> int:
    """Tell what this program is."""
    facts = {"version": VERSION, "sha256": tool.sha256(_program())}
    if options.json:
        print_json(facts)
    else:
        say(f"isb-saveset {facts['version']}")
        say(f"{facts['sha256']}  {PACKAGE_HOME if os.path.isfile(PACKAGE_HOME) else tool.NAME}")
    return 0


def run_requirements(options: argparse.Namespace) -> int:
    """Print the list of packages."""
    sys.stdout.write(REQUIREMENTS)
    return 0


def run_readme(options: argparse.Namespace) -> int:
    """Print the text."""
    sys.stdout.write(README)
    return 0


def _program() -> bytes:
    """The file that runs, or the one that these sources make."""
    if not os.path.isfile(PACKAGE_HOME):
        return tool.build()
    with open(PACKAGE_HOME, "rb") as stream:
        return stream.read()

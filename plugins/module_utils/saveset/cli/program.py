# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``version``, ``requirements`` and ``readme``: what this program is, what it needs, and how to restore with it.

All of them work before its requirements are installed.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..base.version import VERSION
from ..program import tool
from ..program.readme import README
from ..program.requirements import REQUIREMENTS
from .output import print_json, say
from .usage import Commands, add_command, add_json

_VERSION_DETAILS = """
Write the SHA-256 on the recovery sheet, or keep it with a copy of this program outside the repository. It proves
nothing about the program that prints it: before you run a program, compare what sha256sum prints for it.
"""

_README_DETAILS = """
This is the README.txt of a repository, as this program knows it. Anyone who can write to a repository could have
replaced the one in it.
"""

_REQUIREMENTS_DETAILS = """
Prints exact versions with hashes, for pip. This command needs none of them.

Example:
  python3 -m venv /opt/isb
  python3 isb-saveset.pyz requirements > requirements.txt
  /opt/isb/bin/pip install --require-hashes -r requirements.txt

For a machine without internet access, first on one that has it, with the same Python version and processor type:
  pip download --require-hashes -r requirements.txt -d wheels
Then on the machine itself, in place of the last command:
  /opt/isb/bin/pip install --no-index --find-links wheels --require-hashes -r requirements.txt
"""


def add(commands: Commands) -> None:
    """Add the commands."""
    about = "print the version and the SHA-256 of this program"
    add_json(add_command(commands, "version", run_version, about, _VERSION_DETAILS, libraries=False))
    about = "list the Python packages that it needs"
    add_command(commands, "requirements", run_requirements, about, _REQUIREMENTS_DETAILS, libraries=False)
    about = "print how to restore, step by step"
    add_command(commands, "readme", run_readme, about, _README_DETAILS, libraries=False)


def run_version(options: argparse.Namespace) -> int:
    """Print the version and the SHA-256."""
    facts = {"version": VERSION, "sha256": tool.sha256(_program())}
    if options.json:
        print_json(facts)
    else:
        say(f"isb-saveset {facts['version']}")
        say(f"{facts['sha256']}  {tool.PACKAGE_HOME if os.path.isfile(tool.PACKAGE_HOME) else tool.NAME}")
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
    """The content of the program file, or of the one that would be built from these sources."""
    if not os.path.isfile(tool.PACKAGE_HOME):
        return tool.build()
    with open(tool.PACKAGE_HOME, "rb") as stream:
        return stream.read()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset show``: all that is known about one saveset."""

from __future__ import annotations

import argparse
import json
import typing as t

from .access import add_repository, find_saveset, open_repository, protection
from .output import print_json, print_table, saveset_facts, size_text
from .usage import Commands, add_command, add_json, add_saveset


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "show", run, "show all that is known about one saveset", "")
    add_saveset(parser)
    add_json(parser)
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Show a saveset."""
    repository = open_repository(options)
    info = find_saveset(repository, options.saveset).info
    facts = {**saveset_facts(info), "pinned": repository.pinned().get(info.id), **protection(repository)}
    if options.json:
        print_json(facts)
    else:
        print_table([[name, text] for name, value in facts.items() for name, text in _lines(name, value)])
    return 0


def _lines(name: str, value: t.Any) -> t.Iterator[tuple[str, str]]:
    """A value as lines; entries of a dictionary get dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}", inner)
    elif isinstance(value, int) and ("bytes" in name or "size" in name):
        yield name, f"{value} ({size_text(value)})"
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)

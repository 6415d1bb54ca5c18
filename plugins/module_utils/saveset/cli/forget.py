# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset forget``: remove savesets one by one, damaged ones too."""

from __future__ import annotations

import argparse

from .access import add_repository, open_repository
from .output import say, warn
from .usage import Commands, add_command

_DETAILS = """
For a saveset that can no longer be read. As long as it exists nothing is pruned, because what it uses is not known. Its
id is part of its commit's name, savesets/VOLUME/TIME-ID, which list and verify show. To thin out savesets, use prune.

A forgotten saveset cannot be recovered. The next prune removes what only it used. Pinned savesets are refused.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "forget", run, "remove savesets by their ids, damaged ones too", _DETAILS)
    parser.add_argument("ids", metavar="ID", nargs="+", help="a saveset's whole id, all 32 digits")
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Forget savesets."""
    forgotten = open_repository(options).forget(options.ids)
    for saveset_id in forgotten:
        say(f"Forgot saveset {saveset_id}")
    pinned = sorted(set(options.ids) - set(forgotten))
    for saveset_id in pinned:
        warn(f"saveset {saveset_id}: it was pinned in the meantime. It stays")
    return 1 if pinned else 0

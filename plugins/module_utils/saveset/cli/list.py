# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset list``: the savesets of a repository."""

from __future__ import annotations

import argparse

from ..format.commit import SavesetInfo
from ..format.order import set_aside
from .access import add_repository, ahead_of_clock, open_repository, protection
from .output import ID_DIGITS, print_json, print_table, saveset_facts, size_text, time_text, warn
from .usage import Commands, add_command, add_json

_HEADING = ["VOLUME", "TIME (UTC)", "RUN", "VERDICT", "SIZE", "STORED", "ID"]

_DETAILS = """
A saveset is one volume at one consistency point. It is always complete: each can be restored on its own. The columns:

  VOLUME    the server and its volume
  TIME      the consistency point, in UTC
  RUN       the run that made it: savesets of several servers with the same run id belong to one point in time
  VERDICT   what the run proved of its consistency
  SIZE      the volume's size
  STORED    what the saveset added to the repository
  ID        the first digits of its id
  PINNED    who pinned it, so that no retention policy removes it, and why; shown only when any is pinned
  ASIDE     why it does not fit into the order in which the volume's savesets were made, so that it is never the
            latest and counts for no retention policy; or that its time is in the future of this host's clock, so
            that it counts for none until then; shown only when any is set aside

Savesets are listed by volume, and within a volume in the order in which they were made.

Exit status: 1 when a saveset's commit is damaged; the others are still listed.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "list", run, "list the savesets, those of a volume oldest first", _DETAILS)
    add_filters(parser)
    add_json(parser)
    add_repository(parser, positional=True)


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose savesets."""
    parser.add_argument("--volume", metavar="VOLUME", help="only savesets of this volume, like fs1/m")
    parser.add_argument("--run-id", metavar="RUN_ID", help="only savesets of this run")


def run(options: argparse.Namespace) -> int:
    """List savesets."""
    repository = open_repository(options)
    found, problems = repository.scan(options.volume)
    pinned = repository.pinned()
    ahead, aside = ahead_of_clock(found), set_aside(info.place for info in found)
    infos = [info for info in found if options.run_id in (None, info.run_id)]
    if options.json:
        facts = protection(repository)
        tell = {"pinned": pinned, "aside": aside, "ahead": ahead}
        marks = [{key: texts.get(info.id) for key, texts in tell.items()} for info in infos]
        print_json([{**saveset_facts(info), **mark, **facts} for info, mark in zip(infos, marks, strict=True)])
    elif infos:
        aside = {**ahead, **aside}
        rows = [[*_row(info), pinned.get(info.id, ""), aside.get(info.id, "")] for info in infos]
        heading = ["PINNED" if any(info.id in pinned for info in infos) else ""]
        heading.append("ASIDE" if any(info.id in aside for info in infos) else "")
        print_table([[*_HEADING, *heading], *rows], {4, 5})
    else:
        warn("no saveset" + (" matches" if found or options.volume else " is in the repository"))
    for _name, error in problems:
        warn(f"{error}")
    return 1 if problems else 0


def _row(info: SavesetInfo) -> list[str]:
    return [
        info.volume,
        time_text(info.time),
        info.run_id,
        info.verdict,
        size_text(info.size),
        size_text(info.stats.bytes_stored),
        info.id[:ID_DIGITS],
    ]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset pin`` and ``unpin``: keep savesets whatever a retention policy says."""

from __future__ import annotations

import argparse

from ..base.errors import NotFound
from ..format.commit import SavesetInfo
from ..repository import Repository
from .access import add_repository, find_saveset, open_repository
from .output import saveset_text, say, warn
from .usage import Commands, UsageError, add_command, add_saveset, add_servers, words

_DETAILS = """
Names either one saveset or a run, whose savesets belong to one point in time. A pinned saveset stays until it is
unpinned; list and prune show who pinned it and why. Pinning again replaces both.

Example:
  isb-saveset pin --run-id isb-20261123T021500Z-4f1c2a --who ada --why 'before the migration'
"""


def add(commands: Commands) -> None:
    """Add both commands."""
    pinning = add_command(commands, "pin", run_pin, "keep savesets whatever a retention policy says", _DETAILS)
    pinning.add_argument("--who", required=True, type=words, metavar="NAME", help="who wants them kept")
    pinning.add_argument("--why", required=True, type=words, metavar="TEXT", help="why")
    unpinning = add_command(commands, "unpin", run_unpin, "leave savesets to the retention policy again", "")
    for parser in (pinning, unpinning):
        add_saveset(parser, optional=True)
        parser.add_argument("--run-id", metavar="RUN_ID", help="the savesets of this run")
        add_servers(parser, "of the run, only the saveset of this server")
        add_repository(parser)


def run_pin(options: argparse.Namespace) -> int:
    """Pin savesets."""
    repository = open_repository(options)
    infos, status = _chosen(options, repository)
    for info in infos:
        repository.pin(info, options.who, options.why)
        say(f"Pinned {saveset_text(info)}")
    return status


def run_unpin(options: argparse.Namespace) -> int:
    """Remove pins."""
    repository = open_repository(options)
    infos, status = _chosen(options, repository)
    for info in infos:
        was_pinned = repository.unpin(info.id)
        say(f"{'Unpinned' if was_pinned else 'Not pinned:'} {saveset_text(info)}")
    return status


def _chosen(options: argparse.Namespace, repository: Repository) -> tuple[list[SavesetInfo], int]:
    """The requested savesets, and the exit status: 1 when a damaged commit may be one of them."""
    if (options.saveset is None) == (options.run_id is None):
        raise UsageError("the savesets", "neither or both of a saveset and a run are named", "Name one of the two")
    if options.saveset is not None:
        if options.server:
            raise UsageError("--server", "it chooses savesets of a run", "Leave it out, or name a run by --run-id")
        return [find_saveset(repository, options.saveset).info], 0
    found, problems = repository.scan()
    infos = [
        info
        for info in found
        if info.run_id == options.run_id and (not options.server or info.volume.partition("/")[0] in options.server)
    ]
    for _name, error in problems:
        warn(f"{error}")
    if not infos:
        of = f" of {', '.join(options.server)}" if options.server else ""
        raise NotFound(
            f"run {options.run_id}{of}", f"{repository.location} has no such saveset", "See what there is with: list"
        )
    return infos, 1 if problems else 0

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset verify``: whether savesets can be restored."""

from __future__ import annotations

import argparse
import dataclasses

from ..checks import FULL
from ..commit import SavesetInfo
from ..errors import NotFound
from ..repository import Repository
from ..scrub import scrub
from ..verify import DEPTHS, VerifyReport
from .access import add_repository, find_saveset, open_repository, repository_store
from .list import add_filters
from .output import Meter, duration_text, print_json, say, size_text
from .usage import Commands, UsageError, add_command, add_json, add_quiet, add_workers

_DETAILS = """
Depths:
  structure   all parts are there, authentic, and belong together; fast
  stored      and every stored byte is the one that was written
  full        and everything decrypts, decompresses and is what was backed up

Damage is named with the savesets that it hurts; all others can be restored. Without a key (--without-key) every object
is checked against its own checksums: that finds all damage to what is there, but not what is missing, nor what somebody
replaced on purpose.

Exit status: 1 when anything is damaged.
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", run, "prove that savesets can be restored", _DETAILS)
    parser.add_argument("--depth", choices=DEPTHS, default=FULL, help="how much is checked (default: %(default)s)")
    parser.add_argument("--saveset", metavar="SAVESET", help="only this one, as other commands name it")
    add_filters(parser)
    parser.add_argument("--without-key", action="store_true", help="check stored bytes alone; needs no secret")
    add_workers(parser)
    add_json(parser)
    add_quiet(parser)
    add_repository(parser, positional=True)


def run(options: argparse.Namespace) -> int:
    """Verify savesets."""
    chosen = options.saveset or options.volume or options.run_id
    if options.without_key:
        if chosen:
            raise UsageError("--without-key", "it checks the whole repository", "Leave out what chooses savesets")
        return _scrub(options)
    report = _verify(options, open_repository(options))
    if options.json:
        print_json({**vars(report), "problems": report.problems})
        return 0 if report.ok else 1
    for problem in report.problems:
        hurt = f" (saveset {problem['saveset']} of {problem['volume']})" if problem["saveset"] else ""
        say(f"{problem['object']}: {problem['problem']}{hurt}")
    verdict = "good" if report.ok else f"{len(report.problems)} problems"
    read = f", {size_text(report.bytes)} read" if report.bytes else ""
    say(f"{report.savesets} savesets, depth {report.depth}: {verdict}{read}, {duration_text(report.seconds)}")
    return 0 if report.ok else 1


def _verify(options: argparse.Namespace, repository: Repository) -> VerifyReport:
    savesets, damaged = _chosen(options, repository)
    with Meter(options.quiet) as meter:
        report = repository.verify(savesets, options.depth, progress=meter, workers=options.workers)
    if not damaged:
        return report
    return dataclasses.replace(report, ok=False, problems=[*damaged, *report.problems])


def _chosen(
    options: argparse.Namespace, repository: Repository
) -> tuple[list[SavesetInfo] | None, list[dict[str, str | None]]]:
    """The savesets that were asked for, None for all; and the damaged commits that may be among them."""
    if options.saveset:
        return [find_saveset(repository, options.saveset).info], []
    if not (options.volume or options.run_id):
        return None, []
    found, problems = repository.scan(options.volume)
    infos = [info for info in found if options.run_id in (None, info.run_id)]
    if not infos and not problems:
        wanted = " of ".join(filter(None, (options.run_id, options.volume)))
        raise NotFound(wanted, f"{repository.location} has no such saveset", "See what there is with: list")
    return infos, [
        {"saveset": None, "volume": options.volume, "object": name, "problem": error.cause} for name, error in problems
    ]


def _scrub(options: argparse.Namespace) -> int:
    store = repository_store(options)
    store.get("repo.json")
    problems = scrub(store)
    if options.json:
        print_json([{"object": name, "problem": problem} for name, problem in problems])
    else:
        for name, problem in problems:
            say(f"{name}: {problem}")
        say(f"{len(problems)} problems" if problems else "good: every stored byte is the one that was written")
    return 1 if problems else 0

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset verify``: verify that savesets can be restored."""

from __future__ import annotations

import argparse
import dataclasses
import datetime

from ..base.errors import NotFound
from ..format.commit import SavesetInfo
from ..repository import Repository
from ..verify.records import FULL
from ..verify.scrub import scrub
from ..verify.verify import DEPTHS, VerifyReport
from .access import add_repository, find_saveset, open_repository, protection, scrubbed_store
from .list import add_filters
from .output import Meter, duration_text, print_json, say, size_text, time_text, warn
from .usage import Commands, UsageError, add_command, add_json, add_quiet, add_workers, positive, size

_DAYS_MAX = 36500

_DETAILS = """
Depths:
  structure   all parts exist, are authentic, and belong together; fast
  stored      and every stored byte is the one that was written
  full        and everything decrypts, decompresses and is what was backed up

Damage is reported with the savesets that it affects; all others can be restored. Without a key (--without-key) every
object is verified against its own checksums: this finds all damage to what exists, but not what is missing, nor what
somebody replaced on purpose.

Verifications to the depths stored and full are recorded in the repository. --older-than skips what was verified to the
same depth or a deeper one within so many days, and the limits stop after so much; what was verified longest ago comes
first. So a large repository can be verified over many nights. The structure is always verified completely.

Exit status: 1 when anything is damaged.

Example:
  isb-saveset verify --older-than 28 --limit-seconds 3600
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "verify", run, "verify that savesets can be restored", _DETAILS)
    parser.add_argument("--depth", choices=DEPTHS, default=FULL, help="how much is verified (default: %(default)s)")
    parser.add_argument("--saveset", metavar="SAVESET", help="only this one, named as in other commands")
    add_filters(parser)
    pace = parser.add_argument_group("how much at once")
    pace.add_argument(
        "--older-than",
        type=_days,
        metavar="DAYS",
        help="skip packs that were verified to this depth or a deeper one within the last DAYS days",
    )
    pace.add_argument(
        "--limit-bytes", type=size, metavar="SIZE", help="begin no further pack after SIZE bytes of packs, like 500G"
    )
    pace.add_argument("--limit-seconds", type=positive, metavar="N", help="begin no further pack after N seconds")
    parser.add_argument("--without-key", action="store_true", help="verify only stored bytes; needs no secret")
    add_workers(parser)
    add_json(parser)
    add_quiet(parser)
    add_repository(parser, positional=True)


def run(options: argparse.Namespace) -> int:
    """Verify savesets."""
    parts = options.saveset or options.volume or options.run_id or _is_paced(options)
    if options.without_key:
        if parts:
            raise UsageError("--without-key", "it verifies the whole repository", "Leave out what chooses parts of it")
        return _scrub(options)
    repository = open_repository(options)
    report = _verify(options, repository)
    if options.json:
        facts = {**vars(report), "problems": report.problems, "warnings": repository.warnings}
        print_json({**facts, **protection(repository)})
    else:
        _tell(report, options.older_than)
    if _is_paced(options) and report.bytes and not report.recorded and not repository.warnings:
        warn("this verification could not be recorded in the repository: the next one will not know of it")
    return 0 if report.ok else 1


def _tell(report: VerifyReport, age: datetime.timedelta | None) -> None:
    for problem in report.problems:
        hurt = f" (saveset {problem['saveset']} of {problem['volume']})" if problem["saveset"] else ""
        say(f"{problem['object']}: {problem['problem']}{hurt}")
    verdict = "good" if report.ok else f"{len(report.problems)} problems"
    read = f", {size_text(report.bytes)} read" if report.bytes else ""
    say(f"{report.savesets} savesets, depth {report.depth}: {verdict}{read}, {duration_text(report.seconds)}")
    if report.bytes_total:
        say(_coverage(report, age))


def _days(text: str) -> datetime.timedelta:
    try:
        days = float(text)
    except ValueError:
        days = 0.0
    if not 0 < days <= _DAYS_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days, like 28 or 0.5")
    return datetime.timedelta(days=days)


def _is_paced(options: argparse.Namespace) -> bool:
    return any((options.older_than, options.limit_bytes, options.limit_seconds))


def _coverage(report: VerifyReport, age: datetime.timedelta | None) -> str:
    """How much of the savesets' packs is verified, and how long ago."""
    within = f" within {age / datetime.timedelta(days=1):g} days" if age else ""
    oldest = f", longest ago on {time_text(report.oldest)} UTC" if report.oldest else ""
    return (
        f"{100 * report.bytes_verified // report.bytes_total} % of {size_text(report.bytes_total)} are verified to "
        f"this depth{within}{oldest}"
    )


def _verify(options: argparse.Namespace, repository: Repository) -> VerifyReport:
    savesets, damaged = _chosen(options, repository)
    with Meter(options.quiet) as meter:
        report = repository.verify(
            savesets,
            options.depth,
            older_than=options.older_than,
            limit_bytes=options.limit_bytes,
            limit_seconds=options.limit_seconds,
            progress=meter,
            workers=options.workers,
        )
    if not damaged:
        return report
    return dataclasses.replace(report, ok=False, problems=[*damaged, *report.problems])


def _chosen(
    options: argparse.Namespace, repository: Repository
) -> tuple[list[SavesetInfo] | None, list[dict[str, str | None]]]:
    """The requested savesets, None for all; and the damaged commits that may be among them."""
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
    store = scrubbed_store(options)
    problems = scrub(store)
    if options.json:
        print_json([{"object": name, "problem": problem} for name, problem in problems])
    else:
        for name, problem in problems:
            say(f"{name}: {problem}")
        say(f"{len(problems)} problems" if problems else "good: every stored byte is the one that was written")
    return 1 if problems else 0

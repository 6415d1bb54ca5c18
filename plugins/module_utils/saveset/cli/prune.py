# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset prune``: forget savesets by a retention policy, and give back the room that they took."""

from __future__ import annotations

import argparse
import typing as t

from ..errors import InvalidValue, NotFound
from ..prune import MAX_PERCENT, THRESHOLD, PruneOptions, PruneReport
from ..repository import Repository
from ..retention import Decision, Policy
from .access import add_repository, open_repository, protection
from .output import (
    ID_DIGITS,
    Meter,
    duration_text,
    print_json,
    print_table,
    saveset_facts,
    say,
    size_text,
    time_text,
    warn,
)
from .usage import Commands, UsageError, add_command, add_json, add_quiet, add_servers

_COUNTS = {
    "last": "keep the newest savesets",
    "hourly": "keep the newest saveset of each of so many hours that have one",
    "daily": "the same for days",
    "weekly": "the same for ISO weeks",
    "monthly": "the same for months",
    "yearly": "the same for years",
}

_DETAILS = """
Every rule is put to each volume by itself, in UTC, from its newest saveset on, and knows nothing of the other rules. A
saveset stays when any rule wants it, or when it is pinned. A policy that keeps nothing is an error. The latest
application-consistent saveset of every volume stays as well, unless --no-keep-consistent is given.

Newest is the one that came last, whatever its time. A saveset that does not fit into the order in which savesets came,
as a clock was wrong, is set aside: it stays, and counts for no rule, until it is forgotten by its id. There is no run
journal here, so a saveset that no run made cannot be told from others; prune.yml can, by the listener's journal.

When more than half of a volume's savesets, or of all, would go (--max-percent), nothing goes unless --confirm names how
many.

Then what no saveset uses any more is removed, also what interrupted backups have left. Backups, restores and
verifications may go on meanwhile: what one of them may need is told, and removed by a later prune.

The columns are those of list; STAYS AS names every reason.

Example:
  isb-saveset prune --keep-last 3 --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "prune", run, "forget savesets by a retention policy, and free their room", _DETAILS)
    policy = parser.add_argument_group("the retention policy")
    for name, about in _COUNTS.items():
        policy.add_argument(f"--keep-{name}", type=int, default=0, metavar="N", help=about)
    policy.add_argument(
        "--keep-within",
        default="",
        metavar="DURATION",
        help="keep what is at most so much older than the newest saveset of its volume, like 14d, 1y6m or 2w3d12h",
    )
    policy.add_argument(
        "--no-keep-consistent",
        action="store_false",
        dest="keep_consistent",
        help="let the latest application-consistent saveset of a volume go, too, when no rule wants it",
    )
    add_servers(parser, "put the policy to savesets of this server only")
    parser.add_argument(
        "--max-percent",
        type=float,
        default=MAX_PERCENT,
        metavar="N",
        help="stop when more than so many percent of a volume's savesets, or of all, would go (default: %(default).0f)",
    )
    parser.add_argument(
        "--confirm", type=int, metavar="COUNT", help="go on all the same when exactly so many savesets would go"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only tell what would go, and why the rest stays")
    parser.add_argument(
        "--punch-percent",
        type=float,
        default=100 * THRESHOLD,
        metavar="N",
        help="punch packs of which more than so many percent are dead (default: %(default).0f)",
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="look for dead parts in all packs, not only in those of what goes",
    )
    add_json(parser)
    add_quiet(parser)
    add_repository(parser, positional=True)


def run(options: argparse.Namespace) -> int:
    """Prune the repository."""
    policy, how = _wanted(options)
    repository = open_repository(options)
    _check_servers(repository, options.server or [])
    with Meter(options.quiet) as meter:
        report = repository.prune(policy, options=how, dry_run=options.dry_run, progress=meter)
    if options.json:
        print_json({**_facts(report), **protection(repository)})
    else:
        _tell(report)
    return 0


def _wanted(options: argparse.Namespace) -> tuple[Policy, PruneOptions]:
    counts = {name: getattr(options, f"keep_{name}") for name in _COUNTS}
    try:
        policy = Policy(within=options.keep_within, consistent=options.keep_consistent, **counts)
        how = PruneOptions(
            servers=options.server,
            threshold=options.punch_percent / 100,
            everywhere=options.everywhere,
            max_percent=options.max_percent,
            confirmed=options.confirm,
        )
        return policy, how
    except InvalidValue as error:
        raise UsageError(error.thing, error.cause, error.way_out) from error


def _check_servers(repository: Repository, servers: t.Collection[str]) -> None:
    """Raise NotFound for a server without savesets: with a typo in its name, nothing would go and nobody be told."""
    if not servers:
        return
    infos, problems = repository.scan()
    known = {info.volume.partition("/")[0] for info in infos}
    for server in servers:
        if server not in known and not problems:  # prune() tells what cannot be read
            raise NotFound(
                f"server {server}",
                f"{repository.location} has no saveset of it",
                f"It has savesets of: {', '.join(sorted(known)) or 'no server at all'}",
            )


def _facts(report: PruneReport) -> dict[str, t.Any]:
    decisions = [
        {**saveset_facts(item.info), "keep": item.keep, "reasons": list(item.reasons), "aside": item.aside}
        for item in report.decisions
    ]
    waiting = [item._asdict() for item in report.waiting]
    facts = {name: value for name, value in vars(report).items() if name != "decisions"}
    return {**facts, "savesets": decisions, "waiting": waiting}


def _tell(report: PruneReport) -> None:
    went, room = ("would be forgotten", "would give back") if report.dry_run else ("were forgotten", "gave back")
    if report.decisions:
        going = "nothing: would be forgotten" if report.dry_run else "nothing: forgotten"
        print_table(
            [
                ["VOLUME", "TIME (UTC)", "RUN", "VERDICT", "ID", "STAYS AS"],
                *(_row(item, going) for item in report.decisions),
            ]
        )
        say("")
    else:
        warn("no saveset is in the repository")
    say(f"{len(report.forgotten)} of {len(report.decisions)} savesets {went}")
    say(
        f"This {room} {size_text(report.bytes_freed)}: {report.packs_deleted} packs, {report.maps_deleted} maps, "
        f"dead parts of {report.packs_punched} packs; {duration_text(report.seconds)}"
    )
    if report.stopped:
        warn(f"without --dry-run this stops: {report.stopped}. To go on: --confirm {len(report.forgotten)}")
    for item in report.waiting:
        say(f"{size_text(item.bytes)} more wait for {'; '.join(item.leases)}. A later prune removes them")


def _row(item: Decision, going: str) -> list[str]:
    info = item.info
    reasons = ", ".join(item.reasons) or going
    return [info.volume, time_text(info.time), info.run_id, info.verdict, info.id[:ID_DIGITS], reasons]

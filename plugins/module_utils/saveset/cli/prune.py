# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset prune``: forget savesets by a retention policy, and free their disk space."""

from __future__ import annotations

import argparse
import typing as t

from ..base.errors import InvalidValue, NotFound
from ..collect.prune import MAX_PERCENT, THRESHOLD, PruneOptions, PruneReport
from ..collect.retention import Decision, Policy
from ..repository import Repository
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
    "hourly": "keep the newest saveset of each of the last N hours that have one",
    "daily": "the same for days",
    "weekly": "the same for ISO weeks",
    "monthly": "the same for months",
    "yearly": "the same for years",
}

_DETAILS = """
Every rule is applied to each volume on its own, in UTC, starting from its newest saveset, and independently of the
other rules. A saveset stays when any rule keeps it, or when it is pinned. A policy that keeps nothing is an error. The
latest application-consistent saveset of every volume stays as well, unless --no-keep-consistent is given.

The newest saveset is the one that was made last, whatever its time. A saveset that does not fit into the order in which
savesets were made, because a clock was wrong, is set aside: it stays, and counts for no rule, until it is forgotten by
its id. This command has no run journal, so it cannot recognise a saveset that no run made; prune.yml can, with the
listener's journal.

When more than half of a volume's savesets, or of all savesets, would go (--max-percent), nothing goes unless --confirm
gives their number.

Then everything that no saveset uses any more is removed, including the leftovers of interrupted backups. Backups,
restores and verifications may run at the same time: what one of them may need is reported, and a later prune removes
it.

The columns are those of list; STAYS AS gives every reason.

Example:
  isb-saveset prune --keep-last 3 --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
"""


def add(commands: Commands) -> None:
    """Add the command."""
    about = "forget savesets by a retention policy, and free their disk space"
    parser = add_command(commands, "prune", run, about, _DETAILS)
    policy = parser.add_argument_group("the retention policy")
    for name, about in _COUNTS.items():
        policy.add_argument(f"--keep-{name}", type=int, default=0, metavar="N", help=about)
    policy.add_argument(
        "--keep-within",
        default="",
        metavar="DURATION",
        help="keep savesets at most this much older than the newest one of their volume, like 14d, 1y6m or 2w3d12h",
    )
    policy.add_argument(
        "--no-keep-consistent",
        action="store_false",
        dest="keep_consistent",
        help="also forget the latest application-consistent saveset of a volume when no rule keeps it",
    )
    add_servers(parser, "apply the policy only to savesets of this server")
    parser.add_argument(
        "--max-percent",
        type=float,
        default=MAX_PERCENT,
        metavar="N",
        help="stop when more than N percent of a volume's savesets, or of all, would go (default: %(default).0f)",
    )
    parser.add_argument(
        "--confirm", type=int, metavar="COUNT", help="continue all the same when exactly COUNT savesets would go"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="only show what would go, and why the rest stays")
    parser.add_argument(
        "--punch-percent",
        type=float,
        default=100 * THRESHOLD,
        metavar="N",
        help="punch packs of which more than N percent are dead (default: %(default).0f)",
    )
    parser.add_argument(
        "--everywhere",
        action="store_true",
        help="look for dead parts in all packs, not only in those of the savesets that go",
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
        print_json({**_facts(report), "warnings": repository.warnings, **protection(repository)})
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
    """Raise NotFound for a server without savesets: a typo in its name would otherwise silently forget nothing."""
    if not servers:
        return
    infos, problems = repository.scan()
    known = {info.volume.partition("/")[0] for info in infos}
    for server in servers:
        if server not in known and not problems:  # prune() reports what cannot be read
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
    went, room = ("would be forgotten", "would free") if report.dry_run else ("were forgotten", "freed")
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
        warn(f"without --dry-run this stops: {report.stopped}. To continue: --confirm {len(report.forgotten)}")
    for item in report.waiting:
        say(f"{size_text(item.bytes)} more wait for {'; '.join(item.leases)}. A later prune removes them")


def _row(item: Decision, going: str) -> list[str]:
    info = item.info
    reasons = ", ".join(item.reasons) or going
    return [info.volume, time_text(info.time), info.run_id, info.verdict, info.id[:ID_DIGITS], reasons]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: which savesets stay, and why.  Pure: nothing is read or written here, and no clock is asked.

Every rule looks at each volume by itself, from its newest saveset to its oldest, in UTC.  ``daily: 7`` keeps the newest
saveset of each of the last seven days that have one; hours, ISO weeks, months and years likewise, as restic, borg and
Proxmox Backup Server do it.  The rules do not know of each other: a saveset stays when any of them wants it.
"""

from __future__ import annotations

import calendar
import collections
import dataclasses
import datetime
import re
import typing as t

from .commit import SavesetInfo
from .errors import InvalidValue

#: The verdict of which every volume keeps its latest saveset.
CONSISTENT = "application-consistent"

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?\Z")
_COUNT_MAX = 1_000_000

#: A rule that counts periods -> the text that names the period of a time.
_PERIODS: dict[str, t.Callable[[datetime.datetime], str]] = {
    "hourly": lambda time: time.strftime("%Y-%m-%d %H:00"),
    "daily": lambda time: time.strftime("%Y-%m-%d"),
    "weekly": lambda time: "{}-W{:02}".format(*time.isocalendar()),
    "monthly": lambda time: time.strftime("%Y-%m"),
    "yearly": lambda time: time.strftime("%Y"),
}


@dataclasses.dataclass(frozen=True)
class Duration:
    """A span of time by the calendar: months first, then the rest."""

    months: int
    rest: datetime.timedelta

    @classmethod
    def parse(cls, text: str) -> Duration:
        """A duration such as ``14d``, ``1y6m`` or ``2w3d12h``: years, months, weeks, days, hours, in that order.

        Raises InvalidValue.
        """
        match = _DURATION.match(text)
        years, months, weeks, days, hours = (int(number or 0) for number in match.groups()) if match else (0,) * 5
        if not text or match is None or max(years * 12 + months, weeks * 7 + days, hours) > _COUNT_MAX:
            raise InvalidValue(f"duration {text!r}", "it cannot be read", "Write it like 14d, 1y6m or 2w3d12h")
        return cls(years * 12 + months, datetime.timedelta(weeks=weeks, days=days, hours=hours))

    def before(self, time: datetime.datetime) -> datetime.datetime:
        """The moment that lies this long before ``time``; the 31st of a shorter month is its last day."""
        month = time.year * 12 + time.month - 1 - self.months
        year, month = divmod(month, 12)
        if year < 1:
            return datetime.datetime.min.replace(tzinfo=time.tzinfo)
        day = min(time.day, calendar.monthrange(year, month + 1)[1])
        try:
            return time.replace(year=year, month=month + 1, day=day) - self.rest
        except OverflowError:
            return datetime.datetime.min.replace(tzinfo=time.tzinfo)


@dataclasses.dataclass(frozen=True)
class Policy:
    """How many savesets of each volume to keep: the newest ``last``, and the newest of so many hours, days and so on.

    ``within`` keeps every saveset that is at most so much older than the volume's newest one (see Duration.parse()).
    ``consistent`` keeps the latest application-consistent saveset of every volume, whatever the rest says.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""
    consistent: bool = True

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("last", *_PERIODS)}
        for name, count in counts.items():
            if not 0 <= count <= _COUNT_MAX:
                raise InvalidValue(f"keep {name} {count}", "it is no number of savesets", "Give 0 or more")
        if self.within:
            Duration.parse(self.within)
        elif not any(counts.values()):
            raise InvalidValue(
                "the retention policy",
                "it keeps nothing: no rule is set",
                "Set at least one, like last 3; to remove savesets one by one, forget them by their ids",
            )


@dataclasses.dataclass(frozen=True)
class Decision:
    """What becomes of a saveset: it stays for these reasons, or it goes when there are none."""

    info: SavesetInfo
    reasons: tuple[str, ...]

    @property
    def keep(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def decide(
    policy: Policy, savesets: t.Iterable[SavesetInfo], pins: t.Mapping[str, str] | None = None
) -> list[Decision]:
    """What becomes of each saveset, by volume and then oldest first.

    :param savesets: all of every volume that they are of: a rule counts what it is shown.
    :param pins: ids of savesets that stay in any case -> why.
    """
    volumes: dict[str, list[SavesetInfo]] = collections.defaultdict(list)
    for info in savesets:
        volumes[info.volume].append(info)
    decisions = []
    for volume in sorted(volumes):
        newest_first = sorted(volumes[volume], key=lambda info: (info.time, info.id), reverse=True)
        reasons = _reasons(policy, newest_first, pins or {})
        decisions += [Decision(info, tuple(reasons[info.id])) for info in reversed(newest_first)]
    return decisions


def _reasons(policy: Policy, newest_first: t.Sequence[SavesetInfo], pins: t.Mapping[str, str]) -> dict[str, list[str]]:
    """Why each saveset of one volume stays, by id."""
    reasons: dict[str, list[str]] = {info.id: [] for info in newest_first}
    for number, info in enumerate(newest_first[: policy.last], 1):
        reasons[info.id].append(f"last {number} of {policy.last}")
    for rule, period_of in _PERIODS.items():
        for info, period in _newest_of_periods(newest_first, period_of, getattr(policy, rule)):
            reasons[info.id].append(f"{rule} {period}")
    if policy.within:
        begin = Duration.parse(policy.within).before(newest_first[0].time)
        for info in newest_first:
            if info.time >= begin:
                reasons[info.id].append(f"within {policy.within} of the newest")
    consistent = next((info for info in newest_first if info.verdict == CONSISTENT), None)
    if policy.consistent and consistent is not None:
        reasons[consistent.id].append(f"latest {CONSISTENT}")
    for info in newest_first:
        if info.id in pins:
            reasons[info.id].append(f"pinned {pins[info.id]}".rstrip())
    return reasons


def _newest_of_periods(
    newest_first: t.Sequence[SavesetInfo], period_of: t.Callable[[datetime.datetime], str], count: int
) -> t.Iterator[tuple[SavesetInfo, str]]:
    """The newest saveset of each of the last ``count`` periods that have one."""
    last = ""
    for info in newest_first:
        period = period_of(info.time.astimezone(datetime.timezone.utc))
        if period == last:
            continue
        if not count:
            return
        yield info, period
        last = period
        count -= 1

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention: which savesets are kept, and why.  Pure: no input or output, and no clock.

Every rule is applied to each volume separately, from its newest saveset to its oldest in their order (see
:mod:`.order`), in UTC.  What does not fit into that order is set aside: it is kept, and no rule counts it.

``daily: 7`` keeps the newest saveset of each of the last seven days that have one; hours, ISO weeks, months and years
likewise, as in restic, borg and Proxmox Backup Server.  The rules are independent: a saveset is kept if any of them
keeps it.
"""

from __future__ import annotations

import calendar
import collections
import dataclasses
import datetime
import re
import typing as t

from ..base.errors import InvalidValue
from ..format.commit import SavesetInfo
from ..format.order import Known, set_aside

#: The verdict for which every volume keeps its latest saveset.
CONSISTENT = "application-consistent"

_DURATION = re.compile(r"(?:(\d+)y)?(?:(\d+)m)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?\Z")
_COUNT_MAX = 1_000_000

#: With fewer savesets than this, a percentage is meaningless.
COUNTED = 5
#: The most volumes that a text names.
NAMED = 5

#: A rule that counts periods -> the function that returns the name of a time's period.
_PERIODS: dict[str, t.Callable[[datetime.datetime], str]] = {
    "hourly": lambda time: time.strftime("%Y-%m-%d %H:00"),
    "daily": lambda time: time.strftime("%Y-%m-%d"),
    "weekly": lambda time: "{}-W{:02}".format(*time.isocalendar()),
    "monthly": lambda time: time.strftime("%Y-%m"),
    "yearly": lambda time: time.strftime("%Y"),
}


@dataclasses.dataclass(frozen=True)
class Duration:
    """A calendar duration: months first, then the rest."""

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
        """The time this long before ``time``; the 31st of a shorter month becomes its last day."""
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
    """How many savesets of each volume to keep: the ``last`` newest, and the newest of so many hours, days and so on.

    ``within`` keeps every saveset that is at most this much older than the volume's newest one (see Duration.parse()).
    ``consistent`` keeps the latest application-consistent saveset of every volume, regardless of the other rules.
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
                raise InvalidValue(f"keep {name} {count}", "it is not a valid number of savesets", "Give 0 or more")
        if self.within:
            Duration.parse(self.within)
        elif not any(counts.values()):
            raise InvalidValue(
                "the retention policy",
                "it keeps nothing: no rule is set",
                "Set at least one, such as last 3; to remove single savesets, forget them by their ids",
            )


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision on a saveset: it is kept for these reasons, or forgotten if there are none.

    ``aside``: why it is set aside, which is then one of the reasons; empty if it fits.
    """

    info: SavesetInfo
    reasons: tuple[str, ...]
    aside: str = ""

    @property
    def keep(self) -> bool:
        """Whether it is kept."""
        return bool(self.reasons)


def decide(
    policy: Policy,
    savesets: t.Iterable[SavesetInfo],
    pins: t.Mapping[str, str] | None = None,
    *,
    known: Known | None = None,
    not_after: datetime.datetime | None = None,
) -> list[Decision]:
    """The decision on each saveset, by volume and then in their order.

    :param savesets: for each volume, all of its savesets, because rules count them.
    :param pins: ids of savesets that are kept in any case -> why.
    :param known: the savesets in the run journal; others are set aside. None if there is no journal.
    :param not_after: savesets from after this time are set aside.
    """
    infos = sorted(savesets, key=lambda info: info.place)
    aside = set_aside([info.place for info in infos], known, not_after)
    volumes: dict[str, list[SavesetInfo]] = collections.defaultdict(list)
    for info in infos:
        if info.id not in aside:
            volumes[info.volume].append(info)
    reasons: dict[str, list[str]] = {key: [f"set aside: {why}"] for key, why in aside.items()}
    for in_order in volumes.values():
        reasons.update(_reasons(policy, in_order[::-1]))
    for info in infos:
        if info.id in (pins or {}):
            reasons[info.id].append(f"pinned {(pins or {})[info.id]}".rstrip())
    return [Decision(info, tuple(reasons[info.id]), aside.get(info.id, "")) for info in infos]


def check_share(decisions: t.Sequence[Decision], percent: float, confirmed: int | None) -> str:
    """Why to stop if more than ``percent`` of the savesets of a volume, or of all, would be forgotten; else empty.

    Volumes with fewer than COUNTED savesets are not considered separately. Savesets that are set aside do not count.
    A percentage is no obstacle if ``confirmed`` is exactly the number of savesets to be forgotten.
    """
    counted = [item for item in decisions if not item.aside]
    going = sum(not item.keep for item in counted)
    if going == confirmed:
        return ""
    volumes: dict[str, list[Decision]] = collections.defaultdict(list)
    for item in counted:
        volumes[item.info.volume].append(item)
    volumes = {f"volume {volume}": items for volume, items in volumes.items()}
    too_many = []
    for what, items in [*volumes.items(), ("the repository", counted)]:
        goes = sum(not item.keep for item in items)
        if len(items) >= COUNTED and 100 * goes > percent * len(items):
            too_many.append(f"{goes} of {len(items)} of {what}")
    if not too_many:
        return ""
    more = f" and of {len(too_many) - NAMED} more" if len(too_many) > NAMED else ""
    said = "" if confirmed is None else f"; {confirmed} were confirmed"
    return (
        f"{going} savesets would be forgotten, which is more than {percent:g} % ({', '.join(too_many[:NAMED])}{more})"
        f"{said}: the policy is new, the last prune was long ago, or the times of savesets are wrong"
    )


def _reasons(policy: Policy, newest_first: t.Sequence[SavesetInfo]) -> dict[str, list[str]]:
    """The reasons to keep each saveset of one volume, by id; all fit into the order."""
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
    return reasons


def _newest_of_periods(
    newest_first: t.Sequence[SavesetInfo], period_of: t.Callable[[datetime.datetime], str], count: int
) -> t.Iterator[tuple[SavesetInfo, str]]:
    """The newest saveset of each of the last ``count`` periods that have one."""
    last = ""
    for info in newest_first:
        period = period_of(info.time.astimezone(datetime.UTC))
        if period == last:
            continue
        if not count:
            return
        yield info, period
        last = period
        count -= 1

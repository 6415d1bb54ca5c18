# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of savesets, and those that do not fit into it.  Pure: reads no clock.

A saveset's ``sequence`` is one more than the highest that its volume had when its backup began, so the order does not
depend on a clock.  Two concurrent backups of one volume may get the same number: then the earlier consistency point
comes first, and of equal ones the smaller id.

What does not fit is *set aside*: it is never the latest, and no retention rule counts or forgets it.  Setting one more
saveset aside never makes a rule forget more of the others.
"""

from __future__ import annotations

import bisect
import datetime
import typing as t

#: No backup assigns a number that is higher than the one before it by more than this.
LEAP = 1 << 32
#: How far clocks may differ.
CLOCK_LIMIT = datetime.timedelta(seconds=60)
#: The highest possible number; every JSON reader represents it exactly.
SEQUENCE_MAX = (1 << 53) - 1


class Place(t.NamedTuple):
    """A saveset's place in the order; ``time`` is its consistency point, UTC."""

    volume: str
    sequence: int
    time: datetime.datetime
    id: str


#: The savesets in a run journal, by id.
Known = t.Mapping[str, Place]


def next_sequence(places: t.Iterable[Place]) -> int:
    """The number of a volume's next saveset; ``places`` are all that it has, and a leap in them is not followed."""
    highest = 0
    for place in sorted(places):
        if place.sequence - highest <= LEAP:
            highest = place.sequence
    return min(highest + 1, SEQUENCE_MAX)


def set_aside(
    places: t.Iterable[Place], known: Known | None = None, not_after: datetime.datetime | None = None
) -> dict[str, str]:
    """The savesets that do not fit, by id, with the reason; ``places`` has all savesets of any number of volumes.

    :param known: the savesets in the journal; None if there is none, and only the order decides.
    :param not_after: a time after which no consistency point can be.
    """
    volumes: dict[str, list[Place]] = {}
    for place in sorted(places):
        volumes.setdefault(place.volume, []).append(place)
    found: dict[str, str] = {}
    for of_volume in volumes.values():
        found.update(_unknown(of_volume, known) if known is not None else _leaping(of_volume))
        if not_after is not None:
            found.update(in_the_future([place for place in of_volume if place.id not in found], not_after))
        found.update(_out_of_time([place for place in of_volume if place.id not in found]))
    return found


def _unknown(places: t.Iterable[Place], known: Known) -> dict[str, str]:
    """The savesets that the journal does not have, or has with other values."""
    reasons = {place.id: "the journal does not know it" for place in places if place.id not in known}
    for place in places:
        if place.id not in reasons and known[place.id] != place:
            reasons[place.id] = "the journal has another volume, time or number for it"
    return reasons


def _leaping(places: t.Iterable[Place]) -> dict[str, str]:
    """The savesets with numbers that no backup assigned."""
    reasons, before = {}, 0
    for place in places:
        if place.sequence - before > LEAP:
            reasons[place.id] = f"its number {place.sequence} leaps: the one before it is {before}"
        else:
            before = place.sequence
    return reasons


def in_the_future(places: t.Iterable[Place], not_after: datetime.datetime) -> dict[str, str]:
    """The savesets whose time is after ``not_after``, which is based on this host's clock, by id, with the reason."""
    return {place.id: "its time is in the future of this host's clock" for place in places if place.time > not_after}


def _out_of_time(places: t.Sequence[Place]) -> dict[str, str]:
    """The savesets dated by a wrong clock, whether ahead or behind.

    The last saveset is trusted, together with as many others as possible that contradict neither it nor each other:
    the longest series of times that never go back and that ends with its own.  Of equally long series, the later
    savesets count.
    """
    believed = _longest(places)
    inside = set(believed)
    reasons: dict[str, str] = {}
    following = 0
    for number, place in enumerate(places):
        if number in inside:
            following += 1
            continue
        after = places[believed[following]]
        if place.time > after.time:
            reasons[place.id] = f"its time is after that of {_told(after)}, which came later"
        else:
            reasons[place.id] = (
                f"its time is before that of {_told(places[believed[following - 1]])}, which came earlier"
            )
    return reasons


def _longest(places: t.Sequence[Place]) -> list[int]:
    """The indices in ``places`` of that series (patience sorting)."""
    ends: list[datetime.datetime] = []  # by length, the earliest time with which a series of that length ends
    last: list[int] = []  # the index of that place
    before: list[int] = []
    for number, place in enumerate(places):
        length = bisect.bisect_right(ends, place.time)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [place.time]
        last[length : length + 1] = [number]
    found = [len(places) - 1] if places else []
    while found and before[found[-1]] >= 0:
        found.append(before[found[-1]])
    return found[::-1]


def _told(place: Place) -> str:
    return f"saveset {place.id} ({place.time:%Y-%m-%dT%H:%M:%SZ})"

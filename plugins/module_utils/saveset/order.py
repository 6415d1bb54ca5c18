# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which savesets came, and those that do not fit into it.  Pure: no clock is asked.

A saveset's ``sequence`` is one more than the highest that its volume had when its backup began, so the order rests on
no clock.  Two backups of one volume at once may get the same number: the earlier consistency point comes first then,
and of equal ones the smaller id.

What does not fit is *set aside*: it is never the latest, counts in no rule of retention and is never forgotten by one.
To set one more aside never makes a rule forget more of the others.
"""

from __future__ import annotations

import datetime
import typing as t

#: A number that is higher than the one before it by more than this was given by no backup.
LEAP = 1 << 32
#: The highest number that there can be; every JSON reader has it exactly.
SEQUENCE_MAX = (1 << 53) - 1


class Place(t.NamedTuple):
    """A saveset's place in the order; ``time`` is its consistency point, UTC."""

    volume: str
    sequence: int
    time: datetime.datetime
    id: str


#: What a run journal knows, by the savesets' ids.
Known = t.Mapping[str, Place]


def next_sequence(places: t.Iterable[Place]) -> int:
    """The number of a volume's next saveset after those at ``places``, all that it has; a leap is not followed."""
    highest = 0
    for place in sorted(places):
        if place.sequence - highest <= LEAP:
            highest = place.sequence
    return min(highest + 1, SEQUENCE_MAX)


def set_aside(
    places: t.Iterable[Place], known: Known | None = None, not_after: datetime.datetime | None = None
) -> dict[str, str]:
    """The savesets that do not fit, each by its id with the reason; of any number of volumes, of each all that it has.

    :param known: what the journal knows; None where there is none, and the order alone rules.
    :param not_after: a moment that no consistency point can lie after.
    """
    volumes: dict[str, list[Place]] = {}
    for place in sorted(places):
        volumes.setdefault(place.volume, []).append(place)
    found: dict[str, str] = {}
    for of_volume in volumes.values():
        found.update(_unknown(of_volume, known) if known is not None else _leaping(of_volume))
        if not_after is not None:
            found.update(_future([place for place in of_volume if place.id not in found], not_after))
        found.update(_overtaken([place for place in of_volume if place.id not in found]))
    return found


def _unknown(places: t.Iterable[Place], known: Known) -> dict[str, str]:
    """What the journal does not know, or knows otherwise."""
    reasons = {place.id: "the journal does not know it" for place in places if place.id not in known}
    for place in places:
        if place.id not in reasons and known[place.id] != place:
            reasons[place.id] = "the journal knows another volume, time or number of it"
    return reasons


def _leaping(places: t.Iterable[Place]) -> dict[str, str]:
    """Numbers that were given by nobody who counted."""
    reasons, before = {}, 0
    for place in places:
        if place.sequence - before > LEAP:
            reasons[place.id] = f"its number {place.sequence} leaps, as that before it is {before}"
        else:
            before = place.sequence
    return reasons


def _future(places: t.Iterable[Place], not_after: datetime.datetime) -> dict[str, str]:
    return {place.id: "its time lies in the future of this host's clock" for place in places if place.time > not_after}


def _overtaken(places: t.Sequence[Place]) -> dict[str, str]:
    """What lies, in time, after one that came later: a clock was wrong then, and the later one is believed."""
    reasons: dict[str, str] = {}
    first: Place | None = None
    for place in reversed(places):
        if first is not None and place.time > first.time:
            reasons[place.id] = (
                f"its time lies after that of saveset {first.id} ({first.time:%Y-%m-%dT%H:%M:%SZ}), which came later"
            )
        else:
            first = place
    return reasons

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments and spans of time, for machines and for people."""

from __future__ import annotations

import datetime

MINUTE, HOUR, DAY = 60, 3600, 86400
SCALES = [(2 * DAY, DAY, "d", HOUR, "h"), (HOUR, HOUR, "h", MINUTE, "min"), (MINUTE, MINUTE, "min", 1, "s")]
"""The least seconds for which a unit is used, and its smaller unit. Days are used from two on: targets of a day are
common, and a day and some minutes must not look as if they met one."""


def parse(text: str) -> datetime.datetime:
    """Parse a moment in ISO 8601, also with ``Z``; UTC where it has no time zone. Raises ValueError."""
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)


def epoch(time: datetime.datetime) -> float:
    """Seconds since the epoch; a moment without a time zone, such as Ansible's ``now(utc=true)``, counts as UTC.

    Its own ``timestamp()`` would take it for local time, and be hours off wherever that is not UTC.
    """
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()


def seconds_from(first: str, second: str) -> float:
    """Seconds from one moment (ISO 8601) to another; negative where the second is the earlier one."""
    return round((parse(second) - parse(first)).total_seconds(), 3)


def moment(text: str) -> str:
    """A moment for people, always in UTC: ``2026-11-28 21:00:03 UTC``; a dash where there is none."""
    if not text:
        return "–"
    return parse(text).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """A duration for people: ``4 min 03 s``; with a minus sign where it ended before it began; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds:.2f} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.1f} s"
    dummy, unit, name, part, part_name = next(scale for scale in SCALES if whole >= scale[0])
    count, rest = divmod(whole, unit)
    return f"{count} {name} {rest // part:02d} {part_name}" if rest // part else f"{count} {name}"

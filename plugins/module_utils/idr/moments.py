# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments and spans of time, for machines and for people."""

from __future__ import annotations

import datetime

MINUTE, HOUR, DAY = 60, 3600, 86400
SCALES = [(2 * DAY, DAY, "d", HOUR, "h"), (HOUR, HOUR, "h", MINUTE, "min"), (MINUTE, MINUTE, "min", 1, "s")]
"""From how many seconds on a unit is used, and with which smaller one. Targets of a day are common, and a day and some
minutes must not look as if they met one: so days begin at two."""


def parse(text: str) -> datetime.datetime:
    """A moment in ISO 8601, also with ``Z``; in UTC where it names no zone. Raises ValueError."""
    time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=datetime.timezone.utc)


def seconds_from(first: str, second: str) -> float:
    """Seconds from one moment (ISO 8601) to another; negative where the second is the earlier one."""
    return round((parse(second) - parse(first)).total_seconds(), 3)


def moment(text: str) -> str:
    """A moment for people, always in UTC: ``2026-11-28 21:00:03 UTC``; a dash where there is none."""
    if not text:
        return "–"
    return parse(text).astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """A span of time for people: ``4 min 03 s``; a dash where there is none."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds:.2f} s" if seconds else "0 s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.1f} s"
    dummy, unit, name, part, part_name = next(scale for scale in SCALES if whole >= scale[0])
    count, rest = divmod(whole, unit)
    return f"{count} {name} {rest // part:02d} {part_name}" if rest // part else f"{count} {name}"

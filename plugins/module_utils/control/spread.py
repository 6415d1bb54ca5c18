# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Spreads the backups of servers over backup servers, so that the last one ends as early as possible.

Longest first: each backup, beginning with the longest, goes to the backup server that would end it first. This is never
more than a third longer than the best possible spread, and needs no search.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: Seconds that a backup takes however little it reads: a job is started, LUNs are opened, savesets are committed.
OVERHEAD = 2.0
#: Bytes per second that are expected where nothing has been measured yet. Only its ratio to OVERHEAD matters.
USUAL_RATE = 100e6
#: How many of a server's latest backups count. Older ones say little about its next one.
LATEST = 3


class Reading(NamedTuple):
    """What one earlier backup of a server has read, and in how many seconds."""

    bytes_read: int
    seconds: float


class Work(NamedTuple):
    """What is known of a server's next backup."""

    size: int
    """Bytes that are read if all of it is."""
    past: tuple[Reading, ...] = ()
    """Its earlier backups, the oldest first."""
    whole: bool = False
    """Whether all of it will be read in any case."""


class Job(NamedTuple):
    """A backup to be assigned."""

    server: str
    seconds: float
    hosts: tuple[str, ...]
    """The backup servers that can do it; with a single one, it is pinned to that."""


def expected_seconds(works: Mapping[str, Work]) -> dict[str, float]:
    """By server, the seconds that its backup is expected to take, from the rate and the amount of the latest ones.

    A server without a measured rate is expected to have the median of the others' rates.
    """
    latest = {server: work.past[-LATEST:] for server, work in works.items()}
    rates = {server: _rate(readings) for server, readings in latest.items()}
    measured = [rate for rate in rates.values() if rate]
    usual = statistics.median(measured) if measured else USUAL_RATE
    return {
        server: OVERHEAD + _expected_bytes(work, latest[server]) / (rates[server] or usual)
        for server, work in works.items()
    }


def _rate(readings: Iterable[Reading]) -> float:
    """Bytes per second over these backups together; 0 if they measured none."""
    readings = list(readings)
    seconds = sum(reading.seconds for reading in readings)
    return sum(reading.bytes_read for reading in readings) / seconds if seconds > 0 else 0.0


def _expected_bytes(work: Work, readings: Iterable[Reading]) -> int:
    """A first backup reads everything. Later ones read what has changed, and one exception among them counts little."""
    amounts = [reading.bytes_read for reading in readings]
    return work.size if work.whole or not amounts else statistics.median_low(amounts)


def assign(jobs: Iterable[Job], slots: Mapping[str, int]) -> dict[str, str]:
    """By server, the backup server that backs it up; without the servers that none of the known ones can back up.

    ``slots``: by backup server, how many backups it runs at once; 0 is no limit. Pinned backups are assigned first.
    The result depends on nothing but the arguments: where two are equal, the name decides.
    """
    wanted = [job._replace(hosts=tuple(host for host in job.hosts if host in slots)) for job in jobs]
    ends = {host: [0.0] * (count or max(1, len(wanted))) for host, count in slots.items()}
    found = {}
    for job in sorted(wanted, key=lambda job: (len(job.hosts) > 1, -job.seconds, job.server)):
        if job.hosts:
            host = min(job.hosts, key=lambda host: (min(ends[host]), sum(ends[host]), host))
            ends[host][ends[host].index(min(ends[host]))] += job.seconds
            found[job.server] = host
    return found

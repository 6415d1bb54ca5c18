# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How backups are spread over backup servers: what each is expected to take, and where it goes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.spread import (
    OVERHEAD,
    USUAL_RATE,
    Job,
    Reading,
    Work,
    assign,
    expected_seconds,
)

GB = 10**9
BOTH = ("b1", "b2")


def jobs(*seconds: float, hosts: tuple[str, ...] = BOTH) -> list[Job]:
    """Backups of fs1, fs2, ... that take this long."""
    return [Job(f"fs{number}", each, hosts) for number, each in enumerate(seconds, start=1)]


def last_end(wanted: Iterable[Job], chosen: dict[str, str], slots: dict[str, int]) -> float:
    """When the last of these backups ends, if each backup server takes its own in the order of their length."""
    ends = {host: [0.0] * count for host, count in slots.items()}
    for job in sorted(wanted, key=lambda job: -job.seconds):
        mine = ends[chosen[job.server]]
        mine[mine.index(min(mine))] += job.seconds
    return max(itertools.chain(*ends.values()))


def test_without_measurements_the_size_decides() -> None:
    found = expected_seconds({"fs1": Work(100 * GB), "fs2": Work(50 * GB), "fs3": Work(0)})
    assert found == {
        "fs1": OVERHEAD + 100 * GB / USUAL_RATE,
        "fs2": OVERHEAD + 50 * GB / USUAL_RATE,
        "fs3": OVERHEAD,
    }
    assert expected_seconds({}) == {}


def test_a_server_is_expected_to_take_what_its_last_backups_took() -> None:
    past = (Reading(100 * GB, 1000.0), Reading(2 * GB, 10.0), Reading(1 * GB, 10.0), Reading(3 * GB, 20.0))
    (seconds,) = expected_seconds({"fs1": Work(100 * GB, past)}).values()
    assert seconds == pytest.approx(OVERHEAD + 2 * GB / (6 * GB / 40.0))  # the first is too old to count


def test_a_server_that_is_read_as_a_whole_takes_its_size_at_its_rate() -> None:
    past = (Reading(1 * GB, 10.0),)
    (seconds,) = expected_seconds({"fs1": Work(100 * GB, past, whole=True)}).values()
    assert seconds == pytest.approx(OVERHEAD + 1000.0)


def test_a_new_server_is_expected_to_have_the_rate_of_the_others() -> None:
    known = {f"fs{rate}": Work(1, (Reading(rate * GB, 10.0),)) for rate in (1, 2, 9)}
    assert expected_seconds({**known, "new": Work(10 * GB)})["new"] == pytest.approx(OVERHEAD + 50.0)


@pytest.mark.parametrize("past", [(Reading(0, 0.0),), (Reading(0, 10.0),), (Reading(0, 0.0), Reading(0, 5.0))])
def test_a_backup_that_read_nothing_measures_no_rate(past: tuple[Reading, ...]) -> None:
    found = expected_seconds({"fs1": Work(10 * GB, past), "fs2": Work(10 * GB, past, whole=True)})
    assert found == {"fs1": OVERHEAD, "fs2": OVERHEAD + 10 * GB / USUAL_RATE}


def test_the_longest_comes_first_and_goes_to_where_it_ends_first() -> None:
    assert assign(jobs(2, 3, 7, 5), dict.fromkeys(BOTH, 1)) == {"fs3": "b1", "fs4": "b2", "fs2": "b2", "fs1": "b1"}


def test_a_single_backup_server_gets_everything() -> None:
    assert assign(jobs(1, 2, 3, hosts=("b1",)), {"b1": 2}) == dict.fromkeys(["fs1", "fs2", "fs3"], "b1")


def test_equal_backups_alternate_by_name_also_with_slots() -> None:
    for slots in (1, 2, 0):
        found = assign(jobs(1, 1, 1, 1), {"b2": slots, "b1": slots})
        assert found == {"fs1": "b1", "fs2": "b2", "fs3": "b1", "fs4": "b2"}, slots


def test_backups_that_take_no_time_are_spread_all_the_same() -> None:
    sizes = {f"fs{number}": Work(0) for number in range(1, 5)}
    wanted = [Job(server, seconds, BOTH) for server, seconds in expected_seconds(sizes).items()]
    assert sorted(assign(wanted, dict.fromkeys(BOTH, 2)).values()) == ["b1", "b1", "b2", "b2"]


def test_pinned_backups_come_first_and_the_others_go_around_them() -> None:
    pinned = [Job("z1", 5, ("b1",)), Job("z2", 4, ("b1",))]
    found = assign([*jobs(8, 1), *pinned], dict.fromkeys(BOTH, 1))
    assert found == {"z1": "b1", "z2": "b1", "fs1": "b2", "fs2": "b2"}


def test_slots_count() -> None:
    """A backup server with four slots takes four times as many equal ones as one with a single slot."""
    found = assign(jobs(*[10.0] * 10), {"b1": 4, "b2": 1})
    assert sorted(found.values()).count("b1") == 8


def test_what_nobody_known_can_do_is_left_out() -> None:
    wanted = [Job("fs1", 1, ("b9",)), Job("fs2", 1, ()), Job("fs3", 1, ("b9", "b2"))]
    assert assign(wanted, {"b1": 1, "b2": 1}) == {"fs3": "b2"}
    assert assign(jobs(1), {}) == {}


def test_the_order_of_the_arguments_does_not_matter() -> None:
    generator = random.Random(7)
    wanted = jobs(*[generator.choice([1.0, 2.0, 3.5]) for _number in range(30)], hosts=("b1", "b2", "b3"))
    slots = {"b1": 2, "b2": 2, "b3": 1}
    first = assign(wanted, slots)
    for _round in range(20):
        generator.shuffle(wanted)
        hosts = list(slots)
        generator.shuffle(hosts)
        again = [job._replace(hosts=tuple(generator.sample(job.hosts, 3))) for job in wanted]
        assert assign(again, {host: slots[host] for host in hosts}) == first


@pytest.mark.parametrize("seed", range(20))
def test_it_takes_at_most_a_third_longer_than_the_best_spread(seed: int) -> None:
    """The bound of this method for equal slots; compared with every possible spread."""
    generator = random.Random(seed)
    wanted = jobs(*[generator.uniform(1, 10) for _number in range(7)])
    slots = dict.fromkeys(BOTH, 1)
    every = itertools.product(BOTH, repeat=len(wanted))
    spreads = (dict(zip((job.server for job in wanted), hosts, strict=True)) for hosts in every)
    best = min(last_end(wanted, spread, slots) for spread in spreads)
    assert last_end(wanted, assign(wanted, slots), slots) <= best * 4 / 3

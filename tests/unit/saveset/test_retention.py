# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which savesets stay: each rule by example, and what must hold for every policy and every history."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import InvalidValue
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import (
    CONSISTENT,
    Duration,
    Policy,
    decide,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.commit import SavesetInfo
from hypothesis import given
from hypothesis import strategies as st

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def saveset(
    number: int, time: datetime.datetime, volume: str = "fs1/m", verdict: str = "x", sequence: int | None = None
) -> SavesetInfo:
    """A saveset with an id that tells its number, which came the later the smaller that is."""
    place = 1000 - number if sequence is None else sequence
    return SavesetInfo(f"{number:032x}", volume, "run", place, time, verdict, 1, 65536, "", "", "")


def every(step: datetime.timedelta, count: int, **options: t.Any) -> list[SavesetInfo]:
    """``count`` savesets, number 0 at NOON, each one ``step`` older than the one before."""
    return [saveset(number, NOON - number * step, **options) for number in range(count)]


def kept(policy: Policy, savesets: t.Iterable[SavesetInfo], **options: t.Any) -> list[int]:
    """The numbers of the savesets that stay."""
    return sorted(int(item.info.id, 16) for item in decide(policy, savesets, **options) if item.keep)


def test_each_rule_keeps_the_newest_of_its_periods() -> None:
    hours = every(HOUR, 100)
    assert kept(Policy(last=3), hours) == [0, 1, 2]
    assert kept(Policy(hourly=3), hours) == [0, 1, 2]
    # Noon is hour 12 of its day: the newest of the day before is that of 23:00.
    assert kept(Policy(daily=3), hours) == [0, 13, 37]
    # 2026-03-01 is a Sunday, the last day of ISO week 9.
    assert kept(Policy(weekly=2), every(DAY, 20)) == [0, 7]
    assert kept(Policy(monthly=3), every(DAY, 100)) == [0, 1, 29]
    assert kept(Policy(yearly=2), every(DAY, 100)) == [0, 60]


def test_two_in_one_period_count_once_and_empty_periods_do_not_count() -> None:
    savesets = [saveset(0, NOON), saveset(1, NOON - HOUR), saveset(2, NOON - 10 * DAY), saveset(3, NOON - 11 * DAY)]
    assert kept(Policy(daily=2), savesets) == [0, 2]
    assert kept(Policy(hourly=3), savesets) == [0, 1, 2]


def test_periods_are_those_of_utc() -> None:
    east = datetime.timezone(datetime.timedelta(hours=10))
    one = saveset(1, datetime.datetime(2026, 3, 2, 5, tzinfo=east))  # 19:00 UTC of March 1st
    other = saveset(2, datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC))
    assert kept(Policy(daily=5), [one, other]) == [1]


def test_within_counts_from_the_newest_saveset_and_asks_no_clock() -> None:
    assert kept(Policy(within="2d"), every(DAY, 10)) == [0, 1, 2]
    assert kept(Policy(within="1m"), every(DAY, 60)) == list(range(29))
    assert kept(Policy(within="1h"), every(DAY, 3)) == [0]


def test_volumes_are_looked_at_one_by_one() -> None:
    savesets = [*every(DAY, 5), *[saveset(9, NOON - 400 * DAY, volume="fs2/m")]]
    assert kept(Policy(last=1), savesets) == [0, 9]


def test_the_latest_consistent_saveset_stays_and_says_so() -> None:
    savesets = [*every(DAY, 3), saveset(7, NOON - 7 * DAY, verdict=CONSISTENT)]
    savesets.append(saveset(8, NOON - 8 * DAY, verdict=CONSISTENT))
    assert kept(Policy(last=1), savesets) == [0, 7]
    (decision,) = [item for item in decide(Policy(last=1), savesets) if item.info.id == f"{7:032x}"]
    assert decision.reasons == ("latest application-consistent",)
    assert kept(Policy(last=1, consistent=False), savesets) == [0]


def test_pinned_savesets_stay_and_say_why() -> None:
    savesets = every(DAY, 5)
    decisions = decide(Policy(last=1), savesets, {savesets[3].id: "by ada: before the move"})
    assert [(int(item.info.id, 16), item.reasons) for item in decisions if item.keep] == [
        (3, ("pinned by ada: before the move",)),
        (0, ("last 1 of 1",)),
    ]


def test_reasons_of_several_rules_are_all_told() -> None:
    (decision,) = decide(Policy(last=2, daily=1, weekly=1, monthly=1, yearly=1, within="1h"), every(DAY, 1))
    assert decision.reasons == (
        "last 1 of 2",
        "daily 2026-03-01",
        "weekly 2026-W09",
        "monthly 2026-03",
        "yearly 2026",
        "within 1h of the newest",
    )


def test_a_policy_that_keeps_nothing_is_an_error() -> None:
    with pytest.raises(InvalidValue, match="no rule is set"):
        Policy()
    with pytest.raises(InvalidValue, match="no rule is set"):
        Policy(consistent=True)
    with pytest.raises(InvalidValue, match="not a valid number of savesets"):
        Policy(last=-1)


@pytest.mark.parametrize("text", ["7", "d7", "3d2w", "-1d", "1.5d", " 1d", "1d ", "99999999999d"])
def test_durations_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidValue, match="cannot be read"):
        Policy(within=text)


def test_durations_go_by_the_calendar() -> None:
    end_of_march = datetime.datetime(2026, 3, 31, 8, tzinfo=datetime.UTC)
    assert Duration.parse("1m").before(end_of_march) == end_of_march.replace(month=2, day=28)
    assert Duration.parse("1y1m1w1d1h").before(end_of_march) == datetime.datetime(2025, 2, 20, 7, tzinfo=datetime.UTC)
    assert Duration.parse("9999y").before(end_of_march) == datetime.datetime.min.replace(tzinfo=datetime.UTC)


policies = st.builds(
    Policy,
    last=st.integers(1, 4),
    **{rule: st.integers(0, 4) for rule in RULES[1:]},
    within=st.sampled_from(["", "1h", "3d", "2m"]),
    consistent=st.booleans(),
)
histories = st.lists(
    st.tuples(
        st.integers(0, 3 * 365 * 24),
        st.sampled_from(["fs1/m", "fs2/m"]),
        st.sampled_from([CONSISTENT, "crash-consistent"]),
    ),
    max_size=40,
).map(lambda rows: [saveset(n, NOON - row[0] * HOUR, row[1], row[2]) for n, row in enumerate(sorted(rows))])


@given(policies, histories)
def test_every_volume_keeps_its_newest_and_deciding_again_changes_nothing(
    policy: Policy, savesets: list[SavesetInfo]
) -> None:
    decisions = decide(policy, savesets)
    assert sorted(item.info.id for item in decisions) == sorted(info.id for info in savesets)
    survivors = [item.info for item in decisions if item.keep]
    for volume in {info.volume for info in savesets}:
        newest = max((info for info in savesets if info.volume == volume), key=lambda info: info.place)
        assert newest in survivors
    assert kept(policy, survivors) == sorted(int(info.id, 16) for info in survivors)


@given(policies, histories, st.sampled_from(RULES), st.integers(1, 3))
def test_a_larger_count_never_removes_more(policy: Policy, savesets: list[SavesetInfo], rule: str, more: int) -> None:
    larger = dataclasses.replace(policy, **{rule: getattr(policy, rule) + more})
    assert set(kept(policy, savesets)) <= set(kept(larger, savesets))


@given(policies, histories, st.randoms())
def test_the_order_of_savesets_does_not_matter(policy: Policy, savesets: list[SavesetInfo], generator: t.Any) -> None:
    shuffled = list(savesets)
    generator.shuffle(shuffled)
    assert decide(policy, shuffled) == decide(policy, savesets)


@given(policies, histories)
def test_no_rule_keeps_more_than_it_counts(policy: Policy, savesets: list[SavesetInfo]) -> None:
    for volume in {info.volume for info in savesets}:
        reasons = [reason for item in decide(policy, savesets) if item.info.volume == volume for reason in item.reasons]
        for rule in RULES:
            assert sum(reason.startswith(f"{rule} ") for reason in reasons) <= getattr(policy, rule)


@given(histories, st.data())
def test_pins_add_to_what_stays_and_nothing_else(savesets: list[SavesetInfo], data: st.DataObject) -> None:
    policy = Policy(last=1)
    pinned = data.draw(st.sets(st.sampled_from([info.id for info in savesets]))) if savesets else set()
    with_pins = kept(policy, savesets, pins=dict.fromkeys(pinned, "by x"))
    assert set(with_pins) == set(kept(policy, savesets)) | {int(pin, 16) for pin in pinned}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifying what was not verified for a time: what is passed over, what comes first, and what is written down."""

from __future__ import annotations

import datetime
import threading
import types
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import packcheck
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import records as checks
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub

from .conftest import MIB, Lab, MakeImage, noise

WEEK = datetime.timedelta(days=7)
DAY = datetime.timedelta(days=1)
Advance = t.Callable[[datetime.timedelta], None]


@pytest.fixture
def advance(monkeypatch: pytest.MonkeyPatch) -> Advance:
    """Let time pass for records of verifications."""
    passed = datetime.timedelta()

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: t.Any = None) -> t.Any:
            return datetime.datetime.now(tz) + passed

    module = types.SimpleNamespace(datetime=Clock, UTC=datetime.UTC)
    monkeypatch.setattr(checks, "datetime", module)

    def advance(more: datetime.timedelta) -> None:
        nonlocal passed
        passed += more

    return advance


@pytest.fixture
def four(lab: Lab, make_image: MakeImage) -> Lab:
    """A repository with a saveset in each of four packs of 1 MiB."""
    for number in range(4):
        lab.backup(make_image(f"v{number}", MIB, [(0, noise(MIB, number))]), volume=f"fs{number}/m")
    assert len(lab.files("packs")) == 4
    return lab


def flip(path: Path) -> None:
    """Damage a pack's first frame."""
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)


def test_what_was_verified_is_passed_over_until_it_is_old(four: Lab, advance: Advance) -> None:
    first = four.open().verify(depth="full", older_than=WEEK)
    assert first.ok and first.recorded and first.bytes > 4 * MIB
    assert (first.bytes_verified, first.packs_never) == (first.bytes_total, 0) and first.oldest is not None
    advance(6 * DAY)
    second = four.open().verify(depth="full", older_than=WEEK)
    assert (second.bytes, second.oldest, second.bytes_verified) == (0, first.oldest, first.bytes_total)
    advance(2 * DAY)
    third = four.open().verify(depth="full", older_than=WEEK)
    assert third.bytes == first.bytes and third.oldest is not None and third.oldest > first.oldest + WEEK
    assert len(four.files("checks")) == 1


def test_full_covers_stored_and_not_the_other_way(four: Lab, advance: Advance) -> None:
    assert four.open().verify(depth="stored").bytes > 0
    assert four.open().verify(depth="full", older_than=WEEK).bytes > 0
    advance(DAY)
    assert four.open().verify(depth="stored", older_than=WEEK).bytes == 0
    assert len(four.files("checks")) == 1


def test_structure_is_always_verified_whole_and_records_nothing(four: Lab) -> None:
    assert not four.open().verify(depth="structure").recorded
    assert four.files("checks") == []
    four.open().verify(depth="full")
    four.files("packs")[0].unlink()
    assert not four.open().verify(depth="full", older_than=WEEK).ok


def test_damage_is_looked_at_again_each_time(four: Lab, advance: Advance) -> None:
    four.open().verify(depth="full")
    pack = four.files("packs")[1]
    good = pack.read_bytes()
    flip(pack)
    assert four.open().verify(depth="full", older_than=WEEK).ok  # verified a moment ago
    advance(8 * DAY)
    for _number in range(2):
        report = four.open().verify(depth="full", older_than=WEEK)
        assert not report.ok and report.packs_never == 1 and report.oldest is None
        assert report.bytes_verified < report.bytes_total
    pack.write_bytes(good)
    report = four.open().verify(depth="full", older_than=WEEK)
    assert report.ok and report.bytes_verified == report.bytes_total
    assert 0 < report.bytes < 2 * MIB  # only the one that was not whole


def test_rolling_takes_the_oldest_first_and_reaches_all(four: Lab, advance: Advance) -> None:
    seen = []
    for number in range(1, 5):
        report = four.open().verify(depth="full", limit_bytes=1)
        assert report.packs_never == 4 - number and (report.oldest is None) == (number < 4)
        seen.append(report.bytes_verified)
        advance(DAY)
    assert seen == sorted(seen) and seen[-1] == report.bytes_total
    oldest = report.oldest
    report = four.open().verify(depth="full", limit_bytes=1)
    assert (
        report.oldest is not None and oldest is not None and report.oldest - oldest == pytest.approx(DAY, abs=DAY / 9)
    )
    assert len(four.files("checks")) == 1


def test_seconds_are_a_limit_too(four: Lab) -> None:
    report = four.open().verify(depth="full", limit_seconds=0)
    assert MIB < report.bytes < 2 * MIB and report.packs_never == 3


def test_a_verification_that_is_stopped_keeps_what_it_did(four: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packcheck.PackChecker._check_frame
    calls = []

    def stop_in_the_third(self: t.Any, container: t.Any, *arguments: t.Any) -> str:
        calls.append(container.name)
        if len(set(calls)) > 2:
            raise KeyboardInterrupt
        return whole(self, container, *arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packcheck.PackChecker, "_check_frame", stop_in_the_third)
        four.open().verify(depth="full", workers=1)
    report = four.open().verify(depth="full", older_than=WEEK)
    assert report.ok and 2 * MIB < report.bytes < 3 * MIB


def test_records_of_several_are_merged_and_forget_packs_that_went(four: Lab) -> None:
    one, two = four.open(), four.open()
    infos = one.savesets()
    store, ring = one.store, one._ring
    before = checks.Checks(store, ring)
    one.verify(infos[:2], depth="full")
    before.record("stored", {bytes.fromhex(four.files("packs")[0].name)}, set())  # as one that ran at the same time
    assert len(four.files("checks")) == 2
    two.verify(infos[2:], depth="full")
    assert len(four.files("checks")) == 1 and scrub(four.store()) == []
    report = four.open().verify(depth="full", older_than=WEEK)
    assert (report.bytes, report.packs_never) == (0, 0)
    gone = bytes.fromhex(four.files("packs")[0].name)
    four.files("packs")[0].unlink()
    four.open().verify(depth="stored")
    assert checks.Checks(store, ring).last(gone, "stored") is None


@pytest.mark.slow
def test_damaged_records_are_named_and_count_for_nothing(four: Lab) -> None:
    four.open().verify(depth="full")
    (record,) = four.files("checks")
    good = record.read_bytes()
    name = str(record.relative_to(four.path))
    for offset in range(0, len(good), 3):
        content = bytearray(good)
        content[offset] ^= 1 << offset % 8
        record.write_bytes(content)
        assert name in {found for found, _problem in scrub(four.store())}
        report = four.open().verify(depth="structure", older_than=WEEK)
        assert [(problem["object"], problem["saveset"]) for problem in report.problems] == [(name, None)]
        assert checks.Checks(four.store(), four.open()._ring).problems
    report = four.open().verify(depth="full", older_than=WEEK)
    assert report.bytes > 4 * MIB and not report.ok
    assert four.open().verify(depth="full", older_than=WEEK).ok  # the damaged record has made way


def test_a_renamed_record_is_damaged(four: Lab, advance: Advance) -> None:
    four.open().verify(depth="full")
    (record,) = four.files("checks")
    newer = record.with_name(record.name.replace("2", "3", 1))
    record.rename(newer)
    (problem,) = four.open().verify().problems
    assert "renamed" in str(problem["problem"])


def test_a_record_of_the_future_counts_for_nothing(four: Lab, advance: Advance) -> None:
    advance(30 * DAY)
    four.open().verify(depth="full")
    advance(-30 * DAY)
    assert four.open().verify(depth="full", older_than=WEEK).bytes > 4 * MIB


def test_who_may_not_write_verifies_all_the_same(four: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: t.Any) -> t.NoReturn:
        raise errors.StoreError("checks", "Read-only file system", "Mount it writable")

    repo = four.open()
    repo.read_only = True
    assert not repo.verify(depth="full").recorded
    monkeypatch.setattr(LocalStore, "create", refuse)
    report = four.open().verify(depth="full")
    assert report.ok and not report.recorded and report.bytes_verified == report.bytes_total
    assert four.files("checks") == []


def test_packs_that_no_saveset_uses_are_verified_with_the_whole_repository(four: Lab) -> None:
    """The next backup may take chunks out of them."""
    commit = four.files("savesets")[0]
    (pack,) = four.open().find("fs0/m").map.packs()
    commit.unlink()
    path = four.path / "packs" / pack.hex()[:2] / pack.hex()
    good = path.read_bytes()
    assert four.open().verify(depth="full").ok
    flip(path)
    (problem,) = four.open().verify(depth="full").problems
    assert problem["saveset"] is None and "no saveset uses it" in str(problem["problem"])
    assert four.open().verify(four.open().savesets(), depth="full").ok
    path.write_bytes(good[:-10])
    (problem,) = four.open().verify(depth="structure").problems
    assert problem["object"] == f"packs/{pack.hex()[:2]}/{pack.hex()}"


def test_a_single_large_pack_uses_all_workers(lab: Lab, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.backup(make_image("large", 24 * MIB, [(0, noise(24 * MIB))]))
    assert len(lab.files("packs")) == 1
    whole = packcheck.PackChecker._check_part
    together = threading.Barrier(3, timeout=20)

    def wait_for_the_others(self: t.Any, part: t.Any) -> None:
        together.wait()  # breaks unless three parts of the pack are checked at once
        whole(self, part)

    monkeypatch.setattr(packcheck, "_PART_BYTES", 9 * MIB)
    monkeypatch.setattr(packcheck.PackChecker, "_check_part", wait_for_the_others)
    assert lab.open().verify(depth="full", workers=3).ok

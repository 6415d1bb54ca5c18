# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No clock decides a deletion, nor which saveset is the latest: the order does, and what does not fit is set aside."""

from __future__ import annotations

import datetime
import itertools
import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.control import text as texts
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import prune as engine_prune
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import (
    Policy,
    check_share,
    decide,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import order
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.commit import SavesetInfo
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.document import (
    decode_document,
    sign_document,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import Saveset
from ansible_collections.openisb.backup.plugins.modules import saveset_prune
from hypothesis import given
from hypothesis import strategies as st

from .conftest import KIB, NOON, Cli, Lab, MakeImage

DAY = datetime.timedelta(days=1)
DECADE = 3653 * DAY
ANY_TIME = datetime.timedelta(days=36500)
VOLUME = "fs1/m"


def info(sequence: int, time: datetime.datetime, volume: str = VOLUME, number: int | None = None) -> SavesetInfo:
    """A saveset whose id tells its number, which is that in the order where none is given."""
    name = f"{sequence if number is None else number:032x}"
    return SavesetInfo(name, volume, "run", sequence, time, "x", 1, 65536, "", "", "")


def daily(count: int, volume: str = VOLUME) -> list[SavesetInfo]:
    """Savesets 1 to ``count``, one a day, the last one at NOON."""
    return [info(number, NOON - (count - number) * DAY, volume) for number in range(1, count + 1)]


def gone(decisions: t.Iterable[t.Any]) -> list[int]:
    return [int(item.info.id, 16) for item in decisions if not item.keep]


def aside(decisions: t.Iterable[t.Any]) -> list[int]:
    return [int(item.info.id, 16) for item in decisions if item.aside]


# -- retention


def test_a_saveset_ten_years_ahead_removes_nothing_within() -> None:
    """What was found: of 13 savesets of the last 13 days, within 14 days, it let all go but itself."""
    savesets = [*daily(13), info(14, NOON + DECADE)]
    decisions = decide(Policy(within="14d"), savesets, not_after=NOON + DAY)
    assert gone(decisions) == [] and aside(decisions) == [14]
    # It is none either once one has come after it, and no clock is asked then.
    later = [*savesets, info(15, NOON + DAY)]
    decisions = decide(Policy(within="14d"), later)
    assert gone(decisions) == [] and aside(decisions) == [14]
    (ahead,) = [item for item in decisions if item.aside]
    assert ahead.reasons == (
        f"set aside: its time is after that of saveset {15:032x} (2026-03-02T12:00:00Z), which came later",
    )
    # Where nothing tells, as this host's clock is wrong, too, the share does.
    decisions = decide(Policy(within="14d"), savesets)
    assert gone(decisions) == list(range(1, 14))
    assert "13 of 14 of volume fs1/m" in check_share(decisions, 50, None)


def test_what_is_set_aside_takes_nobodys_place() -> None:
    savesets = [*daily(5), *[info(5 + number, NOON + DECADE + number * DAY) for number in range(1, 5)]]
    savesets.append(info(10, NOON + DAY))
    decisions = decide(Policy(last=3, consistent=False), savesets)
    assert aside(decisions) == [6, 7, 8, 9]
    assert gone(decisions) == [1, 2, 3]
    assert [item.info.sequence for item in decisions] == list(range(1, 11))


def test_a_pin_of_one_that_is_set_aside_is_still_told() -> None:
    savesets = [info(1, NOON + DECADE), info(2, NOON)]
    (ahead, _right) = decide(Policy(last=1), savesets, {savesets[0].id: "by ada"})
    assert ahead.reasons[1:] == ("pinned by ada",) and ahead.reasons[0].startswith("set aside: ")


def test_equal_times_go_by_the_order_in_which_savesets_came() -> None:
    savesets = [info(number, NOON, number=99 - number) for number in range(1, 6)]
    assert gone(decide(Policy(last=2, consistent=False), savesets)) == [98, 97, 96]


def test_what_the_journal_does_not_know_is_kept_and_counts_for_nothing() -> None:
    honest = daily(6)
    thief = [info(7, NOON + DAY), info(8, NOON + 2 * DAY), info(9, NOON - 4000 * DAY)]
    known = {entry.id: entry.place for entry in honest}
    decisions = decide(Policy(last=3, consistent=False), [*honest, *thief], known=known)
    assert gone(decisions) == [1, 2, 3] and aside(decisions) == [7, 8, 9]
    assert {item.aside for item in decisions if item.aside} == {"the journal does not know it"}
    # Without a journal the order alone rules, and what lies before it in time is believed last.
    assert aside(decide(Policy(last=3, consistent=False), [*honest, *thief])) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_the_journal_knows_otherwise_counts_for_nothing() -> None:
    honest = daily(3)
    known = {entry.id: entry.place._replace(time=entry.time + DECADE) for entry in honest[2:]}
    known |= {entry.id: entry.place for entry in honest[:2]}
    assert aside(decide(Policy(last=1), honest, known=known)) == [3]


def test_nothing_goes_where_the_journal_is_lost() -> None:
    decisions = decide(Policy(last=1), daily(20), known={})
    assert gone(decisions) == [] and len(aside(decisions)) == 20


histories = st.lists(st.integers(-2000, 2000), min_size=1, max_size=25)
policies = st.builds(
    Policy,
    last=st.integers(1, 3),
    daily=st.integers(0, 3),
    monthly=st.integers(0, 3),
    within=st.sampled_from(["", "14d", "6m"]),
    consistent=st.booleans(),
)


@given(policies, histories, st.data())
def test_to_set_another_one_aside_never_removes_more(policy: Policy, days: list[int], data: st.DataObject) -> None:
    """So neither a journal nor a clock that tells of too much can make anything go."""
    savesets = [info(number, NOON + day * DAY) for number, day in enumerate(days, 1)]
    fitting = [entry for entry in savesets if entry.id not in order.set_aside([item.place for item in savesets])]
    some = data.draw(st.sets(st.sampled_from([entry.id for entry in fitting])))
    known = {entry.id: entry.place for entry in fitting if entry.id not in some}
    assert set(gone(decide(policy, fitting, known=known))) <= set(gone(decide(policy, fitting)))


@given(policies, histories, st.lists(st.tuples(st.integers(1, 30), st.integers(-9999, 9999)), max_size=8))
def test_a_thief_changes_nothing_for_what_the_journal_knows(
    policy: Policy, days: list[int], stolen: list[tuple[int, int]]
) -> None:
    honest = [info(number, NOON + day * DAY) for number, day in enumerate(days, 1)]
    thief = [info(sequence, NOON + day * DAY, number=1000 + number) for number, (sequence, day) in enumerate(stolen)]
    known = {entry.id: entry.place for entry in honest}
    assert gone(decide(policy, [*honest, *thief], known=known)) == gone(decide(policy, honest, known=known))


# -- the share


def test_more_than_the_share_is_told_with_how_many_of_how_many() -> None:
    decisions = decide(Policy(last=2, consistent=False), [*daily(10), *daily(10, "fs2/m")])
    said = check_share(decisions, 50, None)
    assert "16 savesets would be forgotten" in said and "more than 50 %" in said
    assert "8 of 10 of volume fs1/m, 8 of 10 of volume fs2/m, 16 of 20 of the repository" in said
    assert check_share(decisions, 80, None) == ""
    assert check_share(decisions, 50, 16) == ""
    assert "; 15 were confirmed" in check_share(decisions, 50, 15)


def test_few_savesets_are_no_share_and_many_small_volumes_are() -> None:
    assert check_share(decide(Policy(last=1), daily(4)), 50, None) == ""
    small = [entry for number in range(5) for entry in daily(4, f"fs{number}/m")]
    said = check_share(decide(Policy(last=1), small), 50, None)
    assert "(15 of 20 of the repository)" in said


def test_a_thief_cannot_hide_a_share_behind_savesets_that_are_set_aside() -> None:
    honest = daily(10)
    known = {entry.id: entry.place for entry in honest}
    many = [info(100 + number, NOON) for number in range(100)]
    decisions = decide(Policy(last=2, consistent=False), [*honest, *many], known=known)
    assert "8 of 10 of volume fs1/m" in check_share(decisions, 50, None)


# -- numbers


def test_the_next_number_follows_the_highest_and_no_leap() -> None:
    places = [entry.place for entry in daily(3)]
    assert order.next_sequence([]) == 1 and order.next_sequence(places) == 4
    leaping = info(order.SEQUENCE_MAX, NOON).place
    assert order.next_sequence([*places, leaping]) == 4
    assert list(order.set_aside([*places, leaping])) == [leaping.id]
    # Where there is a journal, it tells who is a stranger: no number that runs gave is ever a leap.
    assert order.set_aside([*places, leaping], {place.id: place for place in [*places, leaping]}) == {}


@pytest.mark.parametrize("sequence", [0, -1, True, "3", 1.0, None, order.SEQUENCE_MAX + 1])
def test_a_commit_without_a_right_number_is_damaged(lab: Lab, make_image: MakeImage, sequence: t.Any) -> None:
    lab.backup(make_image("a", 64 * KIB))
    (commit,) = lab.files("savesets")
    ring = lab.open()._ring
    fields = {**decode_document("x", commit.read_bytes(), "saveset").fields, "sequence": sequence}
    if sequence is None:
        del fields["sequence"]
    commit.write_bytes(sign_document("saveset", fields, ring.mac))
    infos, ((_name, error),) = lab.open().scan()
    assert infos == [] and isinstance(error, errors.Damaged)


# -- the repository


@pytest.fixture
def image(make_image: MakeImage) -> Path:
    return make_image("image", 64 * KIB)


@pytest.fixture
def ahead(lab: Lab, image: Path) -> Saveset:
    """The latest saveset of a volume, which is ten years ahead: somebody with the key is not held back by a check."""
    for _number in range(3):
        lab.backup(image)
    return lab.backup(image, time=NOON + DECADE, clock_limit=ANY_TIME)


def test_one_that_is_ahead_is_the_latest_only_until_the_next_one_comes(
    lab: Lab, image: Path, ahead: Saveset, cli: Cli
) -> None:
    assert lab.open().find(VOLUME).id == ahead.id
    # Whoever takes it is told so, and which one it is, before and after.
    done = cli("restore", VOLUME, lab.folder / "target")
    told = f"restoring {VOLUME} of 2036-03-01 12:00:00 UTC (run {ahead.run_id}, saveset {ahead.id}, "
    assert told in done.err and told.removeprefix("restoring ") in done.out
    assert f"saveset {ahead.id} of {VOLUME} is out of order, or this host's clock is wrong: its time is" in done.err
    assert "in the future of this host's clock" in cli("list").out
    right = lab.backup(image)
    assert right.time < ahead.time and right.info.sequence == 5
    assert lab.open().find(VOLUME).id == right.id
    after = lab.backup(image)
    assert after.info.parent == right.id
    # So it is for pins and restores from the command line, which name what is set aside.
    assert list(lab.open().set_aside(VOLUME)) == [ahead.id]
    done = cli("pin", VOLUME, "--who", "ada", "--why", "x")
    assert list(lab.open().pins()) == [after.id]
    assert f"saveset {ahead.id} of {VOLUME} is set aside and not the latest" in done.err
    listed = cli("list")
    assert "ASIDE" in listed.out and "which came later" in listed.out
    # By its id it can be had all the same, which is told.
    done = cli("show", f"{VOLUME}:{ahead.id[:12]}")
    assert f"saveset {ahead.id} of {VOLUME} is out of order: its time is after that of" in done.err
    assert lab.open().find(VOLUME, saveset_id=ahead.id).id == ahead.id


def test_the_latest_one_is_no_parent_when_it_is_set_aside(lab: Lab, image: Path, ahead: Saveset) -> None:
    right = lab.backup(image)
    assert right.info.parent == ahead.id  # nothing had come after it yet
    assert lab.backup(image, parent=None).info.parent is None
    assert lab.backup(image).info.parent != ahead.id


def test_two_of_one_run_are_told_apart_by_their_ids(lab: Lab, image: Path) -> None:
    one, two = lab.backup(image, run_id="r"), lab.backup(image, run_id="r")
    with pytest.raises(errors.InvalidValue, match=f"2 savesets of fs1/m have it.*{one.id}, {two.id}"):
        lab.open().find(VOLUME, run_id="r")
    assert lab.open().find(VOLUME, run_id="r", saveset_id=one.id).id == one.id


def test_two_writers_at_once_get_one_number_and_neither_is_set_aside(lab: Lab, make_image: MakeImage) -> None:
    first = lab.backup(make_image("first", 64 * KIB))
    inner: list[Saveset] = []

    def meanwhile(_progress: t.Any) -> None:
        if not inner:
            inner.append(lab.backup(make_image("inner", 64 * KIB)))

    outer = lab.backup(make_image("outer", 64 * KIB), progress=meanwhile)
    assert [first.info.sequence, outer.info.sequence, inner[0].info.sequence] == [1, 2, 2]
    assert outer.time < inner[0].time
    assert [entry.id for entry in lab.open().savesets()] == [first.id, outer.id, inner[0].id]
    assert lab.open().set_aside() == {}
    assert lab.backup(make_image("next", 64 * KIB)).info.sequence == 3


def test_a_consistency_point_in_the_future_is_refused(lab: Lab, image: Path) -> None:
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=5)
    with pytest.raises(errors.InvalidValue, match="ahead of this host's clock; the limit is 60 s"):
        lab.backup(image, time=soon)
    assert lab.files("savesets") == [] and lab.files("packs") == []
    assert lab.backup(image, time=soon, clock_limit=datetime.timedelta(minutes=10)).time == soon


def test_a_consistency_point_before_the_latest_is_backed_up_and_believed(lab: Lab, image: Path) -> None:
    """The clock was ahead and is right now: to refuse would be to go without backups until it has caught up."""
    wrong = lab.backup(image, time=NOON + DAY)
    right = lab.backup(image, time=NOON)
    assert lab.open().find(VOLUME).id == right.id
    assert list(lab.open().set_aside()) == [wrong.id]


def test_a_prune_keeps_what_is_ahead_and_all_that_would_have_gone(lab: Lab, image: Path) -> None:
    for number in range(13):
        lab.backup(image, time=NOON + number * DAY)
    lab.backup(image, time=NOON + 2 * DECADE, clock_limit=ANY_TIME)
    report = lab.open().prune(Policy(within="14d"))
    assert report.forgotten == [] and len(lab.open().savesets()) == 14
    (last,) = [item for item in report.decisions if item.aside]
    assert last.reasons == ("set aside: its time is in the future of this host's clock",)


def test_a_prune_that_would_remove_most_stops_before_it_removes_anything(
    lab: Lab, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the host that prunes is ahead as well, so only the share is left to tell."""
    for number in range(13):
        lab.backup(image, time=NOON + number * DAY)
    lab.backup(image, time=NOON + 2 * DECADE, clock_limit=ANY_TIME)
    monkeypatch.setattr(engine_prune, "CLOCK_LIMIT", ANY_TIME)
    before = sorted(path.name for path in lab.path.rglob("*") if path.is_file())
    told = lab.open().prune(Policy(within="14d"), dry_run=True)
    assert len(told.forgotten) == 13 and "13 of 14 of volume fs1/m" in told.stopped
    with pytest.raises(errors.Unconfirmed, match="Nothing was removed.*confirm it with their number, 13"):
        lab.open().prune(Policy(within="14d"))
    with pytest.raises(errors.Unconfirmed, match="12 were confirmed"):
        lab.open().prune(Policy(within="14d"), options=PruneOptions(confirmed=12))
    assert sorted(path.name for path in lab.path.rglob("*") if path.is_file()) == before
    done = lab.open().prune(Policy(within="14d"), options=PruneOptions(confirmed=13))
    assert len(done.forgotten) == 13 and done.stopped == ""


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_share_is_a_percentage(percent: float) -> None:
    with pytest.raises(errors.InvalidValue, match="it is not from 0 to"):
        PruneOptions(max_percent=percent)


# -- on the command line, and by the module


def test_the_command_stops_and_goes_on_when_the_number_is_confirmed(lab: Lab, image: Path, cli: Cli) -> None:
    for _number in range(6):
        lab.backup(image)
    told = cli("prune", "--keep-last", "1", "--dry-run")
    assert told.status == 0 and "this stops: 5 savesets" in told.err and "--confirm 5" in told.err
    stopped = cli("prune", "--keep-last", "1")
    assert stopped.status == 1 and "5 of 6 of volume fs1/m" in stopped.err
    assert len(lab.open().savesets()) == 6
    assert cli("prune", "--keep-last", "1", "--confirm", "5").status == 0
    assert len(lab.open().savesets()) == 1
    for _number in range(5):
        lab.backup(image)
    assert cli("prune", "--keep-last", "1", "--max-percent", "90").status == 0


def pruned(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], check: bool = False, **options: t.Any
) -> t.Any:
    """What the module returns."""
    arguments = {"repository": str(lab.path), "passphrase": "correct horse", "job": "prune", **options}
    arguments |= {"run_dir": str(tmp_path / "run"), "_ansible_check_mode": check}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        saveset_prune.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_goes_by_what_the_journal_knows(
    lab: Lab, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = [lab.backup(image).info for _number in range(4)]
    thief = [lab.backup(image).info for _number in range(3)]
    known = [
        {"id": entry.id, "volume": entry.volume, "sequence": entry.sequence, "time": entry.time.isoformat()}
        for entry in honest
    ]
    result = pruned(lab, tmp_path, capsys, keep_last=3, known=known)
    assert result["forgotten"] == [honest[0].id]
    assert [item["id"] for item in result["savesets"] if item["aside"]] == [entry.id for entry in thief]
    assert "set aside: the journal does not know it" in texts.prune_summary(result)
    wrong = pruned(lab, tmp_path, capsys, keep_last=3, known=[dict(known[0], time="soon")])
    assert wrong["failed"] and "not ISO 8601" in wrong["msg"]


def test_the_module_says_how_to_confirm(
    lab: Lab, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _number in range(6):
        lab.backup(image)
    told = pruned(lab, tmp_path, capsys, check=True, keep_last=1)
    assert "But this stops: 5 savesets" in texts.prune_summary(told, True)
    assert "-e prune_confirm=5" in texts.prune_summary(told, True)
    stopped = pruned(lab, tmp_path, capsys, keep_last=1)
    assert stopped["failed"] and "-e prune_confirm=5" in stopped["msg"] and len(lab.open().savesets()) == 6
    assert len(pruned(lab, tmp_path, capsys, keep_last=1, confirm=5)["forgotten"]) == 5
    assert pruned(lab, tmp_path, capsys, keep_last=1)["stopped"] == ""


# -- a clock that was wrong for one run


@pytest.mark.parametrize("days", [-3650, -3, 1, 3650], ids=lambda days: f"{days:+d} days")
@pytest.mark.parametrize("at", range(2, 7))
def test_of_a_wrong_clock_one_saveset_is_set_aside_whichever_way_it_was_wrong(at: int, days: int) -> None:
    """A clock behind for one run set aside all that was before it, for good: none was found by a moment any more."""
    savesets = daily(8)
    wrong = savesets[at]
    savesets[at] = info(wrong.sequence, wrong.time + (days + 0.5) * DAY)
    found = order.set_aside([entry.place for entry in savesets])
    assert list(found) == [savesets[at].id]
    why = found[savesets[at].id]
    assert ("is after" in why and "came later" in why) if days > 0 else ("is before" in why and "earlier" in why)
    staying = [number for number in range(1, 9) if number != at + 1][-2:]
    assert gone(decide(Policy(last=2, consistent=False), savesets)) == [
        number for number in range(1, 9) if number not in (at + 1, *staying)
    ]


def test_equal_times_fit() -> None:
    places = [info(number, NOON).place for number in range(1, 5)]
    assert order.set_aside(places) == {}


def test_the_one_that_came_last_is_believed_against_all_others() -> None:
    places = [entry.place for entry in [*daily(5), info(6, NOON - 100 * DAY)]]
    assert list(order.set_aside(places)) == [entry.id for entry in daily(5)]
    # Until the next one has come: then it is the one that was wrong.
    assert list(order.set_aside([*places, info(7, NOON + DAY).place])) == [info(6, NOON).id]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_no_fewer_could_be_set_aside_than_are(days: list[int]) -> None:
    places = [info(number, NOON + day * DAY).place for number, day in enumerate(days, 1)]
    found = order.set_aside(places)
    left = [place.time for place in places if place.id not in found]
    assert left == sorted(left) and places[-1].id not in found
    most = max(
        sum(1 for _time in some)
        for size in range(len(places))
        for some in itertools.combinations([place.time for place in places[:-1]], size)
        if list(some) == sorted(some) and (not some or some[-1] <= places[-1].time)
    )
    assert len(left) == most + 1

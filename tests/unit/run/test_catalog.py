# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of savesets, what the journal knows of them, and what is chosen: a thief's saveset and a wrong clock."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.catalog import (
    bases,
    choose_savesets,
    named,
    out_of_order,
    parents,
    to_adopt,
    unknown_savesets,
    with_places,
)
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal, JournalError, open_runs
from ansible_collections.openisb.backup.plugins.module_utils.journal.known import known_savesets

RUN = "isb-20261123T021500Z-4f1c2a"
VOLUMES = [{"name": "m", "serial": "6001"}]


def saveset(number, time=None, volume="fs1/m", **changes):
    """The ``number``th saveset of a volume, of that day of November where no time is given."""
    return {
        "id": f"{number:032x}",
        "volume": volume,
        "server": volume.partition("/")[0],
        "run_id": f"run-{number}",
        "sequence": number,
        "size": 4096,
        "time": time or f"2026-11-{number:02}T02:15:03.250000+00:00",
        **changes,
    }


HONEST = [saveset(number) for number in range(1, 5)]
#: Ten years ahead, as a thief with the writer's key puts it there, or a host whose clock is wrong.
AHEAD = saveset(5, "2036-11-05T02:15:03+00:00")


def latest(savesets, known=None):
    """What a restore without a run id takes."""
    (chosen,) = choose_savesets(with_places(savesets, known), "fs1", "")["savesets"]
    return chosen["id"]


def test_the_one_that_came_last_is_the_latest_whatever_the_times_are():
    assert latest([AHEAD, *HONEST]) == AHEAD["id"]
    right_again = saveset(6, "2026-11-06T02:15:03+00:00")
    in_order = with_places([right_again, AHEAD, *HONEST], None)
    assert [entry["sequence"] for entry in in_order] == [1, 2, 3, 4, 5, 6]
    assert [entry["sequence"] for entry in in_order if entry["aside"]] == [5]
    assert "came later" in in_order[4]["aside"] and right_again["id"] in in_order[4]["aside"]
    assert latest([right_again, AHEAD, *HONEST]) == right_again["id"]
    assert parents(VOLUMES, "fs1", in_order) == {"6001": right_again["id"]}
    assert bases(VOLUMES, "fs1", in_order) == {"6001": "run-6"}


def test_what_the_journal_does_not_know_is_never_the_latest_nor_a_parent():
    in_order = with_places([AHEAD, *HONEST], HONEST)
    assert [entry["id"] for entry in in_order if entry["unknown"]] == [AHEAD["id"]]
    assert latest([AHEAD, *HONEST], HONEST) == HONEST[-1]["id"]
    assert parents(VOLUMES, "fs1", in_order) == {"6001": HONEST[-1]["id"]}
    told = unknown_savesets(in_order)
    assert AHEAD["id"] in told[-1] and "adopt.yml" in told[0]
    assert unknown_savesets(with_places(HONEST, HONEST)) == []


@pytest.mark.parametrize(
    "changes", [{"time": "2036-11-04T02:15:03+00:00"}, {"sequence": 99}, {"volume": "fs1/files"}], ids=str
)
def test_one_that_is_not_what_the_journal_was_told_counts_as_unknown(changes):
    """A backup server can tell one thing and write another."""
    written = dict(HONEST[-1], **changes)
    in_order = with_places([*HONEST[:-1], written], HONEST)
    (aside,) = [entry for entry in in_order if entry["aside"]]
    assert aside["id"] == written["id"] and aside["unknown"] and "another" in aside["aside"]


def test_an_unknown_one_from_before_does_not_set_the_honest_ones_aside():
    """A thief who dates his saveset back must not make the others look as if they were ahead."""
    back = saveset(9, "1990-01-01T00:00:00+00:00")
    assert [entry["id"] for entry in with_places([*HONEST, back], HONEST) if entry["aside"]] == [back["id"]]


def test_of_a_run_the_one_is_taken_that_the_journal_knows():
    forged = saveset(9, "2026-11-04T03:00:00+00:00", run_id="run-3")
    in_order = with_places([*HONEST, forged], HONEST)
    (chosen,) = choose_savesets(in_order, "fs1", "", "run-3")["savesets"]
    assert chosen["id"] == HONEST[2]["id"]
    stranger = saveset(9, "2026-11-04T03:00:00+00:00", run_id="run-9")
    found = choose_savesets(with_places([*HONEST, stranger], HONEST), "fs1", "", "run-9")
    assert found["savesets"] == []
    assert stranger["id"] in found["problem"] and "adopt.yml" in found["problem"]


def test_one_that_was_set_aside_for_its_time_can_still_be_named_by_its_run():
    right_again = saveset(6, "2026-11-06T02:15:03+00:00")
    everything = [*HONEST, AHEAD, right_again]
    (chosen,) = choose_savesets(with_places(everything, everything), "fs1", "", "run-5")["savesets"]
    assert chosen["id"] == AHEAD["id"]


NOON = 1793880000.0  # 2026-11-05T12:00:00Z


def test_what_is_ahead_of_the_clock_is_named_and_stays_in_its_place():
    """It is the latest one as long as nothing has come after it, so it is not passed over, but nobody may miss it."""
    in_order = with_places([*HONEST, AHEAD], None, NOON)
    assert [entry["sequence"] for entry in in_order if entry["ahead"]] == [5]
    (chosen,) = choose_savesets(in_order, "fs1", "")["savesets"]
    assert named(chosen) == (
        f"fs1/m of 2036-11-05T02:15:03+00:00, run run-5, saveset {AHEAD['id']}; "
        "its time is in the future of this host's clock"
    )
    heading, line = out_of_order(in_order)
    assert "docs/retention.md" in heading and line == named(chosen)
    # A minute is nothing, and without a clock nothing is told.
    assert out_of_order(with_places([*HONEST, saveset(5, "2026-11-05T12:00:59+00:00")], None, NOON)) == []
    assert out_of_order(with_places([*HONEST, AHEAD], None)) == []


def test_a_run_with_a_clock_behind_sets_nothing_else_aside():
    behind = saveset(5, "2016-11-05T02:15:03+00:00")
    in_order = with_places([*HONEST, behind, saveset(6)], None, NOON + 86400)
    _heading, line = out_of_order(in_order)
    assert behind["id"] in line and "is before that of" in line
    assert parents(VOLUMES, "fs1", in_order) == {"6001": saveset(6)["id"]}
    # As long as it is the last one it is the parent all the same, so no run reads all for it.
    assert parents(VOLUMES, "fs1", with_places([*HONEST, behind], None)) == {"6001": behind["id"]}


def test_what_the_journal_does_not_know_is_told_once():
    in_order = with_places([*HONEST, AHEAD], HONEST, NOON)
    assert out_of_order(in_order) == [] and AHEAD["id"] in unknown_savesets(in_order)[-1]


def test_unknown_ones_are_taken_into_the_journal_by_id_or_all_by_their_number():
    in_order = with_places([AHEAD, *HONEST], HONEST[:3])
    one = to_adopt(in_order, HONEST[3]["id"], "")
    assert one["problem"] == "" and [entry["id"] for entry in one["savesets"]] == [HONEST[3]["id"]]
    assert set(one["savesets"][0]) == {"id", "volume", "sequence", "time"}
    refused = to_adopt(in_order, "all", "")
    assert refused["savesets"] == [] and "adopt_confirm=2" in refused["problem"]
    assert len(to_adopt(in_order, "all", "2")["savesets"]) == 2
    assert "complete ids" in to_adopt(in_order, HONEST[0]["id"], "")["problem"]
    assert to_adopt(in_order, "", "") == {"savesets": [], "problem": ""}


def test_the_journal_knows_what_runs_made_and_what_was_taken_into_it(tmp_path):
    journal = Journal(str(tmp_path / "runs.jsonl"))
    journal.append(RUN, "opened")
    # The consistency point is what the controller knew, not what the backup server told.
    told = dict(HONEST[0], time="2036-01-01T00:00:00+00:00", stats={}, metadata={})
    data = {"server": "fs1", "saveset": told, "consistency_point": HONEST[0]["time"]}
    journal.append(RUN, "saveset", data)
    journal.append(RUN, "closed")
    adopted = to_adopt(with_places(HONEST[1:2], []), "all", 1)["savesets"]
    journal.append("isb-20261124T021500Z-4f1c2b", "adopted", {"savesets": adopted, "who": "ada"})
    records = journal.records()
    assert open_runs(records) == []
    known = known_savesets(records, [entry["id"] for entry in [*HONEST, AHEAD]])
    assert known == [{key: entry[key] for key in ("id", "volume", "sequence", "time")} for entry in HONEST[:2]]
    assert [entry["id"] for entry in with_places(HONEST, known) if entry["aside"]] == [
        entry["id"] for entry in HONEST[2:]
    ]
    with pytest.raises(JournalError, match="is not open"):
        journal.append("isb-20261124T021500Z-4f1c2c", "saveset", data)


def test_two_at_once_have_one_number_and_the_order_of_their_times():
    earlier = saveset(4, "2026-11-04T02:15:00+00:00", id="f" * 32)
    in_order = with_places([*HONEST, earlier], None)
    assert [entry["aside"] for entry in in_order] == [""] * 5
    assert latest([*HONEST, earlier]) == HONEST[-1]["id"]
    twin = dict(HONEST[-1], id="f" * 32)
    assert latest([*HONEST, twin]) == latest([twin, *HONEST]) == twin["id"]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run journal: write-ahead, chained, one run at a time."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.journal import (
    GENESIS,
    Journal,
    JournalError,
    chain_problems,
    open_runs,
)

RUN = "isb-20261123T021500Z-4f1c2a"
OTHER = "isb-20261123T031500Z-aaaaaa"


@pytest.fixture
def journal(tmp_path):
    return Journal(str(tmp_path / "journal" / "runs.jsonl"))


def write_run(journal, run_id=RUN, close=True):
    journal.append(run_id, "opened", {"servers": ["fs1"]})
    journal.append(run_id, "freezing")
    if close:
        journal.append(run_id, "closed")


def test_empty_journal(journal):
    assert journal.records() == []
    assert chain_problems([]) == []
    assert open_runs([]) == []


def test_records_are_chained_in_order(journal):
    write_run(journal)
    records = journal.records()
    assert [record["event"] for record in records] == ["opened", "freezing", "closed"]
    assert [record["seq"] for record in records] == [1, 2, 3]
    assert records[0]["previous"] == GENESIS
    assert records[2]["previous"] == records[1]["hash"]
    assert chain_problems(records) == []


def test_only_one_run_is_open_at_a_time(journal):
    write_run(journal, close=False)
    with pytest.raises(JournalError, match=f"run {RUN} is still open.*recover.yml"):
        journal.append(OTHER, "opened")
    journal.append(RUN, "closed")
    journal.append(OTHER, "opened")
    assert [run["run_id"] for run in open_runs(journal.records())] == [OTHER]


def test_open_run_tells_its_last_event(journal):
    write_run(journal, close=False)
    (run,) = open_runs(journal.records())
    assert run["last_event"] == "freezing"
    assert run["data"] == {"servers": ["fs1"]}


def test_events_need_an_open_run(journal):
    with pytest.raises(JournalError, match="is not open"):
        journal.append(RUN, "freezing")


def test_a_run_id_is_never_used_twice(journal):
    write_run(journal)
    with pytest.raises(JournalError, match="was used before"):
        journal.append(RUN, "opened")


def test_a_run_id_has_its_form(journal):
    with pytest.raises(JournalError, match="not a run id"):
        journal.append("../../etc", "opened")


def test_torn_last_line_is_dropped_and_written_over(journal):
    write_run(journal, close=False)
    with open(journal.path, "ab") as stream:
        stream.write(b'{"seq": 3, "ev')
    assert len(journal.records()) == 2
    journal.append(RUN, "closed")
    assert chain_problems(journal.records()) == []
    assert journal.records()[-1]["event"] == "closed"


def test_damage_in_the_middle_is_named(journal):
    write_run(journal)
    path = Path(journal.path)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = "not json"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(JournalError, match="damaged in line 2"):
        journal.records()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda records: records[1]["data"].update(servers=[]), "record 2 was changed"),
        (lambda records: records.pop(1), "record 2 is missing"),
        (lambda records: records[2].update(previous=GENESIS), "record 3 does not follow"),
        (lambda records: records.reverse(), "record 1 is missing"),
    ],
)
def test_tampering_is_found(journal, change, problem):
    write_run(journal)
    records = json.loads(json.dumps(journal.records()))
    change(records)
    assert problem in chain_problems(records)[0]


def append_many(path, count):
    for number in range(count):
        Journal(path).append(RUN, "saveset", {"number": number})


def test_writers_at_once_keep_the_chain(journal):
    journal.append(RUN, "opened")
    writers = [multiprocessing.Process(target=append_many, args=(journal.path, 20)) for dummy in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records = journal.records()
    assert len(records) == 81
    assert chain_problems(records) == []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The run journal: write-ahead, chained, one run at a time."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.journal import files as journal_files
from ansible_collections.openisb.backup.plugins.module_utils.journal import journal as journal_module
from ansible_collections.openisb.backup.plugins.module_utils.journal import lines as journal_lines
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
    GENESIS,
    Journal,
    JournalError,
    chain_problems,
    open_runs,
    record_hash,
)
from ansible_collections.openisb.backup.plugins.modules import run_journal_info
from hypothesis import given, settings
from hypothesis import strategies as st

RUN = "isb-20261123T021500Z-4f1c2a"
OTHER = "isb-20261123T031500Z-aaaaaa"
THIRD = "isb-20261123T041500Z-bbbbbb"


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


def test_a_run_that_was_refused_is_known_but_never_open(journal):
    write_run(journal, close=False)
    journal.append(OTHER, "refused", {"problems": ["fs1: did not answer"], "more": 0})
    assert [run["run_id"] for run in open_runs(journal.records())] == [RUN]
    with pytest.raises(JournalError, match=f"run {RUN} is still open"):
        journal.append(THIRD, "opened")
    with pytest.raises(JournalError, match=f"run {OTHER} is not open"):
        journal.append(OTHER, "closed")
    journal.append(RUN, "closed")
    journal.append(THIRD, "opened")
    assert [run["run_id"] for run in open_runs(journal.records())] == [THIRD]
    assert chain_problems(journal.records()) == []


def test_an_event_of_a_later_version_is_no_open_run(journal, monkeypatch):
    write_run(journal)
    with monkeypatch.context() as later:
        later.setattr(journal_module, "OUTSIDE_RUNS", ("adopted", "refused", "postponed"))
        journal.append(OTHER, "postponed")
    journal.append(THIRD, "opened")
    assert [run["run_id"] for run in open_runs(journal.records())] == [THIRD]


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


# -- what an append costs, and what it must not lose for it


@pytest.fixture
def long(journal):
    """A journal of many runs, the last one of which is open."""
    os.makedirs(os.path.dirname(journal.path))
    records, previous = [], GENESIS
    for number in range(1500):
        run_id = f"isb-20251123T021500Z-{number // 3:06x}"
        event = ("opened", "freezing", "closed")[number % 3]
        record = {"seq": number + 1, "time": "2025-11-23T02:15:00.000000+00:00", "run_id": run_id, "event": event}
        record |= {"data": {"filler": "x" * 300}, "previous": previous}
        record["hash"] = previous = record_hash(record)
        records.append(json.dumps(record, sort_keys=True) + "\n")
    Path(journal.path).write_text("".join(records), encoding="utf-8")
    journal.append(RUN, "opened")
    return journal


@pytest.fixture
def counted(monkeypatch):
    """Bytes that were read of the journal, by what read them."""
    read = []

    class Stream(io.FileIO):
        def read(self, size=-1):
            data = super().read(size)
            read.append(len(data))
            return data

        def readinto(self, buffer):
            count = super().readinto(buffer)
            read.append(count)
            return count

    def counting(path, mode="r", **options):
        if mode not in ("rb", "a+b"):
            return open(path, mode, **options)
        raw = Stream(path, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedReader(raw)

    for module in (journal_module, journal_files):
        monkeypatch.setattr(module, "open", counting, raising=False)
    return read


def test_an_append_reads_what_it_needs_and_not_the_journal(long, counted):
    assert os.path.getsize(long.path) > 800_000
    long.append(RUN, "freezing")
    long.append(RUN, "saveset", {"number": 1})
    assert sum(counted) < 8 * journal_lines.BLOCK
    assert chain_problems(long.records()) == []


def test_damage_far_back_keeps_no_run_from_its_end_and_is_found_by_who_reads_it_all(long):
    """It cannot thaw anything, but a run that cannot be closed stands in the way of all others."""
    content = Path(long.path).read_bytes()
    Path(long.path).write_bytes(b"?" * 40 + content[40:])
    long.append(RUN, "closed")
    assert long.tail(1502)[-1]["event"] == "closed"
    with pytest.raises(JournalError, match="damaged in line 1 "):
        long.records()


def test_a_run_id_from_long_ago_is_not_used_again(long):
    long.append(RUN, "closed")
    with pytest.raises(JournalError, match="was used before"):
        long.append("isb-20251123T021500Z-000000", "opened")
    # What only has it among its data is no run of it.
    long.append(OTHER, "opened", {"run_id": "isb-20991123T021500Z-000000"})
    long.append(OTHER, "closed")
    long.append("isb-20991123T021500Z-000000", "opened")


def test_a_newest_record_without_number_or_hash_is_named(journal):
    write_run(journal, close=False)
    record = json.loads(Path(journal.path).read_text(encoding="utf-8").splitlines()[-1])
    for broken in (dict(record, seq="2"), dict(record, hash=None), {"seq": 2}, [], 7):
        Path(journal.path).write_text(json.dumps(broken) + "\n", encoding="utf-8")
        with pytest.raises(JournalError, match="is damaged in .*keep it as evidence"):
            journal.append(RUN, "closed")


steps = st.lists(
    st.tuples(
        st.sampled_from([RUN, OTHER, THIRD]), st.sampled_from(["opened", "freezing", "adopted", "refused", "closed"])
    ),
    max_size=12,
)


@settings(deadline=None)  # each append waits for the disk
@given(steps, st.booleans(), st.integers(1, 300))
def test_what_may_be_appended_is_what_the_whole_journal_says(taken, exclusive, block):
    """The end of the journal tells what all of it told."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(journal_lines, "BLOCK", block):
        journal = Journal(f"{folder}/runs.jsonl", exclusive)
        for run_id, event in taken:
            records = journal.records()
            running = [run["run_id"] for run in open_runs(records)]
            if event == "opened":
                good = not (exclusive and running) and run_id not in [record["run_id"] for record in records]
            else:
                good = event in ("adopted", "refused") or run_id in running
            try:
                journal.append(run_id, event)
            except JournalError:
                assert not good
            else:
                assert good
        assert chain_problems(journal.records()) == []


def test_a_run_that_is_open_behind_another_one_can_be_closed(journal):
    """No program leaves that behind, but who finds it must be able to mend it."""
    Journal(journal.path, exclusive=False).append(RUN, "opened")
    Journal(journal.path, exclusive=False).append(OTHER, "opened")
    journal.append(OTHER, "closed")
    journal.append(RUN, "closed")
    assert open_runs(journal.records()) == []


@pytest.mark.parametrize("torn", [1, 300, 100_000])
def test_a_torn_line_of_any_length_goes(long, torn):
    with open(long.path, "ab") as stream:
        stream.write(b'{"seq": 9' + b"x" * torn)
    long.append(RUN, "closed")
    records = long.records()
    assert len(records) == 1502 and chain_problems(records) == []


WRITER = """
import sys
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal
for number in range(100000):
    Journal(sys.argv[1]).append(sys.argv[2], "saveset", {"filler": "x" * 5000, "number": number})
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_loses_nothing_that_it_was_told_is_there(journal, project_root):
    journal.append(RUN, "opened")
    environment = {**os.environ, "PYTHONPATH": str(project_root / "collections")}
    for _time in range(5):
        before = len(journal.records())
        command = [sys.executable, "-c", WRITER, journal.path, RUN]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            for _line in range(7):
                last = int(writer.stdout.readline())
            writer.kill()
            told = [int(line) for line in writer.stdout if line.endswith("\n")]
        records = journal.records()
        assert len(records) - before >= (told or [last])[-1] + 1 and chain_problems(records) == []
        journal.append(RUN, "frozen")
    assert chain_problems(journal.records()) == []


def test_the_tail_says_what_the_whole_journal_says_of_it(long):
    long.append(RUN, "freezing")
    for since in (1, 0, 1400, 1501, 1502):
        asked = {"run_id": None, "events": None, "since": since, "savesets": None}
        whole, tail = (read(long, asked) for read in (run_journal_info.read_whole, run_journal_info.read_tail))
        assert {key: tail[key] for key in ("records", "count", "chain_head", "problems")} == {
            key: whole[key] for key in ("records", "count", "chain_head", "problems")
        }
        assert tail["records"] and tail["problems"] == [] and tail["open_runs"] == []
    # A journal that was cut says so by its number.
    cut = run_journal_info.read_tail(long, {"run_id": None, "events": None, "since": 2000})
    assert (cut["count"], cut["records"], cut["chain_head"]) == (1502, [], long.records()[-1]["hash"])
    assert run_journal_info.read_tail(Journal(long.path + "x"), {"since": 1})["count"] == 0


def test_what_was_changed_in_the_tail_is_named_by_its_number(long):
    content = Path(long.path).read_bytes().splitlines(keepends=True)
    content[1495] = content[1495].replace(b"xxx", b"yyy", 1)
    Path(long.path).write_bytes(b"".join(content))
    asked = {"run_id": None, "events": None, "since": 1490, "savesets": None}
    for read in (run_journal_info.read_whole, run_journal_info.read_tail):
        assert read(long, asked)["problems"] == ["record 1496 was changed after it was written"]
    assert run_journal_info.read_tail(long, {**asked, "since": 1498})["problems"] == []


def test_a_journal_is_read_without_having_it_in_memory(long):
    tracemalloc.start()
    try:
        asked = {"run_id": RUN, "events": None, "since": None, "savesets": ["0" * 32]}
        found = run_journal_info.read_whole(long, asked)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["count"] == 1501 and len(found["records"]) == 1
    assert peak < os.path.getsize(long.path) / 4

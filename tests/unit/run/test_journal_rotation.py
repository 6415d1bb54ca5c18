# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large journal is moved aside, and goes on: nothing is lost, whatever happens meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import records
from ansible_collections.openisb.backup.plugins.module_utils.journal import files
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import continuation_problems
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
    GENESIS,
    MAX_BYTES,
    Journal,
    JournalError,
    chain_problems,
    record_hash,
)
from ansible_collections.openisb.backup.plugins.modules import run_journal_info

FIRST, SECOND, THIRD = (f"isb-20261123T02150{number}Z-4f1c2a" for number in range(3))
SMALL = 2000
"""Bytes that a few records fill."""

ALL = {"run_id": None, "events": None, "since": 1, "savesets": ["0" * 32]}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "journal" / "runs.jsonl"), max_bytes=SMALL)


def write_run(journal: Journal, run_id: str, *, close: bool = True) -> None:
    journal.append(run_id, "opened", {"servers": ["fs1"]})
    for number in range(8):
        journal.append(run_id, "filler", {"filler": "x" * 300, "number": number})
    if close:
        journal.append(run_id, "closed")


def older(journal: Journal) -> list[str]:
    return sorted(path for path in os.listdir(os.path.dirname(journal.path)) if path.startswith("runs.jsonl.0"))


def test_the_chain_goes_on_in_a_new_file(journal: Journal) -> None:
    write_run(journal, FIRST)
    write_run(journal, SECOND)
    assert len(older(journal)) > 2 and os.path.getsize(journal.path) < SMALL + 1000
    records = journal.records()
    assert [record["seq"] for record in records] == list(range(1, 21)) and chain_problems(records) == []
    oldest = Path(journal.path).with_name(older(journal)[0]).read_text(encoding="utf-8").splitlines()
    assert older(journal)[0] == f"runs.jsonl.{len(oldest):012}"
    assert records[len(oldest)]["previous"] == json.loads(oldest[-1])["hash"]


def test_the_bound_is_16_mib_and_a_file_of_it_stays(tmp_path: Path) -> None:
    assert Journal("runs.jsonl").max_bytes == MAX_BYTES == 16 * 1024 * 1024
    journal = Journal(str(tmp_path / "runs.jsonl"))
    journal.append(FIRST, "opened")
    exact = Journal(journal.path, max_bytes=os.path.getsize(journal.path))
    exact.append(FIRST, "filler")
    assert older(journal) == []
    exact.append(FIRST, "closed")
    assert older(journal) == ["runs.jsonl.000000000002"]


def test_what_is_in_older_files_still_counts(journal: Journal) -> None:
    saveset = {"id": "0" * 32, "volume": "fs1/data", "sequence": 1, "time": "2026-11-23T02:15:00Z"}
    journal.append(FIRST, "adopted", {"savesets": [saveset]})
    write_run(journal, SECOND, close=False)
    found = run_journal_info.read_whole(journal, ALL)
    assert found["savesets"] == [saveset]
    assert [run["run_id"] for run in found["open_runs"]] == [SECOND]
    assert (found["count"], found["problems"]) == (10, [])
    tail = run_journal_info.read_tail(journal, ALL)
    assert {**tail, "open_runs": found["open_runs"], "savesets": found["savesets"]} == found
    with pytest.raises(JournalError, match=f"run {SECOND} is still open"):
        journal.append(THIRD, "opened")
    journal.append(SECOND, "closed")
    for used in (FIRST, SECOND):
        with pytest.raises(JournalError, match="was used before"):
            journal.append(used, "opened")


def test_a_run_whose_records_are_all_in_older_files_can_be_closed(journal: Journal) -> None:
    drills = Journal(journal.path, exclusive=False, max_bytes=SMALL)
    drills.append(FIRST, "opened")
    write_run(drills, SECOND)
    assert f'"run_id": "{FIRST}"' not in Path(journal.path).read_text(encoding="utf-8")
    drills.append(FIRST, "closed")
    assert run_journal_info.read_whole(drills, ALL)["open_runs"] == []


def test_a_kept_head_of_an_older_file_is_continued(journal: Journal) -> None:
    write_run(journal, FIRST)
    head = {"where": "the copy", "seq": 2, "hash": journal.records()[1]["hash"]}
    write_run(journal, SECOND)
    found = run_journal_info.read_tail(journal, {**ALL, "since": 2})
    assert len(found["records"]) == 19 and continuation_problems(found, [head]) == []
    assert continuation_problems(found, [{**head, "hash": GENESIS}]) != []


def test_a_writer_that_dies_between_the_two_steps_loses_nothing(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(journal, FIRST, close=False)
    before = journal.records()

    def die(path: str) -> None:
        raise KeyboardInterrupt

    eager = Journal(journal.path, max_bytes=0)
    with monkeypatch.context() as patch:
        patch.setattr(records, "sync_folder", die)
        with pytest.raises(KeyboardInterrupt):
            eager.append(FIRST, "closed")
    assert not os.path.exists(journal.path)
    assert journal.records() == before
    assert journal.tail(3) == before[2:]
    # The same where a power loss has torn the first record of the new file.
    for torn in (None, b"", b'{"seq": 10, "ev'):
        if torn is not None:
            Path(journal.path).write_bytes(torn)
        assert journal.records() == before and journal.tail(10) == before[-1:]
    journal.append(FIRST, "closed")
    assert journal.records()[:-1] == before and chain_problems(journal.records()) == []


def test_an_older_file_is_never_replaced(journal: Journal) -> None:
    write_run(journal, FIRST)
    files_before = {name: Path(journal.path).with_name(name).read_bytes() for name in older(journal)}
    taken = Path(f"{journal.path}.{len(journal.records()):012}")
    taken.write_bytes(b"evidence\n")
    Journal(journal.path, max_bytes=0).append(FIRST, "adopted", {"savesets": []})
    assert taken.read_bytes() == b"evidence\n"
    assert all(Path(journal.path).with_name(name).read_bytes() == content for name, content in files_before.items())


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_file_is_reported(journal: Journal, which: int) -> None:
    write_run(journal, FIRST)
    write_run(journal, SECOND)
    missing = Path(journal.path).with_name(older(journal)[which])
    first = json.loads(missing.read_text(encoding="utf-8").splitlines()[0])["seq"]
    missing.unlink()
    (problem,) = run_journal_info.read_whole(journal, ALL)["problems"]
    assert problem.startswith(f"record {first} is missing: found record ")


def test_damage_in_an_older_file_is_named_with_the_file(journal: Journal) -> None:
    write_run(journal, FIRST)
    damaged = Path(journal.path).with_name(older(journal)[0])
    content = damaged.read_text(encoding="utf-8").splitlines()
    damaged.write_text("\n".join([content[0], "not json", *content[2:]]) + "\n", encoding="utf-8")
    with pytest.raises(JournalError, match=rf"{damaged.name} is damaged in line 2 .*all files whose names begin with"):
        journal.records()
    changed = [content[0], content[1].replace("fs1", "fs2").replace("xxx", "yyy", 1), *content[2:]]
    damaged.write_text("\n".join(changed) + "\n", encoding="utf-8")
    assert run_journal_info.read_whole(journal, ALL)["problems"] == ["record 2 was changed after it was written"]


def test_other_files_beside_it_are_not_of_the_journal(journal: Journal) -> None:
    write_run(journal, FIRST)
    for name in ("runs.jsonl.1", "runs.jsonl.000000000001.bak", "runs.jsonl.old", "drills.jsonl.000000000001"):
        Path(journal.path).with_name(name).write_text("not a record\n", encoding="utf-8")
    assert len(journal.records()) == 10


def test_a_reader_sees_one_journal_while_its_file_is_moved_aside(journal: Journal) -> None:
    write_run(journal, FIRST, close=False)
    eager = Journal(journal.path, max_bytes=0)
    for read in (files.forwards, files.backwards):
        before = [line.content for line in read(journal.path)]
        reader: Iterator[files.Line] = read(journal.path)
        seen = [next(reader).content]
        for number in range(3):
            eager.append(FIRST, "filler", {"number": number})
        assert seen + [line.content for line in reader] == before


def test_a_newest_record_that_was_changed_is_not_continued(journal: Journal) -> None:
    journal.append(FIRST, "opened", {"servers": ["fs1"]})
    changed = Path(journal.path).read_text(encoding="utf-8").replace("fs1", "fs2")
    Path(journal.path).write_text(changed, encoding="utf-8")
    with pytest.raises(JournalError, match="was changed after it was written.*keep it as evidence"):
        journal.append(FIRST, "closed")


WRITER = """
import sys
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal
for number in range(100000):
    Journal(sys.argv[1], max_bytes=600).append(sys.argv[2], "filler", {"filler": "x" * 500, "number": number})
    print(number, flush=True)
"""


def test_a_writer_that_is_killed_while_it_moves_files_loses_nothing(journal: Journal, project_root: Path) -> None:
    journal.append(FIRST, "opened")
    environment = {**os.environ, "PYTHONPATH": str(project_root / "collections")}
    for _time in range(3):
        before = len(journal.records())
        command = [sys.executable, "-c", WRITER, journal.path, FIRST]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            assert writer.stdout
            told = [int(writer.stdout.readline()) for _line in range(7)]
            writer.kill()
            told += [int(line) for line in writer.stdout if line.endswith("\n")]
        records = journal.records()
        assert len(records) - before > told[-1] and chain_problems(records) == []
    assert len(older(journal)) > 3


def test_an_append_to_50_mb_reads_some_kib(tmp_path: Path) -> None:
    """Counted by the kernel, whatever call reads."""
    journal = Journal(str(tmp_path / "runs.jsonl"), max_bytes=1 << 30)
    previous = GENESIS
    with open(journal.path, "w", encoding="utf-8") as stream:
        for number in range(1, 513):
            event = "opened" if number == 1 else "filler"
            record: dict[str, Any] = {"seq": number, "time": "2026-11-23T02:15:00Z", "run_id": FIRST, "event": event}
            record.update(data={"filler": "x" * (300 if number > 500 else 100_000)}, previous=previous)
            record["hash"] = previous = record_hash(record)
            stream.write(json.dumps(record, sort_keys=True) + "\n")
    assert os.path.getsize(journal.path) > 50_000_000
    begun = bytes_read()
    journal.append(FIRST, "filler")
    asked = bytes_read() - begun
    Journal(journal.path).append(FIRST, "closed")
    assert bytes_read() - begun - asked < 100_000  # one that moves the file aside
    assert asked < 100_000
    assert len(journal.records()) == 514 and len(older(journal)) == 1
    shutil.rmtree(tmp_path)


def bytes_read() -> int:
    with open("/proc/self/io", encoding="ascii") as stream:
        return int(stream.readline().split()[1])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal: an append-only, hash-chained file of what each run, or each drill, is about to do and has done.

One record per line, as JSON: ``seq``, ``time`` (UTC, ISO 8601), ``run_id``, ``event``, ``data``, ``previous`` (the hash
of the record before) and ``hash`` (SHA-256 over the record without it). A record is on the disk before its writer
continues, so whatever has no record has not begun.

Appending reads the journal backwards, as far as the run's last record, and verifies the newest one. Opening a run scans
all of it for the new run's id, without parsing it. Verifying the chain reads everything, one record at a time.

A file that has become large is moved aside by the next append, and the chain goes on in a new one (``files``). All that
reads a journal reads all its files.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
from typing import Any, Dict, Iterable, Iterator

from ..host.records import sync_folder
from . import files, lines

Record = Dict[str, Any]

RUN_ID = re.compile(r"^isb-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
DRILL_ID = re.compile(r"^idr-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
GENESIS = "0" * 64
MAX_BYTES = 16 << 20
OPENED = "opened"
CLOSED = "closed"
#: The keys of every record.
NEEDED = ("seq", "time", "run_id", "event", "data")
#: Events that belong to no run: savesets that a person had recorded, and a run that was refused before it was opened.
OUTSIDE_RUNS = ("adopted", "refused")


class JournalError(Exception):
    """The journal cannot be read, written or trusted; the text names the file, the cause and the remedy."""


def check_run_id(run_id: str) -> str:
    """Return ``run_id``, or raise JournalError where it does not have the form of a run id or drill id."""
    if not RUN_ID.match(run_id) and not DRILL_ID.match(run_id):
        raise JournalError(
            f"'{run_id}' is not a run id: expected isb-<YYYYMMDD>T<HHMMSS>Z-<6 hex digits>, as isb.yml makes it, or "
            "the same with idr, as idr.yml makes it"
        )
    return run_id


def record_hash(record: Record) -> str:
    """Hash of a record, as 64 hex digits, over its canonical JSON without the hash itself."""
    body = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Chain:
    """Verifies the chain of a journal's records, which are put in one after the other.

    ``since``: the number of the first record; its ``previous`` is taken as given unless it is the journal's first.
    """

    def __init__(self, since: int = 1) -> None:
        self.count = since - 1
        self.head: Any = GENESIS  # or whatever the last record gives as its hash
        self.problems: list[str] = []
        self._previous: Any = GENESIS if since == 1 else None

    def put(self, record: Record) -> None:
        """The next record."""
        self.count += 1
        if not self.problems:
            problem = self._problem(record)
            self.problems += [problem] if problem else []
        self._previous = self.head = record.get("hash")

    def _problem(self, record: Record) -> str:
        seq = self.count
        if record.get("seq") != seq:
            return f"record {seq} is missing: found record {record.get('seq')} in its place"
        if self._previous not in (None, record.get("previous")):
            return f"record {seq} does not follow the record before it"
        if record.get("hash") != record_hash(record):
            return f"record {seq} was changed after it was written"
        return ""


def chain_problems(records: Iterable[Record]) -> list[str]:
    """A text that names the first record where a change, gap or removal shows; empty where the chain is intact."""
    chain = Chain()
    for record in records:
        chain.put(record)
    return chain.problems


class OpenRuns:
    """Finds the runs that were opened and not closed, from a journal's records put in one after the other."""

    def __init__(self) -> None:
        self._runs: dict[str, Record] = {}

    def put(self, record: Record) -> None:
        """The next record."""
        run_id, event = record["run_id"], record["event"]
        if event == OPENED:
            self._runs[run_id] = {"run_id": run_id, "opened": record["time"], "data": record["data"]}
        elif event == CLOSED:
            self._runs.pop(run_id, None)
        if run_id in self._runs:
            self._runs[run_id].update(last_event=event, last_time=record["time"])

    def told(self) -> list[Record]:
        """The open runs, oldest first: dicts of run_id, opened, last_event, last_time and data."""
        return list(self._runs.values())


def open_runs(records: Iterable[Record]) -> list[Record]:
    """Runs that were opened and not closed, as OpenRuns returns them."""
    runs = OpenRuns()
    for record in records:
        runs.put(record)
    return runs.told()


class Journal:
    """The journal at ``path``. Writers are serialised by a lock beside it.

    ``exclusive``: whether only one run may be open at a time. ``max_bytes``: a larger file is moved aside.
    """

    def __init__(self, path: str, exclusive: bool = True, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self.exclusive = exclusive
        self.max_bytes = max_bytes

    def records(self) -> list[Record]:
        """All complete records, oldest first. A last line torn by a power loss was never acknowledged: left out."""
        return list(self.iterate())

    def iterate(self) -> Iterator[Record]:
        """The same records, one after the other: a journal may be larger than memory."""
        return map(self._parse, files.forwards(self.path))

    def tail(self, since: int) -> list[Record]:
        """The records from number ``since`` on, oldest first and at least the newest one, read from the end.

        Earlier records are not read, so the numbering relies on the newest record.
        """
        found: list[Record] = []
        for record in self._newest_first():
            if not found:
                wanted = self._number(record) - max(since, 1) + 1
            found.append(record)
            if len(found) >= wanted:
                break
        return found[::-1]

    def append(self, run_id: str, event: str, data: dict[str, Any] | None = None) -> Record:
        """Write one record; see append_all()."""
        return self.append_all(run_id, event, [data or {}])[0]

    def append_all(self, run_id: str, event: str, batch: list[dict[str, Any]]) -> list[Record]:
        """Write a record of the event for each dict of data, flush them to the disk, and return them.

        Reads no more of the journal than it needs. Raises JournalError where the run may not be opened (another one is
        open) or is not open.
        """
        check_run_id(run_id)
        written: list[Record] = []
        with self._locked():
            newest = self._newest()
            self._check_order(run_id, event)
            for data in batch:
                newest = self._next(newest, run_id, event, data)
                self._write(newest)
                written.append(newest)
        return written

    def _next(self, newest: Record | None, run_id: str, event: str, data: dict[str, Any]) -> Record:
        """The record that follows the newest one."""
        record: Record = {
            "seq": self._number(newest) + 1 if newest else 1,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
            "run_id": run_id,
            "event": event,
            "data": data,
            "previous": newest["hash"] if newest else GENESIS,
        }
        record["hash"] = record_hash(record)
        return record

    def _newest(self) -> Record | None:
        """The newest record, verified: one that follows a changed record would make the change look right."""
        newest = next(self._newest_first(), None)
        if newest:
            self._number(newest)
            if newest["hash"] != record_hash(newest):
                raise self._damaged(self.path, "its last line", "it was changed after it was written")
        return newest

    def _check_order(self, run_id: str, event: str) -> None:
        if event == OPENED:
            self._check_new(run_id)
        elif event not in OUTSIDE_RUNS and not self._is_open(run_id):
            raise JournalError(f"run {run_id} is not open in {self.path}: '{event}' cannot be recorded")

    def _check_new(self, run_id: str) -> None:
        """Ensure that a run is opened only once and, in an exclusive journal, after the previous one was closed."""
        last = next((record for record in self._newest_first() if record["event"] in (OPENED, CLOSED)), None)
        if self.exclusive and last and last["event"] == OPENED:
            raise JournalError(
                f"run {last['run_id']} is still open in {self.path}, so run {run_id} cannot start: wait until it has "
                "ended, or clean it up with 'ansible-playbook recover.yml' if it is no longer running"
            )
        # Only lines that contain the id are parsed, so this costs little more than reading the file.
        name = json.dumps(run_id).encode()
        for line in files.forwards(self.path):
            if name in line.content and self._parse(line)["run_id"] == run_id:
                raise JournalError(f"run id {run_id} was used before: start again with a new one")

    def _is_open(self, run_id: str) -> bool:
        """Whether a run was opened and not closed, by its last record, which is rarely far from the end."""
        for record in self._newest_first():
            if record["run_id"] == run_id and record["event"] not in OUTSIDE_RUNS:
                return bool(record["event"] != CLOSED)
        return False

    def _newest_first(self) -> Iterator[Record]:
        return map(self._parse, files.backwards(self.path))

    def _number(self, record: Record) -> int:
        seq = record.get("seq")
        if not isinstance(seq, int) or not isinstance(record.get("hash"), str):
            raise self._damaged(self.path, "its last line", "it has no number or no hash")
        return seq

    def _parse(self, line: files.Line) -> Record:
        where = f"line {line.number}" if line.number > 0 else f"line {-line.number} from its end"
        try:
            record = json.loads(line.content)
        except ValueError as error:
            raise self._damaged(line.file, where, error) from error
        if not isinstance(record, dict) or not all(key in record for key in NEEDED):
            raise self._damaged(line.file, where, "it is not a record")
        return record

    def _damaged(self, file: str, where: str, why: object) -> JournalError:
        return JournalError(
            f"{file} is damaged in {where} ({why}): move the journal away (all files whose names begin with "
            f"{self.path}), keep it as evidence, and start a new one"
        )

    def _write(self, record: Record) -> None:
        if self._mend() > self.max_bytes:
            files.move_aside(self.path, record["seq"] - 1)
        with open(self.path, "ab") as stream:
            stream.write(json.dumps(record, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(self.path)

    def _mend(self) -> int:
        """Cut off a last line that a power loss has torn; return the size of the file."""
        with open(self.path, "a+b") as stream:
            whole = lines.end_of_whole(stream)
            if stream.seek(0, os.SEEK_END) > whole:
                stream.truncate(whole)
            return whole

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        with open(self.path + ".lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

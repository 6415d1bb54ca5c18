# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal: an append-only, hash-chained file of what each run, or each drill, is about to do and has done.

One record a line, as JSON: ``seq``, ``time`` (UTC, ISO 8601), ``run_id``, ``event``, ``data``, ``previous`` (the hash
of the record before) and ``hash`` (SHA-256 over the record without it). A record is on the disk before its writer goes
on, so a record that is not there describes something that has not begun.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re

RUN_ID = re.compile(r"^isb-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
DRILL_ID = re.compile(r"^idr-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}\Z")
GENESIS = "0" * 64
OPENED = "opened"
CLOSED = "closed"
#: Events that belong to no run: what a person has the journal know.
OUTSIDE_RUNS = ("adopted",)


class JournalError(Exception):
    """The journal cannot be read, written or trusted; the text names the file, the cause and the way out."""


def check_run_id(run_id):
    """Return ``run_id``, of a run or of a drill, or raise JournalError where it has not the form of one."""
    if not RUN_ID.match(run_id) and not DRILL_ID.match(run_id):
        raise JournalError(
            f"'{run_id}' is not a run id: expected isb-<YYYYMMDD>T<HHMMSS>Z-<6 hex digits>, as isb.yml makes it, or "
            "the same with idr, as idr.yml makes it"
        )
    return run_id


def record_hash(record):
    """Hash of a record, as 64 hex digits, over its canonical JSON without the hash itself."""
    body = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def chain_problems(records):
    """Texts that name the first record a change, a gap or a removal shows in; empty where the chain holds."""
    previous = GENESIS
    for seq, record in enumerate(records, start=1):
        if record.get("seq") != seq:
            return [f"record {seq} is missing: found record {record.get('seq')} in its place"]
        if record.get("previous") != previous:
            return [f"record {seq} does not follow the record before it"]
        if record.get("hash") != record_hash(record):
            return [f"record {seq} was changed after it was written"]
        previous = record["hash"]
    return []


def open_runs(records):
    """Runs that were opened and not closed, oldest first: dicts of run_id, opened, last_event, last_time and data."""
    runs = {}
    for record in records:
        run_id = record["run_id"]
        if record["event"] == OPENED:
            runs[run_id] = {"run_id": run_id, "opened": record["time"], "data": record["data"]}
        elif record["event"] == CLOSED:
            runs.pop(run_id, None)
        if run_id in runs:
            runs[run_id].update(last_event=record["event"], last_time=record["time"])
    return list(runs.values())


class Journal:
    """The journal file at ``path``. Writers are serialised by a lock beside it.

    ``exclusive``: whether only one run may be open at a time.
    """

    def __init__(self, path, exclusive=True):
        self.path = path
        self.exclusive = exclusive

    def records(self):
        """All whole records, oldest first. A last line torn by a power loss was never acknowledged and is left out."""
        return [self._parse(number, line) for number, line in enumerate(self._whole_lines(), start=1)]

    def append(self, run_id, event, data=None):
        """Write one record, flushed to the disk, and return it.

        Raises JournalError where the run may not be opened (another one is open) or is not open.
        """
        check_run_id(run_id)
        with self._locked():
            records = self.records()
            self._check_order(records, run_id, event)
            record = {
                "seq": len(records) + 1,
                "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
                "run_id": run_id,
                "event": event,
                "data": data or {},
                "previous": records[-1]["hash"] if records else GENESIS,
            }
            record["hash"] = record_hash(record)
            self._write(record)
        return record

    def _check_order(self, records, run_id, event):
        opened = [run["run_id"] for run in open_runs(records)]
        if event == OPENED:
            if opened and self.exclusive:
                raise JournalError(
                    f"run {opened[0]} is still open in {self.path}, so run {run_id} cannot start: wait for its end, or "
                    "mend it with 'ansible-playbook recover.yml' if it is no longer running"
                )
            if any(record["run_id"] == run_id for record in records):
                raise JournalError(f"run id {run_id} was used before: start again with a new one")
        elif run_id not in opened and event not in OUTSIDE_RUNS:
            raise JournalError(f"run {run_id} is not open in {self.path}: '{event}' cannot be recorded")

    def _parse(self, number, line):
        try:
            return json.loads(line)
        except ValueError as error:
            raise JournalError(
                f"{self.path} is damaged in line {number} ({error}): move the file away, keep it as evidence, and "
                "start a new journal"
            ) from error

    def _whole_lines(self):
        try:
            with open(self.path, "rb") as stream:
                return stream.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def _write(self, record):
        with open(self.path, "ab") as stream:
            self._drop_torn_line(stream)
            stream.write(json.dumps(record, sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        folder = os.open(os.path.dirname(self.path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _drop_torn_line(self, stream):
        whole = sum(len(line) + 1 for line in self._whole_lines())
        if stream.tell() > whole:
            stream.truncate(whole)
            stream.seek(whole)

    @contextlib.contextmanager
    def _locked(self):
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        with open(self.path + ".lock", "a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

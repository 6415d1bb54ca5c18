# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard: a third process, which thaws if holder and partner are both killed or both hang.

Holder and partner share a name and a cgroup, so ``pkill`` or systemd-oomd would end both. So the guard has another name
and leaves the cgroup in which it was started, for its own systemd unit if there is systemd. It has no parent process,
locks its memory and has no file open except a pipe. It ends as soon as nothing is frozen any more.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import Any

from ..host import processes
from ..host.processes import identity, is_running
from . import cgroups, daemon, records, takeover, watch
from .errors import HolderError
from .hold import BY_GUARD, FREEZING, FROZEN, THAWING

NAME = "thaw-guard"
"""The name in ps: no pattern for OpenISB, Ansible or Python matches it, and it is no longer than Python's own path."""

KILLED = "the holder and its partner died or hung before they thawed, and the guard thawed in their place"

PATIENCE = watch.Patience(late=0.65, silence=4.0)
"""Longer than the partner's, so that the partner acts first."""

START_TIMEOUT = 30.0
"""Seconds that the guard may take to start."""

END_PATIENCE = 2.0
"""Seconds to wait for the end of the guard, and of hung processes."""


class Guard:
    """What holder and partner know about the guard. ``told``: what it reported about itself at its start."""

    def __init__(self, writer: int, told: dict[str, Any]) -> None:
        self.teller = watch.Teller(writer)
        self.writer = writer
        self.identity: dict[str, Any] = told["identity"]
        self._facts = {name: told[name] for name in ("place", "renamed", "memory_locked", "oom_protected")}

    def alive(self) -> bool:
        """Whether it runs."""
        return self.teller.is_heard()

    def status(self) -> dict[str, Any]:
        """Its state, for the holder's status."""
        return dict(self._facts, alive=self.alive())

    def dismiss(self) -> None:
        """Report that all is well, so that it ends; kill it if it hangs."""
        self.teller.end()
        end = time.monotonic() + END_PATIENCE
        while is_running(self.identity) and time.monotonic() < end:
            time.sleep(0.005)
        processes.end(self.identity, END_PATIENCE)


def start(run_dir: str, run_id: str, hold_ttl: float) -> Guard:
    """Start the guard of a run; returns once it watches. Raises HolderError if it does not start."""
    reader, writer = os.pipe()
    answers, report = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(reader, report, run_dir, run_id, hold_ttl)
    os.close(reader)
    os.close(report)
    os.waitpid(child, 0)
    try:
        told = _read_report(answers)
    finally:
        os.close(answers)
    if "identity" not in told:
        os.close(writer)
        raise HolderError(f"the holder's guard could not start: {told.get('error', 'it died')}")
    return Guard(writer, told)


def _read_report(answers: int) -> dict[str, Any]:
    message = b""
    while select.select([answers], [], [], START_TIMEOUT)[0]:
        piece = os.read(answers, 65536)
        message += piece
        if not piece:
            told: dict[str, Any] = json.loads(message or b"{}")
            return told
    return {"error": f"it did not answer within {START_TIMEOUT:g} s: find out what keeps that server busy"}


def _in_child(reader: int, report: int, run_dir: str, run_id: str, hold_ttl: float) -> None:
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.setsid()
        _watch(reader, report, run_dir, run_id, hold_ttl)
        status = 0
    finally:
        os._exit(status)


def _watch(reader: int, report: int, run_dir: str, run_id: str, hold_ttl: float) -> None:
    """The main function of the guard."""
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.ignore(number)  # the holder thaws on these
    try:
        daemon.detach([reader, report])
        told = {"renamed": daemon.rename(NAME), "place": cgroups.leave(NAME)}
        protection = daemon.protect()
        told.update(protection._asdict(), identity=identity(os.getpid()))
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}"}
        raise
    finally:
        os.write(report, json.dumps(told).encode())
        os.close(report)
    if watch.lost(reader, hold_ttl, PATIENCE, leave_when_done=True):
        _mend(run_dir, run_id, protection)


def _mend(run_dir: str, run_id: str, protection: daemon.Protection) -> None:
    """Thaw what is on record, once no other process can."""
    record = records.read(run_dir, run_id)
    if record is None:
        return
    processes.end_all([process for process in (record["holder"], record["partner"]) if process], END_PATIENCE)
    takeover.end_session(record["holder"]["pid"])
    record = records.read(run_dir, run_id)  # it may have changed meanwhile
    if record is not None and _is_unfinished(record):
        record["guard"] = None
        takeover.take_over(run_dir, record, protection, (BY_GUARD, KILLED))


def _is_unfinished(record: dict[str, Any]) -> bool:
    return records.may_be_frozen(record) or record["status"]["state"] in (FREEZING, FROZEN, THAWING)

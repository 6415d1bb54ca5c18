# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder: the process that freezes and thaws, and thaws by itself whatever becomes of everybody else."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable

from . import daemon, drivers, partner, records
from .clock import Clock
from .hold import ARMED, BY_COMMAND, FAILED, FREEZING, THAWED, THAWING, Hold, Limits
from .processes import identity
from .server import Server, timeouts

START_TIMEOUT = 30.0
"""Seconds to wait until the holder answers, beyond those that its drivers may take to prepare."""


SAID = {FREEZING: partner.FREEZING, THAWING: partner.THAWING, THAWED: partner.DONE, FAILED: partner.DONE}
"""What the partner is told of the hold's states."""


class Partner:
    """The holder's view of its partner process."""

    def __init__(self, run_dir: str, run_id: str, hold_ttl: float) -> None:
        reader, self._writer = os.pipe()
        holder = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _be_partner(reader, run_dir, run_id, holder, hold_ttl)
        os.close(reader)
        os.set_blocking(self._writer, False)  # a partner that does not read must not keep the holder from thawing
        self.identity = identity(self.pid)
        self._gone = False

    def alive(self) -> bool:
        """Whether it runs. Also takes note of its end, so that no dead process is left."""
        if not self._gone:
            with contextlib.suppress(ChildProcessError):
                self._gone = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return not self._gone

    def follow(self, state: str) -> None:
        """Tell it what the hold is about to do: it counts how long that takes."""
        if state in SAID:
            self._tell(SAID[state])

    def dismiss(self) -> None:
        """Tell it that all is well, so that it ends."""
        self._tell(partner.CLEAN_END)
        os.close(self._writer)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _tell(self, what: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._writer, what)


def _be_partner(reader: int, run_dir: str, run_id: str, holder: int, hold_ttl: float) -> None:
    status = 1
    try:
        partner.watch(reader, run_dir, run_id, holder, hold_ttl)
        status = 0
    finally:
        os._exit(status)


def start(run_dir: str, run_id: str, descriptions: list[dict[str, Any]], limits: Limits) -> None:
    """Start the holder of a run; returns once it answers. Raises HolderError where it does not start."""
    patience = START_TIMEOUT + sum(driver.patience() for driver in drivers.build(descriptions))
    daemon.start(lambda ready: _hold(run_dir, run_id, descriptions, limits, ready), patience)


def _hold(
    run_dir: str, run_id: str, descriptions: list[dict[str, Any]], limits: Limits, ready: Callable[[], None]
) -> None:
    second: Partner | None = None
    try:
        second = Partner(run_dir, run_id, limits.hold_ttl)
        server = _prepare(run_dir, run_id, descriptions, limits, second)
        ready()
        server.serve()
        _forget(server)
    except BaseException:
        # Nothing is frozen before serve(), and whatever goes wrong in it is for the partner to mend.
        if second is not None and not _serving(run_dir, run_id):
            second.dismiss()
        raise
    second.dismiss()


def _serving(run_dir: str, run_id: str) -> bool:
    return os.path.exists(records.record_path(run_dir, run_id))


def _prepare(run_dir: str, run_id: str, descriptions: list[dict[str, Any]], limits: Limits, second: Partner) -> Server:
    clock = Clock()
    built = drivers.build(descriptions, run_id=run_id)
    memory_locked = daemon.lock_memory()
    daemon.protect_from_oom()
    for driver in built:
        driver.prepare()
    record = new_record(run_id, descriptions, limits, second.identity)
    server = Server(Hold(run_id, timeouts(built), limits, clock), built, run_dir, record, clock, memory_locked)
    server.partner_alive = second.alive
    server.on_state = second.follow
    server.open()
    return server


def new_record(
    run_id: str, descriptions: list[dict[str, Any]], limits: Limits, second: dict[str, Any]
) -> dict[str, Any]:
    """The record of a hold that is about to be armed."""
    return {
        "run_id": run_id,
        "limits": dict(limits._asdict()),
        "holder": identity(os.getpid()),
        "partner": second,
        "drivers": [{"options": description, "marks": {}} for description in descriptions],
        "status": {"state": ARMED},
    }


def _forget(server: Server) -> None:
    """Leave a record only where somebody may still want to know what became of the hold."""
    if server.hold.reason == BY_COMMAND and not any(driver.marks for driver in server.drivers):
        records.remove(server.run_dir, server.hold.run_id)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder: the process that freezes and thaws, and thaws on its own whatever happens to the other parties."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Callable, Sequence

from ..host.clock import Clock
from ..host.processes import identity
from . import daemon, drivers, guard, partner, records, watch
from .drivers.base import Driver
from .guard import Guard
from .hold import ARMED, BY_COMMAND, Hold, Limits
from .server import Server, timeouts

START_TIMEOUT = 30.0
"""Seconds to wait until the holder responds, in addition to its drivers' preparation time."""


class Partner:
    """The holder's view of its partner process."""

    def __init__(self, run_dir: str, run_id: str, hold_ttl: float, third: Guard) -> None:
        reader, writer = os.pipe()
        holder = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _be_partner(reader, run_dir, run_id, holder, hold_ttl, third)
        os.close(reader)
        self.teller = watch.Teller(writer)
        self.identity = identity(self.pid)
        self._gone = False

    def alive(self) -> bool:
        """Whether it runs. Also reaps it, so that no zombie is left."""
        if not self._gone:
            with contextlib.suppress(ChildProcessError):
                self._gone = os.waitpid(self.pid, os.WNOHANG)[0] == self.pid
        return not self._gone

    def dismiss(self) -> None:
        """Report that all is well, so that it ends; kill it if it hangs."""
        self.teller.end()
        end = time.monotonic() + guard.END_PATIENCE
        while self.alive() and time.monotonic() < end:
            time.sleep(0.005)
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _be_partner(reader: int, run_dir: str, run_id: str, holder: int, hold_ttl: float, third: Guard) -> None:
    status = 1
    try:
        partner.run(reader, run_dir, run_id, holder, hold_ttl, third)
        status = 0
    finally:
        os._exit(status)


def start(
    run_dir: str,
    run_id: str,
    descriptions: list[dict[str, Any]],
    limits: Limits,
    findings: Sequence[dict[str, Any]] = (),
) -> None:
    """Start the holder of a run; returns once it responds. Raises HolderError if it does not start.

    ``findings``: what each driver's test found, and what must still hold.
    """
    patience = START_TIMEOUT + guard.START_TIMEOUT + sum(each.patience() for each in drivers.build(descriptions))

    def make() -> list[Driver]:
        built = drivers.build(descriptions, run_id=run_id)
        for driver, found in zip(built, findings):
            driver.findings = dict(found)
        return built

    daemon.start(lambda ready: _hold(run_dir, run_id, descriptions, limits, make, ready), patience)


def _hold(
    run_dir: str,
    run_id: str,
    descriptions: list[dict[str, Any]],
    limits: Limits,
    make: Callable[[], list[Driver]],
    ready: Callable[[], None],
) -> None:
    watchers: list[Guard | Partner] = []
    try:
        third = guard.start(run_dir, run_id, limits.hold_ttl)
        watchers.append(third)
        second = Partner(run_dir, run_id, limits.hold_ttl, third)
        watchers.append(second)
        record = new_record(run_id, descriptions, limits, second.identity, third.identity)
        server = _prepare(run_dir, record, limits, make(), second, third)
        ready()
        server.serve()
        _forget(server)
    except BaseException:
        # Nothing is frozen before serve(). After a failure in serve(), partner and guard thaw.
        if not _serving(run_dir, run_id):
            _dismiss(watchers)
        raise
    _dismiss(watchers)


def _dismiss(watchers: list[Guard | Partner]) -> None:
    """Dismiss all watchers, and wait until they are gone."""
    for watcher in watchers:
        watcher.dismiss()


def _serving(run_dir: str, run_id: str) -> bool:
    return os.path.exists(records.record_path(run_dir, run_id))


def _prepare(
    run_dir: str, record: dict[str, Any], limits: Limits, built: list[Driver], second: Partner, third: Guard
) -> Server:
    clock = Clock()
    protection = daemon.protect()
    for driver in built:
        driver.prepare()
    hold = Hold(record["run_id"], timeouts(built), limits, clock)
    server = Server(hold, built, run_dir, record, clock, protection)
    server.partner_alive = second.alive
    server.guard = third

    def tell(state: str) -> None:
        second.teller.follow(state)
        third.teller.follow(state)

    server.on_state = tell
    server.open()
    return server


def new_record(
    run_id: str,
    descriptions: list[dict[str, Any]],
    limits: Limits,
    second: dict[str, Any],
    third: dict[str, Any],
) -> dict[str, Any]:
    """The record of a hold that is about to be armed."""
    return {
        "run_id": run_id,
        "limits": dict(limits._asdict()),
        "holder": identity(os.getpid()),
        "partner": second,
        "guard": third,
        "drivers": [{"options": description, "marks": {}} for description in descriptions],
        "status": {"state": ARMED},
    }


def _forget(server: Server) -> None:
    """Remove the record, unless somebody may still need to know how the hold ended."""
    if server.hold.reason == BY_COMMAND and not any(driver.marks for driver in server.drivers):
        records.remove(server.run_dir, server.hold.run_id)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules do with holds on this server: find, test, arm, freeze, thaw, end."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
import tempfile
import time
from typing import Any

from ..host import processes
from ..host.clock import Clock
from ..host.errors import HostError
from ..host.processes import is_running
from . import drivers, holder, protocol, records, takeover
from .drivers.base import Driver, Surroundings
from .errors import HolderError
from .hold import ARMED, BY_RECOVERY, END, FAILED, FREEZE, STATUS, THAW, THAWED, Hold, Limits
from .runner import run_until_settled
from .server import timeouts

ABSENT = "absent"
LIVE = ("armed", "freezing", "frozen", "thawing")
LOOK_TIMEOUT = 3.0
TAKEOVER_PATIENCE = 5.0
"""Seconds to wait for the partner of a dead holder to take over."""
SILENT_PATIENCE = 5.0
"""Seconds for a holder that did not return its status; it is asked once more before it counts as hung."""
POLL = 0.05
WAIT = 0.2
"""Seconds between two queries while the holder retries a thaw."""
LEFT_OVER = "the holder, its partner and its guard are gone; what they left frozen was thawed from their record"
PROCESSES = ("holder", "partner", "guard")
"""The processes that may thaw, in order, by their names in the record."""


class Found:
    """A hold on record on this server: whether its process runs and responds, and its last known status."""

    def __init__(self, record: dict[str, Any], look_timeout: float, run_dir: str) -> None:
        self.run_id: str = record["run_id"]
        self.record = record
        self.alive = any(is_running(record.get(name)) for name in PROCESSES)
        self.status: dict[str, Any] = record["status"]
        self.answers = False
        if self.alive:
            with contextlib.suppress(HolderError):
                path = records.socket_path(run_dir, self.run_id)
                self.status = protocol.call(path, self.run_id, STATUS, look_timeout)
                self.answers = True

    @property
    def state(self) -> str:
        """The hold's state; ``absent`` if only a record is left, and nothing is frozen."""
        return str(self.status["state"]) if self.alive or self.leftover else ABSENT

    @property
    def live(self) -> bool:
        """Whether a process has frozen something, or may still do so."""
        return self.alive and (not self.answers or self.status["state"] in LIVE)

    @property
    def leftover(self) -> bool:
        """Whether something may be frozen and no process is left to thaw it."""
        return not self.alive and records.may_be_frozen(self.record)

    def public(self) -> dict[str, Any]:
        """The status for reports, without the drivers' options."""
        status = {key: value for key, value in self.status.items() if key != "ok"}
        return dict(
            status, run_id=self.run_id, state=self.state, alive=self.alive, answers=self.answers, leftover=self.leftover
        )


def find_all(run_dir: str, look_timeout: float = LOOK_TIMEOUT) -> list[Found]:
    """All holds on record on this server. Raises HolderError."""
    return [Found(record, look_timeout, run_dir) for record in records.read_all(run_dir)]


def find(run_dir: str, run_id: str) -> Found | None:
    """The hold of one run. Raises HolderError."""
    record = records.read(run_dir, records.check_run_id(run_id))
    return None if record is None else Found(record, LOOK_TIMEOUT, run_dir)


def check(run_dir: str, built: list[Driver]) -> list[dict[str, Any]]:
    """Each driver's test of whether a freeze would work: driver, ok, message. Changes nothing."""
    surroundings = Surroundings(_used_paths(run_dir, built))
    return [_check_one(driver, surroundings) for driver in built]


def _check_one(driver: Driver, surroundings: Surroundings) -> dict[str, Any]:
    try:
        return {"driver": driver.name, "ok": True, "message": driver.check(surroundings)}
    except (HostError, OSError) as error:
        return {"driver": driver.name, "ok": False, "message": str(error)}


def _used_paths(run_dir: str, built: list[Driver]) -> dict[str, str]:
    """What the holder, the drivers and any login that thaws need: path -> purpose."""
    paths = {
        run_dir: "the holder's directory",
        os.path.realpath(sys.executable): "Python",
        os.path.dirname(os.__file__): "Python's library",
        tempfile.gettempdir(): "temporary files",
        "/var/log": "the system's logs, to which every login writes",
    }
    for home in _homes():
        paths[os.path.join(home, ".ansible")] = "where Ansible puts its modules"
    for driver in built:
        paths.update({path: purpose for purpose, path in driver.paths().items()})
    return paths


def _homes() -> list[str]:
    """The home directories of the modules' user and of the login that became that user."""
    homes = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwnam(os.environ["SUDO_USER"]).pw_dir)
    return homes


class Arming:
    """Arms a hold for one run: ``plan`` finds obstacles and returns whether there is anything to do."""

    def __init__(self, run_dir: str, run_id: str, descriptions: list[dict[str, Any]], limits: Limits) -> None:
        self.run_dir = run_dir
        self.run_id = records.check_run_id(run_id)
        self.descriptions = descriptions
        self.limits = limits
        self.checks: list[dict[str, Any]] = []
        """The result of ``check`` from ``plan``."""
        self._findings: list[dict[str, Any]] = []
        self._in_the_way: list[Found] = []

    def plan(self) -> bool:
        """Whether a holder must be started. Raises HostError if it must not, or if a driver's test fails."""
        built = drivers.build(self.descriptions, run_id=self.run_id)
        self._in_the_way = []
        armed = False
        for found in find_all(self.run_dir):
            if found.run_id == self.run_id:
                armed = self._look_at_own(found)
            else:
                self._look_at_other(found)
        self.checks = check(self.run_dir, built)
        failures = [result["message"] for result in self.checks if not result["ok"]]
        if failures:
            raise HolderError("; ".join(failures))
        self._findings = [driver.findings for driver in built]
        return not armed

    def carry_out(self) -> dict[str, Any]:
        """Start the holder, and return its status."""
        for found in self._in_the_way:
            _end(self.run_dir, found)
        holder.start(self.run_dir, self.run_id, self.descriptions, self.limits, self._findings)
        return protocol.call(records.socket_path(self.run_dir, self.run_id), self.run_id, STATUS, LOOK_TIMEOUT)

    def _look_at_other(self, found: Found) -> None:
        if found.live:
            raise HolderError(
                f"run {found.run_id} holds this server ({found.state}), so run {self.run_id} cannot: wait until it "
                "ends, or end it with 'ansible-playbook recover.yml' if it is no longer running"
            )
        if found.leftover:
            raise HolderError(
                f"run {found.run_id} left this server frozen, and its holder is gone: "
                "thaw it with 'ansible-playbook recover.yml'"
            )
        self._in_the_way.append(found)

    def _look_at_own(self, found: Found) -> bool:
        if found.leftover:
            raise HolderError(f"run {self.run_id} left this server frozen: thaw it with state=thawed first")
        if found.live and found.state == ARMED and found.answers:
            if self._same(found.record):
                return True
        elif found.live or found.status.get("freeze_started") is not None:
            raise HolderError(
                f"the hold of run {self.run_id} is already {found.status['state']} here, and a hold freezes only once: "
                "start a new run"
            )
        self._in_the_way.append(found)
        return False

    def _same(self, record: dict[str, Any]) -> bool:
        options = [entry["options"] for entry in record["drivers"]]
        return options == self.descriptions and Limits(**record["limits"]) == self.limits


def freeze(run_dir: str, run_id: str, timeout: float) -> dict[str, Any]:
    """Have the run's holder freeze, and return its response. Raises HolderError if there is no holder."""
    found = find(run_dir, run_id)
    if found is None or not found.alive:
        raise HolderError(f"run {run_id} has no holder here: arm it first with state=armed")
    return protocol.call(records.socket_path(run_dir, run_id), run_id, FREEZE, timeout)


def thaw(run_dir: str, found: Found, timeout: float) -> dict[str, Any]:
    """Thaw what a run holds here, by its holder, partner or guard, else from its record. Idempotent."""
    if found.alive:
        answer = _ask_until_answered(run_dir, found, THAW, timeout)
        if answer is not None:
            return answer
    return recover(run_dir, records.read(run_dir, found.run_id) or found.record, timeout)


def _ask_until_answered(run_dir: str, found: Found, command: str, timeout: float) -> dict[str, Any] | None:
    """The response of the holder, or of its successor if it dies meanwhile; None if all are gone."""
    end = time.monotonic() + timeout
    patience = timeout if found.answers else min(timeout, SILENT_PATIENCE)
    successor: float | None = None
    while True:
        path = records.socket_path(run_dir, found.run_id)
        try:
            return protocol.call(path, found.run_id, command, max(patience, 0.1))
        except HolderError:
            now = find(run_dir, found.run_id)
            if now is None or not now.alive:
                return None
            if not now.answers and is_running(now.record["holder"]):
                _end_hung(now, "holder")
                end, successor = max(end, time.monotonic() + TAKEOVER_PATIENCE), None
            elif not now.answers:
                successor = successor or time.monotonic() + TAKEOVER_PATIENCE
                if time.monotonic() >= successor:
                    _end_hung(now, next(name for name in PROCESSES if is_running(now.record.get(name))))
                    end, successor = max(end, time.monotonic() + TAKEOVER_PATIENCE), None
            elif time.monotonic() >= end:
                raise
            patience = end - time.monotonic()
            time.sleep(POLL)


def _end_hung(found: Found, name: str) -> None:
    """Kill a hung holder or successor, so that the next one, or a thaw from the record, can take over."""
    process = found.record[name]
    if not processes.end(process, TAKEOVER_PATIENCE):
        raise HolderError(
            f"the {name} of run {found.run_id} (process {process['pid']}) hangs and cannot be killed: its server's "
            "kernel must release it first"
        )
    takeover.end_session(process["pid"])


def recover(run_dir: str, record: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Thaw from the record of a hold whose processes are gone; return the hold's status as a response."""
    if record["status"]["state"] in (THAWED, FAILED) and not records.may_be_frozen(record):
        return dict(record["status"], ok=True)  # thawed before its processes ended
    entries = record["drivers"]
    run_id = record["run_id"]
    built = drivers.build([entry["options"] for entry in entries], [entry["marks"] for entry in entries], run_id)
    limits = Limits(**record["limits"])
    hold = Hold.leftover(run_id, timeouts(built), limits, Clock(), BY_RECOVERY, LEFT_OVER, record["status"])
    run_until_settled(hold, built, timeout)
    for entry, driver in zip(entries, built):
        entry["marks"] = dict(driver.marks)
    record["status"] = hold.status()
    records.write(run_dir, record)
    return dict(record["status"], ok=hold.succeeded(THAW))


def end(run_dir: str, found: Found, timeout: float) -> dict[str, Any]:
    """Thaw, end the holder and remove the hold. Waits while a thaw is retried. Returns the last response."""
    deadline = time.monotonic() + timeout
    answer = thaw(run_dir, found, timeout)
    while not answer["ok"] and time.monotonic() < deadline:
        time.sleep(WAIT)
        answer = thaw(run_dir, found, max(deadline - time.monotonic(), WAIT))
    if answer["ok"]:
        _end(run_dir, found)
    return answer


def _end(run_dir: str, found: Found) -> None:
    """End a holder that has nothing frozen, and remove its record."""
    now = find(run_dir, found.run_id)
    if now is not None and now.alive:
        with contextlib.suppress(HolderError):
            protocol.call(records.socket_path(run_dir, found.run_id), found.run_id, END, LOOK_TIMEOUT)
        _wait_gone(run_dir, now)
    records.remove(run_dir, found.run_id)


def _wait_gone(run_dir: str, found: Found) -> None:
    process = found.record["holder"]
    deadline = time.monotonic() + TAKEOVER_PATIENCE
    while is_running(process):
        if time.monotonic() >= deadline:
            raise HolderError(
                f"the holder of run {found.run_id} (process {process['pid']}) does not end: end it by hand"
            )
        time.sleep(0.01)

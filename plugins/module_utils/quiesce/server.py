# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event loop of a process that keeps a hold: serves the socket, makes the hold's calls, keeps the record.

It uses only memory, its socket and ``run_dir``, and never waits for a driver.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Callable

from ..host.clock import Clock
from ..host.errors import DriverError, HostError
from . import protocol, records
from .daemon import Protection
from .drivers.base import Driver
from .errors import HolderError
from .hold import ARMED, FREEZE, FREEZING, THAWING, Hold
from .runner import Runner

if TYPE_CHECKING:
    from .guard import Guard

READ_SIZE = 4096
PULSE = 0.1
"""Seconds between heartbeats during a thaw."""
REQUEST_TIMEOUT = 5.0
"""Seconds that a client may take to send its request."""


class Client:
    """A connected client. ``command`` is None until its request is complete; then it waits for the response."""

    def __init__(self, connection: socket.socket, since: float) -> None:
        self.connection = connection
        self.since = since
        self.lines = protocol.Lines()
        self.command: str | None = None


class Server:
    """Keeps one hold. ``record``: its record as ``records`` describes it, with the drivers in the hold's order."""

    def __init__(
        self,
        hold: Hold,
        drivers: list[Driver],
        run_dir: str,
        record: dict[str, Any],
        clock: Clock,
        protection: Protection,
    ) -> None:
        self.hold = hold
        self.drivers = drivers
        self.run_dir = run_dir
        self.partner_alive: Callable[[], bool | None] = lambda: None
        self.guard: Guard | None = None
        self.on_state: Callable[[str], None] = lambda _state: None
        self._state = hold.state
        self._protection = protection
        self._record = record
        self._record_lock = threading.Lock()
        self._clock = clock
        self._clients: dict[int, Client] = {}
        self._terminated = False
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe()
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)
        self._runner = Runner(hold, drivers, self._wake)
        for driver in drivers:
            driver.on_marks(self._save_marks)

    def open(self) -> None:
        """Open the socket, install signal handlers, and write the record."""
        self._listener = protocol.listen(records.socket_path(self.run_dir, self.hold.run_id))
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain)
        signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._save()

    def serve(self) -> None:
        """Keep the hold until it is over. Responds to all waiting clients before it returns."""
        self._advance()
        while not self.hold.finished:
            for key, _mask in self._selector.select(self._patience()):
                key.data()
            if self._terminated:
                self.hold.terminate()
            self._advance()
        self._close()

    # The hold

    def _advance(self) -> None:
        for driver in self.drivers:
            self.hold.lose(driver.lost())
        self._told_and_saved()
        self._runner.advance()
        self._told_and_saved()
        self._answer_all()

    def _told_and_saved(self) -> None:
        """Report a new state before the calls that belong to it, and put it on record.

        A thaw is reported repeatedly, as a heartbeat.
        """
        if self.hold.state != self._state or self.hold.state == THAWING:
            self._state = self.hold.state
            self.on_state(self._state)
        self._save()

    def _patience(self) -> float | None:
        now = self._clock.monotonic()
        times = [client.since + REQUEST_TIMEOUT for client in self._clients.values() if client.command is None]
        deadline = self.hold.deadline()
        times += [] if deadline is None else [deadline]
        times += [now + PULSE] if self.hold.state == THAWING else []
        return max(0.0, min(times) - now) if times else None

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_writer, b"w")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_reader, READ_SIZE):
                pass

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self._terminated = True

    # The record

    def _save(self) -> None:
        """Record the hold's state if it has changed. A failed write never delays a thaw."""
        status = self.status()
        if status != self._record.get("status"):
            with self._record_lock, contextlib.suppress(OSError):
                self._record["status"] = status
                self._write()

    def _save_marks(self) -> None:
        """Called in a driver's thread. Freezing requires a record; thawing goes on without one."""
        with self._record_lock:
            try:
                self._write()
            except OSError as error:
                if self.hold.state == FREEZING:
                    raise DriverError(
                        f"the hold cannot be recorded in {self.run_dir} ({error.strerror}): free disk space there"
                    ) from error

    def _write(self) -> None:
        for entry, driver in zip(self._record["drivers"], self.drivers):
            entry["marks"] = dict(driver.marks)
        records.write(self.run_dir, self._record)

    def status(self) -> dict[str, Any]:
        """The hold's status, with additions by the drivers and facts about this process."""
        status = dict(
            self.hold.status(),
            degraded=[text for driver in self.drivers for text in driver.degraded],
            without=[name for driver in self.drivers for name in driver.without],
            pid=os.getpid(),
            **self._protection._asdict(),
            partner_alive=self.partner_alive(),
            guard=self.guard.status() if self.guard is not None and self.hold.live() else None,
        )
        for entry, driver in zip(status["drivers"], self.drivers):
            entry.update(driver.result)
        return status

    # The socket

    def _accept(self) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:
            return
        connection.setblocking(False)
        client = Client(connection, self._clock.monotonic())
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            piece = client.connection.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece or client.command is not None:
            self._forget(client)  # a disconnected client needs no response; its request is carried out regardless
            return
        try:
            message = client.lines.feed(piece)
            if message is not None:
                client.command = self._obey(message)
        except HostError as error:
            self._reply(client, dict(self.status(), ok=False, error=str(error)))

    def _obey(self, message: dict[str, Any]) -> str:
        command = protocol.parse_request(message, self.hold.run_id)
        if command == FREEZE and self.partner_alive() is False:
            raise HolderError(
                f"the holder's partner process is gone, so nothing is frozen: arm run {self.hold.run_id} again"
            )
        if command == FREEZE and self.hold.state == ARMED and self.guard is not None and not self.guard.alive():
            raise HolderError(f"the holder's guard is gone, so nothing is frozen: arm run {self.hold.run_id} again")
        self.hold.request(command)
        return command

    def _answer_all(self) -> None:
        for client in list(self._clients.values()):
            if client.command is None:
                if self._clock.monotonic() >= client.since + REQUEST_TIMEOUT:
                    self._forget(client)
            elif client.command == "status" or self.hold.settled():
                self._reply(client, dict(self.status(), ok=self.hold.succeeded(client.command)))

    def _reply(self, client: Client, answer: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            client.connection.send(protocol.encode(answer))
        self._forget(client)

    def _forget(self, client: Client) -> None:
        self._clients.pop(client.connection.fileno(), None)
        self._selector.unregister(client.connection)
        client.connection.close()

    def _close(self) -> None:
        for client in list(self._clients.values()):
            self._forget(client)
        self._selector.close()
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(records.socket_path(self.run_dir, self.hold.run_id))


def timeouts(drivers: list[Driver]) -> list[tuple[str, float]]:
    """Name and timeout of each driver, in the form for Hold."""
    return [(driver.name, driver.timeout) for driver in drivers]

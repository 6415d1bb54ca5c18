# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common code of drivers that freeze with one open session of a database's own client.

The freeze lasts as long as the session, so it ends with the holder. A process that thaws without the session has the
server end it, and returns once it is gone.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import Any, Iterator

from ...host import processes
from ...host.clock import Deadline
from ...host.errors import DriverError
from ..sessions import GRACE, Session, SessionEnded
from .base import Driver

SESSION = "session"
POLL = 0.05


class SessionDriver(Driver):
    """Marks: ``session``, with its ``name`` on the server and ``client``, the identity of its process.

    Subclasses implement the first methods; a failed statement in them raises SessionEnded.
    """

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self._session: Session | None = None
        self._session_name = f"openisb-{secrets.token_hex(8)}"
        self._turn = threading.Lock()

    def connect(self) -> Session:
        """Start the client."""
        raise NotImplementedError

    def introduce(self, session: Session, name: str) -> None:
        """Prepare the session for the hold, and name it ``name`` on the server."""
        raise NotImplementedError

    def begin(self, session: Session) -> None:
        """Freeze, unless cancelled."""
        raise NotImplementedError

    def finish(self, session: Session) -> None:
        """Thaw."""
        raise NotImplementedError

    def expel(self, session: Session, name: str) -> bool:
        """Have the server end the session of that name. Returns whether it is gone."""
        raise NotImplementedError

    def is_down(self, why: str) -> bool:
        """Whether a failed client's error means that no server runs that could have sessions."""
        raise NotImplementedError

    def prepare(self) -> None:
        self._opened()

    def _opened(self) -> Session:
        if self._session is None:
            with self.named():
                self._session = self.connect()
                self.introduce(self._session, self._session_name)
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def freeze(self) -> None:
        with self._turn, self.named():
            self.stop_if_cancelled()
            session = self._opened()
            self.mark(SESSION, {"name": self._session_name, "client": processes.identity(session.pid)})
            self.begin(session)

    def thaw(self) -> list[str]:
        if not self._turn.acquire(timeout=self.timeout):
            raise DriverError(f"{self.name}: the freeze was given up and has not ended yet")
        try:
            return self._thaw()
        finally:
            self._turn.release()

    def _thaw(self) -> list[str]:
        if SESSION not in self.marks:
            return []
        broken = []
        if not self._finished():
            broken = self.lost()
            self._end_client()
            self._end_on_server()
        self.close()
        self.clear_marks()
        return broken

    def _finished(self) -> bool:
        """Thaw in the session. Returns whether it still existed and thawed."""
        if self._session is None:
            return False
        try:
            self.finish(self._session)
        except SessionEnded:
            return False
        return True

    def _end_client(self) -> None:
        """End the client of another process's session, or of one that has failed."""
        self.close()
        client = self.marks[SESSION]["client"]
        if not processes.end(client, GRACE):
            raise DriverError(
                f"{self.name}: process {client['pid']}, which holds the session, does not end: end it by hand"
            )

    def _end_on_server(self) -> None:
        deadline = Deadline(self.timeout)
        while not self._gone_on_server():
            if not deadline.left():
                raise DriverError(
                    f"{self.name}: the server does not end the session {self.marks[SESSION]['name']}: "
                    "find out what it waits for"
                )
            time.sleep(POLL)

    def _gone_on_server(self) -> bool:
        try:
            with contextlib.closing(self.connect()) as other:
                return self.expel(other, self.marks[SESSION]["name"])
        except SessionEnded as error:
            if self.is_down(str(error)):
                return True
            raise DriverError(f"{self.name}: cannot determine whether the session has ended: {error}") from error

    def lost(self) -> list[str]:
        why = self._session.why() if self._session is not None and SESSION in self.marks else ""
        return [f"{self.name}: the session was lost before the thaw: {why}"] if why else []

    def status(self) -> dict[str, Any]:
        if SESSION not in self.marks:
            return {"frozen": False}
        if self._session is None:
            return {"frozen": None, SESSION: self.marks[SESSION]["name"]}
        with self._turn:
            try:
                self._session.run("SELECT 1", self.timeout)
            except SessionEnded:
                return {"frozen": False, SESSION: self.marks[SESSION]["name"]}
        return {"frozen": True, SESSION: self.marks[SESSION]["name"]}

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Add the driver's name to errors of a session."""
        try:
            yield
        except SessionEnded as error:
            raise DriverError(f"{self.name}: {error}") from error

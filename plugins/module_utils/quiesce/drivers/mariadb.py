# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stops a MariaDB server's commits (``BACKUP STAGE``) with one session of its client that is kept open.

At the last stage no table changes any more, whatever its engine, and no commit ends. The session has a lock with a name
of its own, by which another session finds it.
"""

from __future__ import annotations

import contextlib
import re
import time

from ..clock import Deadline
from ..errors import DriverError
from ..sessions import Session, SessionEnded
from ..users import as_user, environment_of
from .base import Option, Surroundings
from .by_session import SessionDriver

OLDEST = (10, 4)
"""MariaDB 10.4, the first with BACKUP STAGE."""

CONNECT_TIMEOUT = 5
LONGEST = 31536000
"""Seconds that the server may keep the idle session; more is not allowed."""

STAGES = ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT")

FLUSH = "innodb_flush_log_at_trx_commit"
POLL = 0.02

NO_BACKUP = "ERROR 4146 "
"""The answer to the end of a backup that was not begun. Who may not begin one gets another."""

LOCKED = "ERROR 1205 "
GONE = "ERROR 1094 "
DOWN = ("ERROR 2002 ", "ERROR 2003 ", "ERROR 1053 ")


class MariadbDriver(SessionDriver):
    """One server."""

    name = "mariadb"
    options = {
        "client": Option("path", "The client program.", default="/usr/bin/mariadb"),
        "user": Option("str", "The user of this server that the client runs as.", default="root"),
        "socket": Option("path", "MariaDB's socket, if the client does not find it."),
        "defaults_file": Option("path", "An option file that says how to connect, in place of all others."),
    }

    def paths(self) -> dict[str, str]:
        return {"MariaDB's client": self.values["client"]}

    def connect(self) -> Session:
        file = self.values["defaults_file"]
        arguments = [self.values["client"], "--no-defaults" if file is None else f"--defaults-file={file}"]
        arguments += ["--batch", "--raw", "--skip-column-names", "--unbuffered", "--skip-reconnect"]
        arguments += [f"--connect-timeout={CONNECT_TIMEOUT}"]
        if self.values["socket"] is not None:
            arguments.append(f"--socket={self.values['socket']}")
        return Session(as_user(arguments, self.values["user"]), environment_of(self.values["user"]))

    def check(self, surroundings: Surroundings) -> str:
        deadline = Deadline(self.timeout)
        with self.named(), contextlib.closing(self.connect()) as session:
            version, folder = session.run("SELECT VERSION(), @@datadir", deadline.left())[0].split("\t")
            _check_version(version)
            self._check_privilege(session, deadline)
        return f"can freeze MariaDB {version.split('-')[0]} in {folder}"

    def _check_privilege(self, session: Session, deadline: Deadline) -> None:
        user = session.run("SELECT CURRENT_USER()", deadline.left())[0]
        try:
            session.run("BACKUP STAGE END", deadline.left())
        except SessionEnded as error:
            if NO_BACKUP in str(error):
                return
            if "ERROR 1227 " in str(error):
                raise DriverError(f"mariadb: {user} may not begin a backup: GRANT RELOAD ON *.* to it") from error
            raise

    def introduce(self, session: Session, name: str) -> None:
        deadline = Deadline(self.timeout)
        session.run(f"SET SESSION wait_timeout = {LONGEST}", deadline.left())
        session.run(f"SET SESSION lock_wait_timeout = {max(1, int(self.timeout) - 1)}", deadline.left())
        session.run(f"SELECT GET_LOCK('{name}', 0)", deadline.left())

    def begin(self, session: Session) -> None:
        deadline = Deadline(self.timeout)
        for stage in STAGES:
            self._reach(session, stage, deadline)
        if self._shown(session, f"VARIABLES LIKE '{FLUSH}'", deadline).get(FLUSH, "1") != "1":
            self._wait_for_log(session, deadline)

    def _reach(self, session: Session, stage: str, deadline: Deadline) -> None:
        try:
            session.run(f"BACKUP STAGE {stage}", deadline.left(), self.cancelled)
        except SessionEnded as error:
            if LOCKED not in str(error):
                raise
            raise DriverError(
                f"mariadb: BACKUP STAGE {stage} was kept waiting by a statement or a table lock that takes too long: "
                "look for it with SHOW FULL PROCESSLIST, or give the driver a longer 'timeout'"
            ) from error

    def _wait_for_log(self, session: Session, deadline: Deadline) -> None:
        """Wait until what was committed is on the disk: the server writes it about a second later then."""
        sought: int | None = None
        while True:
            status = self._shown(session, "STATUS LIKE 'Innodb_lsn_%'", deadline)
            flushed, current = (int(status.get(f"Innodb_lsn_{which}", 0)) for which in ("flushed", "current"))
            sought = current if sought is None else sought
            if flushed and flushed >= sought:
                return
            if not flushed or deadline.left() < POLL:
                raise DriverError(
                    f"mariadb: what was committed is not on the disk yet: {FLUSH} has to be 1 for that, "
                    "or the server's innodb_flush_log_at_timeout less than the driver's 'timeout'"
                )
            time.sleep(POLL)

    def _shown(self, session: Session, what: str, deadline: Deadline) -> dict[str, str]:
        rows = session.run(f"SHOW GLOBAL {what}", deadline.left(), self.cancelled)
        return dict(row.split("\t", 1) for row in rows)

    def finish(self, session: Session) -> None:
        session.run("BACKUP STAGE END", self.timeout)

    def expel(self, session: Session, name: str) -> bool:
        number = session.run(f"SELECT IS_USED_LOCK('{name}')", self.timeout)[0]
        if number == "NULL":
            return True
        try:
            session.run(f"KILL {number}", self.timeout)
        except SessionEnded as error:
            if GONE not in str(error):
                raise
        return False

    def is_down(self, why: str) -> bool:
        return any(words in why for words in DOWN)


def _check_version(version: str) -> None:
    """Raise DriverError unless this is a MariaDB that can be frozen."""
    number = re.match(r"(\d+)\.(\d+)\.\d+-MariaDB", version)
    if number is None:
        raise DriverError(f"mariadb: this is no MariaDB but version {version}: only MariaDB knows BACKUP STAGE")
    if tuple(map(int, number.groups())) < OLDEST:
        raise DriverError(f"mariadb: version {version} is too old: it needs 10.4 or newer")

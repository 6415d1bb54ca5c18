# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Blocks a MariaDB server's commits (``BACKUP STAGE``) with one open session of its client.

At the last stage no table changes any more, whatever its engine, and no commit completes. The session holds a lock with
a unique name, by which another session finds it.
"""

from __future__ import annotations

import contextlib
import re
import time

from ...host.clock import Deadline
from ...host.errors import DriverError
from ...host.options import Option
from ...host.users import as_user, environment_of
from ..sessions import Session, SessionEnded, SessionTimedOut
from .base import Surroundings
from .by_session import SessionDriver

CONNECT_TIMEOUT = 5
LONGEST = 31536000
"""Seconds that the server may keep the idle session; more is not allowed."""

UNLIMITED = (
    "max_statement_time",
    "idle_transaction_timeout",
    "idle_readonly_transaction_timeout",
    "idle_write_transaction_timeout",
)
"""A site's limits after which the server would end a waiting statement or an idle session; 0 is no limit."""

STAGES = ("START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT")

FLUSH = "innodb_flush_log_at_trx_commit"
POLL = 0.02

LEAST = 0.3
"""With fewer seconds left nothing more is asked: a statement that runs out of time would end the session."""

NO_BACKUP = "ERROR 4146 "
"""The error for ending a backup that was not started. Users without the privilege get another error."""

UNKNOWN = "ERROR 1064 "
"""The error for a statement that the server does not know."""

LOCKED = "ERROR 1205 "
GONE = "ERROR 1094 "
DOWN = ("ERROR 2002 ", "ERROR 2003 ", "ERROR 1053 ")


class MariadbDriver(SessionDriver):
    """One server."""

    name = "mariadb"
    options = {
        "client": Option("path", "The client program.", default="/usr/bin/mariadb"),
        "user": Option("str", "The server's user that runs the client.", default="root"),
        "socket": Option("path", "MariaDB's socket, if the client does not find it."),
        "defaults_file": Option("path", "An option file that says how to connect, instead of all others."),
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
            self._check_backup(session, version, deadline)
        return f"can freeze MariaDB {_number(version)} in {folder}"

    def _check_backup(self, session: Session, version: str, deadline: Deadline) -> None:
        """Ask the server whether it supports and permits the backup, because version strings vary.

        Raises DriverError.
        """
        user = session.run("SELECT CURRENT_USER()", deadline.left())[0]
        try:
            session.run("BACKUP STAGE END", deadline.left())
        except SessionEnded as error:
            if NO_BACKUP in str(error):
                return
            if UNKNOWN in str(error):
                raise DriverError(
                    f"mariadb: version {version} does not know BACKUP STAGE: MariaDB 10.4 or newer is required"
                ) from error
            if "ERROR 1227 " in str(error):
                raise DriverError(f"mariadb: {user} may not start a backup: GRANT RELOAD ON *.* to it") from error
            raise

    def introduce(self, session: Session, name: str) -> None:
        deadline = Deadline(self.timeout)
        own = {
            "wait_timeout": LONGEST,
            "lock_wait_timeout": max(1, int(self.timeout) - 1),
            **dict.fromkeys(UNLIMITED, 0),
        }
        settings = ", ".join(f"SESSION {name} = {value}" for name, value in own.items())
        session.run(f"SET {settings}", deadline.left())
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
                f"mariadb: BACKUP STAGE {stage} was blocked too long by a statement or a table lock: "
                "look for it with SHOW FULL PROCESSLIST, or increase the driver's 'timeout'"
            ) from error

    def _wait_for_log(self, session: Session, deadline: Deadline) -> None:
        """Wait until all commits are on disk: with this setting the server writes them about a second later."""
        flushed, sought = self._log(session, deadline)
        try:
            while 0 < flushed < sought and deadline.left() > LEAST:
                time.sleep(POLL)
                flushed, _current = self._log(session, deadline)
        except SessionTimedOut:
            pass  # what took the time until then is the log
        if not flushed or flushed < sought:
            raise DriverError(
                f"mariadb: commits are not on disk yet: set {FLUSH} to 1, "
                "or the server's innodb_flush_log_at_timeout to less than the driver's 'timeout'"
            )

    def _log(self, session: Session, deadline: Deadline) -> tuple[int, int]:
        """Up to where the log is on disk, and where it ends: 0 where the server does not say."""
        status = self._shown(session, "STATUS LIKE 'Innodb_lsn_%'", deadline)
        return int(status.get("Innodb_lsn_flushed", 0)), int(status.get("Innodb_lsn_current", 0))

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


def _number(version: str) -> str:
    """The number in a version string, whose form varies, such as ``10.6.12-8-MariaDB-enterprise-log``."""
    # Some versions have a prefix for old replicas.
    found = re.match(r"(?:5\.5\.5-(?=\d))?(\d+(?:\.\d+)*)", version)
    return found[1] if found else version

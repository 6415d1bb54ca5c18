# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a PostgreSQL cluster into backup mode (``pg_backup_start``) with one session of ``psql`` that is kept open.

Nothing waits: PostgreSQL writes on, and whoever starts it on a copy has it replay what it wrote since the last
checkpoint. Backup mode makes that checkpoint recent and its log complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ..clock import Deadline
from ..errors import DriverError
from ..sessions import Session
from ..users import as_user, environment_of
from .base import Option, Surroundings
from .by_session import SessionDriver

OLDEST = 150000
"""PostgreSQL 15, in which pg_backup_start took the place of pg_start_backup."""

CONNECT_TIMEOUT = 5

QUIET = "SET client_min_messages = error"
"""What the server has to remark must not stand among what a statement returns."""

PATIENT = ("statement_timeout", "lock_timeout", "idle_session_timeout")
"""Settings of the server that would end a session that waits for the freeze."""

FACTS = """SELECT json_build_object(
    'version', current_setting('server_version'),
    'standby', pg_is_in_recovery(),
    'wal_level', current_setting('wal_level'),
    'role', current_user,
    'functions', has_function_privilege('pg_backup_start(text, boolean)', 'EXECUTE')
        AND has_function_privilege('pg_backup_stop(boolean)', 'EXECUTE'),
    'checkpoint', pg_has_role('pg_checkpoint', 'USAGE'),
    'folder', (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
    'tablespaces', (SELECT coalesce(json_agg(pg_tablespace_location(oid)), '[]') FROM pg_tablespace
        WHERE pg_tablespace_location(oid) <> '')
)"""

DOWN = (
    "failed: No such file or directory",
    "failed: Connection refused",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not yet accepting connections",
)


class PostgresqlDriver(SessionDriver):
    """One cluster. ``result`` is what pg_backup_stop returned, for who restores with archived WAL."""

    name = "postgresql"
    options = {
        "psql": Option("path", "The psql to use.", default="/usr/bin/psql"),
        "user": Option("str", "The server's user that psql runs as.", default="postgres"),
        "socket": Option("path", "The folder of PostgreSQL's socket, if psql does not find it."),
        "port": Option("number", "The cluster's port, if psql does not find it."),
        "database": Option("str", "The database to connect to.", default="postgres"),
        "role": Option("str", "The role to connect as, if it is not named as 'user'."),
        "service": Option("str", "A connection service, which says how to connect."),
        "service_file": Option("path", "The file that describes the service, if it is not where psql looks."),
        "password_file": Option("path", "The file with the role's password, if it is not where psql looks."),
        "checkpoint_timeout": Option(
            "number", "Seconds that the checkpoint may take that is made before the freeze.", default=60
        ),
    }
    variables = {
        "socket": "PGHOST",
        "database": "PGDATABASE",
        "role": "PGUSER",
        "service": "PGSERVICE",
        "service_file": "PGSERVICEFILE",
        "password_file": "PGPASSFILE",
    }

    def paths(self) -> dict[str, str]:
        return {"psql": self.values["psql"]}

    def patience(self) -> float:
        return self.timeout + float(self.values["checkpoint_timeout"])

    def connect(self) -> Session:
        psql = [self.values["psql"], "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"]
        return Session(as_user(psql, self.values["user"]), self._environment())

    def _environment(self) -> dict[str, str]:
        environment = dict(environment_of(self.values["user"]), PGCONNECT_TIMEOUT=str(CONNECT_TIMEOUT))
        for option, variable in self.variables.items():
            if self.values[option] is not None:
                environment[variable] = self.values[option]
        if self.values["port"] is not None:
            environment["PGPORT"] = f"{self.values['port']:.0f}"
        return environment

    def check(self, surroundings: Surroundings) -> str:
        deadline = Deadline(self.timeout)
        with self.named(), contextlib.closing(self.connect()) as session:
            session.run(QUIET, deadline.left())
            number = int(session.run("SHOW server_version_num", deadline.left())[0])
            if number < OLDEST:
                raise DriverError(f"postgresql: version {number // 10000} is too old: it needs 15 or newer")
            facts = json.loads(" ".join(session.run(FACTS, deadline.left())))
        self._check_facts(facts)
        return f"can freeze PostgreSQL {facts['version'].split()[0]}{_where(facts)}"

    def _check_facts(self, facts: dict[str, Any]) -> None:
        role = facts["role"]
        if facts["standby"]:
            raise DriverError("postgresql: this is a standby server: list the primary server's cluster instead")
        if facts["wal_level"] == "minimal":
            raise DriverError("postgresql: wal_level is 'minimal', which allows no backup: set it to 'replica'")
        if not facts["functions"]:
            raise DriverError(
                f"postgresql: role {role} may not start and stop backups: GRANT EXECUTE ON FUNCTION "
                f'pg_backup_start, pg_backup_stop TO "{role}" in database {self.values["database"]}'
            )
        if not facts["checkpoint"]:
            raise DriverError(f'postgresql: role {role} may not make a checkpoint: GRANT pg_checkpoint TO "{role}"')

    def introduce(self, session: Session, name: str) -> None:
        deadline = Deadline(self.timeout)
        session.run(QUIET, deadline.left())
        session.run(f"SET application_name = '{name}'", deadline.left())
        for setting in PATIENT:
            session.run(f"SET {setting} = 0", deadline.left())
        session.run("CHECKPOINT", float(self.values["checkpoint_timeout"]))

    def begin(self, session: Session) -> None:
        label = f"openisb {self.run_id}".strip()
        session.run(f"SELECT pg_backup_start('{label}', fast := true)", self.timeout, self.cancelled)

    def finish(self, session: Session) -> None:
        # Whether WAL gets archived is for PostgreSQL to see to; to wait for it would keep the hold.
        row = session.run("SELECT to_json(stopped) FROM pg_backup_stop(false) AS stopped", self.timeout)
        stopped = json.loads(row[0])
        self.result = {"backup_label": stopped["labelfile"]}
        if stopped["spcmapfile"]:
            self.result["tablespace_map"] = stopped["spcmapfile"]

    def expel(self, session: Session, name: str) -> bool:
        sought = f"FROM pg_stat_activity WHERE application_name = '{name}'"
        return not session.run(f"SELECT pg_terminate_backend(pid) {sought}", self.timeout)

    def is_down(self, why: str) -> bool:
        return any(words in why for words in DOWN)


def _where(facts: dict[str, Any]) -> str:
    """Everything that has to be on the server's volumes, as far as the role may know."""
    if not facts["folder"]:
        return ""
    log = os.path.join(facts["folder"], "pg_wal")
    parts = [f"in {facts['folder']}"]
    if os.path.islink(log):
        parts.append(f"with WAL in {os.path.realpath(log)}")
    if facts["tablespaces"]:
        parts.append(f"with tablespaces in {', '.join(facts['tablespaces'])}")
    return " " + ", ".join(parts)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a PostgreSQL cluster into backup mode (``pg_backup_start``) with one open session of ``psql``.

Nothing blocks: PostgreSQL keeps writing, and a server started on the copy replays what was written since the last
checkpoint. Backup mode makes that checkpoint recent and its log complete.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from ...host.clock import Deadline
from ...host.errors import DriverError
from ...host.options import Option
from ...host.users import as_user, environment_of
from ..sessions import Session
from .base import Surroundings
from .by_session import SessionDriver

KNOWN = "SELECT to_regprocedure('pg_backup_start(text, boolean)') IS NOT NULL"
"""Whether the server has the function that replaced pg_start_backup in PostgreSQL 15."""

CONNECT_TIMEOUT = 5

QUIET = "SET client_min_messages = error"
"""Keeps the server's notices out of a statement's result."""

LIMITS = (
    "statement_timeout",
    "lock_timeout",
    "transaction_timeout",
    "idle_session_timeout",
    "idle_in_transaction_session_timeout",
)
"""A site's settings by which the server would end a slow statement or an idle session."""

PATIENT = f"SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN {LIMITS}"
"""Disables those of the limits that this server knows, for the session."""

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
    """One cluster. ``result`` is what pg_backup_stop returned, for restores with archived WAL."""

    name = "postgresql"
    options = {
        "psql": Option("path", "The psql to use.", default="/usr/bin/psql"),
        "user": Option("str", "The server's user that runs psql.", default="postgres"),
        "socket": Option("path", "The directory of PostgreSQL's socket, if psql does not find it."),
        "port": Option("number", "The cluster's port, if psql does not find it."),
        "database": Option("str", "The database to connect to.", default="postgres"),
        "role": Option("str", "The role to connect as, if its name differs from 'user'."),
        "service": Option("str", "A connection service, which says how to connect."),
        "service_file": Option("path", "The file that describes the service, if psql does not find it."),
        "password_file": Option("path", "The file with the role's password, if psql does not find it."),
        "checkpoint_timeout": Option("number", "Seconds that the checkpoint before the freeze may take.", default=60),
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
            self._settle(session, deadline)
            if session.run(KNOWN, deadline.left()) != ["t"]:
                version = session.run("SHOW server_version", deadline.left())[0]
                raise DriverError(f"postgresql: version {version} has no pg_backup_start: 15 or newer is required")
            facts = json.loads(" ".join(session.run(FACTS, deadline.left())))
        self._check_facts(facts)
        return f"can freeze PostgreSQL {facts['version'].partition(' ')[0]}{_where(facts)}"

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
        self._settle(session, deadline)
        session.run(f"SET application_name = '{name}'", deadline.left())
        session.run("CHECKPOINT", float(self.values["checkpoint_timeout"]))

    def _settle(self, session: Session, deadline: Deadline) -> None:
        """Have a session return only results, without the site's time limits."""
        session.run(QUIET, deadline.left())
        session.run("SET statement_timeout = 0", deadline.left())  # for the statement that disables the others
        session.run(PATIENT, deadline.left())

    def begin(self, session: Session) -> None:
        label = f"openisb {self.run_id}".strip()
        session.run(f"SELECT pg_backup_start('{label}', fast := true)", self.timeout, self.cancelled)

    def finish(self, session: Session) -> None:
        # PostgreSQL archives WAL on its own; waiting for that would prolong the hold.
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
    """The directories that must be on the server's volumes, as far as the role may see them."""
    if not facts["folder"]:
        return ""
    log = os.path.join(facts["folder"], "pg_wal")
    parts = [f"in {facts['folder']}"]
    if os.path.islink(log):
        parts.append(f"with WAL in {os.path.realpath(log)}")
    if facts["tablespaces"]:
        parts.append(f"with tablespaces in {', '.join(facts['tablespaces'])}")
    return " " + ", ".join(parts)

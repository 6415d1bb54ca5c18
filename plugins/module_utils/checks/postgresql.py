# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a PostgreSQL cluster: starts it on its copied data directory, where it recovers as after a crash.

The copy's configuration files are not read: a copied ``archive_command`` or ``primary_conninfo`` would reach out to
production, and a copied ``shared_preload_libraries`` could run an attacker's code. Code in the database itself may
still run, such as functions of its indexes; so the server runs without privileges.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import time

from ..host.options import Option
from ..host.users import environment_of
from .base import Check, telling
from .bench import Bench, Finished
from .beneath import is_file, read_file
from .errors import CheckFailed
from .pgdata import DataFolder, entries

BINARIES = ("/usr/lib/postgresql/{version}/bin", "/usr/pgsql-{version}/bin")
PORT = 5432
LONGEST_SOCKET = 107 - len(f"/.s.PGSQL.{PORT}.lock")
"""Maximum length of a socket's directory."""
POLL = 0.1
DEEP = 4
"""Directory levels below a mount that are searched for a data directory."""
READY = "ready"
LONGEST_VERSION, LONGEST_STATE = 64, 4096
"""Maximum bytes of PG_VERSION, and of postmaster.pid."""
LOGGED = 256 * 1024
"""Bytes at the end of a server's log by which it is judged."""
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "unix_socket_group": "",
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "archive_mode": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "autovacuum": "off",
    "max_logical_replication_workers": "0",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
}
"""Settings that isolate the server and keep it quiet."""
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
"""Limits that the copy may set for a role or a database, which must not apply to a full check."""
PATIENT = " ".join(f"-c {name}=0" for name in LIMITS)
CONTROLLED = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
"""Settings that recovery needs as on production: setting -> its name in pg_controldata."""
FACTS = "SELECT count(*) || ' databases, ' || pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database"
AMCHECK = ["--heapallindexed", "--parent-check"]
"""Also check that every row is in its indexes and that index levels agree; nobody else uses the server."""


class PostgresqlCheck(Check):
    """Start, recover, query, ``pg_amcheck``, stop; then ``pg_checksums`` if the cluster has checksums."""

    name = "postgresql"
    label = "PostgreSQL"
    proves = True
    confined = True
    options = {
        "data": Option("path", "The data directory. Searched for on the mounts by default."),
        "user": Option("str", "The user of this host to run as, if not that of all checks."),
        "role": Option("str", "The superuser of the cluster.", default="postgres"),
        "bin": Option("path", "The directory of this host with PostgreSQL's programs, if it is not found."),
        "settings": Option("dict", "More server settings, such as shared_preload_libraries.", default={}),
        "amcheck": Option("bool", "Whether tables and indexes are checked.", default=True),
        "amcheck_options": Option("list", "Options of pg_amcheck besides --all.", default=AMCHECK),
        "checksums": Option("bool", "Whether checksums are verified, if the cluster has them.", default=True),
        "timeout": Option("number", "Seconds that the check may take.", default=3600),
    }

    def subject(self) -> str:
        return str(self.values["data"] or f"on {', '.join(self.places.mounts)}")

    def account(self) -> str:
        return str(self.values["user"] or super().account())

    def run(self, bench: Bench) -> str:
        found = self._data_folder(bench)
        version = _version(found, self.places.there(found))
        programs = self._programs(version)
        data = DataFolder(found, self.places, bench)
        data.make_startable()
        server = Server(bench, programs, data.path, str(self.values["role"]))
        control = server.control()
        try:
            server.start({**_recovery(control), **self.values["settings"]})
            facts = server.ask(FACTS)
            if self.values["amcheck"]:
                server.amcheck(self.values["amcheck_options"])
            server.stop()
        finally:
            server.kill()
        summed = self.values["checksums"] and control.get("Data page checksum version", "0") != "0"
        if summed:
            server.verify_checksums()
        told = [f"PostgreSQL {version} recovered, {facts}"]
        told += ["no corruption found" if self.values["amcheck"] else "not checked for corruption"]
        return ", ".join(told + (["checksums correct"] if summed else []))

    def _data_folder(self, bench: Bench) -> str:
        if self.values["data"] is not None:
            folder = self.places.resolve(self.places.here(self.values["data"]))
            if not _is_data_folder(folder):
                raise CheckFailed(f"{self.values['data']} is not a PostgreSQL data directory: it has no PG_VERSION")
            return folder
        found = [folder for mount in self.places.mounts for folder in _search(self.places.here(mount), bench)]
        if not found:
            raise CheckFailed(f"there is no PostgreSQL data directory {self.subject()}: set its path in 'data'")
        if len(found) > 1:
            known = ", ".join(self.places.there(folder) for folder in found)
            raise CheckFailed(f"there is more than one PostgreSQL data directory: check each with 'data' ({known})")
        return found[0]

    def _programs(self, version: str) -> str:
        """The directory with the programs of that version."""
        folders = [self.values["bin"]] if self.values["bin"] else [each.format(version=version) for each in BINARIES]
        for folder in folders:
            if os.access(os.path.join(folder, "postgres"), os.X_OK):
                return str(folder)
        raise CheckFailed(
            f"the copy is from PostgreSQL {version}, which is not in {' or '.join(folders)} on this host: "
            "install it, or correct 'bin'"
        )


def _is_data_folder(folder: str) -> bool:
    return all(is_file(folder, name) for name in ("PG_VERSION", "global/pg_control"))


def _search(mount: str, bench: Bench) -> list[str]:
    """The data directories on a mount, except those inside another."""
    folders = [entry.path for entry in entries(mount, bench, DEEP - 1) if entry.is_dir(follow_symlinks=False)]
    found: list[str] = []
    for folder in sorted([mount, *folders], key=lambda path: path.count("/")):
        if _is_data_folder(folder) and not any(folder.startswith(f"{each}/") for each in found):
            found.append(folder)
    return found


def _version(data: str, name: str) -> str:
    text = read_file(data, "PG_VERSION", LONGEST_VERSION, f"{name}/PG_VERSION").decode("ascii", "replace").strip()
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise CheckFailed(f"PG_VERSION in the copy contains {text!r}, which is not a version: the copy is damaged")
    return text


def _recovery(control: dict[str, str]) -> dict[str, str]:
    return {setting: control[name] for setting, name in CONTROLLED.items() if control.get(name, "").isdigit()}


class Server:
    """A private server on a data directory, with its socket in a directory that only its user can enter.

    Its programs run in the data directory and get no path to it.
    """

    def __init__(self, bench: Bench, programs: str, data: str, role: str) -> None:
        self._bench = bench
        self._programs = programs
        self._data = data
        self._folder = bench.folder("server")
        if len(self._folder) > LONGEST_SOCKET:
            raise CheckFailed(f"the path {self._folder} is too long for a socket's directory: set a shorter 'scratch'")
        self._log = os.path.join(bench.work, "postgresql.log")
        self._process: subprocess.Popen[bytes] | None = None
        own = {
            "PGHOST": self._folder,
            "PGPORT": str(PORT),
            "PGUSER": role,
            "PGDATABASE": "postgres",
            "PGOPTIONS": PATIENT,
        }
        self._environment = {**environment_of(None), **own}

    def control(self) -> dict[str, str]:
        """The output of pg_controldata for the cluster."""
        told = self._call("pg_controldata", "-D", ".")
        if told.rc != 0:
            raise CheckFailed(f"pg_controldata failed (exit status {told.rc}): {telling(told.output, 'pg_control')}")
        if "WARNING" in told.output:
            raise CheckFailed(f"pg_controldata: {telling(told.output, 'WARNING')}")
        pairs = [line.partition(":") for line in told.output.split("\n")]
        return {name.strip(): value.strip() for name, _colon, value in pairs}

    def start(self, settings: dict[str, str]) -> None:
        """Start, and return once it has recovered. Raises CheckFailed."""
        self._write("postgresql.conf", "")
        self._write("pg_hba.conf", "local all all trust\n")  # only its user and root can reach the socket
        own = {
            "config_file": os.path.join(self._folder, "postgresql.conf"),
            "hba_file": os.path.join(self._folder, "pg_hba.conf"),
            "ident_file": os.path.join(self._folder, "pg_hba.conf"),
            "unix_socket_directories": self._folder,
            "external_pid_file": os.path.join(self._folder, "external.pid"),
        }
        words = [word for item in {**settings, **SETTINGS, **own}.items() for word in ("-c", "=".join(item))]
        command = [os.path.join(self._programs, "postgres"), "-D", ".", *words]
        self._process = self._bench.serve(command, self._environment, self._log, self._data)
        while not self._is_ready():
            if self._process.poll() is not None:
                said = telling(self._said(), "PANIC", "FATAL", "ERROR", "could not")
                raise CheckFailed(f"PostgreSQL did not start (exit status {self._process.returncode}): {said}")
            time.sleep(min(POLL, self._bench.left()))

    def _is_ready(self) -> bool:
        """Whether the server reports ready, in the last line of postmaster.pid."""
        try:
            text = read_file(self._data, "postmaster.pid", LONGEST_STATE, "postmaster.pid").decode("utf-8", "replace")
            return text.split("\n")[7].strip() == READY
        except (OSError, IndexError):
            return False

    def ask(self, statement: str) -> str:
        """What a statement returns. Raises CheckFailed."""
        told = self._call("psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-c", statement)
        if told.rc != 0:
            raise CheckFailed(f"'{statement}' failed: {telling(told.output, 'FATAL', 'ERROR', 'error')}")
        return told.output

    def amcheck(self, options: list[str]) -> None:
        """Check tables and indexes of all databases. Raises CheckFailed."""
        if not os.access(os.path.join(self._programs, "pg_amcheck"), os.X_OK):
            raise CheckFailed(
                f"there is no pg_amcheck in {self._programs} (14 and newer have it): set 'amcheck' to false"
            )
        done = self._call("pg_amcheck", "--all", "--install-missing", *options)
        if done.rc != 0:
            said = telling(done.output, "ERROR", "corrupt", "line pointer", "invalid", "heap table")
            raise CheckFailed(f"pg_amcheck found damage (exit status {done.rc}): {said}")

    def stop(self) -> None:
        """Stop regularly, which writes everything to the copy. Raises CheckFailed."""
        if self._process is None:
            raise CheckFailed("PostgreSQL was never started, so it cannot be stopped")
        self._process.send_signal(signal.SIGINT)
        while self._process.poll() is None:
            time.sleep(min(POLL, self._bench.left()))
        if self._process.returncode != 0:
            said = telling(self._said(), "PANIC", "FATAL")
            raise CheckFailed(f"PostgreSQL did not stop cleanly (exit status {self._process.returncode}): {said}")

    def kill(self) -> None:
        """End it at once, if it still runs, and record its log."""
        if self._process is None:
            return
        for number, patience in ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 2.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._bench.record.say(f"PostgreSQL's log:\n{self._said()}")

    def verify_checksums(self) -> None:
        """Read every page of the stopped cluster. Raises CheckFailed."""
        done = self._call("pg_checksums", "--check", "-D", ".")
        if done.rc != 0:
            raise CheckFailed(
                f"pg_checksums found damage (exit status {done.rc}): {telling(done.output, 'failed', 'error')}"
            )

    def _call(self, program: str, *arguments: str) -> Finished:
        command = [os.path.join(self._programs, program), *arguments]
        return self._bench.call(command, self._environment, folder=self._data)

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self._folder, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)

    def _said(self) -> str:
        try:
            with open(self._log, "rb") as stream:
                stream.seek(max(os.fstat(stream.fileno()).st_size - LOGGED, 0))
                return stream.read(LOGGED).decode("utf-8", "replace")
        except OSError:
            return ""

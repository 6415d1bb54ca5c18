# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PostgreSQL cluster: started on its copied data folder, so that it recovers as after a crash, and checked whole.

Nothing of the copy's own configuration files is read but ``postgresql.auto.conf``, which PostgreSQL always reads and
which the command line outweighs: a copied ``archive_command`` or ``primary_conninfo`` would reach for production.
"""

from __future__ import annotations

import os
import pwd
import re
import signal
import stat
import subprocess
import time
from typing import NamedTuple

from ..quiesce.drivers.base import Option
from ..quiesce.users import environment_of
from .base import Check, telling
from .bench import Bench, Finished
from .errors import CheckFailed
from .space import copy_folder, writable

BINARIES = ("/usr/lib/postgresql/{version}/bin", "/usr/pgsql-{version}/bin")
PORT = 5432
LONGEST_SOCKET = 107 - len(f"/.s.PGSQL.{PORT}.lock")
"""Characters that the folder of a socket may have."""
POLL = 0.1
DEEP = 4
"""Folders below a mount in which a data folder is looked for."""
READY = "ready"
STANDBY = ("standby.signal", "recovery.signal", "recovery.conf")
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
"""What keeps the server to itself, and still."""
CONTROLLED = {
    "max_connections": "max_connections setting",
    "max_worker_processes": "max_worker_processes setting",
    "max_wal_senders": "max_wal_senders setting",
    "max_prepared_transactions": "max_prepared_xacts setting",
    "max_locks_per_transaction": "max_locks_per_xact setting",
}
"""Settings that recovery needs as production had them: setting -> how pg_controldata calls it."""
FACTS = "SELECT count(*) || ' databases, ' || pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database"
AMCHECK = ["--heapallindexed", "--parent-check"]
"""Also whether every row is in its indexes, and whether the levels of an index agree; nobody else uses the server."""


class Owner(NamedTuple):
    """Who owns the data folder. A number, as production's users may have other names here, or none."""

    uid: int
    gid: int

    def prefix(self) -> list[str]:
        """What a command line begins with to run as the owner."""
        if self.uid == os.geteuid():
            return []
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]


class PostgresqlCheck(Check):
    """Start, recover, ask, ``pg_amcheck``, stop; then ``pg_checksums`` where the cluster has checksums."""

    name = "postgresql"
    options = {
        "data": Option("path", "The data folder. Looked for on the mounts where it is left out."),
        "user": Option("str", "The user of this host to run as, if it is not the data folder's owner."),
        "role": Option("str", "The superuser of the cluster.", default="postgres"),
        "bin": Option("path", "The folder of this host with PostgreSQL's programs, if it is not found."),
        "settings": Option("dict", "More settings of the server, such as shared_preload_libraries.", default={}),
        "amcheck": Option("bool", "Whether tables and indexes are checked.", default=True),
        "amcheck_options": Option("list", "Options of pg_amcheck beyond --all.", default=AMCHECK),
        "checksums": Option("bool", "Whether checksums are verified, where the cluster has them.", default=True),
        "timeout": Option("number", "Seconds that the check may take.", default=3600),
    }

    def subject(self) -> str:
        return str(self.values["data"] or f"on {', '.join(self.places.mounts)}")

    def run(self, bench: Bench) -> str:
        data = self._data_folder(bench)
        version = _version(data)
        programs = self._programs(version)
        owner = self._owner(data)
        if not writable(data):
            copy_folder(data, os.path.join(bench.work, "data"), bench)
            data = os.path.join(bench.work, "data")
        _check_access(owner, data, bench)
        self._make_startable(data, bench)
        server = Server(bench, programs, data, owner, str(self.values["role"]))
        control = server.control()
        try:
            server.start({**_recovery(control), **self.values["settings"]})
            found = server.ask(FACTS)
            if self.values["amcheck"]:
                server.amcheck(self.values["amcheck_options"])
            server.stop()
        finally:
            server.kill()
        summed = self.values["checksums"] and control.get("Data page checksum version", "0") != "0"
        if summed:
            server.verify_checksums()
        told = [f"PostgreSQL {version} recovered, {found}"]
        told += ["no corruption found" if self.values["amcheck"] else "not checked for corruption"]
        return ", ".join(told + (["checksums right"] if summed else []))

    def _data_folder(self, bench: Bench) -> str:
        if self.values["data"] is not None:
            folder = self.places.resolve(self.places.here(self.values["data"]))
            if not _is_data_folder(folder):
                raise CheckFailed(f"{self.values['data']} is no data folder of PostgreSQL: it has no PG_VERSION")
            return folder
        found = [folder for mount in self.places.mounts for folder in _search(self.places.here(mount), bench)]
        if not found:
            raise CheckFailed(f"there is no data folder of PostgreSQL {self.subject()}: name its place in 'data'")
        if len(found) > 1:
            known = ", ".join(self.places.there(folder) for folder in found)
            raise CheckFailed(f"there is more than one data folder of PostgreSQL: check each by 'data' ({known})")
        return found[0]

    def _programs(self, version: str) -> str:
        """The folder with the programs of that version."""
        folders = [self.values["bin"]] if self.values["bin"] else [each.format(version=version) for each in BINARIES]
        for folder in folders:
            if os.access(os.path.join(folder, "postgres"), os.X_OK):
                return str(folder)
        raise CheckFailed(
            f"the copy is one of PostgreSQL {version}, which is not in {' or '.join(folders)} on this host: "
            "install it, or correct 'bin'"
        )

    def _owner(self, data: str) -> Owner:
        entry = os.stat(data)
        owner = Owner(entry.st_uid, entry.st_gid)
        if self.values["user"] is not None:
            try:
                user = pwd.getpwnam(self.values["user"])
            except KeyError as error:
                raise CheckFailed(f"there is no user {self.values['user']} on this host: correct 'user'") from error
            owner = Owner(user.pw_uid, user.pw_gid)
        if owner.uid == 0:
            raise CheckFailed(f"{self.places.there(data)} belongs to root, as which PostgreSQL refuses to run")
        if os.geteuid() not in (0, owner.uid):
            raise CheckFailed(f"only root can start PostgreSQL as user {owner.uid}, who owns {self.places.there(data)}")
        return owner

    def _make_startable(self, data: str, bench: Bench) -> None:
        """Take away what belongs to the server that was copied, and have links lead to the copies."""
        for name in STANDBY:
            if os.path.exists(os.path.join(data, name)):
                raise CheckFailed(f"this is a copy of a standby server ({name} is in it): check its primary's instead")
        for name in ("postmaster.pid", "postmaster.opts"):
            if os.path.lexists(os.path.join(data, name)):
                os.unlink(os.path.join(data, name))
        spaces = os.path.join(data, "pg_tblspc")
        links = [os.path.join(spaces, name) for name in sorted(os.listdir(spaces))] if os.path.isdir(spaces) else []
        for link in [*links, os.path.join(data, "pg_wal")]:
            if os.path.islink(link):
                self._redirect(link, bench)

    def _redirect(self, link: str, bench: Bench) -> None:
        """Have a link lead to where its target is here: what it names may be a live server's on this host."""
        target = os.readlink(link)
        if not os.path.isabs(target):
            return
        here = self.places.here(target)
        if not os.path.isdir(here):
            raise CheckFailed(f"{self.places.there(link)} leads to {target}, which is not in the copy")
        self._cover(target, here, bench)
        if here != target:
            entry = os.lstat(link)
            os.unlink(link)
            os.symlink(here, link)
            os.lchown(link, entry.st_uid, entry.st_gid)

    def _cover(self, target: str, here: str, bench: Bench) -> None:
        """Have a path of production lead to the copy, as long as the check lasts, where this host has such a path, too.

        Replayed WAL names tablespaces by where they were made, and PostgreSQL makes them there again.
        """
        if not os.path.isdir(target) or os.path.samefile(target, here):
            return
        inside = os.path.realpath(target) + "/"
        free = not any(os.path.realpath(path).startswith(inside) for path in (here, bench.work))
        bind = ["mount", "--bind", here, target]
        if bench.own_mounts and free and bench.call(bind, environment_of(None)).rc == 0:
            return
        raise CheckFailed(
            f"{target} is a folder of this host, too, into which the copy might write: check the copy on another host"
        )


def _is_data_folder(folder: str) -> bool:
    return all(os.path.isfile(os.path.join(folder, name)) for name in ("PG_VERSION", "global/pg_control"))


def _search(mount: str, bench: Bench) -> list[str]:
    """The data folders on a mount."""
    found = []
    for folder, folders, _files in os.walk(mount, onerror=_raise):
        bench.left()
        if _is_data_folder(folder):
            found.append(folder)
            folders.clear()
        elif os.path.relpath(folder, mount).count("/") + 1 >= DEEP:
            folders.clear()
    return found


def _raise(error: OSError) -> None:
    raise error


def _version(data: str) -> str:
    with open(os.path.join(data, "PG_VERSION"), encoding="ascii", errors="replace") as stream:
        text = stream.read().strip()
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        raise CheckFailed(f"PG_VERSION in the copy says {text!r}, which is no version: the copy is damaged")
    return text


def _check_access(owner: Owner, data: str, bench: Bench) -> None:
    test = ["test", "-r", os.path.join(data, "PG_VERSION"), "-a", "-x", bench.work]
    if bench.call([*owner.prefix(), *test], environment_of(None)).rc != 0:
        raise CheckFailed(
            f"user {owner.uid}, who owns the copy, cannot enter {data} or {bench.work}: "
            "let others pass through the folders above (chmod o+x), or name another 'scratch'"
        )


def _recovery(control: dict[str, str]) -> dict[str, str]:
    return {setting: control[name] for setting, name in CONTROLLED.items() if control.get(name, "").isdigit()}


class Server:
    """A server of its own on a data folder, with its socket in a folder that only its user can enter."""

    def __init__(self, bench: Bench, programs: str, data: str, owner: Owner, role: str) -> None:
        self._bench = bench
        self._programs = programs
        self._data = data
        self._owner = owner
        self._folder = bench.folder("server")
        if len(self._folder) > LONGEST_SOCKET:
            raise CheckFailed(f"{self._folder} is too long for a socket's folder: name a shorter 'scratch'")
        if os.geteuid() == 0:
            os.chown(self._folder, owner.uid, owner.gid)
        self._log = os.path.join(bench.work, "postgresql.log")
        self._process: subprocess.Popen[bytes] | None = None
        own = {"PGHOST": self._folder, "PGPORT": str(PORT), "PGUSER": role, "PGDATABASE": "postgres"}
        self._environment = {**environment_of(None), **own}

    def control(self) -> dict[str, str]:
        """What pg_controldata tells of the cluster."""
        told = self._call("pg_controldata", "-D", self._data)
        if told.rc != 0:
            raise CheckFailed(f"pg_controldata failed (exit status {told.rc}): {telling(told.output, 'pg_control')}")
        if "WARNING" in told.output:
            raise CheckFailed(f"pg_controldata: {telling(told.output, 'WARNING')}")
        pairs = [line.partition(":") for line in told.output.splitlines()]
        return {name.strip(): value.strip() for name, _colon, value in pairs}

    def start(self, settings: dict[str, str]) -> None:
        """Start, and return once it has recovered. Raises CheckFailed."""
        self._write("postgresql.conf", "")
        self._write("pg_hba.conf", "local all all trust\n")  # who gets to the socket is its user, or root
        own = {
            "config_file": os.path.join(self._folder, "postgresql.conf"),
            "hba_file": os.path.join(self._folder, "pg_hba.conf"),
            "ident_file": os.path.join(self._folder, "pg_hba.conf"),
            "unix_socket_directories": self._folder,
            "external_pid_file": os.path.join(self._folder, "external.pid"),
        }
        words = [word for item in {**settings, **SETTINGS, **own}.items() for word in ("-c", "=".join(item))]
        command = [*self._owner.prefix(), os.path.join(self._programs, "postgres"), "-D", self._data, *words]
        self._process = self._bench.serve(command, self._environment, self._log)
        while not self._is_ready():
            if self._process.poll() is not None:
                said = telling(self._said(), "PANIC", "FATAL", "ERROR", "could not")
                raise CheckFailed(f"PostgreSQL did not start (exit status {self._process.returncode}): {said}")
            time.sleep(min(POLL, self._bench.left()))

    def _is_ready(self) -> bool:
        """Whether the server says so, in the last line of its file."""
        try:
            with open(os.path.join(self._data, "postmaster.pid"), encoding="utf-8", errors="replace") as stream:
                return stream.read().splitlines()[7].strip() == READY
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
        """Stop as an administrator would, which writes everything to the copy. Raises CheckFailed."""
        if self._process is None:
            raise CheckFailed("PostgreSQL was never started, so it cannot be stopped")
        self._process.send_signal(signal.SIGINT)
        while self._process.poll() is None:
            time.sleep(min(POLL, self._bench.left()))
        if self._process.returncode != 0:
            said = telling(self._said(), "PANIC", "FATAL")
            raise CheckFailed(f"PostgreSQL did not stop cleanly (exit status {self._process.returncode}): {said}")

    def kill(self) -> None:
        """End it at once, if it has not ended, and put what it said on record."""
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
        done = self._call("pg_checksums", "--check", "-D", self._data)
        if done.rc != 0:
            raise CheckFailed(
                f"pg_checksums found damage (exit status {done.rc}): {telling(done.output, 'failed', 'error')}"
            )

    def _call(self, program: str, *arguments: str) -> Finished:
        command = [*self._owner.prefix(), os.path.join(self._programs, program), *arguments]
        return self._bench.call(command, self._environment)

    def _write(self, name: str, text: str) -> None:
        path = os.path.join(self._folder, name)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(path, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)

    def _said(self) -> str:
        try:
            with open(self._log, encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

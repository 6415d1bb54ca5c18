# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real database servers of the tests' own, each in a folder and reached by its socket there alone, and load on them."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .conftest import wait_for, waits

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/"}


class Server:
    """A database server. ``folder`` is where its files are, ``socket`` how clients find it."""

    user: str
    client: list[str]

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket
        self.process: subprocess.Popen[bytes] | None = None

    def server_command(self) -> list[str]:
        raise NotImplementedError

    def client_environment(self) -> dict[str, str]:
        return ENVIRONMENT

    def start(self, *more: str) -> None:
        command = as_user(self.user, [*self.server_command(), *more])
        with open(self.socket.parent / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, cwd="/")
        wait_for(lambda: self.ask("SELECT 1", check=False) == "1" or self.must_run(), 20)

    def must_run(self) -> bool:
        assert self.process is not None and self.process.poll() is None, self.log()[-3000:]
        return False

    def log(self) -> str:
        return (self.socket.parent / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """End it at once, as a crash does."""
        raise NotImplementedError

    def ask(self, statement: str, check: bool = True, **environment: str) -> str:
        """What a statement returns, by a client of its own."""
        done = subprocess.run(
            as_user(self.user, self.client_command()),
            env={**self.client_environment(), **environment},
            input=statement,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            cwd="/",
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def client_command(self) -> list[str]:
        return self.client


def as_user(user: str, command: list[str]) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *command]


class Postgres(Server):
    """A PostgreSQL cluster. Only its own user may connect, without a password."""

    user = "postgres"
    client = ["psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"]

    def server_command(self) -> list[str]:
        settings = ["listen_addresses=", f"unix_socket_directories={self.socket}", "shared_buffers=16MB"]
        return [postgres_program("postgres"), "-D", str(self.folder), *(w for s in settings for w in ("-c", s))]

    def client_environment(self) -> dict[str, str]:
        return {**ENVIRONMENT, "PGHOST": str(self.socket), "PGDATABASE": "postgres"}

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(3)  # PostgreSQL's immediate shutdown: SIGKILL would leave its shared memory
            self.process.wait(10)

    def description(self, **options: Any) -> dict[str, Any]:
        return {"name": "postgresql", "socket": str(self.socket), **options}

    def held(self) -> bool:
        """Whether there is a session of a driver."""
        return self.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'openisb-%'") != "0"


class Mariadb(Server):
    """A MariaDB server, run by root."""

    user = "root"

    def server_command(self) -> list[str]:
        settings = [f"--datadir={self.folder}", f"--socket={self.socket}", "--skip-networking", "--user=root"]
        return ["mariadbd", "--no-defaults", *settings, *MARIADB_SMALL, f"--pid-file={self.socket}.pid"]

    def client_command(self) -> list[str]:
        client = ["mariadb", "--no-defaults", "-N", "-B", "--raw", "-n", f"--socket={self.socket}"]
        return [*client, "test"] if (self.folder / "test").exists() else client

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def description(self, **options: Any) -> dict[str, Any]:
        return {"name": "mariadb", "socket": str(self.socket), **options}

    def create_database(self, options: str = "") -> None:
        """The database that clients use from then on, with tables for load."""
        self.ask("CREATE DATABASE test")
        create_tables(self, options)

    def held(self) -> bool:
        """Whether a commit has to wait. It is ended then, and did not happen."""
        return waits(subprocess.Popen([*self.client_command(), "-e", "INSERT INTO a VALUES (99, 1, '')"]))


MARIADB_SMALL = ["--innodb-buffer-pool-size=16M", "--innodb-log-file-size=4M"]


def postgres_program(name: str) -> str:
    """A program of the newest PostgreSQL server here."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return str(max(folders, key=lambda folder: int(folder.parent.name)) / name)


@functools.cache
def template(kind: type[Server]) -> Path:
    """The folder of a new server that never ran; made once, and removed when the tests end."""
    base = Path(tempfile.mkdtemp(prefix="openisb-", dir="/tmp"))
    TEMPLATES.append(base)
    base.chmod(0o755)
    folder = base / "data"
    if kind is Postgres:
        give(base, "postgres")
        make = ["initdb", "-D", str(folder), "--auth=peer", "--no-sync", "--no-locale", "-E", "UTF8", "--wal-segsize=1"]
        command = as_user("postgres", [postgres_program(make[0]), *make[1:]])
    else:
        root = ["--user=root", "--auth-root-authentication-method=socket", "--auth-root-socket-user=root"]
        make = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}", "--skip-test-db", *root, *MARIADB_SMALL]
        command = make
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, cwd="/")
    return folder


TEMPLATES: list[Path] = []


def remove_templates() -> None:
    while TEMPLATES:
        shutil.rmtree(TEMPLATES.pop())
    template.cache_clear()


def give(folder: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    os.chown(folder, entry.pw_uid, entry.pw_gid)


def new(kind: type[Server], folder: Path, socket: Path) -> Any:
    """A new server of a kind in ``folder``, which is not started yet."""
    subprocess.run(["cp", "-a", str(template(kind)), str(folder)], check=True)
    return kind(folder, socket)


@contextlib.contextmanager
def running(server: Server, *more: str) -> Iterator[Any]:
    """The server, started, and killed in the end."""
    try:
        server.start(*more)
        yield server
    finally:
        server.kill()


class Load:
    """Commits rows, each in both tables ``a`` and ``b``, and notes those that the server said were committed."""

    def __init__(self, server: Server, number: int) -> None:
        self.number = number
        self.acknowledged = 0
        self._stop = threading.Event()
        command = as_user(server.user, server.client_command())
        self._process = subprocess.Popen(
            command,
            env=server.client_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            while not self._stop.is_set():
                row = f"({self.number}, {self.acknowledged + 1}, repeat('x', 500))"
                self._process.stdin.write(f"BEGIN; INSERT INTO a VALUES {row}; INSERT INTO b VALUES {row}; COMMIT;\n")
                self._process.stdin.write(f"SELECT {self.acknowledged + 1};\n")
                self._process.stdin.flush()
                if self._process.stdout.readline() != f"{self.acknowledged + 1}\n":
                    return
                self.acknowledged += 1

    def stop(self) -> None:
        self._stop.set()
        self._process.kill()
        self._process.communicate()
        self._thread.join()


@contextlib.contextmanager
def load(server: Server, clients: int = 3) -> Iterator[list[Load]]:
    """Load on a server with the tables of ``create_tables``, once every client has committed something."""
    loads = [Load(server, number) for number in range(clients)]
    try:
        wait_for(lambda: all(one.acknowledged > 20 for one in loads), 20)
        yield loads
    finally:
        for one in loads:
            one.stop()


def acknowledged(loads: list[Load]) -> list[int]:
    return [one.acknowledged for one in loads]


def create_tables(server: Server, options: str = "") -> None:
    for table in "ab":
        server.ask(f"CREATE TABLE {table} (client int, n int, filler text) {options}".strip())


def committed(server: Server, clients: int = 3) -> list[int]:
    """How many rows of each client a copy has. Fails unless they are its first ones, and the same in both tables."""
    counts = []
    for number in range(clients):
        counted = "SELECT count(*), count(DISTINCT n), max(n)"
        told = {server.ask(f"{counted} FROM {table} WHERE client = {number}") for table in "ab"}
        assert len(told) == 1, told
        words = told.pop().replace("|", "\t").split("\t")
        assert len(set(words)) == 1, words
        counts.append(int(words[0]))
    return counts


def command_lines() -> list[bytes]:
    """The command lines of all processes of this machine, without those that end meanwhile."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return found

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A consistency point of many servers over real SSH: each holder gets a forwarded socket, within preflight's limits.

One sshd stands for all servers, each of which has an address of 127.0.0.0/8 and a run folder of its own; one thread
answers for all holders. OPENISB_HOLDERS=300 is how many there are, 40 by default.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import open_files, process_limits
from families import family

pytestmark = [pytest.mark.root, pytest.mark.slow]

HOLDERS = int(os.environ.get("OPENISB_HOLDERS", "40"))
RUN = "isb-20261201T080000Z-abc123"
TIMEOUT = 300  # seconds
#: Seconds between two looks at all processes: they take processor time that the connections need.
INTERVAL = 0.5
SSHD = """\
Port {port}
ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups {startups}
"""


@pytest.fixture
def servers(tmp_path: Path) -> list[str]:
    """Names of servers."""
    return [f"s{number}" for number in range(HOLDERS)]


class Holders(threading.Thread):
    """Answers for the holder of every server, as one does that froze and thawed without a hitch."""

    def __init__(self, folder: Path, servers: list[str]) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.commands: dict[str, list[str]] = {server: [] for server in servers}
        self._frozen: dict[str, float] = {}
        self._selector = selectors.DefaultSelector()
        self._ending = threading.Event()
        for server in servers:
            (folder / server).mkdir(parents=True)
            (folder / server / f"hold-{RUN}.json").write_text('{"drivers": []}')
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / server / f"holder-{RUN}.sock"))
            listener.listen(8)
            self._selector.register(listener, selectors.EVENT_READ, server)

    def run(self) -> None:
        while not self._ending.is_set():
            for key, _events in self._selector.select(0.1):
                connection, _address = key.fileobj.accept()
                with connection, contextlib.suppress(OSError):
                    request = json.loads(connection.makefile().readline())
                    connection.sendall(json.dumps(self._answer(key.data, request)).encode() + b"\n")

    def end(self) -> None:
        """Stop answering."""
        self._ending.set()
        self.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()

    def _answer(self, server: str, request: dict[str, Any]) -> dict[str, Any]:
        now, command = time.time(), request["command"]
        self.commands[server].append(command)
        answer: dict[str, Any] = {"ok": True, "run_id": request["run_id"], "state": "armed", "hold_unbroken": False}
        if command == "freeze":
            self._frozen[server] = now
            answer.update(state="frozen", freeze_started=now, frozen=now, hold_unbroken=True)
        if command == "thaw":
            begun = self._frozen[server]
            answer.update(state="thawed", freeze_started=begun, frozen=begun, thaw_started=now, thawed=now)
            answer.update(window_ms=(now - begun) * 1000, hold_unbroken=True)
        return answer


@pytest.fixture
def holders(servers: list[str]) -> Iterator[Holders]:
    """In a folder of which sockets have a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        found = Holders(Path(folder), servers)
        found.start()
        yield found
        found.end()


@pytest.fixture
def startups() -> str:
    """How many logins at once sshd accepts."""
    return "1000"


@pytest.fixture
def port(tmp_path: Path, startups: str) -> Iterator[int]:
    """The port of an sshd that lets this user in."""
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    (tmp_path / "sshd_config").write_text(SSHD.format(folder=tmp_path, port=number, startups=startups))
    Path("/run/sshd").mkdir(exist_ok=True)
    log = ["-E", str(tmp_path / "sshd.log")]
    process = subprocess.Popen(["/usr/sbin/sshd", "-D", *log, "-f", str(tmp_path / "sshd_config")])
    try:
        _wait_for(number)
        yield number
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < end, "sshd does not start"
        time.sleep(0.05)


class Most(threading.Thread):
    """The most files that a process of a family has had open, and the most tasks (processes and threads) at one time.

    Connections in the background are no children any more; their command line has the folder of their sockets.
    """

    def __init__(self, pid: int, control: Path) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.control = os.fsencode(control)
        self.files = 0
        self.tasks = 0
        self.ending = threading.Event()

    def run(self) -> None:
        while not self.ending.wait(INTERVAL):
            pids = {*family(self.pid), *self._in_the_background()}
            self.files = max([self.files, *(_entries(pid, "fd") for pid in pids)])
            self.tasks = max(self.tasks, sum(_entries(pid, "task") for pid in pids))

    def _in_the_background(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if self.control in (folder / "cmdline").read_bytes():
                    yield int(folder.name)


def _entries(pid: int, folder: str) -> int:
    """How many files or tasks a process has; 0 if it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/{folder}"))
    return 0


@pytest.fixture
def inventory(tmp_path: Path, servers: list[str], holders: Holders, port: int) -> Path:
    """Every server with its own address, and so with its own connection; and one host more, for the storage."""
    arguments = f"-F none -i {tmp_path}/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    hosts = {
        name: {
            "ansible_host": f"127.1.{number // 250}.{number % 250 + 1}",
            "openisb_run_dir": str(holders.folder / name),
        }
        for number, name in enumerate([*servers, "storage"])
    }
    variables = {
        "ansible_port": port,
        "ansible_user": pwd.getpwuid(os.geteuid()).pw_name,
        "ansible_ssh_common_args": f"{arguments} -o LogLevel=ERROR",
        "ansible_control_path_dir": str(tmp_path / "cp"),
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
    return path


def point(tmp_path: Path, project_root: Path, inventory: Path, servers: list[str]) -> tuple[dict[str, Any], Most]:
    """The result of the action, and what it took."""
    task = {
        "openisb.backup.consistency_point": {
            "run_id": RUN,
            "servers": servers,
            "snapshots": {"storage": "date +%s.%N && date +%s.%N"},
            "timeout": TIMEOUT,
            "storage_timeout": 60,
        }
    }
    playbook = tmp_path / "point.json"
    playbook.write_text(json.dumps([{"hosts": "storage", "gather_facts": False, "tasks": [task]}]))
    settings = {
        "ANSIBLE_CONFIG": str(project_root / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory), str(playbook)],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project_root,
    ) as process:
        most = Most(process.pid, tmp_path / "cp")
        most.start()
        try:
            output, errors = process.communicate(timeout=3 * TIMEOUT)
        finally:
            process.kill()
            most.ending.set()
            most.join()
            for control in (tmp_path / "cp").glob("*"):
                subprocess.run(
                    ["ssh", "-O", "exit", "-o", f"ControlPath={control}", "x"], capture_output=True, check=False
                )
    assert output, errors
    document = json.loads(output[output.index("{") :])
    return document["plays"][0]["tasks"][0]["hosts"]["storage"], most


def test_every_holder_is_reached_over_a_socket_and_within_the_limits(
    tmp_path: Path, project_root: Path, inventory: Path, servers: list[str], holders: Holders
) -> None:
    result, most = point(tmp_path, project_root, inventory, servers)
    assert result["problems"] == []
    assert sorted(result["forwarded"]) == sorted(servers)
    assert all(answer["ok"] and answer["hold_unbroken"] for answer in result["thaw"]["servers"].values())
    assert all(commands == ["status", "freeze", "thaw"] for commands in holders.commands.values())
    files = open_files.OF_ANSIBLE + open_files.OF_A_HOST * len(servers)
    tasks = process_limits.OF_ANSIBLE + process_limits.OF_A_HOST * len(servers)
    print(f"{len(servers)} holders: {most.files} files of {files}, {most.tasks} tasks of {tasks}, {result['seconds']}")
    assert len(servers) < most.files <= files
    assert len(servers) < most.tasks <= tasks


@pytest.mark.parametrize("startups", ["1:100:2"])
def test_logins_that_are_refused_are_named_before_anything_is_frozen(
    tmp_path: Path, project_root: Path, inventory: Path, servers: list[str], holders: Holders
) -> None:
    result, _most = point(tmp_path, project_root, inventory, servers)
    assert result["problems"]
    assert result["freeze"] == {}
    assert not any("freeze" in commands for commands in holders.commands.values())

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's hosts as the machine sees them: reached without their network, which may be cut."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "lab/roles/lab/files"
STAND_INS = Path(__file__).with_name("stand_ins")
#: Where the stand-ins are on a host, and where a fault leaves word for them.
PROGRAMS, WORD = "/var/lib/faults", "/run/faults"
TIMEOUT = 60  # seconds


def _labtool(name: str) -> ModuleType:
    """A module of the program that makes the lab."""
    sys.path.insert(0, str(FILES / "labtool"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


class Machine:
    """Does to hosts what nobody on the network could."""

    def __init__(self, folder: Path) -> None:
        self.hosts = _labtool("hosts")
        self.database = _labtool("database")
        network = _labtool("network")
        self.lab = _labtool("spec").read(folder / "lab.json")
        self.network = network.existing(self.lab)
        self.names = [host.name for host in self.lab.hosts]
        self.servers = [host.name for host in self.lab.file_servers]
        self._host = {host.name: host for host in self.lab.hosts}
        self._pids: dict[str, int] = {}

    def pid(self, host: str) -> int:
        """The pid of the host's first process."""
        if host not in self._pids:
            self._pids[host] = self.hosts.first_process(self.lab, self._host[host])
        return self._pids[host]

    def path(self, host: str, path: str) -> Path:
        """A path of a host, as the machine can open it."""
        return Path(f"/proc/{self.pid(host)}/root{path}")

    def run(self, host: str, command: str) -> str:
        """Run a command of the shell on a host; its output. Raises where it fails."""
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        done = subprocess.run(
            ["nsenter", "--target", str(self.pid(host)), *namespaces, "--", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"},
        )
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    @staticmethod
    def kernel_said(word: str, lines: int = 5) -> str:
        """The last lines of the kernel's log that have a word in them."""
        log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout.splitlines()
        return "\n".join([line for line in log if word in line][-lines:])

    # The network

    def cut(self, host: str) -> None:
        """Take a host off the network."""
        self._link(host, "down")

    def join(self, host: str) -> None:
        """Bring it back."""
        self._link(host, "up")

    def _link(self, host: str, state: str) -> None:
        interface = self.network.interface(self._host[host])
        subprocess.run(["ip", "link", "set", interface, state], check=True)

    def end_sshd(self, host: str) -> None:
        """Kill a host's sshd with all its sessions."""
        for pid, name, _command in self.processes(host):
            if name == "sshd":
                self.kill(pid, signal.SIGKILL)

    def start_sshd(self) -> None:
        """Start every sshd that does not answer."""
        self.hosts.connect(self.lab, self.network)

    # Processes

    def processes(self, host: str) -> Iterator[tuple[int, str, str]]:
        """Pid on the machine, name and command line of each process of a host."""
        namespace = os.readlink(f"/proc/{self.pid(host)}/ns/pid")
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and os.readlink(folder / "ns/pid") == namespace:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    yield int(folder.name), (folder / "comm").read_text().strip(), command

    def inner_pid(self, host: str, inner: int) -> int | None:
        """The pid on the machine of a process that the host knows by the number ``inner``."""
        for pid, _name, _command in self.processes(host):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("NSpid:") and line.split()[-1] == str(inner):
                        return pid
        return None

    @staticmethod
    def kill(pid: int, how: signal.Signals) -> None:
        """Signal a process, which may be gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)

    def holder(self, server: str, which: str = "holder") -> int | None:
        """The pid on the machine of the newest hold's process: ``holder`` or ``partner``."""
        records = [json.loads(path.read_text()) for path in self.path(server, "/run/openisb").glob("hold-*.json")]
        records.sort(key=lambda record: record["status"].get("armed") or 0)
        process = records[-1].get(which) if records else None
        return self.inner_pid(server, process["pid"]) if process else None

    def set_clock(self, host: str, offset: str) -> None:
        """The wall clock that Python sees on a host from now on: seconds, as +3600, from the real one."""
        path = self.path(host, f"{WORD}/clock")
        path.with_suffix(".new").write_text(offset + "\n")
        path.with_suffix(".new").rename(path)

    # Word for the stand-ins

    def install(self) -> None:
        """Put the stand-ins on every host."""
        python = {"python3": "/usr/bin/python3", "engine": "/var/lib/openisb/venv/bin/python"}
        for host in self.names:
            folder = self.path(host, PROGRAMS)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o755)
            (folder / "gtm").mkdir(mode=0o755)
            for each in Path(self.lab.gtm_dist).iterdir():
                (folder / "gtm" / each.name).symlink_to(each)
            for name, program in python.items():
                self._stand_in(folder / name, "python3", program)
            self._stand_in(folder / "gate", "gate", "")
            self._stand_in(folder / "shifted.py", "shifted.py", "")
            for name in ("mupip", "mumps"):
                (folder / "gtm" / name).unlink()
                self._stand_in(folder / "gtm" / name, name, "")
            self.forget(host)

    def _stand_in(self, path: Path, name: str, python: str) -> None:
        text = (STAND_INS / name).read_text()
        path.write_text(text.replace("@PYTHON@", python).replace("@DIST@", self.lab.gtm_dist))
        path.chmod(0o755)

    def backs_up(self, host: str) -> bool:
        """Whether the backup of a file server is reading on a backup server."""
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            told = [path.read_text() for path in self.path(host, "/run/openisb/jobs").glob("isb-*.fs*.json")]
            return any(json.loads(text)["state"] == "running" for text in told)
        return False

    def tell(self, host: str, *words: str) -> None:
        """Leave word for the stand-ins of a host."""
        for word in words:
            self.path(host, f"{WORD}/{word}").touch()

    def told(self, host: str, word: str) -> bool:
        """Whether that word is there."""
        return self.path(host, f"{WORD}/{word}").exists()

    def untell(self, host: str, word: str) -> None:
        """Take it back."""
        self.path(host, f"{WORD}/{word}").unlink(missing_ok=True)

    def forget(self, host: str) -> None:
        """Take back every word, and end what hangs because of one."""
        shutil.rmtree(self.path(host, WORD), ignore_errors=True)
        self.path(host, WORD).mkdir(mode=0o755)
        for pid, _name, command in self.processes(host):
            if command == "sleep 86399":
                self.kill(pid, signal.SIGKILL)

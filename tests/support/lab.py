# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as tests use it from outside: playbooks as a person starts them, and commands on its hosts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 240  # seconds


class Lab:
    """The running lab in ``folder``."""

    servers = ("fs1", "fs2", "fs3")

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(
        self,
        playbook: str,
        *options: str,
        host_vars: dict[str, Any] | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a playbook in a process group of its own; ``host_vars``: variables by host."""
        inventories = ["-i", "inventories/lab"]
        if host_vars:
            inventories += ["-i", str(self._overrides(host_vars))]
        return subprocess.Popen(
            ["ansible-playbook", *inventories, "-e", f"lab_dir={self.folder}", playbook, *options],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _overrides(self, host_vars: dict[str, Any]) -> Path:
        """An inventory that says otherwise of some hosts: in host_vars, as that is where the lab's own says it."""
        folder = self.folder / "overrides"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "host_vars").mkdir(parents=True)
        (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": dict.fromkeys(host_vars, {})}}))
        for host, variables in host_vars.items():
            (folder / "host_vars" / f"{host}.json").write_text(json.dumps(variables))
        return folder

    def play(self, playbook: str, *options: str, **more: Any) -> tuple[int, str]:
        """Run a playbook; its exit status and output."""
        with self.start(playbook, *options, **more) as process:
            try:
                output, dummy = process.communicate(timeout=TIMEOUT)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        return process.returncode, output

    def on(self, host: str, command: str, timeout: float = TIMEOUT) -> str:
        """Run a command on a host, over SSH as a person would; its output. Raises where it fails."""
        done = subprocess.run(
            ["ssh", "-F", self.folder / "ssh_config", host, command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def holders(self) -> dict[str, dict[str, Any]]:
        """What the holder of each server says of itself; servers without one are left out."""
        done = subprocess.run(
            ["ansible", "-o", "-i", "inventories/lab", "-e", f"lab_dir={self.folder}", "file_servers"]
            + ["-m", "openisb.backup.quiesce_info", "-a", "run_dir=/run/openisb"],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            },
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        found = {}
        for line in done.stdout.splitlines():
            server, dummy, rest = line.partition(" | ")
            for holder in json.loads(rest.partition("=> ")[2])["holders"]:
                found[server] = holder
        return found

    def journal(self) -> list[dict[str, Any]]:
        """All records of the run journal."""
        text = self.on("backup1", "cat /var/lib/openisb/journal/runs.jsonl 2>/dev/null || true")
        return [json.loads(line) for line in text.splitlines()]

    def luns_in_snapshots(self) -> dict[str, list[str]]:
        """The runs in whose snapshots each LUN is, by its serial."""
        found: dict[str, list[str]] = {}
        for path in self.on("storage1", "cd /srv/pool/snapshots && find . -name '*.lun' | sort").split():
            run_id, name = Path(path).parts
            found.setdefault(name.removesuffix(".lun"), []).append(run_id)
        return found

    def bases(self) -> dict[str, list[str]]:
        """By the journal, the run in whose snapshot each LUN must be: the last one that saved it and did not die."""
        bases: dict[str, list[str]] = {}
        saved: dict[tuple[str, str], list[str]] = {}
        for record in self.journal():
            run_id, event, data = record["run_id"], record["event"], record["data"]
            if event == "saveset":
                saved.setdefault((run_id, data["server"]), []).append(data["saveset"]["metadata"]["serial"])
            elif event == "cleaned":
                bases.update(dict.fromkeys(saved.get((run_id, data["server"]), []), [run_id]))
            elif event == "closed" and data.get("recovered"):
                bases = {serial: runs for serial, runs in bases.items() if runs != [run_id]}
        return bases

    def nothing_is_left(self) -> None:
        """No run has left a holder, a guard, an export, a key, or a snapshot of a LUN but the base of the next run."""
        assert self.holders() == {}
        assert self.on("storage1", "test ! -d /run/openisb/exports || ls -A /run/openisb/exports").strip() == ""
        assert self.on("backup1", "find /run /dev/shm -name 'openisb-handed.*'") == ""
        for server in self.servers:
            assert "thaw-guard" not in self.on(server, "ps -e -o comm=")
        assert self.luns_in_snapshots() == self.bases()
        assert self.on("storage1", "find /srv/pool/snapshots -name '*.kept'") == ""
        assert "nbdkit" not in self.on("storage1", "ps -e -o comm=")

    def runs(self, server: str) -> list[str]:
        """The runs that have saved a server, oldest first."""
        saved = [r["run_id"] for r in self.journal() if r["event"] == "saveset" and r["data"]["server"] == server]
        return list(dict.fromkeys(saved))

    # Drills

    def drills(self) -> list[dict[str, Any]]:
        """All records of the drills' journal."""
        text = self.on("backup1", "cat /var/lib/openisb/journal/drills.jsonl 2>/dev/null || true")
        return [json.loads(line) for line in text.splitlines()]

    def drill_report(self, drill: str) -> dict[str, Any]:
        """The report of a drill, as it lies beside the savesets."""
        found: dict[str, Any] = json.loads(self.on("backup1", f"cat /var/lib/openisb/repository/reports/{drill}.json"))
        return found

    def left_of_drills(self) -> dict[str, list[str]]:
        """What any drill has left, by host: mounts, loop devices, programs, memory, files, exports, leases, clones.

        What is restored to a volume's own target is no part of a drill, and stays.
        """
        found = {
            "dr1": self._lines(
                "dr1",
                'awk \'$2 ~ "^/srv/" || $2 ~ "^/run/openisb" {print $1, $2}\' /proc/mounts',
                "find /srv/idr /run/openisb/luns /run/openisb/exports -mindepth 1 2>/dev/null || true",
                "find /var/lib/openisb/idr -mindepth 1",
                "ps -e -o comm=,args= | grep -E '^(nbdkit|nbdfuse|nbd-client|mupip|mumps|sleep 8)' || true",
                "ipcs --shmems | grep '^0x' || true",
            ),
            "backup1": self._lines(
                "backup1",
                "find /run/openisb/exports /var/lib/openisb/idr -mindepth 1 2>/dev/null || true",
                "find /run/openisb/jobs -name 'idr-*' 2>/dev/null || true",
                "find /var/lib/openisb/repository/gc/leases -mindepth 1 2>/dev/null || true",
                "pgrep -l nbdkit || true",
            ),
            "storage1": self._lines(
                "storage1",
                "find /srv/pool/snapshots -maxdepth 1 -name 'idr-*'",
                "find /run/openisb/exports -mindepth 1 2>/dev/null || true",
                "pgrep -l nbdkit || true",
            ),
            "machine": self._loops_of_drills(),
        }
        return {host: lines for host, lines in found.items() if lines}

    def _lines(self, host: str, *commands: str) -> list[str]:
        return self.on(host, " && ".join(f"{{ {command}; }}" for command in commands)).splitlines()

    def _loops_of_drills(self) -> list[str]:
        """Loop devices of this machine, which are all hosts', that are attached to what a drill shows as a file."""
        names = [
            f"{record['run_id']}.{server}.{volume['name']}"
            for record in self.drills()
            if record["event"] == "opened"
            for server, entry in record["data"]["servers"].items()
            for volume in entry["volumes"]
        ]
        # The folder of a LUN has this name: see module_utils/luns/names.py.
        marks = [hashlib.sha256(name.encode()).hexdigest()[:16] for name in names] + names
        return [
            f"{path.parent.parent.name} {backing}"
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if any(mark in (backing := _text(path)) for mark in marks)
        ]


def refused(lab: Lab, *options: str, **more: Any) -> str:
    """Run isb.yml, which must be refused; what its last word was."""
    before = lab.journal()
    status, output = lab.play("isb.yml", *options, **more)
    assert status != 0, output
    assert lab.holders() == {}, "a holder was armed"
    messages = [line for line in output.splitlines() if "Nothing was started" in line and "[ERROR]" in line]
    assert len(messages) == 1, output
    (record,) = lab.journal()[len(before) :]
    assert record["event"] == "refused", "a run was opened"
    assert all(problem[:100] in " ".join(messages[0].split()) for problem in record["data"]["problems"])
    return messages[0]


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # it was detached
        return ""

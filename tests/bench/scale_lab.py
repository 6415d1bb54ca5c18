# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab with many light file servers, and the code whose runs are measured in it: this checkout's or a commit's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.machine import Machine

ROOT = Path(__file__).resolve().parents[2]
THIS = "this"
#: MiB of disk for a server: its images, their snapshots and savesets, its host's folders; and besides.
DISK, DISK_OF_A_SERVER = 2048, 48
#: MiB of memory for a server: sshd, load, and the locked processes of its hold; and besides, with the controller.
MEMORY, MEMORY_OF_A_SERVER = 3072, 150
START = 1200  # seconds
#: Workers of Ansible at least; with more servers than that, a few more than servers, as docs/run.md recommends.
FORKS = 64


@dataclass(frozen=True)
class Code:
    """A checkout whose playbooks are run."""

    name: str
    root: Path


def this_code() -> Code:
    """This checkout."""
    return Code(THIS, ROOT)


def code_of(revision: str, folder: Path) -> Code:
    """A work tree of a commit, made below ``folder``.  Raises SystemExit if there is no such commit."""
    commit = _git("rev-parse", "--short=12", "--verify", f"{revision}^{{commit}}").strip()
    root = folder / commit
    if not root.is_dir():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(root), commit)
    return Code(commit, root)


def drop_code(code: Code) -> None:
    """Remove the work tree of a commit."""
    _git("worktree", "remove", "--force", str(code.root))


def _git(*arguments: str) -> str:
    # The checkout may belong to the user who called sudo.
    command = ["git", "-C", str(ROOT), "-c", f"safe.directory={ROOT}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout


class LightLab:
    """The lab with ``count`` light file servers in ``folder``."""

    def __init__(self, folder: Path, count: int, load: str = "started") -> None:
        self.folder = folder
        self.count = count
        self.load = load
        self.inventories = [ROOT / "inventories/lab_light", folder / "light.json"]

    def start(self) -> None:
        """Start it from nothing: a lab keeps its hosts until it is removed."""
        self.stop()
        self._play("present", "-e", f"lab_light_servers={self.count}", "-e", f"lab_load_state={self.load}")

    def stop(self) -> None:
        """Remove it, if it is there."""
        self._play("absent")

    def machine(self) -> Machine:
        """Its hosts, as this machine sees them."""
        return Machine(self.folder)

    def _play(self, state: str, *options: str) -> None:
        options = ("-e", f"lab_dir={self.folder}", "-e", f"lab_state={state}", "-e", "lab_profile=namespaces", *options)
        run(["ansible-playbook", str(ROOT / "lab/lab.yml"), *options], self.folder, timeout=START)


class Site:
    """The lab as one code uses it, with folders of its own on every host: codes may keep things in different forms."""

    def __init__(self, lab: LightLab, code: Code, number: int) -> None:
        self.lab = lab
        self.code = code
        self.name = f"{code.name}-{number}"
        self.state_dir = f"/var/lib/openisb-{self.name}"

    def command(self, playbook: str, *options: str, inventory: Path | None = None) -> list[str]:
        """How to run a playbook of the code; ``inventory``: another one, which says otherwise of some hosts."""
        inventories = [*self.lab.inventories, *([inventory] if inventory else [])]
        variables = {
            "lab_dir": str(self.lab.folder),
            "openisb_state_dir": self.state_dir,
            "snapshot_directory": f"/srv/pool/snapshots-{self.name}",
            "isb_journal_heads": str(self.lab.folder / f"journal-heads-{self.name}"),
        }
        chosen = [part for path in inventories for part in ("-i", str(path))]
        return ["ansible-playbook", *chosen, "-e", json.dumps(variables), playbook, *options]

    def environment(self) -> dict[str, str]:
        """The environment of its playbooks."""
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(self.code.root / "ansible.cfg"),
            "ANSIBLE_FORKS": str(max(FORKS, self.lab.count + 8)),
        }

    def set_up(self) -> None:
        """Make everything that a first run needs."""
        run(self.command("setup.yml"), self.lab.folder, cwd=self.code.root, environment=self.environment())

    def forget_connections(self) -> None:
        """End the connections to hosts that Ansible keeps open, so that a run opens its own."""
        folder = Path(f"~/.ansible/cp/openisb-{self.lab.machine().lab.id}").expanduser()
        for socket in folder.glob("*") if folder.is_dir() else []:
            leave = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"]
            subprocess.run(leave, capture_output=True, check=False)
            socket.unlink(missing_ok=True)

    def override(self, variables: dict[str, dict[str, Any]]) -> Path:
        """An inventory with variables of some file servers."""
        path = self.lab.folder / "overrides.json"
        path.write_text(json.dumps({"file_servers": {"hosts": variables}}))
        return path


def run(
    command: list[str],
    folder: Path,
    *,
    cwd: Path = ROOT,
    environment: dict[str, str] | None = None,
    timeout: float | None = None,
) -> str:
    """Run a command; its output.  Raises SystemExit with the end of it where the command fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"{' '.join(command)} took more than {timeout} s for {folder}") from error
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed for {folder}:\n{done.stdout[-4000:]}")
    return done.stdout


def too_small(folder: Path, servers: int) -> str:
    """Why this machine cannot run so many servers in a folder; empty if it can."""
    folder.mkdir(parents=True, exist_ok=True)
    disk, needed = shutil.disk_usage(folder).free >> 20, DISK + DISK_OF_A_SERVER * servers
    if disk < needed:
        return f"{folder} has {disk} MiB of free disk space, and {servers} servers may need {needed} MiB"
    memory, needed = available_mebibytes(), MEMORY + MEMORY_OF_A_SERVER * servers
    if memory < needed:
        return f"this machine has {memory} MiB of memory available, and {servers} servers may need {needed} MiB"
    return ""


def available_mebibytes() -> int:
    """Memory that programs could still use."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    raise SystemExit("/proc/meminfo does not say how much memory is available")

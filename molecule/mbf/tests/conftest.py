# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as a MEDITECH site, used from outside: playbooks as an operator starts them, and commands on its hosts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT = 300  # seconds
RINGS = {"npr": ["fs1", "fs2"], "mat": ["fs3"]}
SERVERS = [server for servers in RINGS.values() for server in servers]

# A writer to a frozen filesystem cannot be killed, so nothing waits for it: it ends when the freeze ends.
WRITE = r"""
said=/tmp/free-$$
(sh -c 'for m in $(findmnt --noheadings --output TARGET --raw | grep ^/srv/)
        do touch $m/.probe-$1 && rm $m/.probe-$1 || exit; done
        touch $0' $said $$ </dev/null >/dev/null 2>&1 &)
for try in 1 2 3 4 5 6 7 8 9 10; do test -e $said && echo free && break; sleep 0.2; done
rm -f $said
"""


class Site:
    """The lab in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = self.on("backup1", "cat /root/mbf-password").strip()

    def start(self, playbook: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a playbook in its own process group; its output goes to a file, see `said`."""
        return self._start("ansible-playbook", playbook, *options)

    def _start(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "said", "wb") as output:
            return subprocess.Popen(
                [program, "-i", "inventories/lab_mbf", "-e", f"lab_dir={self.folder}", *options],
                cwd=ROOT,
                env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        """Return what the last playbook has printed."""
        return (self.folder / "said").read_text()

    def play(self, playbook: str, *options: str) -> tuple[int, str]:
        """Run a playbook; return its exit status and output."""
        process = self.start(playbook, *options)
        return process.wait(TIMEOUT), self.said()

    def module(self, command: str) -> tuple[int, str]:
        """Run the module mbf alone for the ring npr; return its exit status, and its output in one line."""
        options = (
            f"command={command} executable=/lab/mbf/mbf intermediaries=localhost:2987 "
            "user=backup password_file=/root/mbf-password timeout=8"
        )
        process = self._start("ansible", "npr", "-m", "openisb.backup.mbf", "-a", options)
        return process.wait(TIMEOUT), " ".join(self.said().split())

    def isb(self, *options: str) -> tuple[int, str, dict[str, Any]]:
        """Run isb.yml; return its exit status, output and report."""
        path = self.folder / "report.json"
        path.unlink(missing_ok=True)
        status, output = self.play("isb.yml", "-e", f"isb_report_path={path}", *options)
        return status, output, json.loads(path.read_text()) if path.exists() else {}

    def on(self, host: str, command: str) -> str:
        """Run a command on a host over SSH, as an operator would; return its output. Raises an error if it fails."""
        done = subprocess.run(
            ["ssh", "-F", self.folder / "ssh_config", host, command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{host}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def inject(self, ring: str, **faults: Any) -> None:
        """Make MEDITECH's listener of a ring misbehave, per command, as `listener.py` describes it."""
        text = json.dumps(faults).replace("'", "")
        self.on("backup1", f"mkdir -p /var/lib/mbf && echo '{text}' > /var/lib/mbf/fault-{ring}.json")

    def heal(self) -> None:
        """Stop all misbehaviour of MEDITECH's listeners."""
        self.on("backup1", "rm -f /var/lib/mbf/fault-*.json")

    def frozen(self) -> list[str]:
        """Return the servers whose database file says that it is frozen, or whose filesystems cannot be written to."""
        found = []
        for server in SERVERS:
            header = self.on(server, "timeout 5 sh -c '. /root/.profile; mupip dumpfhead -region DEFAULT'")
            if 'record("sgmnt_data.freeze")=0' not in header or "free" not in self.on(server, WRITE):
                found.append(server)
        return found

    def holders(self) -> str:
        """Return the leftovers of holders on the machine of the rings."""
        return self.on("backup1", "ls /run/openisb-*/ | grep -E '^(hold|holder)-' || true")


@pytest.fixture(scope="session")
def site() -> Site:
    """The lab of the scenario."""
    return Site(Path(os.environ["LAB_DIR"]))


@pytest.fixture
def healed(site: Site) -> Iterator[Site]:
    """The lab, with no fault before and after."""
    site.heal()
    yield site
    site.heal()
    site.play("recover.yml")

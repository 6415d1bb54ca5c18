# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as the role idr_report writes them, on hosts that are all this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_site import ansible_environment

from .drill_records import Event, records

BIN = Path(sys.executable).parent


class Site:
    """A listener with a journal, and a backup server with a repository.

    Both use the system's Python. ``python`` stands for that of the backup server's environment, which alone has the
    libraries that signing needs; ``python_log`` has a line for each time that it was used.
    """

    def __init__(self, folder: Path, project_root: Path) -> None:
        self.folder, self.project_root = folder, project_root
        self.journal = folder / "journal.jsonl"
        self.reports = folder / "repository" / "reports"
        self.key = folder / "backup1" / "report-key.pem"
        (folder / "repository").mkdir()
        (folder / "backup1").mkdir()
        self.python, self.python_log = folder / "python", folder / "python.log"
        self.python.write_text(f'#!/bin/sh\necho used >> "{self.python_log}"\nexec "{sys.executable}" "$@"\n')
        self.python.chmod(0o755)
        self._records: list[dict[str, Any]] = []

    def journalize(self, drill: str, events: list[Event]) -> None:
        """Put a drill into the journal."""
        self._records += records(events, drill, self._records)
        self.journal.write_text("".join(json.dumps(record) + "\n" for record in self._records))

    def inventory(self) -> dict[str, Any]:
        """The hosts of the site."""
        common = {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
        places = {"state_dir": str(self.folder / "backup1"), "repository": str(self.folder / "repository")}
        places |= {"journal": str(self.journal), "python": str(self.python)}
        return {"all": {"hosts": {name: {**common, "openisb_host": places} for name in ("listener1", "backup1")}}}

    def report(self, drills: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Have the role write the reports of drills that are in the journal, whatever their verdicts."""
        role = {"ansible.builtin.include_role": {"name": "openisb.backup.idr_report", "tasks_from": "{{ item[0] }}"}}
        variables = {"idr_report_drill": "{{ item[1] }}", "idr_report_backup_server": "backup1", **options}
        loop = [[entry, drill] for drill in drills for entry in ("make.yml", "write.yml")]
        return self.play([{"name": "Report", **role, "vars": variables, "loop": loop}])

    def play(self, tasks: list[dict[str, Any]], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run tasks on the listener."""
        (self.folder / "hosts.json").write_text(json.dumps(self.inventory()))
        play = {"name": "Play", "hosts": "listener1", "gather_facts": False, "tasks": tasks}
        (self.folder / "play.json").write_text(json.dumps([play]))
        return self.playbook(self.folder / "play.json", "-i", str(self.folder / "hosts.json"), *arguments)

    def playbook(self, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook."""
        return subprocess.run(
            [BIN / "ansible-playbook", *arguments, path],
            env=ansible_environment(self.folder, ANSIBLE_NOCOLOR="true"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

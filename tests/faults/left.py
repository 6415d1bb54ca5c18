# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run leaves on the lab's hosts beyond what was there before: mounts, snapshots, processes, files.

python -m faults.left LAB_DIR BEFORE: compares with the file BEFORE, and prints what is left; writes BEFORE where there
is none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lab import Lab

from .machine import Machine

#: Where runs keep what is volatile or temporary.
FOLDERS = ("/run/openisb", "/root/.ansible", "/tmp", "/var/tmp")
#: Locks stay, and what jobs said last is swept by later ones.
HARMLESS = ("/run/openisb/quiesce.lock", "/run/openisb/slots", "/run/openisb/jobs")
#: sshd's sessions are those of connections that stay open for a while; the load has its own.
SERVICES = ("sshd", "tini", "mumps", "nsenter")

Things = dict[str, set[str]]


class Left:
    """Compares with ``before``, or else with how it was when this was made."""

    def __init__(self, machine: Machine, lab: Lab, before: Things | None = None) -> None:
        self.machine = machine
        self.lab = lab
        self.before = self._look() if before is None else before

    def now(self) -> dict[str, list[str]]:
        """What is there now and was not: by kind, each as host: thing. A base that the journal tells of is meant."""
        found = {kind: sorted(things - self.before[kind]) for kind, things in self._look().items()}
        found["snapshots"] = sorted(self._snapshots())
        return {kind: things for kind, things in found.items() if things}

    def _look(self) -> Things:
        things: Things = {"mounts": set(), "processes": set(), "files": set()}
        for host in self.machine.names:
            mounts = Path(f"/proc/{self.machine.pid(host)}/mounts").read_text().splitlines()
            things["mounts"] |= {f"{host}: {line.split()[1]}" for line in mounts}
            things["files"] |= {f"{host}: {path}" for path in self._files(host)}
            things["processes"] |= {
                f"{host}: {name} {pid}"
                for pid, name, command in self.machine.processes(host)
                if name not in SERVICES and command != "sleep infinity"
            }
        return things

    def _files(self, host: str) -> list[str]:
        listed = self.machine.run(host, f"find {' '.join(FOLDERS)} -xdev 2>/dev/null || true").splitlines()
        return [path for path in listed if not path.startswith(HARMLESS) and path not in FOLDERS]

    def _snapshots(self) -> set[str]:
        """LUNs in snapshots that are no bases. A base may be gone: recover.yml deletes what a dead run kept as one."""
        bases = self.lab.bases()
        return {
            f"storage1: {run}/{serial}"
            for serial, runs in self.lab.luns_in_snapshots().items()
            for run in runs
            if run not in bases.get(serial, [])
        }


def main(folder: str, path: str) -> int:
    """What is left, as text; 1 where anything is."""
    before = json.loads(Path(path).read_text()) if Path(path).exists() else None
    known = None if before is None else {kind: set(things) for kind, things in before.items()}
    left = Left(Machine(Path(folder).resolve()), Lab(Path(folder).resolve()), known)
    if before is None:
        Path(path).write_text(json.dumps({kind: sorted(things) for kind, things in left.before.items()}))
    found = left.now()
    print(*(f"{kind}: {thing}" for kind, things in found.items() for thing in things), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

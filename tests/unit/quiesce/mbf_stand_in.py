# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for MBF: a program that does what a file beside it says, and logs how it was called.

``plan.json`` maps a command (``census``, ``quiesce``, ``unquiesce``) to what each call in turn does, the last one for
good: an object of ``code``, ``lines``, ``holds`` (names that are quiesced, or no longer so, afterwards), ``sleep``
(before it answers), ``late`` (seconds until it holds), ``signal``. The names that are quiesced are files ``held-NAME``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SERVERS = ["FS1", "FS2"]
DRIVES = ["FS1:FS1 E=600A098038303053|,", "FS2:FS2 E=600A098038303054|624A9370600A098038303054,"]


def main() -> int:
    here = Path.cwd()
    given = dict(pair.partition("=")[::2] for pair in sys.argv[1:])
    command = given["C"].lower()
    with open(here / "calls", "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"arguments": sys.argv[1:], "stdin": sys.stdin.read(), "at": time.time()}) + "\n")
    plan = json.loads((here / "plan.json").read_text())
    steps = plan.get(command, [{}])
    done = here / f"done-{command}"
    count = len(done.read_bytes()) if done.exists() else 0
    with open(done, "ab") as stream:
        stream.write(b".")
    return act(here, command, steps[min(count, len(steps) - 1)])


def act(here: Path, command: str, step: dict) -> int:
    if "late" in step:
        wait = f"sleep {step['late']}; for name in {' '.join(SERVERS)}; do touch held-$name; done"
        subprocess.Popen(
            ["setsid", "--fork", "sh", "-c", wait], cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    elif command != "census":
        for name in step.get("holds", SERVERS):
            path = here / f"held-{name}"
            path.touch() if command == "quiesce" else path.unlink(missing_ok=True)
    if "child" in step:
        subprocess.run(["sleep", str(step["child"])], check=False)
    time.sleep(step.get("sleep", 0))
    if "signal" in step:
        os.kill(os.getpid(), step["signal"])
    print("MEDITECH Backup Facilitator (c) 2011-2019")
    lines = DRIVES if command == "census" else [f"{name}=SUCCESS," for name in SERVERS]
    sys.stdout.write("\r\n".join(step.get("lines", lines)) + step.get("end", "\r\n"))
    return step.get("code", 0)


if __name__ == "__main__":
    sys.exit(main())

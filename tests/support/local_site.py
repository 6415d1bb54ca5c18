# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site all of whose hosts are this machine: its playbooks run as they are, without a lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = Path("/usr/lib/python3/dist-packages")
SERIAL = "600a098000000011"
SERVER: dict[str, Any] = {
    "isb_drivers": [{"name": "command", "freeze": ["x"], "thaw": ["y"]}],
    "isb_volumes": [{"name": "m", "serial": SERIAL, "mount": "/srv/m"}],
}
"""A file server with a volume, as the inventory describes it."""


def place(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    """The variables of a host with folders of its own, and ``more`` of them."""
    return {"openisb_state_dir": f"{folder}/{name}", "openisb_run_dir": f"{folder}/{name}/run", **more}


def python_with_nbd(folder: Path) -> str:
    """A Python with the libraries of this one and the system's module nbd, which no package index has."""
    library = folder / "nbd"
    library.mkdir()
    for path in [SYSTEM / "nbd.py", *SYSTEM.glob("libnbdmod*.so")]:
        (library / path.name).symlink_to(path)
    return python_with(folder / "python", library)


def python_with(program: Path, library: Path) -> str:
    """A Python that also finds what is in the folder ``library``."""
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{library}" exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


def write_inventory(folder: Path, children: dict[str, Any], **variables: Any) -> None:
    """The inventory of groups ``children`` and variables of all hosts."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    document = {"all": {"vars": {**local, **variables}, "children": children}}
    (folder / "hosts.json").write_text(json.dumps(document))


def ansible_environment(folder: Path, **more: str) -> dict[str, str]:
    """What Ansible is run with: this checkout's collection, and nothing of the project's or the user's settings."""
    (folder / "ansible.cfg").touch()  # without it Ansible would look for another one
    own = {
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_HOME": str(folder / "home"),
    }
    return {**os.environ, **own, **more}


def run_playbook(folder: Path, playbook: Path, *options: str) -> tuple[int, str]:
    """Run a playbook with the inventory in ``folder``; its status, and what it says with one space between words."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", folder / "hosts.json", playbook, *options],
        env=ansible_environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).replace('\\"', '"').split())

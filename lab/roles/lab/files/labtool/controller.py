# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab keeps on the controller outside its own folder."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from shell import attempt
from spec import Lab


def forget_connections(lab: Lab) -> list[str]:
    """End the SSH connections that Ansible keeps open to hosts of this lab; return them."""
    changes = []
    folder = Path(f"~/.ansible/cp/openisb-{lab.id}").expanduser()
    if folder.is_dir():
        for socket in folder.iterdir():
            attempt(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "lab"])
            socket.unlink(missing_ok=True)
            changes.append(f"connection {socket.name}")
        folder.rmdir()
    return changes


def make_passphrase(lab: Lab) -> list[str]:
    """Create a passphrase for the lab's repository."""
    path = lab.folder / "passphrase"
    if path.exists():
        return []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(24) + "\n")
    return ["passphrase of the repository"]


def make_run_folders(lab: Lab) -> list[str]:
    """Create the folders for the plain hosts' volatile state, one per host, private to the user."""
    changes = []
    for folder in [run_folder(lab), *(run_folder(lab) / host.name for host in lab.hosts)]:
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            changes.append(f"folder {folder}")
    return changes


def run_folder(lab: Lab) -> Path:
    """Return where plain hosts keep sockets: their paths must be short, and a checkout's path may be long."""
    return Path(f"/tmp/openisb-lab-{lab.id}")


def remove_run_folder(lab: Lab) -> list[str]:
    """Remove the plain hosts' volatile state."""
    if not run_folder(lab).exists():
        return []
    shutil.rmtree(run_folder(lab))
    return [f"folder {run_folder(lab)}"]

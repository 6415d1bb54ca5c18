# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process with all that it has started, such as ansible-playbook with its workers."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def children(parent: int) -> list[int]:
    """Pids of a process's children that have not ended."""
    return _by_parent().get(parent, [])


def family(pid: int) -> list[int]:
    """The process, its children and theirs, the eldest first."""
    found, by_parent = [pid], _by_parent()
    for each in found:
        found += by_parent.get(each, [])
    return found


def _by_parent() -> dict[int, list[int]]:
    """Pids of all processes that have not ended, by that of their parent."""
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found.setdefault(int(parent), []).append(int(folder.name))
    return found


def kill_family(pid: int) -> None:
    """SIGKILL to all of them, as when the machine is gone.

    Ansible's workers are in sessions of their own; without their parent they would wait for a lock of its for ever.
    """
    for each in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)

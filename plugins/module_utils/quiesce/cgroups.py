# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves a process out of the control group (cgroup) in which it was started.

A cgroup is killed as a whole: by systemd-oomd, ``cgroup.kill``, or the memory limit of a service or a session.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
from typing import Dict, Iterator

from ..host.mounts import current
from ..host.users import PATH
from ..saveset.base import kerneltables

SYSTEMD = "/run/systemd/system"
"""This directory exists if systemd is the init process."""

ROOT, STAYED = "the root cgroup", "the holder's own cgroup"

SYSTEMD_TIMEOUT = 5.0
"""Seconds that systemd may take to start a unit."""

PROPERTIES = (["--property=ManagedOOMPreference=omit", "--property=TimeoutStopSec=5"], ["--property=TimeoutStopSec=5"])
"""The unit's properties; then those that systemd before version 248 supports."""

Paths = Dict[str, str]
"""A process's cgroup in each hierarchy, named by its comma-separated controllers; empty for cgroup v2."""


def leave(name: str) -> str:
    """Move this process into its own systemd unit, named ``name`` and random letters; else to the root cgroup.

    Returns in words where it is now. The unit ends with the process.
    """
    before = _paths("self")
    if os.path.isdir(SYSTEMD):
        for properties in PROPERTIES:
            unit = f"{name}-{secrets.token_hex(6)}.scope"
            if _into_scope(unit, properties, before):
                return f"unit {unit}"
    _move(dict.fromkeys(before, "/"))
    return ROOT if _is_out(before) else STAYED


def _into_scope(unit: str, properties: list[str], before: Paths) -> bool:
    """Start a unit and move there; to the root in hierarchies without a new cgroup. Returns whether that worked."""
    with contextlib.suppress(OSError, subprocess.SubprocessError), _scope(unit, properties) as member:
        if member:
            there = _paths(str(member))
            _move({each: "/" if path == before.get(each) else path for each, path in there.items()})
            return _is_out(before)
    return False


@contextlib.contextmanager
def _scope(unit: str, properties: list[str]) -> Iterator[int]:
    """A unit with a process that waits for the end of this block: its id; 0 if the unit could not be started.

    A scope is a unit of processes that systemd did not start itself, so this process can join it.
    """
    text = "Thaws what an OpenISB holder has frozen, if the holder is killed"
    command = ["systemd-run", "--scope", "--quiet", "--collect", f"--unit={unit}", f"--description={text}", *properties]
    with subprocess.Popen(
        [*command, "--", "cat"],
        env={"LC_ALL": "C", "PATH": PATH},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as process:
        try:
            yield process.pid if _answers(process) else 0
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(SYSTEMD_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(process: subprocess.Popen[bytes]) -> bool:
    """Whether cat runs: systemd-run executes it once the unit exists."""
    if process.stdin is None or process.stdout is None:
        return False
    process.stdin.write(b"x")
    return bool(select.select([process.stdout], [], [], SYSTEMD_TIMEOUT)[0]) and process.stdout.read(1) == b"x"


def _paths(process: str) -> Paths:
    """The cgroups of a process. Raises OSError."""
    fields = [os.fsdecode(line).split(":", 2) for line in kerneltables.lines(f"/proc/{process}/cgroup")]
    return {controllers: path for _number, controllers, path in fields}


def _is_out(before: Paths) -> bool:
    """Whether this process has left all its former cgroups, except roots."""
    return all(path == "/" or path != before.get(hierarchy) for hierarchy, path in _paths("self").items())


def _move(wanted: Paths) -> None:
    """Move to these cgroups, as far as the system allows."""
    now = _paths("self")
    for hierarchy, path in wanted.items():
        if path == now.get(hierarchy):
            continue
        for point in _mounted(hierarchy):
            with contextlib.suppress(OSError), open(f"{point}{path.rstrip('/')}/cgroup.procs", "w") as stream:
                stream.write(str(os.getpid()))
                break


def _mounted(hierarchy: str) -> list[str]:
    """The mount points of a hierarchy's root."""
    controllers = set(hierarchy.split(",")) if hierarchy else set()
    return [
        mount.point
        for mount in current()
        if mount.root == "/"
        and (mount.type == "cgroup" if controllers else mount.type == "cgroup2")
        and controllers <= set(mount.options.split(","))
    ]

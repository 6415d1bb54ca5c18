# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a process out of the control group (cgroup) that it was started in.

Whoever ends a cgroup ends all that is in it: systemd-oomd, ``cgroup.kill``, the memory limit of a service or a session.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
from typing import Dict, Iterator

from .mounts import current
from .users import PATH

SYSTEMD = "/run/systemd/system"
"""There is a folder of that name where systemd is the system's first process."""

ROOT, STAYED = "the root cgroup", "the holder's own cgroup"

SYSTEMD_TIMEOUT = 5.0
"""Seconds that systemd may take to make a unit."""

PROPERTIES = (["--property=ManagedOOMPreference=omit", "--property=TimeoutStopSec=5"], ["--property=TimeoutStopSec=5"])
"""What the unit is to be like; then what systemd before version 248 knows of it."""

Paths = Dict[str, str]
"""Where a process is, by hierarchy: its controllers, separated by commas; empty for the one of cgroup v2."""


def leave(name: str) -> str:
    """Take this process into a unit of systemd of its own, called ``name`` and some letters; else to the root cgroup.

    Returns in words where it is now. The unit is gone when the process is.
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
    """Make a unit and go there, and to the root of hierarchies in which it is no other place. Whether that worked."""
    with contextlib.suppress(OSError, subprocess.SubprocessError), _scope(unit, properties) as member:
        if member:
            there = _paths(str(member))
            _move({each: "/" if path == before.get(each) else path for each, path in there.items()})
            return _is_out(before)
    return False


@contextlib.contextmanager
def _scope(unit: str, properties: list[str]) -> Iterator[int]:
    """A unit with a process in it that waits for the end of this block: its id; 0 where there is no such unit.

    A scope is a unit of processes that systemd has not started itself, so that this process can go into it as it is.
    """
    text = "Thaws what an OpenISB holder has frozen, if that is killed"
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
    """Whether cat runs: systemd-run becomes it once the unit is there."""
    if process.stdin is None or process.stdout is None:
        return False
    process.stdin.write(b"x")
    return bool(select.select([process.stdout], [], [], SYSTEMD_TIMEOUT)[0]) and process.stdout.read(1) == b"x"


def _paths(process: str) -> Paths:
    """Where a process is. Raises OSError."""
    with open(f"/proc/{process}/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
        fields = [line.rstrip("\n").split(":", 2) for line in stream]
    return {controllers: path for _number, controllers, path in fields}


def _is_out(before: Paths) -> bool:
    """Whether this process is in none of the cgroups that it was in, but for roots."""
    return all(path == "/" or path != before.get(hierarchy) for hierarchy, path in _paths("self").items())


def _move(wanted: Paths) -> None:
    """Go to these places, as far as this system lets."""
    now = _paths("self")
    for hierarchy, path in wanted.items():
        if path == now.get(hierarchy):
            continue
        for point in _mounted(hierarchy):
            with contextlib.suppress(OSError), open(f"{point}{path.rstrip('/')}/cgroup.procs", "w") as stream:
                stream.write(str(os.getpid()))
                break


def _mounted(hierarchy: str) -> list[str]:
    """Where a hierarchy is mounted with its root."""
    controllers = set(hierarchy.split(",")) if hierarchy else set()
    return [
        mount.point
        for mount in current()
        if mount.root == "/"
        and (mount.type == "cgroup" if controllers else mount.type == "cgroup2")
        and controllers <= set(mount.options.split(","))
    ]

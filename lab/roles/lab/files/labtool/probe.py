# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds which profile this machine can run by creating each part and removing it again."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import loops
from shell import LabError, attempt, run

# A short version of what the first process of a host does. Everything ends with the command.
HOST = """
set -e
mount -t tmpfs -o size=1m probe /mnt
mkdir /mnt/sys /mnt/proc
mount -t sysfs -o ro sysfs /mnt/sys
mount -t proc proc /mnt/proc
mknod /mnt/null c 1 3
: > /mnt/null
mount -t devpts -o newinstance devpts /mnt/proc
hostname probe
"""


def reasons_against_namespaces(folder: Path) -> list[str]:
    """Return why namespaces do not work on this machine; empty if they do. ``folder`` is for a loop file."""
    if os.geteuid() != 0:
        return ["it needs root"]
    if sys.platform != "linux":
        return ["it needs Linux"]
    checks: dict[str, Callable[[Path], None]] = {
        "namespaces": _try_host,
        "network": _try_network,
        "loop devices and btrfs": _try_pool,
    }
    found = []
    for name, check in checks.items():
        try:
            check(folder)
        except (LabError, OSError) as error:
            found.append(f"{name}: {error}")
    return found


def _try_host(_folder: Path) -> None:
    namespaces = ["--net", "--mount", "--uts", "--ipc", "--pid"]
    # If namespaces are refused, stderr is one sentence of unshare; otherwise it is that of the failed step.
    done = attempt(["unshare", *namespaces, "--propagation", "private", "--fork", "--kill-child", "sh", "-c", HOST])
    if done.returncode:
        raise LabError(re.sub(r"\s+", " ", done.stderr).strip() or f"exit status {done.returncode}")


def _try_network(_folder: Path) -> None:
    name = f"isbp{os.getpid() % 100000}"
    run(["ip", "link", "add", name, "type", "bridge"])
    try:
        run(["ip", "link", "add", f"{name}-1", "type", "veth", "peer", "name", f"{name}-2"])
        run(["ip", "link", "set", f"{name}-1", "master", name])
    finally:
        for each in (f"{name}-1", name):
            attempt(["ip", "link", "delete", each])


def _try_pool(folder: Path) -> None:
    """Mount a small btrfs on a loop device, in a mount namespace that ends with the command."""
    with tempfile.TemporaryDirectory(prefix="probe-", dir=folder) as name:
        image = Path(name) / "image"
        with image.open("wb") as stream:
            stream.truncate(128 << 20)
        run(["mkfs.btrfs", "--quiet", "--mixed", str(image)])
        number = loops.attach(str(image), f"probe/{os.getpid()}")
        try:
            run(["unshare", "--mount", "--propagation", "private", "mount", "-t", "btrfs", loops.node(number), "/mnt"])
        finally:
            loops.detach(number)

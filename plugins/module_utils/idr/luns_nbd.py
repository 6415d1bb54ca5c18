# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own NBD client, where there is one: a block device of what nbdkit serves, without FUSE."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import time
from typing import Any

from .. import processes
from . import luns_commands, luns_names
from .luns_errors import LunError

SETTLE = 5.0
POLL = 0.02


def usable() -> bool:
    """Whether the kernel has nbd, loaded for that where it can be, and nbd-client is installed."""
    try:
        luns_commands.program("nbd-client")
    except LunError:
        return False
    if not glob.glob("/sys/block/nbd*"):
        with contextlib.suppress(LunError):
            luns_commands.run(["modprobe", "nbd"], 10.0)
    return bool(glob.glob("/sys/block/nbd*"))


def free() -> list[str]:
    """Names of the devices that are not connected."""
    names = [os.path.basename(path) for path in glob.glob("/sys/block/nbd*")]
    return sorted((name for name in names if not connected(name)), key=lambda name: int(name[3:]))


def connected(name: str) -> bool:
    """Whether a device is connected."""
    return os.path.exists(f"/sys/block/{name}/pid")


def connect(record: dict[str, Any], name: str) -> bool:
    """Connect a device to the LUN's nbdkit; returns whether it was free."""
    words = ["nbd-client", "-unix", luns_names.socket(record["folder"]), node(name), "-block-size", "512"]
    # Without netlink nbd-client stays, and its command line says whose the device is.
    words += ["-timeout", str(max(1, round(record["timeout"]))), "-nonetlink"]
    done = luns_commands.run(words, record["timeout"])
    if done.status == 0:
        _settle(lambda: _size(name) > 0)
        return True
    if connected(name) and name not in of(record, record["folder"]):
        return False  # another program took it
    raise LunError(f"{node(name)} cannot be connected to the LUN: {luns_commands.told(done)}")


def is_writable(name: str) -> bool:
    """Whether what a device is connected to can be written."""
    with open(f"/sys/block/{name}/ro", encoding="ascii") as stream:
        return stream.read().strip() == "0"


def of(record: dict[str, Any], directory: str) -> list[str]:
    """The connected devices of a LUN: those whose client has the LUN's socket on its command line."""
    found = []
    for path in glob.glob("/sys/block/nbd*/pid"):
        name = os.path.basename(os.path.dirname(path))
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
            words = processes.command_line(int(stream.read()))
            # A host in a PID namespace of its own is told other numbers: there the record has to do.
            if luns_names.socket(directory) in words or (not words and name == record.get("nbd")):
                found.append(name)
    return found


def disconnect(name: str) -> bool:
    """Disconnect a device; returns whether it is."""
    with contextlib.suppress(LunError):
        luns_commands.run(["nbd-client", "-d", node(name)], 10.0)
    return _settle(lambda: not connected(name))


def node(name: str) -> str:
    """The node of a device; made where the host has no udev."""
    path = f"/dev/{name}"
    if not os.path.exists(path):
        with open(f"/sys/block/{name}/dev", encoding="ascii") as stream:
            major, minor = map(int, stream.read().split(":"))
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(major, minor))
    return path


def _size(name: str) -> int:
    with open(f"/sys/block/{name}/size", encoding="ascii") as stream:
        return int(stream.read())


def _settle(settled: Any) -> bool:
    deadline = time.monotonic() + SETTLE
    while not settled() and time.monotonic() < deadline:
        time.sleep(POLL)
    return bool(settled())

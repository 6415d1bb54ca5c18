# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel's own NBD client, if available: a block device for what nbdkit serves, without FUSE."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from typing import Any

from ..host import processes
from ..host.clock import wait_until
from . import commands
from . import names as luns_names
from .errors import LunError

SETTLE = 5.0


def usable() -> bool:
    """Whether the kernel has nbd (loading it if possible) and nbd-client is installed."""
    try:
        commands.program("nbd-client")
    except LunError:
        return False
    if not glob.glob("/sys/block/nbd*"):
        with contextlib.suppress(LunError):
            commands.run(["modprobe", "nbd"], 10.0)
    return bool(glob.glob("/sys/block/nbd*"))


def free() -> list[str]:
    """Names of the unconnected devices."""
    names = [os.path.basename(path) for path in glob.glob("/sys/block/nbd*")]
    return sorted((name for name in names if not connected(name)), key=lambda name: int(name[3:]))


def connected(name: str) -> bool:
    """Whether a device is connected."""
    return os.path.exists(f"/sys/block/{name}/pid")


def connect(record: dict[str, Any], name: str, sector: int) -> bool:
    """Connect a device with sectors of that size to the LUN's nbdkit. Returns whether it was free."""
    words = ["nbd-client", "-unix", luns_names.socket(record["folder"]), node(name), "-block-size", str(sector)]
    # Without netlink nbd-client keeps running, and its command line identifies the LUN.
    words += ["-timeout", str(max(1, round(record["timeout"]))), "-nonetlink"]
    done = commands.run(words, record["timeout"])
    if done.status == 0:
        wait_until(lambda: _size(name) > 0, SETTLE)
        return True
    if connected(name) and name not in of(record, record["folder"]):
        return False  # another program took it
    raise LunError(f"{node(name)} cannot be connected to the LUN: {commands.told(done)}")


def reconnect(record: dict[str, Any], name: str, sector: int) -> None:
    """Reconnect a LUN's device with another sector size."""
    if not (disconnect(name) and connect(record, name, sector)):
        raise LunError(f"{node(name)} cannot get sectors of {sector} bytes: another program took it; try again")


def is_writable(name: str) -> bool:
    """Whether a connected device is writable."""
    with open(f"/sys/block/{name}/ro", encoding="ascii") as stream:
        return stream.read().strip() == "0"


def of(record: dict[str, Any], directory: str) -> list[str]:
    """The connected devices of a LUN: those whose client has the LUN's socket on its command line."""
    found = []
    for path in glob.glob("/sys/block/nbd*/pid"):
        name = os.path.basename(os.path.dirname(path))
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
            words = processes.command_line(int(stream.read()))
            # In a PID namespace the numbers differ; there the record must do.
            if luns_names.socket(directory) in words or (not words and name == record.get("nbd")):
                found.append(name)
    return found


def disconnect(name: str) -> bool:
    """Disconnect a device. Returns whether it is disconnected."""
    with contextlib.suppress(LunError):
        commands.run(["nbd-client", "-d", node(name)], 10.0)
    return wait_until(lambda: not connected(name), SETTLE)


def node(name: str) -> str:
    """The device node; created if the host has no udev."""
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

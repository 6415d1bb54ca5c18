# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a server's volumes by their identity: the LUN's serial, never a device name or number."""

from __future__ import annotations

import glob
import os
import re
import stat
from typing import Any

from ..saveset.base import mountinfo
from ..saveset.io import blocks
from .plain import plain

SERIAL = re.compile(r"^[0-9a-f]{16,32}\Z")
BY_ID = "/dev/disk/by-id"


class VolumeError(Exception):
    """A volume cannot be found or is not what the inventory says; the text names it, the cause and the remedy."""


def describe(volume: dict[str, Any]) -> dict[str, Any]:
    """Find a volume of the inventory: name, serial, device, size (bytes), mount, filesystem, sector and block size.

    A volume with ``path`` is a file; any other is the block device with that serial, mounted at ``mount`` if given.
    """
    if volume.get("path"):
        return _describe_file(volume)
    device = device_of(volume["name"], volume["serial"])
    mounted = mount_of(volume["mount"]) if volume.get("mount") else {}
    if volume.get("mount"):
        _check_mounted(volume, device, mounted)
    return {
        "name": volume["name"],
        "serial": volume["serial"],
        "device": device,
        "size": device_size(device),
        "mount": volume.get("mount"),
        "filesystem": mounted.get("filesystem"),
        **_blocks_of(device, mounted.get("source", device)),
    }


def _blocks_of(device: str, content: str) -> dict[str, int]:
    """The sector size of a device, and the smallest block that its filesystem, on ``content``, reads and writes."""
    if not _is_block_device(content):
        content = device
    with open(device, "rb", buffering=0) as disk, open(content, "rb", buffering=0) as filesystem:
        sector = blocks.sector_size(disk.fileno())
        return {"sector_size": sector, "block_size": blocks.block_size(filesystem.fileno()) or sector}


def device_of(name: str, serial: str) -> str:
    """The block device with this serial, as a path without symlinks."""
    if not SERIAL.match(serial):
        raise VolumeError(f"volume {name}: serial '{serial}' is not 16 to 32 lowercase hex digits")
    links = [link for link in glob.glob(os.path.join(BY_ID, "*" + serial)) if "-part" not in link]
    devices = {os.path.realpath(link) for link in links}
    if not devices:
        raise VolumeError(
            f"volume {name}: no LUN with serial {serial} on this server (looked in {BY_ID}): map the LUN to the "
            "server, rescan, or correct the serial in the inventory"
        )
    if len(devices) > 1:
        raise VolumeError(
            "volume {}: serial {} matches several devices ({}): let only the multipath device have it".format(
                name, serial, ", ".join(sorted(devices))
            )
        )
    return devices.pop()


def device_size(path: str) -> int:
    """Size of a block device or file in bytes."""
    with open(path, "rb") as stream:
        return stream.seek(0, os.SEEK_END)


def mount_of(path: str) -> dict[str, str]:
    """What is mounted exactly at ``path``: a dict of source, filesystem and device number; empty where nothing is."""
    wanted = os.path.normpath(path)
    found = [mount for mount in mountinfo.mounts() if mount.point == wanted]
    if not found:
        return {}
    return {"source": found[-1].source, "filesystem": found[-1].type, "number": found[-1].device}


def _describe_file(volume: dict[str, Any]) -> dict[str, Any]:
    path = volume["path"]
    if not os.path.isfile(path):
        raise VolumeError(
            "volume {}: there is no file {}: correct its path in the inventory".format(volume["name"], path)
        )
    return {
        "name": volume["name"],
        "serial": volume["serial"],
        "device": path,
        "size": os.path.getsize(path),
        "mount": None,
        "filesystem": None,
        "sector_size": None,
        "block_size": None,
    }


def _check_mounted(volume: dict[str, Any], device: str, mounted: dict[str, str]) -> None:
    if not mounted:
        raise VolumeError(
            "volume {}: nothing is mounted at {}: mount the LUN {} there, or correct the inventory".format(
                volume["name"], volume["mount"], volume["serial"]
            )
        )
    if not (_backed_by(mounted["number"], device) or os.path.realpath(mounted["source"]) == device):
        raise VolumeError(
            "volume {}: {} is mounted from {} and not from the LUN with serial {} ({}): "
            "correct the serial or the mount point in the inventory".format(
                volume["name"], volume["mount"], plain(mounted["source"]), volume["serial"], device
            )
        )


def _is_block_device(path: str) -> bool:
    try:
        return path.startswith("/") and stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _backed_by(number: str, device: str) -> bool:
    """Whether the block device ``number`` (major:minor) is ``device`` or is built on it (LVM, partition, loop, ...)."""
    status = os.stat(device)
    if not stat.S_ISBLK(status.st_mode):
        return False
    wanted = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return number == wanted or any(_backed_by(below, device) for below in _below(number))


def _below(number: str) -> list[str]:
    folder = f"/sys/dev/block/{number}"
    files = glob.glob(folder + "/slaves/*/dev")
    if os.path.exists(folder + "/partition"):
        files.append(os.path.join(os.path.dirname(os.path.realpath(folder)), "dev"))
    return [_read(name) for name in files] + _below_loop(folder + "/loop/backing_file")


def _below_loop(path: str) -> list[str]:
    """The block device behind a loop device; none where it is backed by a file, or is not a loop device."""
    if not os.path.exists(path) or not os.path.exists(_read(path)):
        return []
    status = os.stat(_read(path))
    return [f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"] if stat.S_ISBLK(status.st_mode) else []


def _read(path: str) -> str:
    with open(path, "rb") as stream:
        return os.fsdecode(stream.read().rstrip(b"\n"))

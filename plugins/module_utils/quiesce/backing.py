# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which other filesystems a filesystem is stored on: through loop devices, volume managers, logs and overlays.

Writes to a filesystem that is stored on a frozen one wait for its thaw, and so does its own freeze.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import struct
from typing import Iterator

from ..host.mounts import Mount, mount_of
from ..saveset.base import kerneltables

DEVICES = "/sys/dev/block"
BTRFS = "/sys/fs/btrfs"
SWAPS = "/proc/swaps"

LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO = struct.Struct("=QQ216x")
"""From linux/loop.h: starts with the device and the inode of the file behind a loop device."""

EXT4_SUPERBLOCK = 1024
EXT4_JOURNAL = struct.Struct("<II")
EXT4_JOURNAL_PLACE = 0xE0
"""Offset in an ext4 superblock of the journal's inode (0: external journal) and device."""

LAYERS = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")
DEVICE_OPTIONS = ("logdev", "rtdev", "journal_path")

Found = Iterator["tuple[str, str]"]
"""Filesystems by their device as ``major:minor``, each with the file or directory on it."""


def on_path(path: str, mounts: list[Mount]) -> dict[str, str]:
    """The filesystems that a path is on: device as ``major:minor`` -> the path, or the file that carries it."""
    found: dict[str, str] = {}
    _collect(_at(path, mounts), mounts, found)
    return found


def below(mount: Mount, mounts: list[Mount]) -> dict[str, str]:
    """The filesystems that the filesystem ``mount`` is stored on, in the form of ``on_path``."""
    found: dict[str, str] = {}
    _collect(_carriers(mount, mounts), mounts, found)
    return found


def swaps(mounts: list[Mount]) -> dict[str, str]:
    """The filesystems that swap is stored on, in the form of ``on_path``."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for name in kerneltables.swaps(SWAPS):
            number = _number(name)
            _collect(_files(number, mounts) if number else _at(name, mounts), mounts, found)
    return found


def _collect(places: Found, mounts: list[Mount], found: dict[str, str]) -> None:
    for device, name in places:
        if device not in found:
            found[device] = name
            for mount in [each for each in mounts if each.device == device][:1]:
                _collect(_carriers(mount, mounts), mounts, found)


def _at(path: str, mounts: list[Mount]) -> Found:
    with contextlib.suppress(OSError, KeyError):
        yield mount_of(path, mounts).device, path


def _carriers(mount: Mount, mounts: list[Mount]) -> Found:
    """What a mounted filesystem is stored on, one level down."""
    if mount.type == "overlay":
        for layer in _layers(mount):
            if os.path.isabs(layer) and os.path.isdir(layer):  # not one of another mount namespace
                yield from _at(layer, mounts)
    for number in _numbers(mount):
        yield from _files(number, mounts)


def _layers(mount: Mount) -> Iterator[str]:
    for key, value in _options(mount):
        if key in LAYERS:
            for layer in re.split(r"(?<!\\):", value):
                yield re.sub(r"\\(.)", r"\1", layer)


def _options(mount: Mount) -> Iterator[tuple[str, str]]:
    for option in re.split(r"(?<!\\),", kerneltables.name(os.fsencode(mount.options))):
        key, _equals, value = option.partition("=")
        yield key, value


def _numbers(mount: Mount) -> Iterator[str]:
    """The block devices of a filesystem: its own, its member devices and that of its log."""
    own = mount.device
    if mount.type == "btrfs":
        yield from _btrfs_devices(mount.source)
    elif not own.startswith("0:"):
        yield own
    for key, value in _options(mount):
        if key in DEVICE_OPTIONS:
            yield from filter(None, [_number(value)])
    if mount.type == "ext4":
        yield from filter(None, [_ext4_journal(own)])


def _btrfs_devices(source: str) -> Iterator[str]:
    name = os.path.basename(os.path.realpath(source))
    with contextlib.suppress(OSError):
        for filesystem in os.listdir(BTRFS):
            folder = os.path.join(BTRFS, filesystem, "devices")
            names = os.listdir(folder) if os.path.isdir(folder) else []
            if name in names:
                for each in names:
                    yield _read(os.path.join(folder, each, "dev"))


def _ext4_journal(number: str) -> str:
    """The device of an external journal; empty if the journal is internal."""
    with contextlib.suppress(OSError, struct.error):
        with open(_node(number), "rb") as device:
            device.seek(EXT4_SUPERBLOCK + EXT4_JOURNAL_PLACE)
            inode, journal = EXT4_JOURNAL.unpack(device.read(EXT4_JOURNAL.size))
        if journal and not inode:
            return f"{os.major(journal)}:{os.minor(journal)}"
    return ""


def _files(number: str, mounts: list[Mount]) -> Found:
    """The files behind a block device, and behind its parts: a partition's disk, members of dm and md."""
    waiting: list[str] = [number]
    seen: set[str] = set()
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        folder = os.path.realpath(os.path.join(DEVICES, number))
        if os.path.exists(os.path.join(folder, "partition")):
            waiting.append(_read(os.path.join(os.path.dirname(folder), "dev")))
        with contextlib.suppress(OSError):
            waiting += [_read(os.path.join(folder, "slaves", name, "dev")) for name in os.listdir(f"{folder}/slaves")]
        with contextlib.suppress(OSError):
            yield from _behind_loop(number, _read(os.path.join(folder, "loop", "backing_file")), mounts)


def _behind_loop(number: str, path: str, mounts: list[Mount]) -> Found:
    """The file behind a loop device; only its device if the path, maybe of another namespace, is another file."""
    try:
        with open(_node(number), "rb") as device:
            on, inode = LOOP_INFO.unpack(fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(LOOP_INFO.size)))
    except OSError:
        if os.path.exists(path):
            yield from _at(path, mounts)
        return
    with contextlib.suppress(OSError):
        shown = os.stat(path)
        if (shown.st_dev, shown.st_ino) == (on, inode):
            yield from _at(path, mounts)
            return
    yield f"{os.major(on)}:{os.minor(on)}", path


def _number(path: str) -> str:
    """The number of a block device; empty for anything else."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        if stat.S_ISBLK(found.st_mode):
            return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    return ""


def _node(number: str) -> str:
    """The device node of a block device. Raises OSError."""
    return os.path.join("/dev", os.path.basename(os.path.realpath(os.path.join(DEVICES, number))).replace("!", "/"))


def _read(path: str) -> str:
    """The content of a sysfs file. Raises OSError."""
    with open(path, "rb") as stream:
        said = stream.read()
    return os.fsdecode(said[:-1] if said.endswith(b"\n") else said)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems on the LUNs, mounted in their servers and filled with files to back up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hosts
import storage
from shell import LabError
from spec import MIB, Host, Lab, Volume

# Text, programs and data of the machine: a mix that deduplicates and compresses like a server's files.
SOURCES = ("/usr/share", "/usr/lib/python3", "/usr/lib/x86_64-linux-gnu", "/usr/bin")
LARGEST = 4 * MIB
MAKE = {
    "ext4": ["mkfs.ext4", "-q"],
    "xfs": ["mkfs.xfs", "-q"],
    "ntfs": ["mkntfs", "--quiet", "--fast", "--force"],
}
# Type and options. NTFS is served by a program, which keeps owners and modes with this option.
MOUNT = {"ext4": ("ext4", "noatime"), "xfs": ("xfs", "noatime"), "ntfs": ("ntfs-3g", "noatime,permissions")}


def present(lab: Lab) -> list[str]:
    """Create, mount and fill every volume if needed; return the changes."""
    changes = []
    for host in lab.file_servers:
        for volume in host.volumes:
            changes += _mounted(lab, host, volume)
            changes += _filled(lab, host, volume)
    return changes


def _mounted(lab: Lab, host: Host, volume: Volume) -> list[str]:
    if storage.mounted(lab, host, volume.mount):
        return []
    changes = []
    if not storage.filesystem(volume.device, lab, host):
        hosts.enter(lab, host, [*MAKE[volume.filesystem], volume.device])
        changes.append(f"{host.name}: {volume.filesystem} on {volume.serial}")
    kind, options = MOUNT[volume.filesystem]
    hosts.enter(lab, host, ["mount", "-t", kind, "-o", options, volume.device, volume.mount])
    # If the host was killed while frozen, its filesystem still is. Usually it is not, and then this fails.
    hosts.try_on(lab, host, ["fsfreeze", "--unfreeze", volume.mount])
    return [*changes, f"{host.name}: mount of {volume.mount}"]


def _filled(lab: Lab, host: Host, volume: Volume) -> list[str]:
    """Copy files until ``volume.fill`` MiB are there. The folder is renamed last, so an incomplete copy is repeated."""
    target = hosts.seen_from_machine(lab, host, f"{volume.mount}/data")
    if not volume.fill or target.is_dir():
        return []
    half = target.with_name("data.part")
    shutil.rmtree(half, ignore_errors=True)
    left = volume.fill * MIB
    for file in _files():
        size = file.stat().st_size
        if size > min(left, LARGEST):
            continue
        copy = half / str(file).lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
        left -= size
        if left < MIB // 4:
            break
    else:
        # Less than requested is acceptable; nothing at all is not.
        if left == volume.fill * MIB:
            raise LabError(f"{host.name}: no file to copy to {volume.mount} in {', '.join(SOURCES)}")
    half.rename(target)
    return [f"{host.name}: files in {volume.mount}"]


def _files() -> Iterator[Path]:
    """Yield regular files of the sources, one folder of each source in turn, always in the same order."""
    walks = [_walk(source) for source in SOURCES]
    while walks:
        for walk in list(walks):
            folder = next(walk, None)
            if folder is None:
                walks.remove(walk)
            else:
                yield from folder


def _walk(source: str) -> Iterator[list[Path]]:
    for folder, below, names in os.walk(source):
        below.sort()
        paths = [Path(folder, name) for name in sorted(names)]
        yield [path for path in paths if path.is_file() and not path.is_symlink()]

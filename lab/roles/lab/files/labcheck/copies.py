# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks and mounts the filesystems in copies of volumes, without changing the copies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from typing import Any, Iterator

from command import CheckError, attempt, run

DATABASE = "mumps.dat"
# Checkers that change nothing.
CHECK = {"ext4": ["fsck.ext4", "-fn"], "xfs": ["xfs_repair", "-n"], "ntfs": ["ntfsfix", "-n"]}
# How to mount a copy beside its original, which has the same UUID: type and options. Nothing in it can be executed.
HARMLESS = ",nosuid,nodev,noexec"
MOUNT = {
    "ext4": ("ext4", "rw,errors=remount-ro" + HARMLESS),
    "xfs": ("xfs", "rw,nouuid" + HARMLESS),
    "ntfs": ("ntfs-3g", "ro" + HARMLESS),
}
# A frozen ext4 has an empty journal. A frozen xfs always has a record in its log, and free-block counts that only a
# replay corrects, so `xfs_repair -n` gives a valid result only after a mount.
REPLAY_FIRST = ("xfs",)


def check(path: str, scratch: str) -> tuple[dict[str, Any], str | None]:
    """Check one copy; return the findings, and the path of its database, copied to ``scratch`` (None if it has none).

    The findings are a dict of path, filesystem, clean, and the output of the filesystem's checker. A copy without a
    filesystem is a database file: the volume of a plain server. Logs are replayed on a copy of the copy.
    """
    if not os.path.exists(path):
        raise CheckError(f"{path}: no such copy: restore the volume, or name the copy in lab_check_images")
    table = _probe(path, "PTTYPE")
    kind = "" if table else _probe(path, "TYPE")
    database = os.path.join(scratch, DATABASE)
    if not table and not kind:
        _copy(path, database)
        return {"path": path, "filesystem": None, "clean": True, "said": ""}, database
    volume = os.path.join(scratch, "volume")
    _copy(path, volume)
    with _attached(volume, _partition(volume) if table else []) as device:
        kind = kind or _probe(device, "TYPE")
        if kind not in CHECK:
            raise CheckError(f"{path}: cannot check a filesystem of type {kind or 'unknown'}")
        found = None if kind in REPLAY_FIRST else _check_filesystem(kind, device)
        with _mounted(device, scratch, *MOUNT[kind]) as folder:
            has_database = os.path.exists(os.path.join(folder, DATABASE))
            if has_database:
                _copy(os.path.join(folder, DATABASE), database)
        found = found or _check_filesystem(kind, device)
    os.unlink(volume)
    return {"path": path, "filesystem": kind, **found}, database if has_database else None


def _check_filesystem(kind: str, path: str) -> dict[str, Any]:
    done = attempt([*CHECK[kind], path])
    return {"clean": done.returncode == 0, "said": done.stdout.strip()[-4000:]}


def _probe(path: str, tag: str) -> str:
    """Return blkid's TYPE (the filesystem) or PTTYPE (the partition table) of a copy; empty if there is none."""
    return attempt(["blkid", "--probe", "--match-tag", tag, "--output", "value", path]).stdout.strip()


def _partition(path: str) -> list[str]:
    """Return the losetup options that attach the one partition of a copy."""
    table = json.loads(run(["sfdisk", "--json", path]))["partitiontable"]
    if len(table["partitions"]) != 1:
        raise CheckError(f"{path}: it has {len(table['partitions'])} partitions: the lab creates exactly one")
    begin, size = (table["partitions"][0][key] * table["sectorsize"] for key in ("start", "size"))
    return ["--offset", str(begin), "--sizelimit", str(size)]


@contextlib.contextmanager
def _attached(file: str, options: list[str]) -> Iterator[str]:
    """Attach a file to a loop device for the duration of the context."""
    device = run(["losetup", "--find", "--show", *options, file]).strip()
    try:
        yield device
    finally:
        run(["losetup", "--detach", device])


@contextlib.contextmanager
def _mounted(device: str, scratch: str, kind: str, options: str) -> Iterator[str]:
    """Mount a device for the duration of the context."""
    folder = os.path.join(scratch, "mnt")
    os.makedirs(folder, exist_ok=True)
    run(["mount", "-t", kind, "-o", options, device, folder])
    try:
        yield folder
    finally:
        run(["umount", folder])


def _copy(source: str, target: str) -> None:
    """Copy only the data, sharing blocks and leaving holes if possible; a device is read like a file."""
    run(["cp", "--reflink=auto", "--sparse=always", source, target])
    os.chmod(target, 0o600)


def copy_file(path: str, folder: str) -> str:
    """Copy a file into a folder; return the path of the copy."""
    target = os.path.join(folder, os.path.basename(path))
    _copy(path, target)
    return target


def fresh_folder(path: str) -> str:
    """Create an empty folder for scratch files; delete the leftovers of an earlier check."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path, mode=0o700)
    return path

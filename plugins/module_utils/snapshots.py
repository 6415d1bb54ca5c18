# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of LUN files on a storage host: one folder a run, named by the run id, one ``<serial>.lun`` a LUN.

The folder is a read-only btrfs subvolume (driver ``btrfs``) or a plain folder of copies (driver ``file``). Only a
folder whose name is a run id is ever looked at or deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess

from ansible_collections.openisb.backup.plugins.module_utils.journal import RUN_ID

SUFFIX = ".lun"
COMMAND_TIMEOUT = 60


class SnapshotError(Exception):
    """A snapshot cannot be read or deleted; the text names it, the cause and the way out."""


class SnapshotFolder:
    """All snapshots below ``directory``, made by ``driver`` (``btrfs`` or ``file``)."""

    def __init__(self, driver, directory):
        self.driver = driver
        self.directory = directory

    def snapshots(self):
        """The snapshots that are there, oldest run first: dicts of run_id, path and luns (serials)."""
        if not os.path.isdir(self.directory):
            return []
        names = sorted(name for name in os.listdir(self.directory) if RUN_ID.match(name))
        return [{"run_id": name, "path": self.path(name), "luns": self.luns(name)} for name in names]

    def path(self, run_id):
        """Where the snapshot of a run is."""
        return os.path.join(self.directory, run_id)

    def luns(self, run_id):
        """Serials of the LUNs that a snapshot still holds; empty where it is gone."""
        try:
            names = os.listdir(self.path(run_id))
        except FileNotFoundError:
            return []
        return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))

    def delete(self, run_id, luns=None):
        """Delete these LUNs from a run's snapshot (all where None), and the snapshot itself with its last one."""
        with self._locked(run_id):
            here = self.luns(run_id)
            doomed = here if luns is None else [serial for serial in luns if serial in here]
            if set(doomed) == set(here):
                self._delete_whole(run_id)
            elif doomed:
                self._delete_luns(run_id, doomed)

    def _delete_luns(self, run_id, luns):
        with self._writable(run_id):
            for serial in luns:
                os.unlink(os.path.join(self.path(run_id), serial + SUFFIX))

    def _delete_whole(self, run_id):
        path = self.path(run_id)
        if not os.path.isdir(path):
            return
        if self.driver == "btrfs":
            _run(["btrfs", "subvolume", "delete", path])
        else:
            shutil.rmtree(path)

    @contextlib.contextmanager
    def _writable(self, run_id):
        """A btrfs snapshot is read-only but for the moment in which a LUN that nobody needs any more leaves it."""
        if self.driver == "btrfs":
            _run(["btrfs", "property", "set", self.path(run_id), "ro", "false"])
        try:
            yield
        finally:
            if self.driver == "btrfs":
                _run(["btrfs", "property", "set", self.path(run_id), "ro", "true"])

    @contextlib.contextmanager
    def _locked(self, run_id):
        """Servers are cleaned up at the same time, and share the run's snapshot."""
        if not RUN_ID.match(run_id):
            raise SnapshotError(f"'{run_id}' is not a run id, so nothing was deleted")
        if not os.path.isdir(self.directory):
            yield
            return
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def free_bytes(directory):
    """Bytes that can still be written to the filesystem that holds ``directory``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def _run(command):
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError("'{}' did not run: {}".format(" ".join(command), error)) from error
    if result.returncode:
        raise SnapshotError("'{}' failed: {}".format(" ".join(command), result.stderr.strip()))

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of LUN files on a storage host: one folder a run, named by the run id, one ``<serial>.lun`` a LUN.

The folder is a read-only btrfs subvolume (driver ``btrfs``) or a plain folder of copies (driver ``file``). Only a
folder whose name is a run id is ever looked at or deleted. LUNs in it outlive their run as the base of the next one. A
file ``<run id>.kept`` beside it says that no other run may take LUNs out of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import uuid

from ansible_collections.openisb.backup.plugins.module_utils.journal import RUN_ID

SUFFIX = ".lun"
KEPT = ".kept"
IDENTITY = "user.openisb.id"
COMMAND_TIMEOUT = 60

# A line of `btrfs subvolume show`, or of the first part of `btrfs filesystem usage`.
_FIELD = re.compile(r"^[ \t]+([A-Za-z ]+):[ \t]+(.*)$", re.MULTILINE)
# A profile of metadata in `btrfs filesystem usage --raw`; there are two while one is converted into another. A pool
# made with --mixed has data and metadata in one.
_METADATA = re.compile(r"^(?:Data\+)?Metadata,[^:]+: Size:(\d+), Used:(\d+)", re.MULTILINE)


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

    def sizes(self, run_id):
        """Size in bytes of each LUN that a snapshot still holds, by serial."""
        found = {}
        for serial in self.luns(run_id):
            with contextlib.suppress(FileNotFoundError):  # its server is cleaned up meanwhile
                found[serial] = os.path.getsize(self.lun_path(run_id, serial))
        return found

    def lun_path(self, run_id, serial):
        """Where a LUN of a snapshot is."""
        return os.path.join(self.path(run_id), serial + SUFFIX)

    def keep(self, run_id):
        """Let no other run take LUNs out of this snapshot."""
        with self._locked(run_id), open(self._mark(run_id), "a", encoding="ascii"):
            pass

    def is_kept(self, run_id):
        """Whether no other run may take LUNs out of this snapshot."""
        return os.path.exists(self._mark(run_id))

    def identity(self, run_id, serial, create=False):
        """What names this LUN's content for good: ``<run id>/<serial>/<what no other copy can have>``.

        ``create``: give it an identity where it has none yet. Raises SnapshotError where it has none.
        """
        with self._locked(run_id):
            if not os.path.exists(self.lun_path(run_id, serial)):
                raise SnapshotError(f"there is no base snapshot of run {run_id}")
            unique = self._subvolume(run_id) if self.driver == "btrfs" else self._copy(run_id, serial, create)
        return f"{run_id}/{serial}/{unique}"

    def check_quiet(self):
        """Raise SnapshotError where the filesystem is moving blocks, so that it cannot be told where they are."""
        if self.driver == "btrfs":
            status = _run(["btrfs", "balance", "status", self.directory], (0, 1))
            if not status.startswith("No balance found"):
                raise SnapshotError("a btrfs balance is running")

    def _subvolume(self, run_id):
        """UUID of a snapshot that is a subvolume. Nobody can have changed it as long as it is read-only."""
        shown = dict(_FIELD.findall(_run(["btrfs", "subvolume", "show", self.path(run_id)])))
        if "readonly" not in shown.get("Flags", ""):
            raise SnapshotError(f"the snapshot {self.path(run_id)} is not read-only")
        return shown["UUID"]

    def _copy(self, run_id, serial, create):
        """What tells a copy from every other: an attribute of the file, and when its content was written."""
        path = self.lun_path(run_id, serial)
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.setxattr(path, IDENTITY, uuid.uuid4().hex.encode(), os.XATTR_CREATE)
            return f"{os.getxattr(path, IDENTITY).decode()}-{os.stat(path).st_mtime_ns}"
        except OSError as error:
            raise SnapshotError(f"a copy has no identity: {path} ({error.strerror})") from error

    def _mark(self, run_id):
        return self.path(run_id) + KEPT

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
                os.unlink(self.lun_path(run_id, serial))

    def _delete_whole(self, run_id):
        path = self.path(run_id)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark(run_id))
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


def holdings_after(before, run_id, leave, clear, members=None, kept=()):
    """Which LUNs each snapshot is to hold: a dict of lists by run id, as ``before``, which says what they hold now.

    ``leave``: LUNs that leave this run's snapshot. ``clear``: LUNs that leave those of other runs, but for the runs in
    ``kept``. ``members``: all LUNs of the run (None: not known); what else its snapshot holds leaves it.
    """
    after = {}
    for run, here in before.items():
        if run == run_id:
            stay = [serial for serial in here if serial not in leave and (members is None or serial in members)]
        else:
            stay = [serial for serial in here if run in kept or serial not in clear]
        after[run] = stay
    return after


def free_bytes(directory):
    """Bytes that can still be written to the filesystem that holds ``directory``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def metadata_free_bytes(directory):
    """Bytes that the btrfs pool which holds ``directory`` can still use for metadata.

    What is allocated and not used, but for the kernel's own reserve, and what is not allocated to anything yet. Where
    it ends, btrfs makes the pool read-only, however much is free for data.
    """
    text = _run(["btrfs", "filesystem", "usage", "--raw", directory])
    fields = dict(_FIELD.findall(text))
    here = sum(int(size) - int(used) for size, used in _METADATA.findall(text))
    to_come = int(fields["Device unallocated"]) / float(fields["Metadata ratio"])
    return max(int(here + to_come) - int(fields["Global reserve"].split()[0]), 0)


def _run(command, good=(0,)):
    """Run a command, and return what it said."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError("'{}' did not run: {}".format(" ".join(command), error)) from error
    if result.returncode not in good:
        raise SnapshotError("'{}' failed: {}".format(" ".join(command), result.stderr.strip()))
    return result.stdout

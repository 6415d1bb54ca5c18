# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of LUN files on a storage host: one folder per run, named by the run id, with one ``<serial>.lun`` per LUN.

The folder is a read-only btrfs subvolume (driver ``btrfs``) or a plain folder of copies (driver ``file``). Only folders
whose name is a run id are ever read or deleted. LUNs in a folder outlive their run as the base of the next one. A file
``<run id>.kept`` beside it says that no other run may remove LUNs from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import uuid
from typing import Any, Collection, Iterator, Mapping, Sequence

from ..host.plain import said
from ..journal.journal import RUN_ID

SUFFIX = ".lun"
KEPT = ".kept"
IDENTITY = "user.openisb.id"
COMMAND_TIMEOUT = 60

# A line of `btrfs subvolume show`, or of the first part of `btrfs filesystem usage`.
_FIELD = re.compile(r"^[ \t]+([A-Za-z ]+):[ \t]+(.*)$", re.MULTILINE)
# A metadata profile in `btrfs filesystem usage --raw`; there are two while one is converted into the other. A pool
# made with --mixed has data and metadata in one.
_METADATA = re.compile(r"^(?:Data\+)?Metadata,[^:]+: Size:(\d+), Used:(\d+)", re.MULTILINE)


class SnapshotError(Exception):
    """A snapshot cannot be read or deleted; the text names it, the cause and the remedy."""


class SnapshotFolder:
    """All snapshots below ``directory``, made by ``driver`` (``btrfs`` or ``file``)."""

    def __init__(self, driver: str, directory: str) -> None:
        self.driver = driver
        self.directory = directory

    def snapshots(self) -> list[dict[str, Any]]:
        """The existing snapshots, oldest run first: dicts of run_id, path and luns (serials)."""
        if not os.path.isdir(self.directory):
            return []
        names = sorted(name for name in os.listdir(self.directory) if RUN_ID.match(name))
        return [{"run_id": name, "path": self.path(name), "luns": self.luns(name)} for name in names]

    def path(self, run_id: str) -> str:
        """Where the snapshot of a run is."""
        return os.path.join(self.directory, run_id)

    def luns(self, run_id: str) -> list[str]:
        """Serials of the LUNs that a snapshot still holds; empty where it is gone."""
        try:
            names = os.listdir(self.path(run_id))
        except FileNotFoundError:
            return []
        return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))

    def sizes(self, run_id: str) -> dict[str, int]:
        """Size in bytes of each LUN that a snapshot still holds, by serial."""
        found = {}
        for serial in self.luns(run_id):
            with contextlib.suppress(FileNotFoundError):  # its server is being cleaned up
                found[serial] = os.path.getsize(self.lun_path(run_id, serial))
        return found

    def lun_path(self, run_id: str, serial: str) -> str:
        """Where a LUN of a snapshot is."""
        return os.path.join(self.path(run_id), serial + SUFFIX)

    def keep(self, run_id: str) -> None:
        """Keep other runs from removing LUNs from this snapshot."""
        with self._locked(run_id), open(self._mark(run_id), "a", encoding="ascii"):
            pass

    def is_kept(self, run_id: str) -> bool:
        """Whether no other run may remove LUNs from this snapshot."""
        return os.path.exists(self._mark(run_id))

    def identity(self, run_id: str, serial: str, create: bool = False) -> str:
        """A permanent, unique name of this LUN's content: ``<run id>/<serial>/<unique part>``.

        ``create``: give it an identity if it has none yet. Raises SnapshotError where it has none.
        """
        with self._locked(run_id):
            if not os.path.exists(self.lun_path(run_id, serial)):
                raise SnapshotError(f"there is no base snapshot of run {run_id}")
            unique = self._subvolume(run_id) if self.driver == "btrfs" else self._copy(run_id, serial, create)
        return f"{run_id}/{serial}/{unique}"

    def check_quiet(self) -> None:
        """Raise SnapshotError where the filesystem is moving blocks, so that their addresses are not reliable."""
        if self.driver == "btrfs":
            status = _run(["btrfs", "balance", "status", self.directory], (0, 1))
            if not status.startswith("No balance found"):
                raise SnapshotError("a btrfs balance is running")

    def _subvolume(self, run_id: str) -> str:
        """UUID of a snapshot that is a subvolume. It is read-only, so it cannot have been changed."""
        shown: dict[str, str] = dict(_FIELD.findall(_run(["btrfs", "subvolume", "show", self.path(run_id)])))
        if "readonly" not in shown.get("Flags", ""):
            raise SnapshotError(f"the snapshot {self.path(run_id)} is not read-only")
        return shown["UUID"]

    def _copy(self, run_id: str, serial: str, create: bool) -> str:
        """A name that distinguishes a copy from any other: an attribute of the file, and the time of its last write."""
        path = self.lun_path(run_id, serial)
        try:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.setxattr(path, IDENTITY, uuid.uuid4().hex.encode(), os.XATTR_CREATE)
            return f"{os.getxattr(path, IDENTITY).decode()}-{os.stat(path).st_mtime_ns}"
        except OSError as error:
            raise SnapshotError(f"a copy has no identity: {path} ({error.strerror})") from error

    def _mark(self, run_id: str) -> str:
        return self.path(run_id) + KEPT

    def delete(self, run_id: str, luns: Sequence[str] | None = None) -> None:
        """Delete these LUNs from a run's snapshot (None: all), and the snapshot itself with its last LUN."""
        with self._locked(run_id):
            here = self.luns(run_id)
            doomed = here if luns is None else [serial for serial in luns if serial in here]
            if set(doomed) == set(here):
                self._delete_whole(run_id)
            elif doomed:
                self._delete_luns(run_id, doomed)

    def _delete_luns(self, run_id: str, luns: Sequence[str]) -> None:
        with self._writable(run_id):
            for serial in luns:
                os.unlink(self.lun_path(run_id, serial))

    def _delete_whole(self, run_id: str) -> None:
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
    def _writable(self, run_id: str) -> Iterator[None]:
        """Make a btrfs snapshot writable for the moment in which LUNs that are no longer needed are removed from it."""
        if self.driver == "btrfs":
            _run(["btrfs", "property", "set", self.path(run_id), "ro", "false"])
        try:
            yield
        finally:
            if self.driver == "btrfs":
                _run(["btrfs", "property", "set", self.path(run_id), "ro", "true"])

    @contextlib.contextmanager
    def _locked(self, run_id: str) -> Iterator[None]:
        """Hold the lock of the folder: servers are cleaned up in parallel, and share the run's snapshot."""
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


def export_name(run_id: str, serial: str) -> str:
    """The name of the export of a LUN of a run's snapshot."""
    return f"{run_id}.{serial}"


def holdings_after(
    before: Mapping[str, Sequence[str]],
    run_id: str,
    leave: Collection[str],
    clear: Collection[str],
    members: Collection[str] | None = None,
    kept: Collection[str] = (),
) -> dict[str, list[str]]:
    """Which LUNs each snapshot should hold: a dict of lists by run id, like ``before``, what they hold now.

    ``leave``: LUNs to remove from this run's snapshot. ``clear``: LUNs to remove from those of other runs, except the
    runs in ``kept``. ``members``: all LUNs of the run (None: not known); others are removed from its snapshot.
    """
    after = {}
    for run, here in before.items():
        if run == run_id:
            stay = [serial for serial in here if serial not in leave and (members is None or serial in members)]
        else:
            stay = [serial for serial in here if run in kept or serial not in clear]
        after[run] = stay
    return after


def free_bytes(directory: str) -> int:
    """Bytes that can still be written to the filesystem that holds ``directory``."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def metadata_free_bytes(directory: str) -> int:
    """Bytes that the btrfs pool that holds ``directory`` can still use for metadata.

    The sum of what is allocated for metadata and not used, less the kernel's reserve, and of what is not allocated at
    all. When it is exhausted, btrfs makes the pool read-only, however much is free for data.
    """
    text = _run(["btrfs", "filesystem", "usage", "--raw", directory])
    fields = dict(_FIELD.findall(text))
    here = sum(int(size) - int(used) for size, used in _METADATA.findall(text))
    to_come = int(fields["Device unallocated"]) / float(fields["Metadata ratio"])
    return max(int(here + to_come) - int(fields["Global reserve"].split()[0]), 0)


def _run(command: list[str], good: Sequence[int] = (0,)) -> str:
    """Run a command, and return its output."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotError("'{}' did not run: {}".format(" ".join(command), error)) from error
    if result.returncode not in good:
        raise SnapshotError("'{}' failed: {}".format(" ".join(command), said(result.stderr)))
    # Names in the output may be in any encoding, but we only look for ASCII.
    return result.stdout.decode("utf-8", "replace")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records what a restore has written to a disk or file, and whether anything has changed it since.

One small file per target below ``state_dir``. Before anything is written the record says that the target is incomplete;
afterwards it says what the target holds, with a witness: what the kernel reports of the disk or file, which differs
once anyone has written to it. The kernel's count of writes to a disk starts again at a reboot, so after one nothing is
known of a disk.

The record also vouches for the target when it is written to again, so that nobody has to name it. A standby is
recognised by its own identity: it may be updated whatever was written to it. What was only restored may be in use by
now, so it may be overwritten only while it is known that nobody has written to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import Any

from ..host import records
from ..host.records import Record
from ..saveset.io.claim import Held
from ..saveset.io.disk_identity import identity_of, size_of

# Positions in the kernel's statistics of a block device: sectors written and sectors discarded since it appeared.
WRITTEN, DISCARDED = 6, 13
STANDBY, RESTORED = "standby", "restored"
#: The parts of a block device's witness that writes do not change.
SAME_DEVICE = ("device", "boot", "size", "sequence")


class Standby:
    """The target at ``path``, a block device or file."""

    def __init__(self, state_dir: str, path: str) -> None:
        self.path = os.path.realpath(path)
        self._folder = os.path.join(state_dir, "standby")
        name = hashlib.sha256(self.path.encode()).hexdigest()[:32]
        self._file = os.path.join(self._folder, name + ".json")

    def held(self) -> dict[str, str]:
        """What it holds: a dict of volume, run_id and saveset (empty where not known), and reason (why not known)."""
        record = self._read()
        if record is None:
            reason = "nothing is on record of what it holds"
        elif not record["saveset"]:
            reason = "the last restore to it did not end"
        else:
            reason = _changed(record["witness"], self.path)
        known = {} if reason or record is None else record
        return {"reason": reason, **{key: known.get(key, "") for key in ("volume", "run_id", "saveset")}}

    def vouches(self, held: Held, volume: str) -> bool:
        """Whether the content of ``held`` (a claim.Held) is our own, so that ``volume`` may overwrite it."""
        record = self._read()
        if record is None or record["volume"] != volume or not _is_same(record, held.fd, self.path):
            return False
        return record["purpose"] == STANDBY or not _changed(record["witness"], self.path)

    def begin(self, volume: str, purpose: str) -> None:
        """Record that a volume is being written to it, so that it is not known what it holds.

        A standby stays one until something else was completely restored to it.
        """
        before = self._read()
        if before and before["purpose"] == STANDBY and before["volume"] == volume:
            purpose = STANDBY
        self.remember(volume, "", "", purpose)

    def forget(self) -> bool:
        """Remove its record. Returns whether there was one."""
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        records.sync_folder(self._file)  # a record that reappeared after a power loss would vouch for other content
        return True

    def remember(self, volume: str, run_id: str, saveset: str, purpose: str = STANDBY) -> None:
        """Record that it holds a saveset from now on. ``purpose``: STANDBY, or RESTORED."""
        record: Record = {"path": self.path, "volume": volume, "run_id": run_id, "saveset": saveset, "purpose": purpose}
        record["witness"] = witness(self.path)
        record["identity"] = _identity(self.path)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._sweep()
        records.write(self._file, record, lasting=True)

    def _read(self) -> Record | None:
        """The record; None where there is none, or none that can be read."""
        return _read(self._file)

    def _sweep(self) -> None:
        """Remove the records of restored files that no longer exist."""
        for name in os.listdir(self._folder):
            record = _read(os.path.join(self._folder, name))
            if record and record["purpose"] == RESTORED and not os.path.lexists(record["path"]):
                os.unlink(os.path.join(self._folder, name))


def witness(path: str) -> dict[str, Any]:
    """Values that differ once anyone has written to a block device or file. Raises OSError."""
    status = os.stat(path)
    if not stat.S_ISBLK(status.st_mode):
        identity = f"{status.st_dev}:{status.st_ino}"
        return {"file": identity, "size": status.st_size, "changed": [status.st_mtime_ns, status.st_ctime_ns]}
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    figures = _words(f"/sys/dev/block/{number}/stat")
    return {
        "device": number,
        "boot": _words("/proc/sys/kernel/random/boot_id")[0],
        "sequence": _sequence(number),
        "size": int(_words(f"/sys/dev/block/{number}/size")[0]) * 512,
        # Older kernels do not count discards.
        "changed": [int(figures[index]) for index in (WRITTEN, DISCARDED) if index < len(figures)],
    }


def _sequence(number: str) -> str:
    """The kernel's sequence number of a disk, unique per boot; empty where the kernel has none (before 5.15)."""
    with contextlib.suppress(OSError):
        return _words(f"/sys/dev/block/{number}/diskseq")[0]
    return ""


def _changed(before: dict[str, Any], path: str) -> str:
    """How a target differs from its witness; empty where it does not."""
    try:
        now = witness(path)
    except OSError as error:
        return f"it cannot be examined: {error.strerror}"
    if before == now:
        return ""
    if before.get("boot") != now.get("boot"):
        return "its host was rebooted since, or it is another disk"
    if {**before, "changed": None} != {**now, "changed": None}:
        return "it is another disk or file, or has another size"
    return "it was written to since"


def _identity(path: str) -> dict[str, Any]:
    """How a target is recognised later: a dict of names, lasting and size, and a file's inode."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = identity_of(descriptor, path)
        inode = 0 if stat.S_ISBLK(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_ino
        return {"names": sorted(found.names), "lasting": found.lasting, "size": size_of(descriptor), "inode": inode}
    finally:
        os.close(descriptor)


def _is_same(record: Record, descriptor: int, path: str) -> bool:
    """Whether the open target is the disk or file of the record, whatever it holds now."""
    known, status = record["identity"], os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return bool(known["inode"] == status.st_ino)
    now, before = witness(path), record["witness"]
    if now.get("sequence") and all(now[key] == before.get(key) for key in SAME_DEVICE):
        return True
    names = identity_of(descriptor, path)
    return known["lasting"] == names.lasting and bool(names.names.intersection(known["names"]))


def _read(path: str) -> Record | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        record = records.read(path)
        if record and {"witness", "identity", "purpose", "volume", "saveset", "path"} <= set(record):
            return record
    return None


def _words(path: str) -> list[str]:
    with open(path, encoding="ascii") as stream:
        return stream.read().split()

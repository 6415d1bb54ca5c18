# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore has written to a disk or file, and whether that is still all there is on it.

One small file for each target below ``state_dir``. Before anything is written the record is made one of an incomplete
target, and when all is, one of what it holds, with a witness: what the kernel says of the disk or file, which differs
once anybody has written to it. A host that was started anew has forgotten how much was written to a disk, so nothing is
known of that then.

The record also vouches for the target when it is written to again, so that nobody has to name it. A standby is known by
its own identity: it may be brought up to date whatever was written to it. What was only restored may be in use since,
so that may be written over only while it is known that nobody has written to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat

from ansible_collections.openisb.backup.plugins.module_utils.saveset.identity import identity_of, size_of

# Of the kernel's figures of a block device: sectors written and sectors discarded since it has it.
WRITTEN, DISCARDED = 6, 13
STANDBY, RESTORED = "standby", "restored"
#: Of the witness of a block device, what stays the same when it is written to.
SAME_DEVICE = ("device", "boot", "size", "sequence")


class Standby:
    """The target at ``path``, a block device or file."""

    def __init__(self, state_dir, path):
        self.path = os.path.realpath(path)
        self._folder = os.path.join(state_dir, "standby")
        name = hashlib.sha256(self.path.encode()).hexdigest()[:32]
        self._file = os.path.join(self._folder, name + ".json")

    def held(self):
        """What it holds: a dict of volume, run_id and saveset (empty where that is not known), and reason (why not)."""
        record = self._read()
        if record is None:
            reason = "nothing is on record of what it holds"
        elif not record["saveset"]:
            reason = "the last restore to it did not end"
        else:
            reason = _changed(record["witness"], self.path)
        known = {} if reason else record
        return {"reason": reason, **{key: known.get(key, "") for key in ("volume", "run_id", "saveset")}}

    def vouches(self, held, volume):
        """Whether what ``held`` (a claim.Held) has on it may be written over with ``volume``, as it is our own."""
        record = self._read()
        if record is None or record["volume"] != volume or not _is_same(record, held.fd, self.path):
            return False
        return record["purpose"] == STANDBY or not _changed(record["witness"], self.path)

    def begin(self, volume, purpose):
        """Put on record that a volume is being written to it, so that it is not known what it holds.

        A standby stays one until something else was restored to it as a whole.
        """
        before = self._read()
        if before and before["purpose"] == STANDBY and before["volume"] == volume:
            purpose = STANDBY
        self.remember(volume, "", "", purpose)

    def forget(self):
        """Remove what is on record of it. Returns whether there was anything."""
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        self._sync_folder()
        return True

    def remember(self, volume, run_id, saveset, purpose=STANDBY):
        """Put on record that it holds a saveset, from now on. ``purpose``: STANDBY, or RESTORED."""
        record = {"path": self.path, "volume": volume, "run_id": run_id, "saveset": saveset, "purpose": purpose}
        record["witness"] = witness(self.path)
        record["identity"] = _identity(self.path)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._sweep()
        with open(self._file + ".new", "w", encoding="utf-8") as stream:
            json.dump(record, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(self._file + ".new", self._file)
        self._sync_folder()

    def _read(self):
        """The record; None where there is none that can be read, which counts as none."""
        return _read(self._file)

    def _sweep(self):
        """Remove the records of files that were restored, and are gone."""
        for name in os.listdir(self._folder):
            record = _read(os.path.join(self._folder, name))
            if record and record["purpose"] == RESTORED and not os.path.lexists(record["path"]):
                os.unlink(os.path.join(self._folder, name))

    def _sync_folder(self):
        """A record that came back with the power would vouch for what was written over."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def witness(path):
    """What differs once anybody has written to a block device or file. Raises OSError."""
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
        # Older kernels do not count what is discarded.
        "changed": [int(figures[index]) for index in (WRITTEN, DISCARDED) if index < len(figures)],
    }


def _sequence(number):
    """What the kernel counts up with every disk that it gets; empty where it is too old for that (before 5.15)."""
    with contextlib.suppress(OSError):
        return _words(f"/sys/dev/block/{number}/diskseq")[0]
    return ""


def _changed(before, path):
    """Why a witness is none any more; empty where all is as it was."""
    try:
        now = witness(path)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if before == now:
        return ""
    if before.get("boot") != now.get("boot"):
        return "its host was started since, or it is another disk"
    if {**before, "changed": None} != {**now, "changed": None}:
        return "it is another disk or file, or has another size"
    return "it was written to since"


def _identity(path):
    """What a target is known by later: a dict of names and lasting, and of a file its inode."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = identity_of(descriptor, path)
        inode = 0 if stat.S_ISBLK(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_ino
        return {"names": sorted(found.names), "lasting": found.lasting, "size": size_of(descriptor), "inode": inode}
    finally:
        os.close(descriptor)


def _is_same(record, descriptor, path):
    """Whether what is open is the very disk or file that a record is of, whatever it holds by now."""
    known, status = record["identity"], os.fstat(descriptor)
    if not stat.S_ISBLK(status.st_mode):
        return known["inode"] == status.st_ino
    now, before = witness(path), record["witness"]
    if now.get("sequence") and all(now[key] == before.get(key) for key in SAME_DEVICE):
        return True
    names = identity_of(descriptor, path)
    return known["lasting"] == names.lasting and bool(names.names.intersection(known["names"]))


def _read(path):
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as stream:
        record = json.load(stream)
        if isinstance(record, dict) and {"witness", "identity", "purpose", "volume", "saveset", "path"} <= set(record):
            return record
    return None


def _words(path):
    with open(path, encoding="ascii") as stream:
        return stream.read().split()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a standby holds, as long as nobody has written to it: so that bringing it up to date need not read it.

One small file for each standby below ``state_dir``. It is removed before anything is written to the standby, and made
anew when all is, with a witness: what the kernel says of the disk or file, which differs once anybody has written to
it. A host that was started anew has forgotten how much was written to a disk, so nothing is known of that then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat

# Of the kernel's figures of a block device: sectors written and sectors discarded since it has it.
WRITTEN, DISCARDED = 6, 13


class Standby:
    """The standby at ``path``, a block device or file."""

    def __init__(self, state_dir, path):
        self.path = os.path.realpath(path)
        self._folder = os.path.join(state_dir, "standby")
        name = hashlib.sha256(self.path.encode()).hexdigest()[:32]
        self._file = os.path.join(self._folder, name + ".json")

    def held(self):
        """What it holds: a dict of volume, run_id and saveset (empty where that is not known), and reason (why not)."""
        record = self._read()
        reason = "nothing is on record of what it holds" if record is None else _changed(record["witness"], self.path)
        known = {} if reason else record
        return {"reason": reason, **{key: known.get(key, "") for key in ("volume", "run_id", "saveset")}}

    def forget(self):
        """Remove what is on record of it. Returns whether there was anything."""
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        self._sync_folder()
        return True

    def remember(self, volume, run_id, saveset):
        """Put on record that it holds a saveset, from now on."""
        record = {"path": self.path, "volume": volume, "run_id": run_id, "saveset": saveset}
        record["witness"] = witness(self.path)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(self._file + ".new", "w", encoding="utf-8") as stream:
            json.dump(record, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(self._file + ".new", self._file)
        self._sync_folder()

    def _read(self):
        """The record; None where there is none that can be read, which counts as none."""
        with contextlib.suppress(OSError, ValueError), open(self._file, encoding="utf-8") as stream:
            record = json.load(stream)
            if isinstance(record, dict) and "witness" in record:
                return record
        return None

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
        "size": int(_words(f"/sys/dev/block/{number}/size")[0]) * 512,
        # Older kernels do not count what is discarded.
        "changed": [int(figures[index]) for index in (WRITTEN, DISCARDED) if index < len(figures)],
    }


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


def _words(path):
    with open(path, encoding="ascii") as stream:
        return stream.read().split()

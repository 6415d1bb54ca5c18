# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writable clones of a snapshot's LUNs on a storage host, for a drill: one folder per drill, beside the snapshots.

A clone shares its blocks with the snapshot where the filesystem supports that (always on btrfs), and outlives it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any, Sequence

from ..host.plain import said
from ..journal.journal import DRILL_ID, RUN_ID
from .snapshots import SUFFIX, SnapshotFolder

TIMEOUT = 3600


class CloneError(Exception):
    """A LUN cannot be cloned, or a clone cannot be deleted; the text names it, the cause and the remedy."""


class Clones:
    """The clones of one drill. ``driver`` and ``directory``: those of the snapshots."""

    def __init__(self, driver: str, directory: str, drill: str) -> None:
        if not DRILL_ID.match(drill):
            raise CloneError(f"'{drill}' is not a drill id, so nothing was done")
        self.driver = driver
        self.snapshots = SnapshotFolder(driver, directory)
        self.folder = os.path.join(directory, drill)

    def list(self) -> dict[str, dict[str, Any]]:
        """The existing clones: by serial, a dict of path and size in bytes."""
        names = sorted(os.listdir(self.folder)) if os.path.isdir(self.folder) else []
        paths = {name[: -len(SUFFIX)]: os.path.join(self.folder, name) for name in names if name.endswith(SUFFIX)}
        return {serial: {"path": path, "size": os.path.getsize(path)} for serial, path in paths.items()}

    def make(self, run_id: str, serials: Sequence[str]) -> None:
        """Clone these LUNs of a run's snapshot, except those that are cloned already."""
        if not RUN_ID.match(run_id):
            raise CloneError(f"'{run_id}' is not a run id, so nothing was cloned")
        missing = [serial for serial in serials if not os.path.isfile(self.snapshots.lun_path(run_id, serial))]
        if missing:
            raise CloneError(
                "the snapshot of run {} has no LUN with serial {}: name another run (idr_point)".format(
                    run_id, ", ".join(missing)
                )
            )
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for serial in serials:
            path = os.path.join(self.folder, serial + SUFFIX)
            if not os.path.exists(path):
                self._copy(self.snapshots.lun_path(run_id, serial), path)

    def _copy(self, source: str, path: str) -> None:
        """Copy a LUN atomically: an incomplete clone never has the final name."""
        how = "always" if self.driver == "btrfs" else "auto"
        command = ["cp", f"--reflink={how}", "--sparse=auto", "--remove-destination", source, path + ".new"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CloneError(f"{source} was not cloned: {error}") from error
        if done.returncode:
            raise CloneError(f"{source} was not cloned: {said(done.stderr)}")
        os.chmod(path + ".new", 0o600)
        os.rename(path + ".new", path)

    def delete(self) -> None:
        """Delete all clones of the drill."""
        if os.path.isdir(self.folder):
            shutil.rmtree(self.folder)

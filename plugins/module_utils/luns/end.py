# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a LUN: unmounts it, detaches its devices, ends its programs, and verifies that all is gone.

It uses the record and names that only this LUN's parts can have, so it works in any state that a killed module left
behind, and without a record.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any

from ..host.clock import wait_until
from . import loops as luns_loops
from . import lvm, mounts, names, nbd, serve
from .errors import LunError

# Seconds for the kernel to release what has just lost its last user.
SETTLE = 5.0
DEFAULT_TIMEOUT = 30.0


class End:
    """The end of one LUN."""

    def __init__(self, luns: str, record: dict[str, Any]) -> None:
        self.record = record
        self.name = record["name"]
        self.folder = names.folder(luns, self.name)
        self.timeout = float(record.get("timeout") or DEFAULT_TIMEOUT)
        self.left: list[str] = []

    def run(self) -> list[str]:
        """End it. Returns descriptions of what is left."""
        devices = self._devices()
        self._unmount(devices)
        if self.left:
            return self.left  # still in use, so nothing is removed
        self._deactivate(devices)
        self._detach([device for device in devices if device.startswith("/dev/loop")])
        if self.left:
            return self.left
        self._unmount_fuse()
        self._end_programs()
        self._remove_folder()
        return self.left

    def _devices(self) -> list[str]:
        """All devices of the LUN, recorded or found."""
        found = [part["device"] for part in self.record.get("parts", []) if not _is_reused(part["device"], self.name)]
        if self.record.get("method") == "device":
            found.append(self.record.get("device", ""))
        found += luns_loops.labelled(names.label(self.name)).values()
        found += [nbd.node(name) for name in nbd.of(self.record, self.folder)]
        for group in self.record.get("groups", []):
            found += [f"/dev/{name}" for name in lvm.mapped(group)]
        return list(dict.fromkeys(device for device in found if device))

    def _unmount(self, devices: list[str]) -> None:
        for mount in reversed(mounts.of_devices(devices)):
            why = mounts.unmount(mount.point, self.timeout, self._cut)
            if why:
                self.left.append(why)

    def _cut(self) -> None:
        """Cut the LUN off from its source, so that everything that waits for it fails."""
        serve.end(serve.find_of(self.folder))

    def _deactivate(self, devices: list[str]) -> None:
        for group in self.record.get("groups", []):
            try:
                lvm.deactivate(devices, group, self.timeout)
            except LunError as error:
                self.left.append(f"volume group {group} is still active: {error}")

    def _detach(self, loops: list[str]) -> None:
        """``loops``: those found before the source was cut; afterwards the kernel may not return labels."""
        label = names.label(self.name)
        for device in {*luns_loops.labelled(label).values(), *(each for each in loops if luns_loops.is_lost(each))}:
            luns_loops.detach(device)
        # A device in use is detached after its last user.
        if not wait_until(lambda: not luns_loops.labelled(label), SETTLE):
            for device in luns_loops.labelled(label).values():
                self.left.append(f"{device} is still in use{_by_whom(device)}: end what uses it, and try again")
        for name in nbd.of(self.record, self.folder):
            if not nbd.disconnect(name):
                device = nbd.node(name)
                self.left.append(f"{device} is still in use{_by_whom(device)}: end what uses it, and try again")

    def _unmount_fuse(self) -> None:
        point = names.fuse(self.folder)
        while any(mount.point == point for mount in mounts.current()):
            why = mounts.unmount(point, self.timeout, self._cut)
            if why:
                self.left.append(why)
                return

    def _end_programs(self) -> None:
        self.left += serve.end(serve.find_of(self.folder))

    def _remove_folder(self) -> None:
        if self.left:
            return
        self._unmount_fuse()  # a killed nbdfuse leaves its mount
        if self.left:
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
        if os.path.lexists(self.folder):
            self.left.append(f"the directory {self.folder} cannot be removed")


def _is_reused(device: str, name: str) -> bool:
    """Whether a recorded loop device now belongs to something else."""
    if not device.startswith("/dev/loop"):
        return device.startswith("/dev/nbd")  # those are found through their client processes
    return device not in luns_loops.labelled(names.label(name)).values()


def _by_whom(device: str) -> str:
    found = mounts.elsewhere([device])
    if found:
        return f" (mounted at {found[0]})"
    return mounts.users(device)

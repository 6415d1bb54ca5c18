# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends a LUN: unmounts what is mounted from it, detaches its devices, ends its programs, and looks whether all is gone.

It goes by the record and by names that only this LUN's parts can have, so it works in whatever state a killed module
left things, and without a record.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import Any

from . import luns_loops, luns_lvm, luns_mounts, luns_names, luns_nbd, luns_serve
from .luns_errors import LunError

# Seconds for the kernel to let go of what has just lost its last user.
SETTLE = 5.0
POLL = 0.02
DEFAULT_TIMEOUT = 30.0


class End:
    """The end of one LUN."""

    def __init__(self, luns: str, record: dict[str, Any]) -> None:
        self.record = record
        self.name = record["name"]
        self.folder = luns_names.folder(luns, self.name)
        self.timeout = float(record.get("timeout") or DEFAULT_TIMEOUT)
        self.left: list[str] = []

    def run(self) -> list[str]:
        """End it; returns what is left, as texts."""
        devices = self._devices()
        self._unmount(devices)
        if self.left:
            return self.left  # somebody works with it: nothing is torn from under them
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
        found += luns_loops.labelled(luns_names.label(self.name)).values()
        found += [luns_nbd.node(name) for name in luns_nbd.of(self.record, self.folder)]
        for group in self.record.get("groups", []):
            found += [f"/dev/{name}" for name in luns_lvm.mapped(group)]
        return list(dict.fromkeys(device for device in found if device))

    def _unmount(self, devices: list[str]) -> None:
        for mount in reversed(luns_mounts.of_devices(devices)):
            why = luns_mounts.unmount(mount.point, self.timeout, self._cut)
            if why:
                self.left.append(why)

    def _cut(self) -> None:
        """Cut the LUN off from its source: whatever waits for it fails."""
        luns_serve.end(luns_serve.find_of(self.folder))

    def _deactivate(self, devices: list[str]) -> None:
        for group in self.record.get("groups", []):
            try:
                luns_lvm.deactivate(devices, group, self.timeout)
            except LunError as error:
                self.left.append(f"volume group {group} is still active: {error}")

    def _detach(self, loops: list[str]) -> None:
        """``loops``: those that were found before the source was cut, after which the kernel may tell no label."""
        label = luns_names.label(self.name)
        for device in {*luns_loops.labelled(label).values(), *(each for each in loops if luns_loops.is_lost(each))}:
            luns_loops.detach(device)
        # A device in use goes with its last user.
        if not _settled(lambda: not luns_loops.labelled(label)):
            for device in luns_loops.labelled(label).values():
                self.left.append(f"{device} is still in use{_by_whom(device)}: end what uses it, and try again")
        for name in luns_nbd.of(self.record, self.folder):
            if not luns_nbd.disconnect(name):
                device = luns_nbd.node(name)
                self.left.append(f"{device} is still in use{_by_whom(device)}: end what uses it, and try again")

    def _unmount_fuse(self) -> None:
        point = luns_names.fuse(self.folder)
        while any(mount.point == point for mount in luns_mounts.current()):
            why = luns_mounts.unmount(point, self.timeout, self._cut)
            if why:
                self.left.append(why)
                return

    def _end_programs(self) -> None:
        self.left += luns_serve.end(luns_serve.find_of(self.folder))

    def _remove_folder(self) -> None:
        if self.left:
            return
        self._unmount_fuse()  # a killed nbdfuse leaves its mount
        if self.left:
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)
        if os.path.lexists(self.folder):
            self.left.append(f"the folder {self.folder} cannot be removed")


def _is_reused(device: str, name: str) -> bool:
    """Whether a recorded device is a loop device that belongs to something else by now."""
    if not device.startswith("/dev/loop"):
        return device.startswith("/dev/nbd")  # those are found by what the kernel was told
    return device not in luns_loops.labelled(luns_names.label(name)).values()


def _by_whom(device: str) -> str:
    found = luns_mounts.elsewhere([device])
    if found:
        return f" (mounted at {found[0]})"
    return luns_mounts.users(device)


def _settled(settled: Any) -> bool:
    deadline = time.monotonic() + SETTLE
    while not settled() and time.monotonic() < deadline:
        time.sleep(POLL)
    return bool(settled())

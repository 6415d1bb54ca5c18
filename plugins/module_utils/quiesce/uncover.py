# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a filesystem whose every mount point is covered by another mount, without a visible change to the system."""

from __future__ import annotations

import ctypes
import os
import threading

from ..host.mounts import Mount, current, mount_of, open_on

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8


def open_covered(device: str) -> int | None:
    """A descriptor on the filesystem ``device`` (``major:minor``); None if it cannot be opened.

    A thread with its own mount namespace unmounts there what covers the mount. The namespace ends with the thread; the
    descriptor stays valid for calls on the filesystem as a whole.
    """
    found: list[int | None] = []

    def look() -> None:
        try:
            found.append(_uncover(device) if _be_alone() else None)
        except (OSError, KeyError, AttributeError):
            found.append(None)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join()
    return found[0] if found else None


def _be_alone() -> bool:
    """Give this thread a private mount namespace. Returns whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(CLONE_NEWNS) == 0 and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0)


def _uncover(device: str) -> int | None:
    mounts = current()
    for _cover in range(len(mounts)):
        wanted = [mount for mount in mounts if mount.device == device]
        if not wanted:
            return None
        descriptor = open_on(wanted[-1].point, device, mounts)
        if descriptor is not None:
            return descriptor
        if not _take_away(mount_of(wanted[-1].point, mounts)):
            return None
        mounts = current()
    return None


def _take_away(cover: Mount) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if cover.point == "/":
        return False
    return bool(libc.umount2(os.fsencode(cover.point), MNT_DETACH | UMOUNT_NOFOLLOW) == 0)

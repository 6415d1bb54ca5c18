# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which filesystem a path is on, according to the kernel."""

from __future__ import annotations

import os

from ..saveset.base import mountinfo

Mount = mountinfo.Mount

MOUNTINFO = "/proc/thread-self/mountinfo"
"""Of the thread, because a thread may have its own mount namespace."""


def current() -> list[Mount]:
    """The mounts that this thread sees."""
    return mountinfo.mounts(MOUNTINFO)


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """The mount of ``path``, or of its nearest existing parent. Raises OSError, KeyError."""
    number = mount_number(_existing(path))
    return {mount.number: mount for mount in mounts}[number]


def _existing(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def mount_number(path: str) -> int:
    """The kernel's ID of the mount that ``path`` is on. Needs no permission to read the file itself."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return descriptor_mount_number(descriptor)
    finally:
        os.close(descriptor)


def descriptor_mount_number(descriptor: int) -> int:
    """The kernel's ID of the mount that an open file is on."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream if ":" in line)
    return int(fields["mnt_id"])


def descriptor_mount(descriptor: int, mounts: list[Mount]) -> Mount | None:
    """The mount that an open file is on; None if it is not among ``mounts`` because it was unmounted."""
    number = descriptor_mount_number(descriptor)
    return next((mount for mount in mounts if mount.number == number), None)


def open_on(path: str, device: str, mounts: list[Mount]) -> int | None:
    """A descriptor of ``path`` if it exists and is on the filesystem ``device``, else None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    mount = descriptor_mount(descriptor, mounts)
    if mount is not None and mount.device == device:
        return descriptor
    os.close(descriptor)
    return None

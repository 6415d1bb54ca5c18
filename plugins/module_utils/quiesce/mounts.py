# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which filesystem a path is on, as the kernel tells it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

MOUNTINFO = "/proc/thread-self/mountinfo"
"""Of this thread: one may have a mount namespace of its own."""

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount. ``device`` names the filesystem itself: mounts of one filesystem share it, and a freeze covers all.

    ``root`` is what of the filesystem is mounted; ``options`` are those of the filesystem, with commas between.
    """

    number: int
    device: str
    point: str
    type: str
    root: str = "/"
    options: str = ""


def parse(text: str) -> list[Mount]:
    """Read the text of a mountinfo file (proc(5)); later mounts come last."""
    return [_parse_line(line) for line in text.splitlines() if line.strip()]


def _parse_line(line: str) -> Mount:
    fields, _separator, rest = line.partition(" - ")
    words = fields.split()
    kind, _source, options = rest.split(" ", 2)
    return Mount(int(words[0]), words[2], _unescape(words[4]), kind, _unescape(words[3]), options)


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def current() -> list[Mount]:
    """The mounts that this thread sees."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as stream:
        return parse(stream.read())


def mount_of(path: str, mounts: list[Mount]) -> Mount:
    """The mount that ``path`` is on; the nearest existing parent where it does not exist. Raises OSError, KeyError."""
    number = mount_number(_existing(path))
    return {mount.number: mount for mount in mounts}[number]


def _existing(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.lexists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def mount_number(path: str) -> int:
    """The kernel's number of the mount that ``path`` is on. Works without access to the file itself."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return descriptor_mount_number(descriptor)
    finally:
        os.close(descriptor)


def descriptor_mount_number(descriptor: int) -> int:
    """The kernel's number of the mount that an open file is on."""
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream if ":" in line)
    return int(fields["mnt_id"])


def descriptor_mount(descriptor: int, mounts: list[Mount]) -> Mount | None:
    """The mount that an open file is on; None where that is not among ``mounts``, as it was unmounted."""
    number = descriptor_mount_number(descriptor)
    return next((mount for mount in mounts if mount.number == number), None)


def open_on(path: str, device: str, mounts: list[Mount]) -> int | None:
    """A descriptor of ``path``, if that is there and on the filesystem ``device``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    mount = descriptor_mount(descriptor, mounts)
    if mount is not None and mount.device == device:
        return descriptor
    os.close(descriptor)
    return None

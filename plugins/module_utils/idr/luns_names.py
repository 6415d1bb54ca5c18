# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How what belongs to a LUN is named, so that it is found again without a record.

Paths of sockets have room for 107 characters and labels of loop devices for 63, so both carry a digest of the name.
"""

from __future__ import annotations

import hashlib
import os
import re

from .luns_errors import LunError

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
LONGEST_SOCKET = 107


def checked(name: str) -> str:
    """The name, where it can name a LUN."""
    if not NAME.match(name):
        raise LunError(f"'{name}' cannot name a LUN: use letters, digits, '.', '_' and '-'")
    return name


def digest(name: str) -> str:
    """What stands for a name where there is little room."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def label(name: str, part: int = 0) -> str:
    """The label of the loop device of a LUN, or of one of its partitions."""
    return f"idr/{name[:36]}#{digest(name)}" + (f"/p{part}" if part else "")


def group(name: str, part: int) -> str:
    """The name under which a volume group on a LUN is imported: no other LUN's, and none that a site would choose."""
    return f"idr_{digest(name)}_{part}"


def folder(luns: str, name: str) -> str:
    """The folder of a LUN below that of all LUNs: its socket, its logs, and where nbdfuse shows it."""
    return os.path.join(luns, digest(name))


def socket(directory: str) -> str:
    """The socket at which nbdkit serves the LUN."""
    path = os.path.join(directory, "nbdkit.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise LunError(f"the path {path} is too long for a socket: choose a shorter run_dir")
    return path


def fuse(directory: str) -> str:
    """Where nbdfuse is mounted."""
    return os.path.join(directory, "fuse")


def disk(directory: str) -> str:
    """The LUN as a file, as nbdfuse shows it."""
    return os.path.join(fuse(directory), "disk")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names for everything that belongs to a LUN, so that it can be found without a record.

Socket paths are limited to 107 characters and loop device labels to 63, so both contain a digest of the name.
"""

from __future__ import annotations

import hashlib
import os
import re

from .errors import LunError

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
LONGEST_SOCKET = 107


def checked(name: str) -> str:
    """Return the name if it is valid for a LUN, else raise LunError."""
    if not NAME.match(name):
        raise LunError(f"'{name}' cannot name a LUN: use letters, digits, '.', '_' and '-'")
    return name


def digest(name: str) -> str:
    """A short digest that stands for a name."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def label(name: str, part: int = 0) -> str:
    """The label of the loop device of a LUN, or of one of its partitions."""
    return f"idr/{name[:36]}#{digest(name)}" + (f"/p{part}" if part else "")


def group(name: str, part: int) -> str:
    """The import name of a volume group on a LUN: unique among LUNs, and not one that a site would choose."""
    return f"idr_{digest(name)}_{part}"


def folder(luns: str, name: str) -> str:
    """The directory of a LUN, below that of all LUNs: for its socket, its logs and nbdfuse's mount point."""
    return os.path.join(luns, digest(name))


def socket(directory: str) -> str:
    """The socket at which nbdkit serves the LUN."""
    path = os.path.join(directory, "nbdkit.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET:
        raise LunError(f"the path {path} is too long for a socket: set a shorter run_dir")
    return path


def fuse(directory: str) -> str:
    """The mount point of nbdfuse."""
    return os.path.join(directory, "fuse")


def disk(directory: str) -> str:
    """The file through which nbdfuse shows the LUN."""
    return os.path.join(fuse(directory), "disk")

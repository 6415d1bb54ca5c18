# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of what is on a host: a small file each, as JSON, which its readers see as it was or as it is, never between.

A process that dies while it writes one leaves ``<path>`` + NEW, which the next writer overwrites.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict

Record = Dict[str, Any]
NEW = ".new"


def write(path: str, record: Record, lasting: bool = False) -> None:
    """Replace the record at ``path``, readable by its owner alone. ``lasting``: it is on the disk when this returns."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path + NEW, flags, 0o600), "w", encoding="utf-8") as stream:
        json.dump(record, stream, sort_keys=True)
        if lasting:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(path + NEW, path)
    if lasting:
        sync_folder(path)


def read(path: str) -> Record | None:
    """The record at ``path``; None if there is none. Raises OSError, and ValueError for one that is damaged."""
    try:
        with open(path, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except FileNotFoundError:
        return None


def sync_folder(path: str) -> None:
    """Make the name of ``path`` in its folder last through a power loss."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the partition table and the filesystems of a block device with blkid and partx.

Both probe the device itself, because a host without udev has no valid cache. Names and labels are untrusted, so they
are returned as plain text.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from ..host.plain import plain
from . import commands
from .errors import LunError

SECTOR = 512
NOTHING_FOUND = 2
SEVERAL_FOUND = 8
NO_TABLE = "failed to read partition table"  # partx prints this also if there is no table
# Partitions of a DOS table that only contain others.
EXTENDED = ("0x5", "0xf", "0x85")
GPT = b"EFI PART"
MARK = b"\x55\xaa"  # the end of a boot sector


def sector_size(file: str, timeout: float, told: int = 0) -> int:
    """The sector size that a disk's partition table assumes.

    The position of a GPT shows it. Otherwise it is ``told``, the size on the original disk, or else 512.
    """
    head = commands.head(file, 2 * 4096, timeout)
    at_512, at_4096 = head[512:520] == GPT, head[4096:4104] == GPT
    if at_512 != at_4096:
        return SECTOR if at_512 else 4096
    return told or SECTOR


def has_table(file: str, timeout: float) -> bool:
    """Whether a disk may have a partition table; a boot sector looks like one, too."""
    head = commands.head(file, 2 * 4096, timeout)
    return head[510:512] == MARK or GPT in (head[512:520], head[4096:4104])


def table(device: str, timeout: float) -> str:
    """The kind of a device's partition table: gpt, dos, or empty."""
    found = probe(device, timeout)
    if found.get("PTTYPE") not in ("gpt", "dos"):
        return ""
    # The boot sector of a FAT or NTFS filesystem can look like a table; an empty table does not count.
    return "" if found.get("TYPE") and not partitions(device, timeout) else found["PTTYPE"]


def partitions(device: str, timeout: float) -> list[dict[str, Any]]:
    """The partitions of a device, each with number, offset, size and name, in bytes."""
    done = commands.run(["partx", "--pairs", "--output", "NR,START,SECTORS,NAME,TYPE", device], timeout)
    if done.status and NO_TABLE in done.errors:
        return []
    if done.status:
        raise LunError(f"the partitions of {device} cannot be read: {commands.told(done)}")
    return [part for part in map(_partition, filter(None, done.output.split("\n"))) if part]


def filesystem(device: str, timeout: float, offset: int = 0, size: int = 0) -> dict[str, str]:
    """The filesystem on a device, or on a part of it: type, uuid and label, each empty if unknown to blkid."""
    found = probe(device, timeout, offset, size)
    return {"type": found.get("TYPE", ""), "uuid": found.get("UUID", ""), "label": found.get("LABEL", "")}


def probe(device: str, timeout: float, offset: int = 0, size: int = 0) -> dict[str, str]:
    """All that blkid reports for a device, or for a part of it."""
    where = ["--offset", str(offset), "--size", str(size)] if size else []
    done = commands.run(["blkid", "--probe", "--output", "export", *where, device], timeout)
    if done.status == NOTHING_FOUND and not done.errors.strip():
        return {}
    if done.status == SEVERAL_FOUND:
        return {}  # signatures of several filesystems: ambiguous
    if done.status:
        raise LunError(f"{device} cannot be read: {commands.told(done)}")
    pairs = (line.partition("=") for line in done.output.split("\n"))
    return {key: _unescaped(value) for key, equals, value in pairs if equals}


def _partition(line: str) -> dict[str, Any] | None:
    values = dict(word.split("=", 1) for word in shlex.split(line))
    if values.get("TYPE", "").lower() in EXTENDED:
        return None
    return {
        "number": int(values["NR"]),
        "offset": int(values["START"]) * SECTOR,
        "size": int(values["SECTORS"]) * SECTOR,
        "name": _unescaped(values.get("NAME", "")),
    }


def _unescaped(text: str) -> str:
    """Undo util-linux's escaping: unsafe bytes as ``\\x20``, or a backslash before a character."""
    raw = re.sub(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", _unescaped_byte, text.encode(), flags=re.DOTALL)
    return plain(raw.decode("utf-8", "replace"))


def _unescaped_byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else match[2]

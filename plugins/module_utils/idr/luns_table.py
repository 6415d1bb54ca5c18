# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a block device: a partition table or none, and the filesystems, by what blkid and partx say.

Both are asked to look at the device itself: a host without udev has no cache that could be right. Names and labels are
a stranger's, so they are told as plain text.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from ..plain import plain
from . import luns_commands
from .luns_errors import LunError

SECTOR = 512
NOTHING_FOUND = 2
SEVERAL_FOUND = 8
NO_TABLE = "failed to read partition table"  # partx's words, also where there is none
# Partitions of a DOS table that only hold others.
EXTENDED = ("0x5", "0xf", "0x85")
GPT = b"EFI PART"


def sector_size(file: str, timeout: float) -> int:
    """The size of the sectors that the partition table of a disk counts in; a GPT tells it by where it is."""
    head = luns_commands.head(file, 2 * 4096, timeout)
    at_512, at_4096 = head[512:520] == GPT, head[4096:4104] == GPT
    return 4096 if at_4096 and not at_512 else SECTOR


def table(device: str, timeout: float) -> str:
    """The kind of a device's partition table: gpt, dos, or nothing."""
    found = probe(device, timeout)
    if found.get("PTTYPE") not in ("gpt", "dos"):
        return ""
    # The boot sector of a FAT or NTFS filesystem can look like a table; a table with nothing in it is none to us.
    return "" if found.get("TYPE") and not partitions(device, timeout) else found["PTTYPE"]


def partitions(device: str, timeout: float) -> list[dict[str, Any]]:
    """The partitions of a device, each with number, offset, size and name, in bytes."""
    done = luns_commands.run(["partx", "--pairs", "--output", "NR,START,SECTORS,NAME,TYPE", device], timeout)
    if done.status and NO_TABLE in done.errors:
        return []
    if done.status:
        raise LunError(f"the partitions of {device} cannot be read: {luns_commands.told(done)}")
    return [part for part in map(_partition, done.output.splitlines()) if part]


def filesystem(device: str, timeout: float, offset: int = 0, size: int = 0) -> dict[str, str]:
    """What a device, or a part of it, holds: type, uuid and label, empty where blkid knows nothing."""
    found = probe(device, timeout, offset, size)
    return {"type": found.get("TYPE", ""), "uuid": found.get("UUID", ""), "label": found.get("LABEL", "")}


def probe(device: str, timeout: float, offset: int = 0, size: int = 0) -> dict[str, str]:
    """All that blkid says of a device, or of a part of it."""
    where = ["--offset", str(offset), "--size", str(size)] if size else []
    done = luns_commands.run(["blkid", "--probe", "--output", "export", *where, device], timeout)
    if done.status == NOTHING_FOUND and not done.errors.strip():
        return {}
    if done.status == SEVERAL_FOUND:
        return {}  # more than one filesystem's marks: nothing to rely on
    if done.status:
        raise LunError(f"{device} cannot be read: {luns_commands.told(done)}")
    pairs = (line.partition("=") for line in done.output.splitlines())
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
    """util-linux writes the bytes of what it thinks unsafe as ``\\x20``, or a backslash before a character."""
    raw = re.sub(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", _unescaped_byte, text.encode(), flags=re.DOTALL)
    return plain(raw.decode("utf-8", "replace"))


def _unescaped_byte(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 16)]) if match[1] else match[2]

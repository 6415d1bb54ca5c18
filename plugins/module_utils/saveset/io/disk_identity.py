# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The identity of one particular disk, device or file, which stays valid when devices are renumbered.

A disk has a WWN or a serial number. A block device with neither is identified by its content, and a file by its path
and size. Standard library only, Python 3.8: this also runs on hosts without the engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import struct
import typing as t

SAMPLE = 1 << 20  # bytes at either end that represent the content of a device

_BLKGETSIZE64 = 0x80081272
_WWN = ("wwid", "device/wwid")
_SERIAL = ("serial", "device/serial")
_SERIAL_PAGE = "device/vpd_pg80"  # SCSI: four bytes, then the serial number
_MAPPER = "dm/uuid"
_LONGEST = 256
_NUMBERED = re.compile(r"(?:naa|eui)\.([0-9a-f]{16,32})")
_MULTIPATH = re.compile(r"mpath-3([0-9a-f]{16,32})")
_SHOWN = 128


class Identity(t.NamedTuple):
    """``shown`` is the name to show to people; ``names`` are all accepted names, as normal() writes them.

    ``lasting`` means that it stays the same whatever is written to the device or file.
    """

    shown: str
    names: frozenset[str]
    lasting: bool

    def is_among(self, given: t.Iterable[str]) -> bool:
        """Whether any of the given names is one of its names."""
        return any(normal(name) in self.names for name in given if name.strip())


def identity_of(fd: int, path: str) -> Identity:
    """The identity of what ``fd`` has open; ``path`` is its path without links. Raises OSError."""
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode):
        name = f"{path}:{status.st_size}"
        return Identity(name, frozenset([normal(name)]), True)
    names = _names_of_disk(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    if names:
        return Identity(names[0], frozenset(map(normal, names)), True)
    name = f"content:{content_digest(fd)}"
    return Identity(name, frozenset([name]), False)


def normal(name: str) -> str:
    """A name in the form used for comparison: only the last part of a /dev/disk/by-id link, without case and blanks."""
    text = "_".join(name.split())
    if text.startswith("/dev/disk/by-id/"):
        text = os.path.basename(text)
    return text if text.startswith("/") else text.lower()


def size_of(fd: int) -> int:
    """The size in bytes of an open file or block device."""
    status = os.fstat(fd)
    if not stat.S_ISBLK(status.st_mode):
        return status.st_size
    return int(struct.unpack("Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])


def ends_of(fd: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of an open file or device, up to SAMPLE each."""
    size = size_of(fd)
    return _read(fd, 0, min(SAMPLE, size)), _read(fd, max(size - SAMPLE, 0), min(SAMPLE, size))


def content_digest(fd: int) -> str:
    """A digest that identifies a device by its content: of its size and its two ends."""
    digest = hashlib.sha256(b"%d;" % size_of(fd))
    for part in ends_of(fd):
        digest.update(part)
    return digest.hexdigest()[:16]


def printable(text: str) -> str:
    """A text from a disk or another program, without anything that a terminal could interpret, and shortened."""
    clean = "".join(each if each.isprintable() else "?" for each in text)
    return clean if len(clean) <= _SHOWN else clean[:_SHOWN] + "..."


def device_folder(number: str) -> str:
    """The sysfs folder of the block device with this number (``8:16``)."""
    return os.path.realpath(f"/sys/dev/block/{number}")


def _names_of_disk(number: str) -> list[str]:
    """The names of a disk or partition, the one to show first."""
    folder, ending = device_folder(number), ""
    if os.path.exists(folder + "/partition"):
        ending = "-part" + _text(folder + "/partition")
        folder = os.path.dirname(folder)
    found = [name for file in (_MAPPER, *_WWN) for name in _forms(_text(f"{folder}/{file}"))]
    serials = [_text(f"{folder}/{file}") for file in _SERIAL] + [_serial_page(f"{folder}/{_SERIAL_PAGE}")]
    found += [form for serial in serials if _tells_apart(serial) for form in (serial, f"virtio-{serial}")]
    return [name + ending for name in dict.fromkeys(found)]


def _forms(name: str) -> list[str]:
    """All spellings of a WWN (sysfs, udev, multipath); empty for a name that does not identify one disk."""
    if not _tells_apart(name):
        return []
    match = _NUMBERED.fullmatch(name.lower()) or _MULTIPATH.fullmatch(name.lower())
    digits = match.group(1) if match else ""
    return [f"wwn-0x{digits}", f"0x{digits}", digits, f"3{digits}", name] if digits else [name, f"dm-uuid-{name}"]


def _tells_apart(name: str) -> bool:
    """Whether this can identify one disk: many cheap disks report something like 00000000."""
    return len(name) >= 4 and len(set(name)) > 1


def _text(path: str) -> str:
    return "_".join(_bytes(path).decode("ascii", "replace").split("\0")[0].split())


def _serial_page(path: str) -> str:
    return "_".join(_bytes(path)[4:].decode("ascii", "replace").strip("\0").split())


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read(_LONGEST)
    except OSError:
        return b""


def _read(fd: int, offset: int, length: int) -> bytes:
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return b"".join(parts)

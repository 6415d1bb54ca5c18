# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on a block device or in a file, in words: uses wipefs, which knows all that libblkid does.

Standard library only, Python 3.8: this also runs on hosts without the engine.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
import subprocess
import typing as t

from ..base.errors import TargetError
from .disk_identity import device_folder, ends_of, printable, size_of

PATH = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/bin"
TIMEOUT = 60.0  # seconds

_STEP = 8 << 20
_KINDS = {"LVM2_member": "a member of an LVM volume group", "linux_raid_member": "a member of a RAID (md)"}
_TABLES = ("gpt", "PMBR", "dos", "sun", "sgi", "bsd", "mac", "atari", "aix", "minix", "ultrix", "solaris-x86")
# A volume group in the metadata of one of its members, as written by LVM: name, id, revision.
_GROUP = re.compile(rb'([A-Za-z0-9_.+-]{1,127}) \{\nid = "[A-Za-z0-9-]{38}"\nseqno = ([0-9]{1,10})\n')


def content_of(fd: int, path: str) -> list[str]:
    """What is on the device or file that ``fd`` has open, as texts; empty if it is blank.

    A file is blank if it is empty or reads as zeros.  A block device is blank if wipefs finds nothing, it has no
    partitions, and its first and last MiB are zeros (or ones, as erased flash reads).
    Raises TargetError if that cannot be determined.
    """
    try:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            return _signatures(fd, path) + _partitions(fd) or _unknown(fd)
        if not _has_data(fd):
            return []
        return _signatures(fd, path) or [f"{size_of(fd)} bytes of data"]
    except OSError as error:
        raise TargetError(path, f"what it holds cannot be read ({error.strerror})", "Repair or replace it") from error


def _signatures(fd: int, path: str) -> list[str]:
    lines = [line for line in _wipefs(fd, path).split("\n") if line and not line.startswith("#")]
    found = dict.fromkeys(_described(line, fd) for line in lines)
    return list(found)


def _described(line: str, fd: int) -> str:
    """A line of wipefs, ``offset,uuid,label,type``, in words. A label may have commas; all of it is untrusted."""
    uuid, _comma, rest = line.partition(",")[2].partition(",")
    label, _comma, kind = rest.rpartition(",")
    if kind in _TABLES:
        return f"a partition table ({'gpt' if kind == 'PMBR' else kind})"
    words = [_KINDS.get(kind) or printable(kind)]
    if kind == "LVM2_member":
        group = _group_name(fd)
        words += [f"named {group}"] if group else []
    if label:
        words.append(f"labelled '{printable(_unescaped(label))}'")
    if uuid:
        words.append(f"(UUID {printable(_unescaped(uuid))})")
    return " ".join(words)


def _wipefs(fd: int, path: str) -> str:
    program = shutil.which("wipefs", path=PATH)
    if program is None:
        raise TargetError(
            path, "wipefs, which finds out what it holds, is not installed", "Install the package util-linux"
        )
    try:
        done = subprocess.run(
            [program, "--no-act", "--parsable", f"/proc/self/fd/{fd}"],
            pass_fds=[fd],
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TargetError(path, f"it could not be read within {TIMEOUT:.0f} s", "Check the disk") from error
    if done.returncode:
        said = printable(" ".join(done.stderr.decode("utf-8", "replace").split()))
        raise TargetError(path, f"wipefs cannot find out what it holds ({said})", "Check the disk")
    return done.stdout.decode("utf-8", "replace")


def _partitions(fd: int) -> list[str]:
    """The partitions of a disk that the kernel knows."""
    number = os.fstat(fd).st_rdev
    folder = device_folder(f"{os.major(number)}:{os.minor(number)}")
    names = sorted(os.path.basename(os.path.dirname(file)) for file in glob.glob(glob.escape(folder) + "/*/partition"))
    return [f"the partitions {', '.join(names)}"] if names else []


def _unknown(fd: int) -> list[str]:
    ends = ends_of(fd)
    return [] if all(_is_blank(end) for end in ends) else ["data of an unknown kind"]


def _is_blank(data: bytes) -> bool:
    return not data or (data[:1] in (b"\x00", b"\xff") and data.count(data[:1]) == len(data))


def _has_data(fd: int) -> bool:
    """Whether a file has any byte that is not zero."""
    size = size_of(fd)
    return any(_read_any(fd, begin, end) for begin, end in _allocated(fd, size))


def _allocated(fd: int, size: int) -> t.Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            begin = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # only holes from here to the end
            return
        position = os.lseek(fd, begin, os.SEEK_HOLE)
        yield begin, position


def _read_any(fd: int, begin: int, end: int) -> bool:
    while begin < end:
        data = os.pread(fd, min(_STEP, end - begin), begin)
        if not data:
            return False
        if data.count(0) != len(data):
            return True
        begin += len(data)
    return False


def _group_name(fd: int) -> str:
    """The volume group of a member; empty if that is unknown."""
    found = sorted((int(seqno), name) for name, seqno in _GROUP.findall(ends_of(fd)[0]))
    return found[-1][1].decode("ascii") if found else ""


def _unescaped(text: str) -> str:
    """A text with wipefs's escapes, such as ``\\x20``, decoded."""
    raw = re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "replace"))
    return raw.decode("utf-8", "replace")

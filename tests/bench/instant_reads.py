# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading what is served, in order and at random, through the whole chain and over NBD alone."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import time
import typing as t
from pathlib import Path

from .instant_lun import attached
from .instant_serve import Address

BLOCK = 4096
_STEP = 4 << 20

#: Run by the system's Python, which has libnbd's module: latencies of single reads, in seconds.
_BY_NBD = """\
import json, nbd, sys, time
uri, key, offsets, size = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
handle = nbd.NBD()
handle.set_tls_psk_file(key)
handle.connect_uri(uri)
taken = []
for offset in offsets:
    begun = time.monotonic()
    handle.pread(size, offset)
    taken.append(time.monotonic() - begun)
print(json.dumps(taken))
"""


def forget(folder: Path) -> None:
    """Have the kernel drop what it keeps of a file, or of all files of a folder."""
    for path in [folder] if folder.is_file() else [path for path in folder.rglob("*") if path.is_file()]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def in_order(address: Address, work: Path) -> float:
    """Seconds that the LUN takes to be read from its beginning to its end, past the page cache, as restore writes."""
    with attached(address, work) as device, mmap.mmap(-1, _STEP) as buffer:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
        try:
            begun, done = time.monotonic(), 0
            while got := os.preadv(fd, [buffer], done):
                done += got
            return time.monotonic() - begun
        finally:
            os.close(fd)


def by_pages(address: Address, work: Path) -> float:
    """The same through the page cache, as a filesystem reads."""
    with attached(address, work) as device, open(device, "rb", buffering=0) as stream:
        buffer = bytearray(_STEP)
        begun = time.monotonic()
        while stream.readinto(buffer):
            pass
        return time.monotonic() - begun


def copied(address: Address) -> float:
    """Seconds that nbdcopy takes to read all over NBD, without the LUN's layers."""
    begun = time.monotonic()
    subprocess.run(["nbdcopy", f"{address.uri}?tls-psk-file={address.psk}", "null:"], check=True)
    return time.monotonic() - begun


def at_random(address: Address, work: Path, offsets: t.Sequence[int]) -> list[float]:
    """Seconds that each read of a block of the LUN takes, past the page cache, one at a time."""
    taken = []
    with attached(address, work) as device:
        fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, BLOCK) as buffer:
                for offset in offsets:
                    begun = time.monotonic()
                    if os.preadv(fd, [buffer], offset) != BLOCK:
                        raise RuntimeError(f"{device}: a short read at {offset}")
                    taken.append(time.monotonic() - begun)
        finally:
            os.close(fd)
    return taken


def at_random_by_nbd(address: Address, offsets: t.Sequence[int]) -> list[float]:
    """The same over NBD, without the LUN's layers."""
    command = ["/usr/bin/python3", "-c", _BY_NBD, address.uri, str(address.psk), json.dumps(offsets), str(BLOCK)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return t.cast("list[float]", json.loads(done.stdout))

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mount of somebody else's, by a name of any bytes, hinders nobody: all that read the mounts are asked beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import kerneltables, memory

NAMES = {
    "latin-1": b"caf\xe9",
    "carriage return": b"a\rb",
    "vertical tab": b"a\x0bb",
    "form feed": b"a\x0cb",
    "separators": b"a\x1cb\x1dc\x1ed",
    "next line": b"a\xc2\x85b",
    "no-break space": b"a\xc2\xa0b",
    "line separator": b"a\xe2\x80\xa8b",
    "blank, tab, line feed and backslash": b"a b\tc\nd\\040e",
    "a line of its own": b"a\r99 1 0:99 / /proc rw - proc proc rw",
}

LOOK = """
import json, os, sys
sys.path[:0] = [sys.argv[1]]
from ansible_collections.openisb.backup.plugins.module_utils.host import volumes
from ansible_collections.openisb.backup.plugins.module_utils.checks import filesystem as checker
from ansible_collections.openisb.backup.plugins.module_utils.luns import mounts as luns_mounts
from ansible_collections.openisb.backup.plugins.module_utils.host import mounts
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers import filesystem
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import exposure
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import memory
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import device_users as users

point = os.fsencode(sys.argv[2])
there = os.stat(point).st_dev
number = f"{os.major(there)}:{os.minor(there)}"

def frozen():
    driver = filesystem.FilesystemDriver({"mounts": [os.fsdecode(point)], "timeout": 5})
    try:
        driver.check(Surroundings({}))
    except DriverError as error:
        return str(error).rpartition(" is of type ")[2]

READERS = {
    "quiesce": lambda: [os.fsencode(each.point) for each in mounts.current() if each.device == number] == [point],
    "check of quiesce": lambda: frozen() == "tmpfs, which cannot be frozen: only btrfs, ext4, xfs can",
    "volumes": lambda: os.fsencode(volumes.mount_of(os.fsdecode(point))["source"]).endswith(os.path.basename(point)),
    "volumes beside it": lambda: volumes.mount_of("/proc")["filesystem"] == "proc",
    "idr": lambda: [os.fsencode(each.point) for each in luns_mounts.current()].count(point) == 1,
    "checks": lambda: checker._mounted_at("/nowhere") == [],
    "users": lambda: users._mounted("/proc/self", {number}) == [users.printable(os.fsdecode(point))],
    "memory": lambda: memory.is_in_memory(os.fsdecode(point)) and not memory.is_in_memory("/proc"),
    "mbf": lambda: exposure._hidden_by_mount() is False,
}
found = {}
for name, reader in READERS.items():
    try:
        found[name] = reader()
    except Exception as error:
        found[name] = repr(error)
print(json.dumps(found))
"""

MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
point = os.fsencode(sys.argv[1])
os.makedirs(point)
if libc.mount(b"from " + os.path.basename(point), point, b"tmpfs", 0, b"size=64k"):
    raise OSError(ctypes.get_errno(), "mount")
os.execv(sys.argv[2], sys.argv[2:])
"""


def beside(point: bytes, command: list[Any]) -> subprocess.CompletedProcess[bytes]:
    """Run a command where a filesystem in memory is mounted at ``point``, which nobody else sees."""
    alone = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", MOUNT, point]
    return subprocess.run([*alone, *command], capture_output=True, check=False)


@pytest.mark.root
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_reader_of_mounts_sees_it_as_it_is(name: bytes, tmp_path: Path, project_root: Path) -> None:
    point = bytes(tmp_path) + b"/" + name
    done = beside(point, [sys.executable, "-c", LOOK, project_root / "collections", point])
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found = json.loads(done.stdout)
    assert found == dict.fromkeys(found, True)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_swap_on_a_file_with_such_a_name_is_read(name: bytes, tmp_path: Path) -> None:
    written = name.replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011").replace(b"\n", b"\\012")
    listing = tmp_path / "swaps"
    listing.write_bytes(
        b"Filename\t\t\tType\t\tSize\n/nowhere/" + written + b"     file\t\t1024\n/dev/zram0\tpartition\t1\n"
    )
    areas = kerneltables.swaps(str(listing))
    assert [bytes(area, "utf-8", "surrogateescape") for area in areas] == [b"/nowhere/" + name, b"/dev/zram0"]
    assert memory.clear_swap(str(listing)) == areas[:1]

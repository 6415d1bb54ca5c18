# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting what is on a LUN, on a host that has mounts with names of any bytes."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.modules import idr_mount

from .conftest import unmount

if TYPE_CHECKING:
    from .conftest import Disks

pytestmark = pytest.mark.root
Call = Callable[..., dict[str, Any]]
CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
STRANGE = (b"caf\xe9", b"a\rb", b"a\x0bb", b"a\xc2\x85b", b"a\xc2\xa0b", b"a b\tc\nd")


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[None]:
    """Filesystems in memory that somebody else has mounted; all mounts of the test are its own, and go with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    before, folder = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY), os.getcwd()
    try:
        assert libc.unshare(CLONE_NEWNS) == 0
        assert libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
        for name in STRANGE:
            point = bytes(tmp_path) + b"/" + name
            os.mkdir(point)
            assert libc.mount(b"from " + point, point, b"tmpfs", 0, b"size=64k") == 0
        yield
    finally:
        assert libc.setns(before, CLONE_NEWNS) == 0
        os.close(before)
        os.chdir(folder)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Call the module, and return what it returned."""

    def run(device: str, path: Path, **options: Any) -> dict[str, Any]:
        args = {"device": device, "path": str(path), "fstype": "ext4", "opts": "ro,noload", **options}
        capsys.readouterr()
        with patch_module_args(args), pytest.raises(SystemExit):
            idr_mount.main()
        return dict(json.loads(capsys.readouterr().out))

    return run


@pytest.mark.usefixtures("strangers")
def test_a_device_is_mounted_once(call: Call, disks: Disks, tmp_path: Path) -> None:
    with disks.attached(disks.filesystem("ext4")) as device, disks.attached(disks.empty("other", 1 << 20)) as other:
        point = tmp_path / "made" / "for é"
        assert call(device, point, _ansible_check_mode=True)["changed"]
        assert not point.exists()
        assert call(device, point)["diff"] == {"before": {"mounted": ""}, "after": {"mounted": device}}
        try:
            assert (point / "proof").exists()
            assert not call(device, point)["changed"]
            assert f"{device} is already mounted at {point}: unmount it" in call(other, point)["msg"]
        finally:
            unmount(point)


@pytest.mark.usefixtures("strangers")
def test_what_cannot_be_mounted_says_why(call: Call, disks: Disks, tmp_path: Path) -> None:
    with disks.attached(disks.filesystem("ext4")) as device:
        assert f"{device} cannot be mounted at {tmp_path}/x: mount" in call(device, tmp_path / "x", fstype="xfs")["msg"]
    assert "/nowhere cannot be mounted" in call("/nowhere", tmp_path / "x")["msg"]

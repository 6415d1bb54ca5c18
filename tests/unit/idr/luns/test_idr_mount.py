# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounting what is on LUNs, on a host that has mounts with names of any bytes."""

from __future__ import annotations

import contextlib
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
    """Call the module with what to mount where, and return what it returned."""

    def run(*places: tuple[str, Path], fstype: str = "ext4", opts: str = "ro,noload", **options: Any) -> dict[str, Any]:
        how = {"fstype": fstype, "opts": opts}
        args = {"mounts": [{"device": device, "path": str(path), **how} for device, path in places], **options}
        capsys.readouterr()
        with patch_module_args(args), pytest.raises(SystemExit):
            idr_mount.main()
        return dict(json.loads(capsys.readouterr().out))

    return run


@pytest.mark.usefixtures("strangers")
def test_a_device_is_mounted_once(call: Call, disks: Disks, tmp_path: Path) -> None:
    with disks.attached(disks.filesystem("ext4")) as device, disks.attached(disks.empty("other", 1 << 20)) as other:
        point = tmp_path / "made" / "for é"
        assert call((device, point), _ansible_check_mode=True)["changed"]
        assert not point.exists()
        assert call((device, point))["diff"] == {"before": {str(point): ""}, "after": {str(point): device}}
        try:
            assert (point / "proof").exists()
            assert not call((device, point))["changed"]
            refused = call((other, point))
            assert f"{device} is already mounted at {point}: unmount it" in problem(refused, point)
            assert not refused["changed"]
        finally:
            unmount(point)


@pytest.mark.usefixtures("strangers")
def test_what_cannot_be_mounted_says_why(call: Call, disks: Disks, tmp_path: Path) -> None:
    place = tmp_path / "x"
    with disks.attached(disks.filesystem("ext4")) as device:
        told = call((device, place), fstype="xfs")
        assert f"{device} cannot be mounted at {place}: mount" in problem(told, place)
    assert "/nowhere cannot be mounted" in problem(call(("/nowhere", place)), place)


@pytest.mark.usefixtures("strangers")
def test_what_is_below_another_comes_after_it(call: Call, disks: Disks, tmp_path: Path) -> None:
    """Whatever their order; and what cannot be mounted keeps only those below it from being mounted."""
    places = [tmp_path / "m", tmp_path / "m/journal", tmp_path / "m2", tmp_path / "m/journal/old"]
    with contextlib.ExitStack() as stack:
        devices = [stack.enter_context(disks.attached(disks.filesystem("ext4", str(n)))) for n in range(4)]
        pairs = list(zip(devices, places, strict=True))
        told = call(*pairs[::-1], opts="rw")
        assert [problem(told, place) for place in places] == [""] * 4
        assert len({os.stat(place).st_dev for place in places}) == 4
        for place in (places[3], places[2], places[1], places[0]):
            unmount(place)
        told = call(pairs[0], ("/nowhere", places[1]), pairs[2], pairs[3], opts="rw")
        for place in (places[2], places[0]):
            unmount(place)
    assert [bool(problem(told, place)) for place in places] == [False, True, False, True]
    assert problem(told, places[3]) == f"{places[1]}, which it is below, was not mounted"


def problem(told: dict[str, Any], place: Path) -> str:
    return str(told["mounts"][str(place)]["problem"])

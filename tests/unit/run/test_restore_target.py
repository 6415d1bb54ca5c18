# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be restored to: nothing that is in use, too small, or has content that nobody gave up."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.openisb.backup.plugins.modules.restore_target import (
    TargetError,
    check_device,
    check_file,
    make_file,
)

MIB = 1024**2


def test_a_missing_file_is_made_sparse_and_private(tmp_path):
    path = str(tmp_path / "volume.img")
    assert check_file(path, 64 * MIB, False)
    make_file(path, 64 * MIB)
    status = os.stat(path)
    assert status.st_size == 64 * MIB
    assert status.st_blocks == 0
    assert status.st_mode & 0o077 == 0


def test_a_file_with_content_is_refused(tmp_path):
    path = tmp_path / "volume.img"
    path.write_bytes(b"precious")
    with pytest.raises(TargetError, match="is there already.*restore_overwrite=true"):
        check_file(str(path), MIB, False)
    assert path.read_bytes() == b"precious"
    assert check_file(str(path), MIB, True)


def test_a_file_that_may_be_written_over_can_keep_its_content(tmp_path):
    path = tmp_path / "volume.img"
    path.write_bytes(b"old content")
    with pytest.raises(TargetError, match="restore_overwrite=true"):
        check_file(str(path), MIB, False, keep=True)
    assert check_file(str(path), MIB, True, keep=True)
    make_file(str(path), MIB, keep=True)
    assert path.read_bytes() == b"old content" + bytes(MIB - 11)
    assert not check_file(str(path), MIB, True, keep=True)


def test_an_empty_file_is_used(tmp_path):
    path = tmp_path / "volume.img"
    path.touch()
    assert check_file(str(path), MIB, False)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TargetError, match="there is no folder"):
        check_file(str(tmp_path / "nowhere" / "volume.img"), MIB, False)


@pytest.fixture
def device(tmp_path):
    image = tmp_path / "image"
    make_file(str(image), 32 * MIB)
    name = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    yield name
    subprocess.run(["losetup", "-d", name], check=True)


@pytest.mark.root
def test_a_device_of_the_right_size(device):
    assert check_device(device, 32 * MIB) is False


@pytest.mark.root
def test_a_device_that_is_too_small(device):
    with pytest.raises(TargetError, match="too small"):
        check_device(device, 32 * MIB + 1)


@pytest.mark.root
def test_a_device_that_is_mounted(device, tmp_path):
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", device, mount], check=True)
    try:
        with pytest.raises(TargetError, match="mounted or in use"):
            check_device(device, MIB)
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.root
def test_a_file_that_is_attached_as_a_device(device, tmp_path):
    with pytest.raises(TargetError, match="is attached to"):
        check_file(str(tmp_path / "image"), MIB, True)
    assert device

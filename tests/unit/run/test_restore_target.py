# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore may write to on a host: what is in use or holds anything is refused, and what is taken is held."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.luns.records import Records
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import claim
from ansible_collections.openisb.backup.plugins.modules import nbd_export, restore_target, standby

MIB = 1024**2
SIZE = 32 * MIB
SAVESET = {"run_id": "isb-20261123T021500Z-4f1c2a", "saveset": "5f0c6a1b"}

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a module with the folders of this test, and return what it returned."""

    def run(module: Any, **options: Any) -> dict[str, Any]:
        with patch_module_args(options), pytest.raises(SystemExit):
            module.main()
        return dict(json.loads(capsys.readouterr().out))

    return run


@pytest.fixture
def check(call: Call, tmp_path: Path) -> Call:
    """Ask whether a volume can be restored to a path."""

    def run(path: Path | str, size: int = SIZE, volume: str = "fs1/m", **options: Any) -> dict[str, Any]:
        folders = {"state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path / "run")}
        return call(restore_target, path=str(path), size=size, volume=volume, **folders, **options)

    return run


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[Exports]:
    found = Exports(str(tmp_path / "run"))
    yield found
    for export in found.list():
        found.stop(export["name"])


@pytest.fixture
def take(call: Call, tmp_path: Path, exports: Exports) -> Call:
    """Export a path as the target of a restore."""
    if shutil.which("nbdkit") is None:
        pytest.skip("needs nbdkit")

    def run(path: Path | str, size: int = SIZE, volume: str = "fs1/m", **options: Any) -> dict[str, Any]:
        target = {"volume": volume, "size": size, "purpose": "standby", "state_dir": str(tmp_path / "state"), **options}
        told = {"name": "restore.x", "run_id": "x", "run_dir": str(tmp_path / "run"), "address": "127.0.0.1"}
        return call(nbd_export, path=str(path), readonly=False, tls=False, target=target, **told)

    return run


@pytest.fixture
def record(call: Call, tmp_path: Path) -> Call:
    """Put on record what a path holds."""

    def run(path: Path | str, **options: Any) -> dict[str, Any]:
        told = {"volume": "fs1/m", "state_dir": str(tmp_path / "state"), **SAVESET, **options}
        return call(standby, path=str(path), **told)

    return run


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def device(image: Path) -> Iterator[str]:
    command = ["losetup", "--find", "--show", image]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)


def fill(path: Path | str, label: str = "clinic") -> None:
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", label, path], check=True)


def damage(path: Path | str, offset: int = 20 * MIB) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(b"damaged")
        stream.flush()
        os.fsync(stream.fileno())


def test_a_missing_file_can_be_made(check: Call, take: Call, tmp_path: Path) -> None:
    path = tmp_path / "volume.img"
    assert check(path) == {"changed": False, "path": str(path), "invocation": check(path)["invocation"]}
    assert not path.exists()
    assert take(path)["changed"]
    status = path.stat()
    assert (status.st_size, status.st_blocks, status.st_mode & 0o077) == (SIZE, 0, 0)
    assert "there is no folder" in check(tmp_path / "nowhere" / "volume.img")["msg"]


def test_a_file_with_content_is_refused(check: Call, take: Call, tmp_path: Path) -> None:
    path = tmp_path / "volume.img"
    path.write_bytes(b"precious")
    for said in (check(path)["msg"], take(path)["msg"], check(path, overwrite=["True"])["msg"]):
        assert "it holds 8 bytes of data, which would be lost" in said
        assert said.endswith(f"name it by its identity: -e restore_overwrite={path}:8")
    assert path.read_bytes() == b"precious"
    assert "msg" not in check(path, overwrite=[f"{path}:8"])
    assert "msg" not in take(path, overwrite=[f"{path}:8"], keep=True)
    assert path.read_bytes() == b"precious" + bytes(SIZE - 8)


def test_a_file_that_may_go_is_emptied(take: Call, tmp_path: Path) -> None:
    path = tmp_path / "volume.img"
    path.write_bytes(os.urandom(2 * SIZE))
    assert "msg" not in take(path, overwrite=[f"{path}:{2 * SIZE}"])
    assert (path.stat().st_size, path.stat().st_blocks) == (SIZE, 0)


@pytest.mark.root
def test_a_disk_with_content_is_refused_and_named(check: Call, take: Call, device: str) -> None:
    assert "msg" not in check(device)
    fill(device)
    before = Path(device).read_bytes()
    said = check(device)["msg"]
    assert said.startswith(f"Cannot restore: {device}: it holds ext4 labelled 'clinic' (UUID ")
    assert said.partition(": ")[2] == take(device)["msg"].partition(": ")[2]
    assert Path(device).read_bytes() == before
    (name,) = re.findall(r"-e restore_overwrite=(\S+)$", said)
    assert "msg" not in check(device, overwrite=["another", name])
    fill(device, "another")
    assert f"'{name}', which was named, is not it" in check(device, overwrite=[name])["msg"]
    assert "Name a device of at least that size" in check(device, size=SIZE + 1)["msg"]


@pytest.mark.root
def test_a_disk_with_larger_sectors_than_the_content_is_refused(check: Call, take: Call, image: Path) -> None:
    command = ["losetup", "--find", "--show", "--sector-size", "4096", image]
    disk = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        for call in (check, take):
            told = call(disk, block_size=512)["msg"]
            assert (
                "it is a disk with sectors of 4096 bytes, and the volume's filesystem reads and writes blocks of 512"
                in told
            )
            assert "Name a disk with sectors of 512 bytes, or a file" in told
        assert check(disk, block_size=4096)["path"] == disk
        assert check(disk)["path"] == disk  # a saveset that tells nothing
    finally:
        subprocess.run(["losetup", "--detach", disk], check=True)


def test_a_disk_in_use_is_refused_whatever_is_named(
    check: Call, take: Call, device: str, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounted; open in a program such as a virtual machine; or what a drill reads."""
    monkeypatch.setattr(claim, "SETTLE", 0.2)
    fill(device)
    (name,) = re.findall(r"-e restore_overwrite=(\S+)$", check(device)["msg"])
    place = tmp_path / "mount"
    place.mkdir()
    subprocess.run(["mount", device, place], check=True)
    try:
        assert f"it is in use: mounted at {place}" in check(device, overwrite=[name])["msg"]
    finally:
        subprocess.run(["umount", place], check=True)
    code = "import sys; opened = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, device]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        for said in (check(device, overwrite=[name])["msg"], take(device, overwrite=[name])["msg"]):
            assert f"it is in use: open by process {process.pid} (python" in said
        process.communicate()
    assert f"it is in use: attached as {device}" in check(image, overwrite=[f"{image}:{SIZE}"])["msg"]
    drill = "idr-20261128T210000Z-4f1c2a"
    Records(str(tmp_path / "run/luns")).write({"name": f"{drill}.fs1.m", "drill": drill, "source": device})
    assert f"it is the source of {drill}.fs1.m. End that drill first" in check(device, overwrite=[name])["msg"]


@pytest.mark.root
def test_an_export_holds_its_target_until_it_ends(take: Call, device: str, exports: Exports, tmp_path: Path) -> None:
    """nbdkit itself has the claim: whoever started it is gone, and nothing else gets the device."""
    assert take(device)["export"]["running"]
    with pytest.raises(OSError, match="busy"):
        os.open(device, os.O_RDONLY | os.O_EXCL)
    place = tmp_path / "mount"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "ext4", device, place], capture_output=True, text=True, check=False)
    assert "already mounted or mount point busy" in mounted.stderr
    with pytest.raises(claim.TargetBusy, match="it is in use: open by process [0-9]+ .nbdkit"):
        claim.hold(device)
    exports.stop("restore.x")
    claim.hold(device).close()


def test_an_export_holds_its_file_until_it_ends(take: Call, image: Path, exports: Exports) -> None:
    assert take(image)["export"]["running"]
    with pytest.raises(claim.TargetBusy, match="restore writes to it|open by process [0-9]+ .nbdkit"):
        claim.hold(str(image))
    exports.stop("restore.x")
    claim.hold(str(image)).close()


@pytest.mark.root
def test_a_standby_needs_no_naming(check: Call, record: Call, device: str, image: Path) -> None:
    """It is known by its identity, whatever was written to it; for its own volume alone."""
    for path, own in [(device, "content:"), (None, "")]:
        if path is None:
            subprocess.run(["losetup", "--detach", device], check=True)
            path = str(image)
        fill(path)
        assert "which would be lost" in check(path)["msg"]
        assert record(path)["changed"]
        assert "msg" not in check(path)
        damage(path)
        damage(path, 0)
        assert "msg" not in check(path), own
        assert "which would be lost" in check(path, volume="fs2/m")["msg"]
        record(path, state="absent")
        assert "which would be lost" in check(path)["msg"]
    subprocess.run(["losetup", device, image], check=True)


@pytest.mark.root
def test_another_disk_at_the_place_of_a_standby(check: Call, record: Call, device: str, tmp_path: Path) -> None:
    """As when disks are numbered anew: the path is that of the standby, and the disk is another one."""
    fill(device)
    record(device)
    subprocess.run(["losetup", "--detach", device], check=True)
    other = tmp_path / "other"
    other.touch()
    os.truncate(other, SIZE)
    fill(other, "another")
    subprocess.run(["losetup", device, other], check=True)
    assert "it holds ext4 labelled 'another'" in check(device)["msg"]


def test_another_file_at_the_place_of_a_standby(check: Call, record: Call, image: Path, tmp_path: Path) -> None:
    fill(image)
    record(image)
    shutil.copyfile(image, tmp_path / "other")
    (tmp_path / "other").replace(image)
    assert "which would be lost" in check(image)["msg"]


@pytest.mark.root
def test_what_was_restored_is_ours_until_somebody_writes_to_it(check: Call, record: Call, device: str) -> None:
    fill(device)
    record(device, purpose="restored")
    assert "msg" not in check(device)
    assert "which would be lost" in check(device, volume="fs2/m")["msg"]
    damage(device)
    assert "which would be lost" in check(device)["msg"]


@pytest.mark.root
def test_a_restore_that_did_not_end_can_be_taken_up(check: Call, record: Call, device: str) -> None:
    """The record is one of an incomplete target; a standby stays one, and what is only restored needs its witness."""
    fill(device)
    record(device, purpose="restored", state="partial")
    assert "msg" not in check(device)
    damage(device)
    assert "which would be lost" in check(device)["msg"]
    record(device)
    record(device, purpose="restored", state="partial")  # such as a failover to a standby
    damage(device)
    assert "msg" not in check(device)
    assert record(device, purpose="restored")["held"]["reason"] == "the last restore to it did not end"
    damage(device)
    assert "which would be lost" in check(device)["msg"]


@pytest.mark.root
def test_what_is_exported_is_on_record_as_incomplete(take: Call, record: Call, device: str, exports: Exports) -> None:
    fill(device)
    record(device)
    assert take(device)["held"] == {"volume": "fs1/m", "reason": "", **SAVESET}
    exports.stop("restore.x")
    assert take(device)["held"]["reason"] == "the last restore to it did not end"

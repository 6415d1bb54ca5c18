# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is written over that anybody uses, or that holds anything, unless its own identity was named."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import claim, signatures, target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import device_users as users
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import disk_identity as identity

from .conftest import MIB, open_over

SIZE = 64 * MIB
Attach = t.Callable[..., str]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Openers in these tests stay."""
    monkeypatch.setattr(claim, "SETTLE", 0.3)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.touch()
    os.truncate(path, SIZE)
    return path


@pytest.fixture
def attach() -> t.Iterator[Attach]:
    """Attach a file, or another device, as a loop device."""
    made: list[str] = []

    def begin(path: Path | str) -> str:
        command = ["losetup", "--find", "--show", str(path)]
        made.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        return made[-1]

    yield begin
    for device in reversed(made):
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def device(attach: Attach, image: Path) -> str:
    return attach(image)


@contextlib.contextmanager
def opened_by_another(path: Path | str, how: str = "open(sys.argv[1], 'rb')") -> t.Iterator[int]:
    """Another process has it open; gives its id."""
    code = f"import ctypes, os, sys; opened = {how}; print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"open\n"
        yield process.pid
        process.communicate()


def refused(path: Path | str, **options: t.Any) -> str:
    """Why it is refused; nothing of it has changed."""
    before = Path(path).read_bytes()
    with pytest.raises(errors.TargetError) as caught:
        target.open_target(str(path), MIB, **options)
    assert Path(path).read_bytes() == before
    return str(caught.value)


def put(path: Path | str, *pieces: tuple[int, bytes]) -> None:
    with open(path, "r+b") as stream:
        for offset, data in pieces:
            stream.seek(offset)
            stream.write(data)


def member_of_a_volume_group(path: str) -> None:
    """What pvcreate and vgcreate leave: the label, where the metadata is, and that itself."""
    uuid = b"abcdefGHIJKLmnopQRSTuvwxYZ012345"
    header = uuid + (SIZE).to_bytes(8, "little")
    header += (MIB).to_bytes(8, "little") + bytes(8) + bytes(16)  # the data area, and the end of the list
    header += (4096).to_bytes(8, "little") + (MIB - 4096).to_bytes(8, "little") + bytes(16)
    sector = b"\0" * 4 + (32).to_bytes(4, "little") + b"LVM2 001" + header
    sector = sector.ljust(512 - 20, b"\0")
    label = b"LABELONE" + (1).to_bytes(8, "little") + lvm_crc(sector).to_bytes(4, "little") + sector[4:]
    group = b'%s {\nid = "abcdef-GHIJ-KLmn-opQR-STuv-wxYZ-012345"\nseqno = %d\n'
    put(path, (512, label), (4608, group % (b"vg_old", 1)), (6144, group % (b"vg_hospital", 2)))


def lvm_crc(data: bytes) -> int:
    """LVM's checksum: CRC-32 with another start and without the last step; of what follows it in the sector."""
    crc = 0xF597A6CF
    for byte in data[4:]:
        crc ^= byte
        for _bit in range(8):
            crc = (crc >> 1) ^ (0xEDB88320 if crc & 1 else 0)
    return crc


def command(*words: str) -> t.Callable[[str], None]:
    """Something that a program puts on a device."""

    def make(path: str) -> None:
        subprocess.run([*words, path], check=True, capture_output=True)

    return make


def partitioned(path: str) -> None:
    subprocess.run(["sfdisk", "--no-reread", "--quiet", path], input="label: gpt\n,10M\n", text=True, check=True)


UUID = "0ff1ce00-1111-2222-3333-444444444444"
CONTENTS = [
    (command("mkfs.ext4", "-q", "-L", "clinic", "-U", UUID), rf"ext4 labelled 'clinic' \(UUID {UUID}\)"),
    (command("mkfs.ext4", "-q", "-L", "a,b 'c\x1b[2J", "-U", UUID), r"ext4 labelled 'a,b 'c\?\[2J' \(UUID"),
    (command("mkfs.btrfs", "-q", "-f", "--mixed"), r"btrfs \(UUID"),
    (command("mkswap", "-U", UUID), rf"swap \(UUID {UUID}\)"),
    (partitioned, r"a partition table \(gpt\)"),
    (member_of_a_volume_group, r"a member of an LVM volume group named vg_hospital"),
    (lambda path: put(path, (0, b"LUKS\xba\xbe\x00\x01")), "crypto_LUKS"),
    (lambda path: put(path, (0, b"a database of its own kind")), "data of an unknown kind"),
    (lambda path: put(path, (SIZE - 600, b"only its end")), "data of an unknown kind"),
]


@pytest.mark.root
@pytest.mark.parametrize(("fill", "words"), CONTENTS)
def test_a_device_with_content_is_refused_in_words(device: str, fill: t.Callable[[str], None], words: str) -> None:
    fill(device)
    said = refused(device)
    assert re.search(rf"{device}: it holds {words}.*, which would be lost", said)
    (name,) = re.findall(r"--overwrite (content:[0-9a-f]{16})$", said)
    assert "'sd-not-this-one', which was named, is not it" in refused(device, overwrite=["sd-not-this-one"])
    assert "'True', which was named, is not it" in refused(device, overwrite=["True"])
    with target.open_target(device, MIB, [name]) as opened:
        opened.write(0, b"the volume")
    assert Path(device).read_bytes().startswith(b"the volume")


@pytest.mark.root
def test_an_identity_is_that_of_the_very_content(device: str) -> None:
    """Named for what was there before, it allows nothing of what has come since."""
    put(device, (0, b"old and given up"))
    (name,) = re.findall(r"--overwrite (\S+)$", refused(device))
    put(device, (0, b"new and precious"))
    assert f"'{name}', which was named, is not it" in refused(device, overwrite=[name])


@pytest.mark.root
@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_a_blank_device_is_taken(device: str, byte: bytes) -> None:
    put(device, (0, byte * SIZE))
    with target.open_target(device, SIZE) as opened:
        opened.write(0, b"the volume")


@pytest.mark.root
def test_what_holds_a_device_is_named(device: str, attach: Attach, image: Path, tmp_path: Path) -> None:
    """However it is reached: by another node of it, by the file behind it, or by a device upon it."""
    node = tmp_path / "other-node"
    os.mknod(node, 0o600 | 0o060000, os.stat(device).st_rdev)
    with opened_by_another(device) as pid:
        assert f"it is in use: open by process {pid} (python" in refused(device)
        assert f"open by process {pid} (python" in refused(node)
        # Not even who names it may have it.
        assert f"open by process {pid} (python" in refused(device, overwrite=[identity_of(device)])
    with opened_by_another(node) as pid:
        assert f"open by process {pid} (python" in refused(device)
    with opened_by_another(image) as pid:
        assert f"open by process {pid} (python" in refused(device)
    upper = attach(device)
    assert f"attached as {upper}" in refused(device)
    target.open_target(upper, MIB).close()
    with opened_by_another(device) as pid:
        assert f"open by process {pid} (python" in refused(upper)
    other = attach(image)
    assert f"attached as {other}" in refused(device)


def identity_of(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return identity.identity_of(fd, path).shown
    finally:
        os.close(fd)


@pytest.mark.root
def test_a_mount_and_swap_are_named(device: str, tmp_path: Path) -> None:
    command("mkfs.ext4", "-q")(device)
    place = tmp_path / "in use"
    place.mkdir()
    subprocess.run(["mount", device, place], check=True)
    try:
        assert f"it is in use: mounted at {place}" in refused(device)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_the_device_is_held_until_the_end(device: str, tmp_path: Path) -> None:
    """From the check on nothing can mount it, nor take it in another way; and then everything can again."""
    place = tmp_path / "mount"
    place.mkdir()
    command("mkfs.ext4", "-q")(device)
    with open_over(device, SIZE):
        mounted = subprocess.run(["mount", device, place], capture_output=True, text=True, check=False)
        assert mounted.returncode and "busy" in mounted.stderr
        with pytest.raises(errors.TargetBusy):
            open_over(device, SIZE)
        with pytest.raises(OSError, match="busy"):
            os.open(device, os.O_RDONLY | os.O_EXCL)
    subprocess.run(["mount", device, place], check=True)
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_partitions_that_the_kernel_knows(device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not every kernel scans loop devices for them, so its tree is made here."""
    (tmp_path / "loop9/loop9p1/holders/dm-0").mkdir(parents=True)
    (tmp_path / "loop9/loop9p1/partition").write_text("1\n")
    (tmp_path / "loop9/loop9p1/dev").write_text("259:77\n")
    number = os.stat(device).st_rdev
    own = f"{os.major(number)}:{os.minor(number)}"
    folders = {own: str(tmp_path / "loop9"), "259:77": str(tmp_path / "loop9/loop9p1")}
    monkeypatch.setattr(signatures, "device_folder", folders.__getitem__)
    assert "it holds the partitions loop9p1, which would be lost" in refused(device)
    monkeypatch.setattr(users, "device_folder", folders.__getitem__)
    assert "it is in use: held by dm-0" in refused(device)


def test_a_file_with_content(image: Path) -> None:
    os.truncate(image, SIZE)
    target.open_target(str(image), SIZE).close()  # holes only: nothing is lost
    put(image, (SIZE // 2, bytes(MIB)))  # zeros that are no hole
    target.open_target(str(image), SIZE).close()
    put(image, (SIZE // 2, b"precious"))
    assert f"it holds {SIZE} bytes of data, which would be lost" in refused(image)
    assert refused(image).endswith(f"--overwrite {image}:{SIZE}")
    assert "is not it" in refused(image, overwrite=[f"{image}:{SIZE - 1}"])
    command("mkfs.ext4", "-q", "-L", "clinic")(str(image))
    assert "it holds ext4 labelled 'clinic' (UUID " in refused(image)
    target.open_target(str(image), SIZE, [f"{image}:{SIZE}"]).close()


MAPPED = "[f := os.open(sys.argv[1], 0), ctypes.CDLL(None).mmap(None, ctypes.c_size_t(4096), 1, 1, f, 0), os.close(f)]"


@pytest.mark.root
@pytest.mark.parametrize("how", ["open(sys.argv[1], 'rb')", MAPPED])
def test_a_file_that_is_open(image: Path, how: str) -> None:
    with opened_by_another(image, how) as pid:
        assert f"it is in use: open by process {pid} (python" in refused(image)


def test_a_file_is_written_by_one_restore_at_a_time(image: Path) -> None:
    with target.open_target(str(image), SIZE), pytest.raises(errors.TargetBusy, match="another restore writes to it"):
        target.open_target(str(image), SIZE)
    target.open_target(str(image), SIZE).close()


def test_who_only_looks_is_waited_for(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As udev does after every close."""
    monkeypatch.setattr(claim, "SETTLE", 10.0)
    code = "import sys, time; opened = open(sys.argv[1]); print('open', flush=True); time.sleep(1)"
    with subprocess.Popen([sys.executable, "-c", code, image], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        target.open_target(str(image), SIZE).close()
        assert process.wait(5) == 0


def test_a_link_is_followed_once(image: Path, tmp_path: Path) -> None:
    """What is held is what was found behind the link, wherever that leads later."""
    link = tmp_path / "link"
    link.symlink_to(image)
    with claim.hold(str(link)) as held:
        assert held.path == str(image) and held.is_still_at_its_path()
        image.rename(tmp_path / "elsewhere")
        assert not held.is_still_at_its_path()
        image.write_bytes(b"another")
        assert not held.is_still_at_its_path()


DISKS = [
    (
        {"device/wwid": "naa.600140500000000000000000000000a1\n", "device/vpd_pg80": "\0\x80\0\x0c  4f3a 12bc9\n"},
        "wwn-0x600140500000000000000000000000a1",
        ["0x600140500000000000000000000000A1", "3600140500000000000000000000000a1", "4f3a_12bc9", "4f3a 12bc9"]
        + ["/dev/disk/by-id/wwn-0x600140500000000000000000000000a1", "naa.600140500000000000000000000000a1"],
    ),
    (
        {"wwid": "eui.0025385b71b0a4e2", "device/serial": "S4EWNX0M123456  "},
        "wwn-0x0025385b71b0a4e2",
        ["s4ewnx0m123456"],
    ),
    ({"serial": "openisb-disk-7"}, "openisb-disk-7", ["/dev/disk/by-id/virtio-openisb-disk-7"]),
    ({"dm/uuid": "mpath-3600140512345678123456781234567aa"}, "wwn-0x600140512345678123456781234567aa", []),
    ({"dm/uuid": "LVM-abcdefGHIJ"}, "LVM-abcdefGHIJ", ["/dev/disk/by-id/dm-uuid-LVM-abcdefGHIJ"]),
]


@pytest.mark.parametrize(("files", "shown", "also"), DISKS)
def test_a_disk_is_known_by_its_wwn_or_serial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], shown: str, also: list[str]
) -> None:
    for name, text in files.items():
        (tmp_path / "sdz" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sdz" / name).write_text(text)
    monkeypatch.setattr(identity, "device_folder", lambda _number: str(tmp_path / "sdz"))
    disk = os.open("/dev/loop0", os.O_RDONLY)
    try:
        found = identity.identity_of(disk, "/dev/sdz")
    finally:
        os.close(disk)
    assert found.shown == shown and found.lasting
    assert all(found.is_among([name]) for name in [shown, *also])
    for wrong in ("", " ", "true", "True", "1", "/dev/sdz", shown + "0", shown[:-1], "*", "content:0"):
        assert not found.is_among([wrong]), wrong
    # Of a partition the disk's name is not enough.
    part = tmp_path / "sdz/sdz2"
    part.mkdir()
    (part / "partition").write_text("2\n")
    monkeypatch.setattr(identity, "device_folder", lambda _number: str(part))
    fd = os.open("/dev/loop0", os.O_RDONLY)
    try:
        found = identity.identity_of(fd, "/dev/sdz2")
    finally:
        os.close(fd)
    assert found.shown == f"{shown}-part2" and not found.is_among([shown])


@pytest.mark.parametrize("serial", ["", "0", "00000000", "\n", "    "])
def test_a_serial_that_many_disks_have_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serial: str) -> None:
    (tmp_path / "serial").write_text(serial)
    monkeypatch.setattr(identity, "device_folder", lambda _number: str(tmp_path))
    assert identity._names_of_disk("8:0") == []


def test_without_wipefs_nothing_is_written(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(image, (0, b"anything"))
    monkeypatch.setattr(signatures, "PATH", "/nowhere")
    assert "wipefs, which finds out what it holds, is not installed" in refused(image)

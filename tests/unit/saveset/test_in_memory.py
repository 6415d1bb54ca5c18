# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decrypted reaches no disk of whoever serves it: looked for on the disk, and in what processes have open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.backup import exports as saveset_exports
from ansible_collections.openisb.backup.plugins.module_utils.backup import repository as saveset_module
from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors, memory
from ansible_collections.openisb.backup.plugins.modules import block_backup, saveset_export

from .conftest import MIB, Lab, MakeImage, nameless, noise, served, serving
from .test_serve import needs_nbdkit

Mounted = t.Callable[..., Path]

NAME = "idr-20261128T210000Z-4f1c2a.fs1.m"
#: Content that no other file has, in each block of the volume.
MARKER = b"only-the-volume-says-this-" + os.urandom(8).hex().encode()
SIZE = 32 * MIB


class Disk(t.NamedTuple):
    """A disk that has all that is written to it at once, and the image that it is in."""

    folder: Path
    image: Path

    def holds(self, word: bytes) -> bool:
        """Whether any block of it has a word, also of what is deleted."""
        subprocess.run(["sync", "--file-system", self.folder], check=True)
        return word in self.image.read_bytes()


@pytest.fixture
def disk(mounted: Mounted, tmp_path: Path) -> Disk:
    """A disk, which shows what was deleted."""
    folder = mounted("mkfs.ext4", "-q", options="loop,sync", size=128 * MIB)
    found = Disk(folder, tmp_path / "image0")
    control = b"control-" + os.urandom(8).hex().encode()
    (folder / "control").write_bytes(control)
    (folder / "control").unlink()
    assert found.holds(control), "it shows nothing, so it would prove nothing"
    return found


@pytest.fixture
def marked(make_image: MakeImage) -> Path:
    """A volume that is full of the marker, and compresses to next to nothing."""
    block = MARKER.ljust(4096, b".")
    return make_image("marked", SIZE, [(0, block * (SIZE // 4096))])


@pytest.fixture
def on_disk(disk: Disk, marked: Path) -> Lab:
    """A repository on that disk with the volume in it."""
    lab = Lab(disk.folder)
    lab.backup(marked)
    return lab


@pytest.fixture
def exports(disk: Disk) -> t.Iterator[SavesetExports]:
    """The exports of a run folder on that disk, all of them ended with the test."""
    found = SavesetExports(str(disk.folder / "run"))
    yield found
    for record in found.list():
        found.end(record["name"])


def call(module: t.Any, capsys: pytest.CaptureFixture[str], **arguments: t.Any) -> dict[str, t.Any]:
    """A module's result."""
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
    assert not result.get("failed"), result["msg"]
    return result


def read_twice(uri: str) -> None:
    """Read all of an export, by requests that a cache keeps, and once more."""
    program = (
        "import nbd, sys\nh = nbd.NBD()\nh.set_uri_allow_local_file(True)\nh.connect_uri(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    for offset in range(0, h.get_size(), 65536):\n"
        "        assert sys.argv[2].encode() in h.pread(65536, offset)\n"
    )
    subprocess.run(["/usr/bin/python3", "-c", program, uri, MARKER.decode()], check=True)


@pytest.mark.slow
@needs_nbdkit
@pytest.mark.root
def test_what_is_served_touches_no_disk(
    on_disk: Lab, disk: Disk, exports: SavesetExports, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a cache that the volume fills, and every folder that it is told of on a disk."""
    options = {
        "repository": str(on_disk.path),
        "passphrase": "correct horse",
        "volume": "fs1/m",
        "name": NAME,
        "drill": "drill",
        "address": "127.0.0.1",
        "run_dir": str(disk.folder / "run"),
        "cache": "64M",
    }
    result = served(call(saveset_export, capsys, **serving(options)))
    uri = f"{result['export']['uri']}?tls-psk-file={exports.folder}/{NAME}.psk"
    read_twice(uri)
    files = nameless(result["export"]["pid"])
    assert [in_memory for in_memory, _size in files] == [True]
    assert files[0][1] >= SIZE, "the cache was not filled, so this would prove nothing"
    assert not disk.holds(MARKER)
    assert result["export"]["cache"] == 64 * MIB
    assert not disk.holds(result["psk"].encode())
    limits = Path(f"/proc/{result['export']['pid']}/limits").read_text()
    assert ["Max", "core", "file", "size", "0", "0", "bytes"] in [line.split() for line in limits.splitlines()]
    key = os.readlink(f"{exports.folder}/{NAME}.psk")
    exports.end(NAME)
    assert not os.path.exists(key) and os.listdir(exports.folder) == []


@needs_nbdkit
@pytest.mark.root
def test_a_backup_has_the_key_of_its_source_on_no_disk(
    on_disk: Lab, disk: Disk, marked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does it need a folder for it."""
    source = Exports(str(tmp_path / "run"))
    record = source.start("lun", str(marked), "127.0.0.1", True, True, "run")
    key = source.key("lun")
    try:
        options = {"repository": str(on_disk.path), "passphrase": "correct horse", "run_id": "run"}
        moment = {"consistency_point": "2026-11-28T21:00:00+00:00", "verdict": "crash-consistent"}
        job = {"job": "run.fs1", "run_dir": str(disk.folder / "run")}
        volumes = [{"volume": "fs1/n", "source": record["uri"]}]
        result = call(block_backup, capsys, volumes=volumes, psks={"fs1/n": key}, **options, **moment, **job)
    finally:
        source.stop("lun")
    assert result["savesets"][0]["size"] == SIZE and key not in json.dumps(result)
    assert key and not disk.holds(key.encode()) and not disk.holds(MARKER)


# How much memory


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """A machine with so much room in memory, below a folder that is there for it."""
    found = {"room": 400 * MIB}
    monkeypatch.setattr(memory, "folder", lambda: str(tmp_path))
    monkeypatch.setattr(memory, "room", lambda path: found["room"])
    return found


def granted(exports: SavesetExports, name: str, asked: int) -> int:
    os.makedirs(exports.folder, exist_ok=True)
    return exports._layers(name, asked).cache


def test_no_more_is_promised_than_there_is(machine: dict[str, int], tmp_path: Path) -> None:
    exports = SavesetExports(str(tmp_path / "run"))
    given = [granted(exports, f"e{number}", 1024 * MIB) for number in range(6)]
    assert given[:3] == [200 * MIB, 100 * MIB, 50 * MIB]
    assert given[-1] == 0 and sum(given) <= machine["room"]
    exports.stop("e0")
    assert granted(exports, "next", 64 * MIB) == 64 * MIB


def test_what_an_export_has_taken_already_is_not_counted_twice(
    machine: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = SavesetExports(str(tmp_path / "run"))
    assert granted(exports, "first", 200 * MIB) == 200 * MIB
    exports._write({"name": "first", "pid": os.getpid(), "ticks": None})
    assert granted(exports, "second", 1024 * MIB) == 100 * MIB
    with open(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600), "w+b") as stream:
        stream.write(noise(50 * MIB))
        stream.flush()
        machine["room"] -= 50 * MIB
        assert saveset_exports._used(os.getpid(), str(tmp_path)) >= 50 * MIB
        exports.stop("second")
        assert abs(granted(exports, "second", 1024 * MIB) - 100 * MIB) < MIB


def test_without_memory_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "folder", lambda: "")
    assert granted(SavesetExports(str(tmp_path / "run")), "e", 64 * MIB) == 0


@needs_nbdkit
def test_less_memory_and_swap_in_clear_are_told(
    machine: dict[str, int],
    lab: Lab,
    mixed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And the saveset is served all the same."""
    machine["room"] = 64 * MIB
    monkeypatch.setattr(saveset_module, "clear_swap", lambda: ["/dev/sda9"])
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warnings.append(text))
    lab.backup(mixed)
    exports = SavesetExports(str(tmp_path / "run"))
    options = {"repository": str(lab.path), "passphrase": "correct horse", "volume": "fs1/m", "cache": "1G"}
    place = {"name": NAME, "drill": "drill", "address": "127.0.0.1", "run_dir": str(tmp_path / "run")}
    try:
        result = served(call(saveset_export, capsys, **serving({**options, **place})))
    finally:
        exports.end(NAME)
    assert result["export"]["cache"] == 32 * MIB
    assert "There is memory for only 32 of the 1024 MiB" in warnings[0]
    assert "swaps to /dev/sda9 without encryption" in warnings[1]


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("512M", 512 << 20), ("64KiB", 65536), ("1MB", MIB), ("1000", 1000), ("2t", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert memory.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1.5G", "4X"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(errors.InvalidValue):
        memory.parse_size(text)


# Dumps and swap


def test_a_process_that_holds_keys_is_not_dumped() -> None:
    program = (
        f"import sys\nsys.path.insert(0, {str(Path(memory.__file__).parents[2])!r})\n"
        "from saveset.base import memory\nimport ctypes, resource\n"
        "before = ctypes.CDLL(None).prctl(3)\nmemory.keep_private()\n"
        "print(before, ctypes.CDLL(None).prctl(3), resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 (0, 0)\n"


def test_swap_that_keeps_secrets_is_told_from_swap_that_does_not(tmp_path: Path) -> None:
    listing = tmp_path / "swaps"
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    listing.write_text(head + "/dev/zram0 partition 1 0 100\n/swapfile file 1 0 -2\n/dev/sda9 partition 1 0 -3\n")
    assert memory.clear_swap(str(listing)) == ["/swapfile", "/dev/sda9"]
    listing.write_text(head)
    assert memory.clear_swap(str(listing)) == []

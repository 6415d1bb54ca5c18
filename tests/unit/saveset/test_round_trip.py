# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is restored is what was backed up, byte for byte."""

from __future__ import annotations

import datetime
import filecmp
import os
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors, progress
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import DATA, HOLE, ZERO
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source, target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import KIB, MIB, NOON, Lab, MakeImage, noise, open_over, text


@pytest.mark.parametrize("encryption", ["aes-256-gcm", "none"])
@pytest.mark.parametrize("chunk_size", [4 * KIB, 64 * KIB, 256 * KIB, 4 * MIB])
def test_mixed_image(tmp_path: Path, mixed: Path, encryption: str, chunk_size: int) -> None:
    lab = Lab(tmp_path, encryption=encryption, chunk_size=chunk_size)
    made = lab.backup(mixed)
    found = lab.open().find("fs1/m")
    assert (found.id, found.run_id, found.verdict) == (made.id, made.run_id, "application-consistent")
    assert filecmp.cmp(mixed, lab.restore(found), shallow=False)
    assert lab.open().verify(depth="full").ok


@pytest.mark.parametrize("size", [0, 1, 511, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, MIB + 1])
def test_odd_sizes(lab: Lab, make_image: MakeImage, size: int) -> None:
    image = make_image("odd", size, [(0, noise(size))])
    saveset = lab.backup(image)
    restored = lab.restore(saveset)
    assert restored.read_bytes() == image.read_bytes()
    assert saveset.read(0, size + 100) == image.read_bytes()
    assert lab.open().verify(depth="full").ok


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_several_leaves(tmp_path: Path, make_image: MakeImage, workers: int) -> None:
    lab = Lab(tmp_path, chunk_size=4 * KIB)  # a leaf is 4 MiB
    image = make_image("big", 21 * MIB + 5, [(0, text(5 * MIB)), (9 * MIB, noise(MIB)), (20 * MIB, text(MIB, 7))])
    saveset = lab.backup(image, workers=workers, pack_bytes=MIB)
    assert len(lab.files("packs")) > 1
    output = lab.folder / "out"
    with target.open_target(str(output), saveset.size) as opened:
        saveset.restore(opened, workers=workers)
    assert filecmp.cmp(image, output, shallow=False)
    assert lab.open().verify(depth="full", workers=workers).ok


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.integers(0, 300 * KIB),
    pieces=st.lists(
        st.tuples(st.integers(0, 300 * KIB), st.integers(0, 40 * KIB), st.sampled_from(["noise", "text", "zeros"])),
        max_size=6,
    ),
    seed=st.integers(0, 3),
)
def test_any_image(
    tmp_path_factory: pytest.TempPathFactory, size: int, pieces: list[tuple[int, int, str]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lab = Lab(folder, chunk_size=4 * KIB)
    image = folder / "image"
    with open(image, "wb") as stream:
        for offset, length, kind in pieces:
            stream.seek(offset)
            stream.write({"noise": noise(length, seed), "text": text(length, seed), "zeros": bytes(length)}[kind])
        stream.truncate(size)
    saveset = lab.backup(image)
    assert lab.restore(saveset).read_bytes() == image.read_bytes()
    stats = saveset.stats
    assert stats.bytes_zero + stats.bytes_known + stats.bytes_new <= stats.bytes_size == size
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems


def test_reading_ranges(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    content = mixed.read_bytes()
    for offset, length in [(0, 10), (64 * KIB - 3, 7), (MIB, 300 * KIB), (3 * MIB - 1, MIB), (6 * MIB + 12340, 99)]:
        assert saveset.read(offset, length) == content[offset : offset + length]
    with pytest.raises(errors.InvalidValue):
        saveset.read(-1, 5)


def test_holes_are_not_read_and_stay_holes(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("sparse", 64 * MIB, [(32 * MIB, text(MIB))])
    saveset = lab.backup(image)
    assert saveset.stats.bytes_read == saveset.stats.bytes_new == MIB
    assert [extent.kind for extent in saveset.extents()] == [HOLE, DATA, HOLE]
    restored = lab.restore(saveset)
    assert os.stat(restored).st_blocks * 512 <= 2 * MIB
    assert filecmp.cmp(image, restored, shallow=False)


def test_written_zeros_are_stored_as_nothing(lab: Lab, make_image: MakeImage) -> None:
    saveset = lab.backup(make_image("zeros", MIB, [(0, bytes(MIB))]))
    assert (saveset.stats.bytes_zero, saveset.stats.bytes_stored) == (MIB, 0)
    assert [extent.kind for extent in saveset.extents()] == [ZERO]
    assert lab.files("packs") == []


def test_restoring_over_old_content_zeroes_it(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    output = lab.folder / "used"
    output.write_bytes(b"\xff" * saveset.size)
    with open_over(output, saveset.size) as opened:
        saveset.restore(opened)
    assert filecmp.cmp(mixed, output, shallow=False)


def test_block_device_without_holes(lab: Lab, mixed: Path, block_device: t.Callable[[Path], str]) -> None:
    device = block_device(mixed)
    saveset = lab.backup(device)
    size = saveset.size
    assert size == mixed.stat().st_size // 512 * 512 and saveset.stats.bytes_read == size
    other = lab.folder / "other"
    other.write_bytes(b"\xee" * (size + MIB))
    with open_over(block_device(other), size) as opened:
        saveset.restore(opened)
    restored = other.read_bytes()
    assert restored[:size] == mixed.read_bytes()[:size]
    assert restored[size:] == b"\xee" * MIB


@pytest.fixture
def block_device(request: pytest.FixtureRequest) -> t.Callable[[Path], str]:
    """Attach a file as a loop device; skipped where the machine has none."""

    def attach(path: Path) -> str:
        done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop devices here: {done.stderr.strip()}")
        device = done.stdout.strip()
        request.addfinalizer(lambda: subprocess.run(["losetup", "--detach", device], check=True))
        return device

    return attach


@pytest.mark.root
def test_a_mounted_device_is_refused(tmp_path: Path, block_device: t.Callable[[Path], str]) -> None:
    image = tmp_path / "filesystem"
    with open(image, "wb") as stream:
        stream.truncate(8 * MIB)
    device = block_device(image)
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    subprocess.run(["mount", device, str(mount)], check=True)
    try:
        with pytest.raises(errors.TargetBusy, match=f"it is in use: mounted at {mount}"):
            target.open_target(device, MIB)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.root
def test_a_file_that_is_a_loop_device_is_refused(tmp_path: Path, block_device: t.Callable[[Path], str]) -> None:
    image = tmp_path / "attached"
    image.write_bytes(b"x" * MIB)
    device = block_device(image)
    with pytest.raises(errors.TargetBusy, match=device):
        target.open_target(str(image), MIB)
    assert image.read_bytes() == b"x" * MIB


def test_targets_that_are_refused(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"12345")
    with pytest.raises(errors.TargetTooSmall, match="has 5 bytes, but the volume needs 6"):
        target.open_target(str(short), 6)
    assert short.read_bytes() == b"12345"
    with pytest.raises(errors.TargetError):
        target.open_target(str(tmp_path), 6)
    with pytest.raises(errors.TargetError):
        target.open_target("/dev/null", 6)
    with pytest.raises(errors.TargetError):
        target.open_target(str(tmp_path / "no" / "such" / "folder"), 6)


def test_sources_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceError, match="cannot be opened"):
        source.open_source(str(tmp_path / "missing"))
    with pytest.raises(errors.SourceError, match="neither a file nor a block device"):
        source.open_source("/dev/null")


def test_a_source_that_shrinks_makes_no_saveset(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("shrinks", MIB, [(0, noise(MIB))])
    with source.open_source(str(image)) as opened:
        os.truncate(image, 1000)
        opened.extents = lambda: iter(())  # type: ignore[method-assign]  # as if all were still allocated
        with pytest.raises(errors.SourceError, match="ends at offset 1000"):
            lab.open().backup(opened, BackupRequest(volume="v", run_id="r", time=NOON, verdict="x"))
    assert lab.open().savesets() == []
    assert lab.files("tmp") == []


def test_progress_and_stats(lab: Lab, mixed: Path) -> None:
    moments: list[progress.Progress] = []
    saveset = lab.backup(mixed, progress=moments.append)
    last = moments[-1]
    size = mixed.stat().st_size
    assert (last.bytes_total, last.bytes_done) == (size, size)
    assert last.bytes_new == saveset.stats.bytes_new > last.bytes_stored == saveset.stats.bytes_stored > 0
    assert saveset.stats.as_dict()["bytes_size"] == size
    assert lab.open().find("fs1/m").stats == saveset.stats


def test_progress_that_raises_stops_the_backup(lab: Lab, make_image: MakeImage) -> None:
    def give_up(_moment: progress.Progress) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        lab.backup(make_image("slow", 8 * MIB, [(0, noise(8 * MIB))]), progress=give_up, rate_limit=2 * MIB)
    assert lab.open().savesets() == []
    assert lab.files("tmp") == []


def test_rate_limit_holds_back(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("limited", 12 * MIB, [(0, text(12 * MIB))])
    saveset = lab.backup(image, rate_limit=10 * MIB)
    assert saveset.stats.seconds >= 0.7  # two further ranges of 4 MiB wait 0.4 s each


def test_listing_and_finding(lab: Lab, make_image: MakeImage) -> None:
    one = lab.backup(make_image("a", MIB, [(0, text(MIB))]), metadata={"lun": "6e6f", "list": [1, 2]})
    two = lab.backup(make_image("b", MIB, [(0, text(MIB, 2))]))
    other = lab.backup(make_image("c", MIB), volume="fs1")
    repo = lab.open()
    assert [info.id for info in repo.savesets("fs1/m")] == [one.id, two.id]
    assert [info.id for info in repo.savesets()] == [other.id, one.id, two.id]
    assert repo.savesets("fs1/m")[0].metadata == {"lun": "6e6f", "list": [1, 2]}
    assert repo.find("fs1/m").id == two.id
    assert repo.find("fs1/m", run_id="run-1").id == one.id
    assert repo.find("fs1/m", saveset_id=one.id[:8]).id == one.id
    assert repo.find("fs1").time == NOON + datetime.timedelta(minutes=3)
    for arguments in ({"saveset_id": "feed" * 8}, {"run_id": "never"}):
        with pytest.raises(errors.NotFound):
            repo.find("fs1/m", **arguments)
    with pytest.raises(errors.NotFound, match="volume fs2/m"):
        repo.find("fs2/m")


def test_metadata_is_not_readable_without_the_key(lab: Lab, make_image: MakeImage) -> None:
    lab.backup(make_image("a", MIB, [(0, b"for nobody else" * 9000)]), metadata={"note": "very private"})
    for path in lab.files("."):
        content = path.read_bytes()
        assert b"very private" not in content and b"for nobody else" not in content


@pytest.mark.parametrize("volume", ["", "/m", "fs1/", "../x", "fs1/../x", "a b", "fs1~m", "x" * 201, ".hidden", "a\n"])
def test_volume_ids_that_are_refused(lab: Lab, make_image: MakeImage, volume: str) -> None:
    with pytest.raises(errors.InvalidValue):
        lab.backup(make_image("a", 10), volume=volume)


def test_arguments_that_are_refused(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("a", 10)
    naive = datetime.datetime(2026, 1, 1)
    for wrong in ({"time": naive}, {"run_id": ""}, {"level": 0}, {"parent": "oldest"}, {"metadata": {"x": object()}}):
        with pytest.raises(errors.InvalidValue):
            lab.backup(image, **wrong)
    assert lab.open().savesets() == []

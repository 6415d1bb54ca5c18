# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring only what differs, taking a broken restore up again, and reading back what was written."""

from __future__ import annotations

import errno
import filecmp
import os
import random
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors, linux, progress
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import target
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import KIB, MIB, Lab, MakeImage, noise, open_over, text, write

CHUNK = 64 * KIB
GRAIN = CHUNK // 32


def restore(saveset: repository.Saveset, path: Path | str, **options: t.Any) -> progress.RestoreStats:
    """Restore to a file that may be there."""
    with open_over(path, saveset.size) as opened:
        return saveset.restore(opened, **options)


def assert_sums(stats: progress.RestoreStats) -> None:
    """Every byte of the volume is told once."""
    assert stats.bytes_written + stats.bytes_zeroed + stats.bytes_kept == stats.bytes_size


def test_only_what_differs_is_written(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    output = lab.restore(saveset)
    for offset in (5, 200 * KIB, 1 * MIB + 100):  # three chunks of data
        write(output, offset, noise(100, seed=offset))
    write(output, 3 * MIB + 100, b"not zero")  # one of zeros
    stats = restore(saveset, output, only_changed=True, check=True)
    assert filecmp.cmp(mixed, output, shallow=False)
    assert (stats.bytes_written, stats.bytes_zeroed, stats.bytes_compared) == (3 * CHUNK, CHUNK, saveset.size)
    assert stats.bytes_checked == saveset.size
    assert_sums(stats)
    again = restore(saveset, output, only_changed=True)
    assert (again.bytes_kept, again.bytes_written, again.bytes_zeroed, again.bytes_stored) == (saveset.size, 0, 0, 0)


def test_a_new_file_needs_no_comparing(lab: Lab, mixed: Path) -> None:
    stats = restore(lab.backup(mixed), lab.folder / "new", only_changed=True, check=True)
    assert (stats.bytes_compared, stats.bytes_kept, stats.bytes_checked) == (0, 0, stats.bytes_size)
    assert filecmp.cmp(mixed, lab.folder / "new", shallow=False)


def test_holes_of_the_target_stay_holes(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("sparse", 64 * MIB, [(32 * MIB, text(MIB))])
    saveset = lab.backup(image)
    output = make_image("output", 64 * MIB, [(5 * MIB + 17, b"x"), (40 * MIB, bytes(MIB))])
    stats = restore(saveset, output, only_changed=True, check=True)
    assert (stats.bytes_written, stats.bytes_zeroed) == (MIB, CHUNK)
    assert_sums(stats)
    assert os.stat(output).st_blocks * 512 <= 3 * MIB
    assert filecmp.cmp(image, output, shallow=False)


def test_a_broken_restore_is_taken_up_again(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("large", 40 * MIB, [(0, noise(40 * MIB))])
    saveset = lab.backup(image)
    output = lab.folder / "broken"
    output.write_bytes(b"\x55" * saveset.size)

    class Full(target.FileTarget):
        """A disk that fails in its middle."""

        def write(self, offset: int, data: t.Any) -> None:
            if offset >= 24 * MIB:
                raise errors.TargetError(self.spec, "the disk went away", "Put it back")
            super().write(offset, data)

    with open_over(output, saveset.size, Full) as opened, pytest.raises(errors.TargetError, match="went away"):
        saveset.restore(opened, workers=2)
    stats = restore(saveset, output, only_changed=True)
    assert stats.bytes_kept == 24 * MIB and stats.bytes_written == 16 * MIB
    assert filecmp.cmp(image, output, shallow=False)


def test_fast_revert_reads_little(lab: Lab, mixed: Path) -> None:
    """From one saveset to another and back: only chunks that differ are read from packs, split or not."""
    first = lab.backup(mixed, source_id="one")
    before = mixed.read_bytes()
    offsets = [GRAIN, 5 * CHUNK, 17 * CHUNK + 3 * GRAIN]
    for offset in offsets:
        write(mixed, offset, noise(100, seed=offset))
    changes = Changes("one", first.size, [(offset, 100) for offset in offsets])
    second = lab.backup(mixed, source_id="two", changes=changes)
    output = lab.restore(first)
    stats = restore(second, output, only_changed=True, check=True)
    assert stats.bytes_written == len(offsets) * CHUNK
    assert filecmp.cmp(mixed, output, shallow=False)
    stats = restore(first, output, only_changed=True, check=True)
    assert stats.bytes_written == len(offsets) * CHUNK
    assert output.read_bytes() == before


def test_what_the_target_is_known_to_hold_is_not_read(lab: Lab, mixed: Path) -> None:
    """A standby comes up to date, and back, at the cost of what differs between two savesets."""
    first = lab.backup(mixed, source_id="one")
    before = mixed.read_bytes()
    offsets = [GRAIN, 5 * CHUNK, 17 * CHUNK + 3 * GRAIN]
    for offset in offsets:
        write(mixed, offset, noise(100, seed=offset))
    write(mixed, 2 * CHUNK, bytes(CHUNK))  # data that is zero now
    changes = Changes("one", first.size, [(2 * CHUNK, CHUNK), *((offset, 100) for offset in offsets)])
    second = lab.backup(mixed, source_id="two", changes=changes)
    output = lab.restore(first)
    stats = restore(second, output, base=first)
    assert (stats.bytes_written, stats.bytes_zeroed, stats.bytes_compared) == (len(offsets) * CHUNK, CHUNK, 0)
    assert stats.bytes_stored < second.size / 2
    assert_sums(stats)
    assert filecmp.cmp(mixed, output, shallow=False)
    assert restore(second, output, base=second).bytes_kept == second.size
    assert_sums(restore(first, output, base=second, check=True))
    assert output.read_bytes() == before


def test_a_volume_that_has_grown_has_no_base(lab: Lab, make_image: MakeImage) -> None:
    first = lab.backup(make_image("small", 4 * MIB, [(0, noise(MIB))]))
    image = make_image("large", 6 * MIB, [(0, noise(MIB, seed=2)), (5 * MIB, noise(MIB))])
    second = lab.backup(image)
    output = lab.restore(first)
    os.truncate(output, second.size)
    stats = restore(second, output, base=first, only_changed=True)
    assert stats.bytes_compared == second.size
    assert filecmp.cmp(image, output, shallow=False)


def test_a_sample_tells_another_disk(lab: Lab, mixed: Path, make_image: MakeImage) -> None:
    saveset = lab.backup(mixed)
    output = lab.restore(saveset)
    for path, expected in [(output, True), (make_image("blank", saveset.size, []), False)]:
        with open_over(path, saveset.size) as opened:
            assert saveset.is_on(opened) is expected
    # All that is stored differs, but for the first and the last chunk.
    data = bytearray(output.read_bytes())
    for at in range(CHUNK, len(data) - CHUNK, CHUNK):
        data[at] ^= 1
    output.write_bytes(data)
    with open_over(output, saveset.size) as opened:
        assert not saveset.is_on(opened)


def test_grains_that_differ_are_told_without_putting_the_chunk_together(lab: Lab, mixed: Path) -> None:
    """A split chunk whose own grains differ needs no read to know that; it is read to be written, once."""
    first = lab.backup(mixed, source_id="one")
    write(mixed, GRAIN, noise(100))
    second = lab.backup(mixed, source_id="two", changes=Changes("one", first.size, [(GRAIN, 100)]))
    output = lab.restore(second)
    write(output, GRAIN + 5, b"!")
    stats = restore(second, output, only_changed=True)
    assert stats.bytes_written == CHUNK
    assert filecmp.cmp(mixed, output, shallow=False)


class Forgetful(target.FileTarget):
    """A disk that takes all writes and spoils one byte."""

    spoiled = 0

    def write(self, offset: int, data: t.Any) -> None:
        super().write(offset, data)
        if offset <= self.spoiled < offset + len(data):
            with open(self.spec, "r+b") as stream:
                stream.seek(self.spoiled)
                byte = stream.read(1)[0] ^ 1
                stream.seek(self.spoiled)
                stream.write(bytes([byte]))


@pytest.mark.parametrize("spoiled", [0, 300 * KIB + 7, 6 * MIB + 12001])
def test_checking_finds_what_the_disk_spoiled(lab: Lab, mixed: Path, spoiled: int) -> None:
    saveset = lab.backup(mixed)
    with Forgetful(str(lab.folder / "bad"), saveset.size) as opened:
        opened.spoiled = spoiled
        with pytest.raises(errors.TargetMismatch) as caught:
            saveset.restore(opened, check=True)
    assert f"offset {spoiled // CHUNK * CHUNK} " in str(caught.value)
    assert "restore again" in str(caught.value)


def test_checking_finds_zeros_that_are_none(lab: Lab, mixed: Path) -> None:
    class Lazy(target.FileTarget):
        def zero(self, offset: int, length: int) -> None:
            """Do nothing."""

    saveset = lab.backup(mixed)
    output = lab.folder / "lazy"
    output.write_bytes(b"\x55" * saveset.size)
    with open_over(output, saveset.size, Lazy) as opened, pytest.raises(errors.TargetMismatch, match="offset"):
        saveset.restore(opened, check=True)


def test_progress_counts_the_checking_too(lab: Lab, mixed: Path) -> None:
    moments: list[progress.Progress] = []
    saveset = lab.backup(mixed)
    restore(saveset, lab.folder / "new", check=True, progress=moments.append)
    assert (moments[-1].bytes_done, moments[-1].bytes_total) == (2 * saveset.size, 2 * saveset.size)


class Direct:
    """Stands between the tests and O_DIRECT."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._open, self._pwrite, self._preadv = os.open, os.pwrite, os.preadv
        self.fds: set[int] = set()
        self.refuse_open = self.refuse_use = self.short = False
        self.used = 0
        for name in ("open", "pwrite", "preadv"):
            monkeypatch.setattr(os, name, getattr(self, name))

    def open(self, path: t.Any, flags: int, *arguments: t.Any, **names: t.Any) -> int:
        if flags & os.O_DIRECT and self.refuse_open:
            raise OSError(errno.EINVAL, "no O_DIRECT here")
        fd = self._open(path, flags, *arguments, **names)
        (self.fds.add if flags & os.O_DIRECT else self.fds.discard)(fd)
        return fd

    def _use(self, fd: int) -> None:
        if fd in self.fds:
            self.used += 1
            if self.refuse_use:
                raise OSError(errno.EINVAL, "not so aligned")

    def pwrite(self, fd: int, data: t.Any, offset: int) -> int:
        self._use(fd)
        if fd in self.fds and self.short and len(data) > 8192:
            data = data[: len(data) // 8192 * 4096 + 512]
        return self._pwrite(fd, data, offset)

    def preadv(self, fd: int, buffers: t.Any, offset: int) -> int:
        self._use(fd)
        return self._preadv(fd, buffers, offset)


@pytest.mark.parametrize("trouble", ["", "refuse_open", "refuse_use", "short"])
def test_past_the_page_cache_or_not(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """Where O_DIRECT is refused, when opening or later, or cut short, the same bytes arrive."""
    saveset = lab.backup(mixed)
    output = lab.folder / "used"
    output.write_bytes(b"\xff" * saveset.size)
    direct = Direct(monkeypatch)
    if trouble:
        setattr(direct, trouble, True)
    stats = restore(saveset, output, only_changed=True, check=True)
    assert stats.bytes_checked == saveset.size
    assert (direct.used > 0) == (trouble != "refuse_open")
    assert output.read_bytes() == mixed.read_bytes()


@pytest.fixture
def device(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A loop device full of old content."""
    path = tmp_path / "disk"
    path.write_bytes(b"\xee" * (8 * MIB))
    done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    name = done.stdout.strip()
    request.addfinalizer(lambda: subprocess.run(["losetup", "--detach", name], check=True))
    return name


def cannot(*_arguments: t.Any) -> None:
    """A device that does not know how."""
    raise OSError(errno.EOPNOTSUPP, "cannot")


@pytest.mark.root
@pytest.mark.parametrize("ways", ["all", "discard", "lying discard", "zeroout", "none"])
def test_zeros_on_devices(lab: Lab, mixed: Path, device: str, monkeypatch: pytest.MonkeyPatch, ways: str) -> None:
    """Whatever the device can or pretends, zeros are zeros in the end."""
    calls: list[str] = []

    def discards(fd: int, offset: int, length: int) -> None:
        calls.append("discard")
        if ways == "discard":
            linux.punch_hole(fd, offset, length)

    def zeroes(fd: int, offset: int, length: int) -> None:
        calls.append("zeroout")
        linux.zero_out_blocks(fd, offset, length)

    if ways != "all":
        monkeypatch.setattr(target, "punch_hole", cannot)
        monkeypatch.setattr(target, "discard_blocks", discards if "discard" in ways else cannot)
        monkeypatch.setattr(target, "zero_out_blocks", cannot if ways == "none" else zeroes)
    saveset = lab.backup(mixed)
    stats = restore(saveset, device, check=True, workers=1)  # several may each try a way that turns out to be none
    with open(device, "rb") as stream:
        restored = stream.read()
    assert restored[: saveset.size] == mixed.read_bytes()
    assert restored[saveset.size :] == b"\xee" * (8 * MIB - saveset.size)
    assert stats.bytes_checked == saveset.size
    if ways == "lying discard":
        assert calls.count("discard") == 1 and calls.count("zeroout") > 1
    assert ("zeroout" in calls) == (ways in ("lying discard", "zeroout"))


@pytest.mark.root
def test_only_what_differs_on_a_device(lab: Lab, mixed: Path, device: str) -> None:
    saveset = lab.backup(mixed)
    restore(saveset, device)
    with open(device, "r+b") as stream:
        stream.seek(MIB)
        stream.write(b"changed")
    stats = restore(saveset, device, only_changed=True, check=True)
    assert (stats.bytes_written, stats.bytes_zeroed) == (CHUNK, 0)
    assert_sums(stats)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_way_from_any_saveset_to_any_other(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Full and incremental backups, restored anew and over what other restores and accidents left, and checked."""
    folder = tmp_path_factory.mktemp("any")
    size = data.draw(st.integers(1, 2 * MIB), "size")
    path, standby = folder / "image", folder / "standby"
    path.write_bytes(text(size))
    lab = Lab(folder)
    savesets: list[tuple[repository.Saveset, bytes]] = []
    for generation in range(data.draw(st.integers(1, 5), "generations")):
        extents = []
        for offset, length, zero in data.draw(
            st.lists(st.tuples(st.integers(0, size - 1), st.integers(1, 2 * CHUNK), st.booleans()), max_size=8)
        ):
            length = min(length, size - offset)
            write(path, offset, bytes(length) if zero else noise(length, seed=generation))
            extents.append((offset, length))
        changes = Changes(f"s{generation - 1}", size, extents) if data.draw(st.booleans(), "incremental") else None
        saveset = lab.backup(path, source_id=f"s{generation}", changes=changes if generation else None)
        savesets.append((saveset, path.read_bytes()))
    for _number in range(4):
        saveset, content = data.draw(st.sampled_from(savesets))
        if standby.exists():
            for offset in data.draw(st.lists(st.integers(0, size - 1), max_size=3)):
                write(standby, offset, b"\xa5")
        only, check = data.draw(st.booleans(), "only changed"), data.draw(st.booleans(), "check")
        stats = restore(saveset, standby, only_changed=only, check=check)
        assert standby.read_bytes() == content
        assert stats.bytes_checked == (size if check else 0)
        assert_sums(stats)
    report = lab.open().verify(depth="full")
    assert report.ok, report.problems


def test_wide_incrementals_do_not_read_frames_again_and_again(lab: Lab, make_image: MakeImage) -> None:
    """Grains of several generations next to each other: each frame is read about once, however they interleave."""
    size = 24 * MIB
    image = make_image("wide", size, [(0, noise(size))])
    lab.backup(image, source_id="s0")
    generator = random.Random(1)
    for generation in range(1, 25):
        extents = [(grain * GRAIN, GRAIN) for grain in generator.sample(range(size // GRAIN), 100)]
        for offset, length in extents:
            write(image, offset, noise(length, seed=generation))
        saveset = lab.backup(image, source_id=f"s{generation}", changes=Changes(f"s{generation - 1}", size, extents))
    output = lab.folder / "wide-restored"
    stats = restore(saveset, output, workers=1)
    assert filecmp.cmp(image, output, shallow=False)
    stored = sum(path.stat().st_size for path in lab.files("packs"))
    assert stats.bytes_stored < 1.1 * stored

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every chunk is stored once, and a map page once."""

from __future__ import annotations

import filecmp
import random
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup import index
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import ROW
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.heap import Heap

from .conftest import KIB, MIB, Lab, MakeImage, noise, text


def test_a_second_run_stores_nothing(lab: Lab, mixed: Path) -> None:
    first = lab.backup(mixed)
    second = lab.backup(mixed)
    assert first.stats.bytes_new > 0
    assert (second.stats.bytes_new, second.stats.bytes_stored) == (0, 0)
    assert second.stats.bytes_known == first.stats.bytes_new
    assert second.info.digest == first.info.digest
    assert second.info.parent == first.id
    assert len(lab.files("packs")) == 1


def test_across_volumes_and_without_a_parent(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed, volume="fs1/m")
    for volume, parent in (("fs2/m", "latest"), ("fs1/m", None)):
        saveset = lab.backup(mixed, volume=volume, parent=parent)
        assert saveset.stats.bytes_new == 0
        assert saveset.info.parent is None
        assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)


def test_inside_a_volume_with_many_workers(tmp_path: Path, make_image: MakeImage) -> None:
    lab = Lab(tmp_path, chunk_size=4 * KIB)
    block = noise(256 * KIB)
    image = make_image("repeated", 24 * MIB, [(number * 256 * KIB, block) for number in range(96)])
    saveset = lab.backup(image, workers=6)
    assert saveset.stats.bytes_new == len(block)
    assert saveset.stats.bytes_known == 24 * MIB - len(block)
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)
    assert lab.open().verify(depth="full").ok


def test_the_index_of_a_long_run_stays_bounded(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of this run's finished packs move from the dictionary to sorted runs, and are still found there."""
    monkeypatch.setattr(index, "_YOUNG_MAX", 100)
    lab = Lab(tmp_path, chunk_size=4 * KIB)
    image = make_image("twice", 16 * MIB, [(0, noise(8 * MIB)), (8 * MIB, noise(8 * MIB))])
    saveset = lab.backup(image, pack_bytes=512 * KIB)
    assert saveset.stats.bytes_new == saveset.stats.bytes_known == 8 * MIB
    assert filecmp.cmp(image, lab.restore(saveset), shallow=False)


def test_only_changed_pages_of_the_map_are_written(tmp_path: Path, make_image: MakeImage) -> None:
    lab = Lab(tmp_path, chunk_size=4 * KIB)  # a page maps 4 MiB
    image = make_image("paged", 16 * MIB, [(0, text(16 * MIB))])
    first = lab.backup(image)
    with open(image, "r+b") as stream:
        stream.seek(9 * MIB)
        stream.write(b"changed")
    second = lab.backup(image)
    own = [leaf.map_id.hex() == second.info.map_id for leaf in second.map.leaves()]
    assert own == [False, False, True, False]
    assert second.stats.bytes_new == 4 * KIB
    assert second.info.root != first.info.root and second.info.digest != first.info.digest
    assert filecmp.cmp(image, lab.restore(second), shallow=False)
    assert lab.open().verify(depth="full").ok


def test_growing_and_shrinking_between_runs(lab: Lab, make_image: MakeImage) -> None:
    for size in (3 * MIB, 5 * MIB + 17, MIB + 3):
        image = make_image("moving", size, [(0, text(size))])
        saveset = lab.backup(image)
        assert filecmp.cmp(image, lab.restore(saveset), shallow=False)
    assert lab.open().verify(depth="full").ok


def test_chunks_of_a_lost_pack_are_stored_again(lab: Lab, mixed: Path) -> None:
    broken = lab.backup(mixed)
    (pack,) = lab.files("packs")
    pack.unlink()
    healed = lab.backup(mixed)
    assert healed.stats.bytes_new == broken.stats.bytes_new
    assert filecmp.cmp(mixed, lab.restore(healed), shallow=False)
    report = lab.open().verify(depth="full")
    assert {problem["saveset"] for problem in report.problems} == {broken.id}


def test_chunks_of_a_pack_with_a_damaged_index_are_stored_again(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    (pack,) = lab.files("packs")
    content = bytearray(pack.read_bytes())
    content[-60] ^= 1
    pack.write_bytes(content)
    healed = lab.backup(mixed)
    assert healed.stats.bytes_new > 0
    assert filecmp.cmp(mixed, lab.restore(healed), shallow=False)


def test_a_damaged_parent_map_is_no_parent(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    (old_map,) = lab.files("maps")
    old_map.write_bytes(b"")
    saveset = lab.backup(mixed)
    assert saveset.info.parent is None
    assert saveset.stats.bytes_new == 0
    assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)


def test_equal_prefixes_are_told_apart() -> None:
    """64-bit prefixes may collide; the index confirms with all 32 bytes."""
    generator = random.Random(5)
    identities = [bytes(8) + generator.randbytes(24) for _number in range(50)]
    identities += [generator.randbytes(32) for _number in range(500)]
    rows = {identity: ROW.pack(identity, number, 7, 0, 2, 0, 0) for number, identity in enumerate(identities)}
    packs = [(b"A" * 16, identities[0::3]), (b"B" * 16, identities[1::3]), (b"C" * 16, identities[2::3])]
    known = Heap()
    assert known.find(bytes(32)) == []
    for pack, some in packs:
        known.add(pack, b"".join(rows[identity] for identity in some))
        known.settle()
    for pack, some in packs:
        for identity in some:
            assert known.find(identity) == [pack + rows[identity][32:48]]
    assert known.find(bytes(32)) == []
    assert known.find(b"\xff" * 32) == []

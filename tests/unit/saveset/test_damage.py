# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage of every kind is found, named, and blamed on the savesets it hurts; and nothing else ever is."""

from __future__ import annotations

import random
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import container
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub, walk_frames

from .conftest import KIB, MIB, Lab, MakeImage, noise, text


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit; a negative offset counts from the end."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def object_name(lab: Lab, path: Path) -> str:
    """The object's name in the repository."""
    return str(path.relative_to(lab.path))


@pytest.fixture(params=["aes-256-gcm", "none"])
def two(request: pytest.FixtureRequest, tmp_path: Path, make_image: MakeImage) -> tuple[Lab, t.Any, t.Any]:
    """A repository with two savesets of different volumes, in one pack each."""
    lab = Lab(tmp_path, encryption=request.param)
    one = lab.backup(make_image("one", MIB, [(0, text(600 * KIB))]), volume="fs1/m")
    two_ = lab.backup(make_image("two", MIB, [(64 * KIB, noise(300 * KIB))]), volume="fs2/m")
    return lab, one, two_


def pack_of(lab: Lab, saveset: t.Any) -> Path:
    """The only pack that a saveset uses."""
    (pack,) = {entry.pack.hex() for entry in saveset.map.entries(0) if entry.kind == 2}
    return lab.path / "packs" / pack[:2] / pack


def test_intact_repositories_have_no_problem(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab = two[0]
    assert scrub(lab.store()) == []
    for depth in ("structure", "stored", "full"):
        report = lab.open().verify(depth=depth)
        assert report.ok and report.problems == [] and report.savesets == 2


def test_every_byte_of_a_pack_counts(two: tuple[Lab, t.Any, t.Any]) -> None:
    """Each part of a pack, at each of its fields: one flipped bit is found by the depth that reads it."""
    lab, one, _other = two
    pack = pack_of(lab, one)
    good = pack.read_bytes()
    layout = container.read_layout(lab.store(), object_name(lab, pack), container.PACK_KIND)
    frames = [offset for offset, _length, _good in walk_frames(lab.store(), layout)][:-1]
    structure = [*range(container.HEADER_BYTES)]
    structure += [*range(layout.footer_offset, layout.footer_offset + 60, 3), layout.footer_offset + 70]
    structure += [*range(len(good) - container.TRAILER_BYTES, len(good))]
    stored = [frame + at for frame in frames for at in (0, 5, 9, 10, 13, 17, 20, 30, 60, 90, 200, 1000)]
    generator = random.Random(3)
    for depth, offsets in (("structure", structure), ("stored", stored), ("full", stored[::3])):
        for offset in offsets:
            flip(pack, offset, generator.randrange(8))
            report = lab.open().verify(depth=depth)
            assert not report.ok, f"offset {offset} at depth {depth}"
            assert {(p["saveset"], p["object"]) for p in report.problems} == {(one.id, object_name(lab, pack))}
            pack.write_bytes(good)
    assert lab.open().verify(depth="full").ok


def test_every_byte_counts_without_a_key(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab = two[0]
    generator = random.Random(4)
    for path in lab.files("."):
        good = path.read_bytes()
        offsets = range(0, len(good), 3) if len(good) < 600 else generator.sample(range(len(good)), 30)
        for offset in offsets:
            flip(path, offset, generator.randrange(8))
            assert {name for name, _problem in scrub(lab.store())} == {object_name(lab, path)}, offset
            path.write_bytes(good)
    assert scrub(lab.store()) == []


def test_every_byte_of_a_map_counts(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab, one, _other = two
    path = lab.path / "maps" / "fs1~m" / one.info.map_id
    good = path.read_bytes()
    for offset in range(0, len(good), 7):
        flip(path, offset, offset % 8)
        problems = lab.open().verify(depth="structure").problems
        assert problems and {(p["saveset"], p["object"]) for p in problems} == {(one.id, object_name(lab, path))}
        path.write_bytes(good)


def test_every_byte_of_a_commit_counts(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab, one, other = two
    path = lab.path / one.info.name
    good = path.read_bytes()
    for offset in range(0, len(good), 5):
        flip(path, offset, offset % 8)
        repo = lab.open()
        (problem,) = repo.verify(depth="structure").problems
        assert (problem["object"], problem["volume"]) == (one.info.name, "fs1/m")
        assert [info.id for info in repo.savesets()] == [other.id]
        with pytest.raises(errors.SavesetError):
            repo.find("fs1/m")
        path.write_bytes(good)


def test_every_byte_of_repo_json_and_the_key_file_counts(lab: Lab) -> None:
    repo = lab.open()
    (key,) = lab.files("keys")
    for path in (lab.path / "repo.json", key):
        good = path.read_bytes()
        for offset in range(len(good)):
            flip(path, offset, offset % 8)
            with pytest.raises(errors.Damaged) as caught:
                lab.open()
            assert object_name(lab, path) in str(caught.value)
            assert [problem["object"] for problem in repo.verify().problems] == [object_name(lab, path)]
            path.write_bytes(good)
    assert lab.open().verify().ok


@pytest.mark.parametrize("folder", ["packs", "maps", "savesets"])
@pytest.mark.parametrize("cut", [0, 1, 100, -1, -49])
def test_truncated_objects(two: tuple[Lab, t.Any, t.Any], folder: str, cut: int) -> None:
    lab = two[0]
    path = lab.files(folder)[0]
    path.write_bytes(path.read_bytes()[:cut])
    names = {problem["object"] for problem in lab.open().verify(depth="structure").problems}
    assert names == {object_name(lab, path)} == {name for name, _problem in scrub(lab.store())}


@pytest.mark.parametrize("folder", ["packs", "maps"])
def test_missing_objects(two: tuple[Lab, t.Any, t.Any], folder: str) -> None:
    lab, one, _other = two
    path = pack_of(lab, one) if folder == "packs" else lab.path / "maps" / "fs1~m" / one.info.map_id
    path.unlink()
    (problem,) = lab.open().verify(depth="structure").problems
    assert (problem["saveset"], problem["volume"], problem["object"]) == (one.id, "fs1/m", object_name(lab, path))
    with pytest.raises(errors.NotFound, match="incomplete" if folder == "packs" else "no such object"):
        lab.restore(lab.open().find("fs1/m"))


def test_swapped_packs(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab, one, other = two
    first, second = pack_of(lab, one), pack_of(lab, other)
    spare = lab.folder / "spare"
    shutil.move(first, spare)
    shutil.move(second, first)
    shutil.move(spare, second)
    report = lab.open().verify(depth="structure")
    assert {problem["saveset"] for problem in report.problems} == {one.id, other.id}
    assert all("swapped" in str(problem["problem"]) for problem in report.problems)
    with pytest.raises(errors.Damaged, match="swapped"):
        lab.restore(lab.open().find("fs1/m"))


def test_swapped_commits(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab, one, other = two
    (lab.path / one.info.name).write_bytes((lab.path / other.info.name).read_bytes())
    (problem,) = lab.open().verify().problems
    assert problem["object"] == one.info.name and "swapped" in str(problem["problem"])


def test_frames_swapped_inside_a_pack(tmp_path: Path, make_image: MakeImage) -> None:
    """Two frames of one length trade places, whole and with right hashes of their own."""
    lab = Lab(tmp_path, chunk_size=4 * MIB)
    saveset = lab.backup(make_image("image", 8 * MIB, [(0, noise(8 * MIB))]), workers=1)
    (pack,) = lab.files("packs")
    first, second = saveset.map.entries(0)
    assert first.length == second.length
    content = bytearray(pack.read_bytes())
    a, b = slice(first.offset, first.offset + first.length), slice(second.offset, second.offset + second.length)
    content[a], content[b] = content[b], content[a]
    pack.write_bytes(content)
    assert scrub(lab.store()) == []  # each frame is whole: that it is at the wrong place takes the index to see
    problems = lab.open().verify(depth="stored").problems
    assert len(problems) == 2 and {problem["saveset"] for problem in problems} == {saveset.id}
    with pytest.raises(errors.Damaged):
        lab.restore(saveset)


def test_wrong_bytes_are_never_written(two: tuple[Lab, t.Any, t.Any]) -> None:
    lab, one, _other = two
    pack = pack_of(lab, one)
    entry = one.map.entries(0)[0]
    flip(pack, entry.offset + entry.length - 20)
    output = lab.folder / "output"
    with target.open_target(str(output), one.size) as opened, pytest.raises(errors.Damaged) as caught:
        lab.open().find("fs1/m").restore(opened)
    assert object_name(lab, pack) in str(caught.value) and "incomplete" in str(caught.value)
    good = text(600 * KIB)
    for at, byte in enumerate(output.read_bytes()):
        assert byte in (0, good[at] if at < len(good) else 0)


def test_a_shared_pack_hurts_all_its_savesets(lab: Lab, mixed: Path) -> None:
    savesets = [lab.backup(mixed, volume=volume) for volume in ("fs1/m", "fs2/m", "fs1/m")]
    (pack,) = lab.files("packs")
    flip(pack, 5000)
    problems = lab.open().verify(depth="stored").problems
    assert {problem["saveset"] for problem in problems} == {saveset.id for saveset in savesets}
    assert all("chunks at offsets" in str(problem["problem"]) for problem in problems)
    assert lab.open().verify(depth="structure").ok
    only = lab.open().verify([savesets[1]], depth="stored").problems
    assert {problem["saveset"] for problem in only} == {savesets[1].id}


def test_a_rewritten_frame_with_right_hashes_is_found(two: tuple[Lab, t.Any, t.Any]) -> None:
    """Who can write the store but has no key can make the hashes right; not the encryption, nor the identity."""
    lab, one, _other = two
    pack = pack_of(lab, one)
    content = bytearray(pack.read_bytes())
    entry = one.map.entries(0)[0]
    layout = container.read_layout(lab.store(), object_name(lab, pack), container.PACK_KIND)
    frame_module = container.parse_head(content[entry.offset :])
    assert frame_module is not None
    body_at = entry.offset + entry.length - frame_module.body_length
    content[body_at + 50] ^= 1
    hasher = container.blake3(layout.prefix + frame_module.bound + content[body_at : entry.offset + entry.length])
    content[body_at - 32 : body_at] = hasher.digest()
    pack.write_bytes(content)
    assert scrub(lab.store()) == []
    problems = lab.open().verify(depth="full").problems
    assert {(problem["saveset"], problem["object"]) for problem in problems} == {(one.id, object_name(lab, pack))}
    with pytest.raises(errors.Damaged):
        lab.restore(one)


def test_a_newer_damaged_commit_is_not_passed_over(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("a", MIB, [(0, text(MIB))])
    old, new = lab.backup(image), lab.backup(image)
    flip(lab.path / new.info.name, 30)
    with pytest.raises(errors.Damaged):
        lab.open().find("fs1/m")
    assert lab.open().find("fs1/m", saveset_id=old.id).id == old.id
    (problem,) = lab.open().verify([old, new]).problems
    assert (problem["saveset"], problem["object"]) == (new.id, new.info.name)


def test_wrong_passphrases(lab: Lab) -> None:
    for secret in (Secret(b"wrong"), Secret(b""), Secret()):
        with pytest.raises(errors.WrongSecret):
            lab.open().open(lab.store(), secret)


def test_a_passphrase_for_an_unencrypted_repository_is_refused(plain_lab: Lab) -> None:
    with pytest.raises(errors.WrongSecret, match="not encrypted"):
        plain_lab.open().open(plain_lab.store(), Secret(b"secret"))


def test_a_lost_key_folder(lab: Lab) -> None:
    repo = lab.open()
    shutil.rmtree(lab.path / "keys")
    assert [problem["object"] for problem in repo.verify().problems] == ["keys"]
    with pytest.raises(errors.Damaged, match="no key file"):
        lab.open()

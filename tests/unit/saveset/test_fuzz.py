# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of object is damaged in every way: it is found and named, or every saveset still restores bit for bit.

Each object is damaged at its first and last bytes and at some in between, others in each run; OPENISB_FUZZ=all takes
each byte of each object.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import local

from .conftest import KIB, NOON, Lab, noise, open_over, text

pytestmark = pytest.mark.slow

EXHAUSTIVE = os.environ.get("OPENISB_FUZZ") == "all"
OFFSETS = 50  # damaged in each object, unless all are
CHUNK = 4 * KIB
SIZE = 24 * CHUNK + 100
JUNK = b"\xa5"
CHEAP = ScryptCost(n=16)
#: The program in the repository, its text, and what vouches for them: missed by a verification, needed by no restore.
TOOL = ("isb-saveset.pyz", "README.txt", "tool.json")
KINDS = ("repo.json", "keys", "savesets", "maps", "packs", "sessions", "checks", *TOOL)


class Victim:
    """A small repository with an object of every kind, and what its savesets hold."""

    def __init__(self, folder: Path) -> None:
        self.lab = Lab(folder, chunk_size=CHUNK)
        self.folder = folder
        self.path = self.lab.path
        self.contents: dict[str, bytes] = {}
        repo = self.lab.open()
        repo.key_files.add_writer(b"writer", cost=CHEAP)
        image = folder / "image"
        image.write_bytes(text(10 * CHUNK) + bytes(2 * CHUNK) + noise(12 * CHUNK) + b"e" * 100)
        self._backup(image, "s0")  # whole chunks
        for generation in (1, 2):  # pieces over pieces, over zeros too
            extents = [(3 * CHUNK + 130 * generation, 200), (11 * CHUNK + 5, 60), (20 * CHUNK, 300 * generation)]
            self._write(image, extents, generation)
            self._backup(image, f"s{generation}", changes=Changes(f"s{generation - 1}", SIZE, extents))
        self._write(image, [(0, 6 * CHUNK)], 3)
        writer = repository.Repository.open(self.lab.store(), Secret(b"writer"))
        with source.open_source(str(image)) as opened:  # a sealed pack
            saveset = writer.backup(opened, BackupRequest(volume="fs2/m", run_id="w", time=NOON, verdict="x"))
        self.contents[saveset.id] = image.read_bytes()
        image.write_bytes(noise(SIZE, 9))
        self._backup(image, "gone")
        gone = self.lab.open().find("fs1/m")
        (self.path / gone.info.name).unlink()  # leaves a pack and a map that no saveset uses
        del self.contents[gone.id]
        (self.path / "sessions" / "fs1~m" / ("ab" * 32)).write_bytes(b"")
        self.lab.open().verify(depth="full")

    def _write(self, image: Path, extents: list[tuple[int, int]], seed: int) -> None:
        with open(image, "r+b") as stream:
            for offset, length in extents:
                stream.seek(offset)
                stream.write(noise(length, seed))

    def _backup(self, image: Path, source_id: str, **options: t.Any) -> None:
        saveset = self.lab.backup(image, source_id=source_id, **options)
        self.contents[saveset.id] = image.read_bytes()

    def objects(self, kind: str = ".") -> list[Path]:
        """All objects of a kind."""
        path = self.path / kind
        return [path] if path.is_file() else self.lab.files(kind)

    def name(self, path: Path) -> str:
        """An object's name in the repository."""
        return str(path.relative_to(self.path))

    # -- what may happen

    def look(self) -> set[str]:
        """The names of what is found; nothing is changed by looking.  Wrong bytes are never told to be right."""
        try:
            repo = self.lab.open()
        except errors.SavesetError as error:
            return {self.name(path) for path in self.objects() if self.name(path) in str(error)} or {str(error)}
        found = {str(problem["object"]) for problem in repo.verify(depth="full", record=False).problems}
        infos = {info.id: info for info in repo.savesets()}
        assert set(infos) <= set(self.contents)
        for saveset_id, info in infos.items():
            try:
                assert repo.saveset(info).read(0, SIZE) == self.contents[saveset_id]
            except errors.SavesetError:
                assert found
        if not found:
            assert set(infos) == set(self.contents)
        return found

    def assert_restore_is_never_wrong(self) -> None:
        """Each chunk of a target is as it was, or right; and all are right when a restore reports success."""
        try:
            repo = self.lab.open()
        except errors.SavesetError:
            return
        output = self.folder / "output"
        for info in repo.savesets():
            right = self.contents[info.id]
            output.write_bytes(JUNK * SIZE)
            try:
                with open_over(output, SIZE) as opened:
                    repo.saveset(info).restore(opened, check=True, workers=1)
            except errors.SavesetError:
                written = output.read_bytes()
                for at in range(0, SIZE, CHUNK):
                    chunk = written[at : at + CHUNK]
                    assert chunk in (right[at : at + CHUNK], JUNK * len(chunk))
            else:
                assert output.read_bytes() == right


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """Made once: every test puts back what it damaged."""
    return Victim(tmp_path_factory.mktemp("fuzz"))


def offsets(size: int) -> list[int]:
    """Where to damage an object of this size."""
    if EXHAUSTIVE or size <= OFFSETS:
        return list(range(size))
    ends = [*range(0, 24, 2), *range(size - 24, size, 2)]
    return sorted({*ends, *random.sample(range(size), OFFSETS - len(ends))})


#: Objects that tell nothing a restore needs: damage to them, or their absence, is harmless.
HARMLESS = ("sessions",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit(victim: Victim, kind: str) -> None:
    """Each object, at each byte one bit: found and named, or harmless; no byte is restored wrong."""
    generator = random.Random(kind)
    used = {victim.name(path) for path in used_objects(victim)}
    for path in victim.objects(kind):
        good = path.read_bytes()
        for number, offset in enumerate(offsets(len(good))):
            damaged = bytearray(good)
            damaged[offset] ^= 1 << generator.randrange(8)
            path.write_bytes(damaged)
            try:
                found = victim.look()
                where = f"{victim.name(path)} at {offset}"
                if victim.name(path) in used:
                    assert victim.name(path) in found, where
                else:
                    assert found <= {victim.name(path)}, where
                if number % 10 == 0:
                    victim.assert_restore_is_never_wrong()
            finally:
                path.write_bytes(good)
    assert victim.look() == set()


def used_objects(victim: Victim) -> list[Path]:
    """Those in which every byte counts: all but harmless ones and the map that no saveset uses."""
    repo = victim.lab.open()
    maps = {info.map_id for info in repo.savesets()}
    return [
        path
        for path in victim.objects()
        if not victim.name(path).startswith(HARMLESS) and (path.parent.parent.name != "maps" or path.name in maps)
    ]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in HARMLESS])
def test_truncation(victim: Victim, kind: str) -> None:
    """Each object cut at any length."""
    used = {victim.name(path) for path in used_objects(victim)}
    for path in victim.objects(kind):
        good = path.read_bytes()
        for number, length in enumerate(offsets(len(good))):
            path.write_bytes(good[:length])
            try:
                found = victim.look()
                if victim.name(path) in used:
                    assert victim.name(path) in found, f"{victim.name(path)} cut to {length}"
                if number % 20 == 0:
                    victim.assert_restore_is_never_wrong()
            finally:
                path.write_bytes(good)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_appended(victim: Victim, kind: str) -> None:
    used = {victim.name(path) for path in used_objects(victim)}
    for path in victim.objects(kind):
        good = path.read_bytes()
        for junk in (b"\0", b"\n", good):
            path.write_bytes(good + junk)
            try:
                found = victim.look()
                if victim.name(path) in used and junk:
                    assert victim.name(path) in found
            finally:
                path.write_bytes(good)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_object(victim: Victim, kind: str) -> None:
    """Found where a saveset needs it; a missing commit leaves no trace, and hurts no other saveset."""
    needed = {*needed_objects(victim), *TOOL}
    for path in victim.objects(kind):
        good = path.read_bytes()
        path.unlink()
        contents = dict(victim.contents)
        if kind == "savesets":
            del victim.contents[path.name.rpartition("-")[2]]
        try:
            found = victim.look()
            if victim.name(path) in needed:
                assert victim.name(path) in found
            elif kind != "repo.json" and opens(victim):
                assert not found
            else:
                assert found
            victim.assert_restore_is_never_wrong()
        finally:
            path.write_bytes(good)
            victim.contents = contents


def needed_objects(victim: Victim) -> set[str]:
    """The maps and packs that savesets need."""
    repo = victim.lab.open()
    maps = [repo.saveset(info).map for info in repo.savesets()]
    packs = {pack.hex() for found in maps for pack in found.packs()}
    return {found.name for found in maps} | {f"packs/{pack[:2]}/{pack}" for pack in packs}


def opens(victim: Victim) -> bool:
    """Whether the repository opens with what key files are left."""
    try:
        victim.lab.open()
    except errors.SavesetError:
        return False
    return True


@pytest.mark.parametrize("kind", ["keys", "savesets", "maps", "packs", "checks"])
def test_swapped_objects(victim: Victim, kind: str, tmp_path: Path) -> None:
    """Each two objects of a kind trade places: both are named."""
    used = {victim.name(path) for path in used_objects(victim)}
    paths = victim.objects(kind)
    if len(paths) < 2:  # records of verifications are merged: make a second one, of another time
        (tmp_path / "second").mkdir()
        shutil.copy(paths[0], paths[0].with_name(paths[0].name.replace("2", "1", 1)))
        paths = victim.objects(kind)
    try:
        for one, two in itertools.combinations(paths, 2):
            first, second = one.read_bytes(), two.read_bytes()
            one.write_bytes(second)
            two.write_bytes(first)
            try:
                found = victim.look()
                wrong = {victim.name(path) for path in (one, two)} & used
                assert wrong <= found if kind != "checks" or first != second else found, (one, two)
                victim.assert_restore_is_never_wrong()
            finally:
                one.write_bytes(first)
                two.write_bytes(second)
    finally:
        if kind == "checks":
            paths[0].unlink()


def test_objects_of_another_kind(victim: Victim) -> None:
    """Each kind in the place of each other."""
    samples = [victim.objects(kind)[0] for kind in ("repo.json", "keys", "savesets", "maps", "packs", "checks")]
    used = {victim.name(path) for path in used_objects(victim)}
    for path, other in itertools.permutations(samples, 2):
        good = path.read_bytes()
        path.write_bytes(other.read_bytes())
        try:
            found = victim.look()
            if victim.name(path) in used:
                assert victim.name(path) in found, (path, other)
            victim.assert_restore_is_never_wrong()
        finally:
            path.write_bytes(good)


def test_objects_of_another_repository(victim: Victim, tmp_path: Path) -> None:
    """Whole objects, made with another key, in the place of ours."""
    other = Lab(tmp_path, chunk_size=CHUNK)
    image = tmp_path / "image"
    image.write_bytes(noise(SIZE, 5))
    other.backup(image)
    other.open().verify(depth="full")
    for kind in ("repo.json", "keys", "savesets", "maps", "packs", "checks"):
        path = next(path for path in used_objects(victim) if path in victim.objects(kind))
        good = path.read_bytes()
        path.write_bytes((other.path / kind if kind == "repo.json" else other.files(kind)[0]).read_bytes())
        try:
            found = victim.look()
            if kind != "keys" or not opens(victim):  # files of another repository are passed over
                assert found, kind
            victim.assert_restore_is_never_wrong()
        finally:
            path.write_bytes(good)
    assert isinstance(victim.lab.store(), local.LocalStore)

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write-only keys: what they can do, what they cannot, and that packs of both key modes are one repository."""

from __future__ import annotations

import datetime
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.access.keyfiles import KeyFiles
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.deps import blake3
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import container, frame
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys import keys, sealing
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import scrub

from .conftest import KIB, MIB, NOON, Lab, MakeImage, noise, open_over, text

CHEAP = ScryptCost(n=16)
WRITER = Secret(b"write only", CHEAP)


class Both:
    """A repository with its master secret and a write-only one."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.open().key_files.add_writer(WRITER.passphrase or b"", cost=CHEAP)
        self._minutes = 100

    def open_writer(self) -> repository.Repository:
        """The repository as a backup server opens it."""
        return repository.Repository.open(self.lab.store(), WRITER)

    def write(self, image: Path, volume: str = "fs1/m", **options: t.Any) -> repository.Saveset:
        """A saveset that the write-only server makes."""
        self._minutes += 1
        with source.open_source(str(image)) as opened:
            request = BackupRequest(
                volume=volume,
                run_id=f"run-{self._minutes}",
                time=NOON + datetime.timedelta(minutes=self._minutes),
                verdict="application-consistent",
                metadata={"made by": "a write-only server"},
                **options,
            )
            return self.open_writer().backup(opened, request)

    def packs(self) -> dict[str, container.ContainerLayout]:
        """The layout of each pack by its name."""
        store = self.lab.store()
        return {name: container.read_layout(store, name, container.PACK_KIND) for name in store.list("packs")}


@pytest.fixture
def both(lab: Lab) -> Both:
    """A repository that two secrets open."""
    return Both(lab)


def test_its_savesets_restore_with_the_master(both: Both, mixed: Path) -> None:
    made = both.write(mixed)
    assert {layout.key_mode for layout in both.packs().values()} == {keys.SEALED}
    found = both.lab.open().find("fs1/m")
    assert found.id == made.id and found.metadata == {"made by": "a write-only server"}
    assert both.lab.restore(found).read_bytes() == mixed.read_bytes()
    assert both.lab.open().verify(depth="full").ok
    assert scrub.scrub(both.lab.store()) == []


def test_it_lists_and_verifies(both: Both, mixed: Path) -> None:
    first, second = both.lab.backup(mixed), both.write(mixed)
    repo = both.open_writer()
    assert repo.write_only and not both.lab.open().write_only
    assert [info.id for info in repo.savesets("fs1/m")] == [first.id, second.id]
    assert repo.find("fs1/m").metadata == second.metadata
    for depth in ("structure", "stored"):
        report = repo.verify(depth=depth)
        assert report.ok and report.savesets == 2, report.problems


def test_it_holds_no_key_that_reads(both: Both, mixed: Path, make_image: MakeImage) -> None:
    """Neither the ring nor anything that can be derived from what it holds opens a frame of a pack."""
    both.lab.backup(mixed)
    both.write(make_image("other", MIB, [(0, noise(MIB, seed=4))]), volume="fs2/m")
    reader, writer = both.lab.open()._ring, both.open_writer()._ring
    assert writer.master is None and reader.master is not None
    assert keys.PACK not in writer._parents
    held = [writer.identity_key, writer._mac_key, *writer._parents.values()]
    held += [writer.writer_keys.writer, writer.writer_keys.public_key]
    assert not {reader.master, keys.derive(reader.master, "data"), keys.derive(reader.master, "seal")} & set(held)
    derived = [keys.derive(key, label) for key in held for label in ("data", "seal", "pack", "writer")]
    store = both.lab.store()
    frames = {keys.DERIVED: 0, keys.SEALED: 0}
    for name, layout in both.packs().items():
        guesses = [*held, *derived, *(keys.derive(key, keys.PACK, layout.container_id) for key in held + derived)]
        for offset, length, good in scrub.walk_frames(store, layout):
            data = store.get(name, offset, length)
            head = frame.parse_head(data)
            assert good and head is not None
            if head.number != frame.FOOTER_NUMBER:
                frames[layout.key_mode] += 1
                with pytest.raises(errors.WrongSecret, match="write-only"):
                    container.Container(store, name, container.PACK_KIND, writer).frame(offset, length)
                assert container.Container(store, name, container.PACK_KIND, reader).frame(offset, length)[1]
                assert all(frame.decrypt_body(layout.prefix, keys.Cipher(key), head, data) is None for key in guesses)
        if layout.sealed_key:
            info = reader._pack_info(layout.container_id)
            assert all(sealing.open_sealed(key, info, layout.sealed_key) is None for key in held + derived)
            assert sealing.open_sealed(keys.derive(reader.master, "seal"), info, layout.sealed_key) is not None
    assert all(frames.values())


@pytest.mark.parametrize("made_by", ["writer", "master"])
def test_reading_is_refused_before_the_target_is_touched(both: Both, mixed: Path, made_by: str) -> None:
    both.write(mixed) if made_by == "writer" else both.lab.backup(mixed)
    saveset = both.open_writer().find("fs1/m")
    output = both.lab.folder / "output"
    output.write_bytes(noise(saveset.size, seed=9))
    with (
        open_over(output, saveset.size) as opened,
        pytest.raises(errors.WrongSecret, match="opened with a write-only key"),
    ):
        saveset.restore(opened)
    assert output.read_bytes() == noise(saveset.size, seed=9)
    with pytest.raises(errors.WrongSecret, match="opened with a write-only key"):
        saveset.read(0, 10)
    with pytest.raises(errors.WrongSecret, match="opened with a write-only key"):
        both.open_writer().verify(depth="full")


def test_deduplication_across_key_modes(both: Both, make_image: MakeImage) -> None:
    shared, more = text(MIB), noise(256 * KIB)
    first = make_image("first", 2 * MIB, [(0, shared)])
    second = make_image("second", 2 * MIB, [(0, shared), (MIB, more)])
    third = make_image("third", 4 * MIB, [(0, shared), (2 * MIB, more), (3 * MIB, noise(64 * KIB, seed=5))])
    by_master = both.lab.backup(first)
    by_writer = both.write(second, volume="fs2/m")
    again = both.lab.backup(third, volume="fs3/m")
    assert by_master.stats.bytes_new == MIB
    assert (by_writer.stats.bytes_known, by_writer.stats.bytes_new) == (MIB, 256 * KIB)
    assert (again.stats.bytes_known, again.stats.bytes_new) == (MIB + 256 * KIB, 64 * KIB)
    assert sorted(layout.key_mode for layout in both.packs().values()) == [keys.DERIVED, keys.DERIVED, keys.SEALED]
    for image, volume in ((first, "fs1/m"), (second, "fs2/m"), (third, "fs3/m")):
        assert both.lab.restore(both.lab.open().find(volume)).read_bytes() == image.read_bytes()
    assert by_master.info.digest != by_writer.info.digest
    assert both.write(first, volume="fs1/m").info.digest == by_master.info.digest


def test_an_incremental_backup_by_a_write_only_server(both: Both, make_image: MakeImage) -> None:
    """It reads changed grains alone, also on top of what the master wrote; it compares all but what is in pieces."""
    image = make_image("image", 4 * MIB, [(0, text(3 * MIB))])
    both.lab.backup(image, source_id="one")
    with open(image, "r+b") as opened:
        opened.seek(MIB + 4096)
        opened.write(noise(5000))
    second = both.write(image, source_id="two", changes=Changes("one", 4 * MIB, [(MIB + 4096, 5000)]))
    assert second.info.origin["method"] == "changed" and 5000 <= second.stats.bytes_new <= 8 * KIB
    with open(image, "r+b") as opened:
        opened.write(noise(300, seed=2))
    third = both.write(image, source_id="three", changes=Changes("two", 4 * MIB, [(0, 300)]), paranoid=True)
    assert (third.info.origin["missed"], third.info.origin["unproven"]) == (0, 1)
    found = both.lab.open().find("fs1/m")
    assert found.id == third.id and both.lab.restore(found).read_bytes() == image.read_bytes()
    assert both.lab.open().verify(depth="full").ok
    assert both.open_writer().verify(depth="stored").ok


def test_each_pack_has_a_key_of_its_own(both: Both, mixed: Path, make_image: MakeImage) -> None:
    both.write(mixed)
    both.write(make_image("x", MIB, [(0, noise(MIB, seed=7))]), volume="fs2/m")
    ring = both.lab.open()._ring
    assert ring.master is not None
    private = keys.derive(ring.master, "seal")
    opened = [
        sealing.open_sealed(private, ring._pack_info(layout.container_id), layout.sealed_key)
        for layout in both.packs().values()
    ]
    assert None not in opened and len(set(opened)) == len(opened) == 2


def test_every_byte_of_the_extra_area_counts(both: Both, mixed: Path) -> None:
    saveset = both.write(mixed)
    ((name, layout),) = both.packs().items()
    path = both.lab.path / name
    good = path.read_bytes()
    assert len(layout.prefix) == 64 + 96
    for offset in range(len(layout.prefix)):
        damaged = bytearray(good)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        for repo in (both.lab.open(), both.open_writer()):
            problems = repo.verify(depth="structure").problems
            assert {(p["saveset"], p["object"]) for p in problems} == {(saveset.id, name)}, offset
            if offset >= 64:
                assert "sealed key" in str(problems[0]["problem"])
        assert {found for found, _problem in scrub.scrub(both.lab.store())} == {name}
    path.write_bytes(good[:100])
    assert {p["object"] for p in both.lab.open().verify().problems} == {name}


def reseal(layout: container.ContainerLayout, content: bytes, sealed: bytes) -> bytes:
    """A pack with another sealed key, and every checksum that needs no key made right again."""
    prefix = content[:64] + sealed
    prefix += blake3(prefix).digest()[:16]
    body = bytearray(prefix + content[len(layout.prefix) :])
    offset = len(prefix)
    while offset < len(body) - container.TRAILER_BYTES:
        head = frame.parse_head(bytes(body[offset:]))
        assert head is not None
        at = offset + len(head.bound)
        digest = blake3(prefix + head.bound + bytes(body[at + 32 : offset + head.length])).digest()
        body[at : at + 32] = digest
        offset += head.length
    trailer = bytes(body[-container.TRAILER_BYTES : -16])
    body[-16:] = blake3(prefix + trailer).digest()[:16]
    return bytes(body)


def test_a_sealed_key_that_was_replaced_is_found(both: Both, mixed: Path) -> None:
    """With all hashes right: the footer's encryption binds the extra area, so every depth finds it."""
    saveset = both.write(mixed)
    ((name, layout),) = both.packs().items()
    path = both.lab.path / name
    good = path.read_bytes()
    assert reseal(layout, good, layout.sealed_key) == good
    ring = both.open_writer()._ring
    other = ring.new_pack(layout.container_id).sealed
    path.write_bytes(reseal(layout, good, other))
    assert scrub.scrub(both.lab.store()) == []
    for depth in ("structure", "full"):
        problems = both.lab.open().verify(depth=depth).problems
        assert {(p["saveset"], p["object"]) for p in problems} == {(saveset.id, name)}
    with pytest.raises(errors.Damaged):
        both.lab.restore(both.lab.open().find("fs1/m"))


def test_a_writer_that_seals_nonsense_is_found(both: Both, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that is authentic all over, with a key that nobody can open: full verification names it."""
    monkeypatch.setattr(keys, "seal", lambda _public, _info, _key: bytes(keys.SEALED_BYTES))
    saveset = both.write(mixed)
    ((name, _layout),) = both.packs().items()
    assert both.lab.open().verify(depth="stored").ok
    problems = both.lab.open().verify(depth="full").problems
    assert {(p["saveset"], p["object"]) for p in problems} == {(saveset.id, name)}
    assert "sealed key" in str(problems[0]["problem"])
    with pytest.raises(errors.Damaged, match="sealed key"):
        both.lab.restore(both.lab.open().find("fs1/m"))


def test_a_sealed_key_is_of_one_pack_and_one_repository(both: Both) -> None:
    ring = both.open_writer()._ring
    pack, other = bytes(16), bytes(15) + b"\1"
    sealed = ring.new_pack(pack).sealed
    reader = both.lab.open()._ring
    assert reader.master is not None
    assert reader.pack_cipher("packs/x", pack, keys.SEALED, sealed).decrypt(0, bytes(16), b"") is None
    with pytest.raises(errors.Damaged, match="packs/x"):
        reader.pack_cipher("packs/x", other, keys.SEALED, sealed)
    foreign = keys.KeyRing("00" * 16, reader.master)
    with pytest.raises(errors.Damaged):
        foreign.pack_cipher("packs/x", pack, keys.SEALED, sealed)


@pytest.mark.parametrize("change", [{"mode": 2}, {"extra": 95}, {"mode": 1}, {"extra": 96}])
def test_unknown_key_modes_are_refused(lab: Lab, mixed: Path, change: dict[str, int]) -> None:
    lab.backup(mixed)
    (path,) = lab.files("packs")
    content = bytearray(path.read_bytes())
    content[14:16] = change.get("mode", 0).to_bytes(2, "little")
    content[36:40] = change.get("extra", 0).to_bytes(4, "little")
    content[48:64] = blake3(bytes(content[:48])).digest()[:16]
    path.write_bytes(content)
    with pytest.raises(errors.UnsupportedFormat):
        container.read_layout(lab.store(), str(path.relative_to(lab.path)), container.PACK_KIND)


#: Everything that changes or exports keys.
MANAGEMENT: dict[str, t.Callable[[KeyFiles], t.Any]] = {
    "add_passphrase": lambda files: files.add_passphrase(b"mine", cost=CHEAP),
    "add_writer": lambda files: files.add_writer(b"mine", cost=CHEAP),
    "add_escrow": lambda files: files.add_escrow(sealing.generate_escrow_pair(b"pw")[1]),
    "change_passphrase": lambda files: files.change_passphrase(b"mine", cost=CHEAP),
    "remove": lambda files: files.remove(files.all()[0].id),
    "export": lambda files: files.export(b"mine", cost=CHEAP),
    "add_exported": lambda files: files.add_exported(b"{}"),
    "recovery_sheet": lambda files: files.recovery_sheet(),
}


@pytest.mark.parametrize("what", MANAGEMENT)
def test_it_cannot_manage_keys(both: Both, what: str) -> None:
    before = {path: path.read_bytes() for path in both.lab.files("keys")}
    repo = both.open_writer()
    assert len(repo.key_files.all()) == 2
    with pytest.raises(errors.WrongSecret, match="cannot change or export keys"):
        MANAGEMENT[what](repo.key_files)
    assert {path: path.read_bytes() for path in both.lab.files("keys")} == before

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/saveset-format.md is enough to write a reader from: this one uses nothing of the engine."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
import struct
import typing as t
from pathlib import Path

import pytest
import zstandard
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.version import VERSION
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.commit import encode_commit
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret
from blake3 import blake3
from cryptography.hazmat.primitives import hpke, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from .conftest import NOON, Lab, MakeImage


def derive(parent: bytes, label: str, context: bytes = b"") -> bytes:
    """A derived key."""
    info = b"openisb saveset 1 " + label.encode() + b"\0" + context
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(parent)


HPKE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


class Reader:
    """Reads a repository by the document alone."""

    def __init__(self, path: Path, passphrase: bytes | None, private_key: X25519PrivateKey | None = None) -> None:
        self.path = path
        self.repo = json.loads((path / "repo.json").read_bytes())
        self.encrypted = self.repo["encryption"] == "aes-256-gcm"
        if private_key is not None:
            key = self.key_file("x25519")
            info = f"openisb saveset 1 escrow {key['repository']} {key['id']}".encode()
            master = HPKE.decrypt(bytes.fromhex(key["sealed"]), private_key, info)
        elif passphrase is None:
            master = derive(bytes.fromhex(self.repo["id"]), "unencrypted")
        else:
            master = self.unwrap("scrypt", "key", passphrase)
        self.seal = X25519PrivateKey.from_private_bytes(derive(master, "seal"))
        writer = derive(master, "writer")
        self.keys = {label: derive(writer, label) for label in ("index", "map", "document", "mac", "identity")}
        self.keys["pack"] = derive(master, "data")

    def key_file(self, method: str) -> dict[str, t.Any]:
        """The only key file of a method."""
        files = [json.loads(path.read_bytes()) for path in (self.path / "keys").iterdir()]
        (key,) = [key for key in files if key["method"] == method]
        return key

    def unwrap(self, method: str, label: str, passphrase: bytes) -> bytes:
        """What a key file under a passphrase holds."""
        key = self.key_file(method)
        stretched = Scrypt(bytes.fromhex(key["salt"]), 32, key["n"], key["r"], key["p"]).derive(passphrase)
        bound = f"openisb saveset 1 {label} {key['repository']} {key['id']}".encode()
        return AESGCM(stretched).decrypt(bytes(12), bytes.fromhex(key["wrapped"]), bound)

    def mac(self, label: str, data: bytes) -> bytes:
        """A MAC."""
        return blake3(label.encode() + b"\0" + data, key=self.keys["mac"]).digest()

    def commit(self, path: Path) -> dict[str, t.Any]:
        """An authenticated commit."""
        fields = json.loads(path.read_bytes())
        signed = {name: value for name, value in fields.items() if name not in ("mac", "hash")}
        canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
        assert fields["mac"] == self.mac("saveset", canonical).hex()
        if self.encrypted:
            aead = AESGCM(derive(self.keys["document"], "document", bytes.fromhex(fields["id"])))
            bound = f"openisb saveset 1 commit {fields['id']}".encode()
            fields["body"] = json.loads(aead.decrypt(bytes(12), base64.b64decode(fields["sealed"]), bound))
        return {**fields, **fields["body"]}

    def vouched(self) -> dict[str, t.Any]:
        """An authenticated tool.json; each file must be what it says."""
        data = (self.path / "tool.json").read_bytes()
        fields = json.loads(data)
        assert len(data) <= 64 << 10 and fields["openisb"] == "tool"
        signed = {name: value for name, value in fields.items() if name not in ("mac", "hash")}
        canonical = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
        assert fields["mac"] == self.mac("tool", canonical).hex()
        for name, limit in (("isb-saveset.pyz", 16 << 20), ("README.txt", 1 << 20)):
            content = (self.path / name).read_bytes()
            assert len(content) <= limit and fields["files"][name] == hashlib.sha256(content).hexdigest()
        return fields

    def latest(self, volume: str) -> Path:
        """The commit of a volume's latest saveset."""
        folder = self.path / "savesets" / volume.replace("/", "~")
        commits = {path: self.commit(path) for path in folder.iterdir()}
        in_order = sorted(commits, key=lambda path: [commits[path][name] for name in ("sequence", "time", "id")])
        fitting, before = [], 0
        for path in in_order:
            if commits[path]["sequence"] - before <= 1 << 32:
                before = commits[path]["sequence"]
                fitting.append(path)
        times = [commits[path]["time"] for path in fitting]
        return [path for number, path in enumerate(fitting) if times[number] <= min(times[number:])][-1]

    def frame(self, path: Path, label: str, offset: int) -> bytes:
        """The plain bytes of a frame."""
        data = path.read_bytes()
        _magic, number, codec, _flags, count, plain, length = struct.unpack_from("<4sIBBHII", data, offset)
        key_mode, extra = struct.unpack_from("<H", data, 14)[0], struct.unpack_from("<I", data, 36)[0]
        bound = data[: 64 + extra] + data[offset : offset + 20 + 32 * count]
        body_at = offset + 20 + 32 * count + 32
        body = data[body_at : body_at + length]
        assert blake3(bound + body).digest() == data[body_at - 32 : body_at]
        if self.encrypted:
            key = derive(self.keys[label], label, bytes.fromhex(path.name))
            if key_mode == 1 and label == "pack":
                assert data[144:160] == blake3(data[:144]).digest()[:16] and extra == 96
                info = f"openisb saveset 1 pack {self.repo['id']} {path.name}".encode()
                key = HPKE.decrypt(data[64:144], self.seal, info)
            aead = AESGCM(key)
            body = aead.decrypt(number.to_bytes(12, "little"), body, bound)
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=plain) if codec else body

    def footer(self, path: Path, label: str) -> bytes:
        """The plain bytes of a footer."""
        magic, offset, _length, _frames = struct.unpack("<8sQII8x", path.read_bytes()[-48:-16])
        assert magic == b"ISBEND\r\n"
        return self.frame(path, label, offset)

    def chunk(self, page: bytes, tail: int, entry: tuple[t.Any, ...], chunk_size: int) -> bytes:
        """The chunk of an entry; zeros where it is empty."""
        identity, pack, at, _length, place, kind = entry
        if kind == 2:
            return self.stored(identity, pack, at, place * chunk_size, chunk_size)
        chunk = bytearray(chunk_size)
        if kind != 3:
            return chunk
        first, count = struct.unpack("<IH10x", pack)
        grain = chunk_size // 32
        content = b""
        for number in range(first, first + count):
            fields = struct.unpack_from("<32s16sQIHHII", page, tail + 72 * number)
            piece, pack, at, _length, place, kind, stored, mask = fields
            content += struct.pack("<32sHII", piece, kind, stored, mask)
            if kind not in (2, 4):
                continue
            grains = [number for number in range(32) if stored >> number & 1]
            begin, length = (place * grain, len(grains) * grain) if kind == 4 else (place * chunk_size, chunk_size)
            data = self.stored(piece, pack, at, begin, length)
            for place, number in enumerate(grains):
                if mask >> number & 1:
                    chunk[number * grain : (number + 1) * grain] = data[place * grain : (place + 1) * grain]
        assert self.mac("split", content) == identity
        return chunk

    def stored(self, identity: bytes, pack: bytes, at: int, begin: int, length: int) -> bytes:
        """Some bytes of a frame, which must have that identity."""
        frame = self.frame(self.path / "packs" / pack.hex()[:2] / pack.hex(), "pack", at)
        data = frame[begin : begin + length]
        assert blake3(data, key=self.keys["identity"]).digest() == identity
        return data

    def restore(self, commit: Path) -> bytes:
        """The whole volume."""
        info = self.commit(commit)
        folder = self.path / "maps" / commit.parent.name
        directory = self.footer(folder / info["map_id"], "map")
        size, chunk_size, _entries, leaves, _packs, _numbers = struct.unpack_from("<QIIQQQ", directory)
        volume = bytearray(size)
        identities: list[list[bytes]] = []
        for leaf in range(leaves):
            map_id, offset, _length, kind, _hash, _digest = struct.unpack_from(
                "<16sQII32s32s", directory, 40 + 96 * leaf
            )
            entries = min(1024, -(-size // chunk_size) - leaf * 1024)
            page = self.frame(folder / map_id.hex(), "map", offset) if kind == 2 else bytes(64 * entries)
            identities.append([])
            for number in range(entries):
                entry = struct.unpack_from("<32s16sQIHH", page, 64 * number)
                identities[-1].append(entry[0])
                begin = (leaf * 1024 + number) * chunk_size
                chunk = self.chunk(page, 64 * entries, entry, chunk_size)
                volume[begin : begin + len(chunk)] = chunk
        volume = volume[:size]
        digests = b"".join(self.mac("leaf", b"".join(some)) for some in identities)
        assert info["digest"] == self.mac("volume", struct.pack("<QI", size, chunk_size) + digests).hex()
        return bytes(volume)


@pytest.mark.parametrize("encryption", ["aes-256-gcm", "none"])
def test_a_reader_by_the_document(tmp_path: Path, mixed: Path, encryption: str) -> None:
    lab = Lab(tmp_path, encryption=encryption, chunk_size=4096)
    lab.backup(mixed, source_id="first")
    with open(mixed, "r+b") as image:
        image.seek(5 << 20)
        image.write(b"changed")
    second = lab.backup(mixed, source_id="second")
    assert {leaf.map_id.hex() == second.info.map_id for leaf in second.map.leaves() if leaf.kind == 2} == {True, False}
    reader = Reader(lab.path, lab.secret.passphrase)
    assert reader.vouched()["release"] == VERSION
    assert reader.restore(lab.path / second.info.name) == mixed.read_bytes()
    with open(mixed, "r+b") as image:
        for offset in (100, 8192 + 4000, (2 << 20) + 700):
            image.seek(offset)
            image.write(b"changed again")
        image.seek(2 << 12)
        image.write(bytes(256))
    extents = [(100, 13), (8192 + 4000, 13), ((2 << 20) + 700, 13), (2 << 12, 256)]
    third = lab.backup(mixed, source_id="third", changes=Changes("second", second.size, extents))
    assert third.info.origin["method"] == "changed"
    assert reader.restore(lab.path / third.info.name) == mixed.read_bytes()


def test_the_latest_saveset_by_the_document(lab: Lab, make_image: MakeImage) -> None:
    """A clock was ahead at the third one, and after the fourth somebody wrote one whose number leaps."""
    image = make_image("image", 64 << 10)
    savesets = [lab.backup(image) for _number in range(2)]
    long = datetime.timedelta(days=9999)
    lab.backup(image, time=NOON + long, clock_limit=2 * long)
    reader = Reader(lab.path, lab.secret.passphrase)
    assert reader.commit(lab.path / savesets[1].info.name)["sequence"] == 2
    last = lab.backup(image)
    ring = lab.open()._ring
    leaping = dataclasses.replace(last.info, id="f" * 32, sequence=(1 << 32) + 5)
    (lab.path / leaping.name).write_bytes(encode_commit(leaping, ring))
    assert reader.latest("fs1/m") == lab.path / last.info.name
    assert lab.open().find("fs1/m").id == last.id
    (lab.path / leaping.name).unlink()
    (lab.path / last.info.name).unlink()
    ahead = reader.latest("fs1/m")
    assert ahead == lab.path / lab.open().find("fs1/m").info.name and "2053" in ahead.name


def test_a_reader_of_sealed_packs_by_the_document(tmp_path: Path, mixed: Path) -> None:
    """What a write-only server wrote, read with the passphrase and with the private key of an escrow key."""
    lab = Lab(tmp_path, chunk_size=4096)
    private, public = X25519PrivateKey.generate(), serialization.PublicFormat.SubjectPublicKeyInfo
    lab.open().key_files.add_escrow(private.public_key().public_bytes(serialization.Encoding.PEM, public))
    lab.open().key_files.add_writer(b"write only", cost=lab.secret.cost)
    passphrase, lab.secret = lab.secret.passphrase, Secret(b"write only")
    saveset = lab.backup(mixed)
    for reader in (Reader(lab.path, passphrase), Reader(lab.path, None, private)):
        assert reader.restore(lab.path / saveset.info.name) == mixed.read_bytes()
        writer = reader.seal.public_key().public_bytes_raw()
        assert reader.unwrap("writer", "writer", b"write only")[32:] == writer

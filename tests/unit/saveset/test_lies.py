# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that are whole, with right checksums and right MACs, and lie: nobody believes them, or they harm nobody.

Where nothing is encrypted anybody can make them, elsewhere whoever has a writer's key.  Each value of each object is
replaced by ones of other types, out of range, or with names that lead elsewhere; then everything that can be done with
a repository is done.  OPENISB_FUZZ=all takes each of these values at each place, else some are taken, others each time.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import random
import resource
import shutil
import struct
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import collect, punched, tombstone
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import (
    codec,
    commit,
    container,
    directory,
    document,
    footer,
    frame,
    page,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import records as checks
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import scrub

from .conftest import KIB, MIB, Lab, noise, text

pytestmark = pytest.mark.slow

EXHAUSTIVE = os.environ.get("OPENISB_FUZZ") == "all"
PLACES = 12  # of each object, unless all are
CHUNK = 4 * KIB
SIZE = 20 * CHUNK + 100
ID = "cd" * 16
SECONDS = 20  # for all that is done with one lie; a moment on a machine that does nothing else
MEMORY = 400 * MIB


def deep(levels: int) -> list[t.Any]:
    """Lists in each other."""
    found: list[t.Any] = []
    for _level in range(levels):
        found = [found]
    return found


def evil(outside: Path) -> list[t.Any]:
    """What no field may be."""
    return [
        *(
            None,
            True,
            -1,
            0,
            1 << 62,
            1 << 64,
            10**400,
            1.5,
            1e308,
            "",
            "x",
            "\ud800",
            "a\nb",
            "\x1b[2J",
            "A" * 100_000,
        ),
        *(str(outside / "precious"), "../outside/precious", f"maps/../../outside/{ID}", "..", "/", "00" * 16, "g" * 32),
        *(
            "ff" * 16 + "\n",
            "0" * 64,
            "9" * 5000,
            [],
            {},
            [None],
            [[0, -1]],
            [[0]],
            [["0", "1"]],
            {"": ""},
            {ID: [[0]]},
        ),
        *({"../x": [[0, 1]]}, deep(40), [0] * 1000),
    ]


class Liar:
    """A small repository with an object of each kind that is read, and what its savesets hold."""

    def __init__(self, folder: Path, encryption: str) -> None:
        self.lab = Lab(folder, encryption=encryption, chunk_size=CHUNK)
        self.path = self.lab.path
        self.outside = folder / "outside"
        self.outside.mkdir()
        for name in ("precious", ID, f"{ID}.json"):
            (self.outside / name).write_bytes(noise(20 * KIB))
        self.contents: dict[str, bytes] = {}
        self.image = folder / "image"
        self.image.write_bytes(text(8 * CHUNK) + bytes(2 * CHUNK) + noise(10 * CHUNK) + b"e" * 100)
        self._keep(self.lab.backup(self.image, source_id="s0"))
        gone = self.lab.backup(self.image, source_id="gone")
        extents = [(3 * CHUNK + 130, 200), (12 * CHUNK + 5, 60)]
        with open(self.image, "r+b") as stream:
            for offset, length in extents:
                stream.seek(offset)
                stream.write(noise(length))
        self._keep(
            self.lab.backup(self.image, source_id="s1", changes=Changes("gone", SIZE, extents), parent=gone.info)
        )
        repo = self.lab.open()
        self.ring = repo._ring
        self.maps = {info.map_id: info.id for info in repo.savesets() if info.id in self.contents}
        self.packs = sorted(self.lab.files("packs"))
        repo.pin(repo.find("fs1/m"), "ada", "before the move")
        repo.verify(depth="full")
        self.put("gc/forgotten/" + ID, collect.FORGOTTEN_KIND, self._forgotten(gone.info))
        pack = self.packs[0].name
        named = {"id": ID, "packs": [ID], "maps": [f"maps/fs1~m/{ID}"], "frames": {pack: [[64, 100]]}}
        self.put(f"{tombstone.FOLDER}/20260301T120000Z-{ID}", tombstone.KIND, named)
        self.put(f"{punched.FOLDER}/{ID}-1", punched.KIND, {"pack": ID, "ranges": [[64, 100]]})
        self.put("features/colour.json", "feature", {"features": {"read": [], "write": [], "optional": ["colour"]}})
        self.kept = folder / "kept"
        shutil.copytree(self.path, self.kept)

    def _keep(self, saveset: t.Any) -> None:
        self.contents[saveset.id] = self.image.read_bytes()

    @staticmethod
    def _forgotten(info: commit.SavesetInfo) -> dict[str, t.Any]:
        return {"commit": info.name, "volume": info.volume, "map_id": info.map_id}

    def put(self, name: str, kind: str, fields: dict[str, t.Any]) -> None:
        """Put a document with a right MAC."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document.sign_document(kind, fields, self.ring.mac))

    def put_back(self) -> None:
        """Make it as it was."""
        shutil.rmtree(self.path)
        shutil.copytree(self.kept, self.path)

    # -- what may happen

    def try_all(self, lie: str, where: str, hurt: t.Collection[str]) -> None:
        """Do all that can be done; errors are the engine's, and what the lie is not about is as it was.

        :param lie: the name of the object that lies; :param hurt: the savesets that need it.
        """
        begun = time.monotonic()
        for step in (self.look, self.scrub, self.prune, self.back_up):
            try:
                step(lie, hurt)
            except errors.SavesetError as error:
                assert str(error), where
                for text_of in (error.thing, error.cause, error.way_out):
                    assert len(text_of) < 10_000, where
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            except Exception as error:
                raise AssertionError(f"{where}: {step.__name__} raised {error!r}") from error
        assert time.monotonic() - begun < SECONDS, where
        for name in ("precious", ID, f"{ID}.json"):
            assert (self.outside / name).read_bytes() == noise(20 * KIB), where
        assert len(list(self.outside.iterdir())) == 3, where

    def look(self, lie: str, hurt: t.Collection[str]) -> None:
        """Whatever can be read is right, and every saveset that the lie is not about can be."""
        repo = self.lab.open()
        report = repo.verify(depth="full", record=False, workers=1)
        infos = {info.id: info for info in repo.savesets()}
        for saveset_id, content in self.contents.items():
            if saveset_id in hurt:
                continue
            assert infos[saveset_id].name
            assert repo.saveset(infos[saveset_id]).read(0, SIZE) == content
        for saveset_id in set(hurt) & set(infos):
            try:
                wrong = repo.saveset(infos[saveset_id]).read(0, SIZE) != self.contents[saveset_id]
            except errors.SavesetError:
                wrong = True
            assert not wrong or not report.ok, "it is not what was backed up, and verify does not tell"
        repo.pinned()
        repo.key_files.all()

    def scrub(self, _lie: str, _hurt: t.Collection[str]) -> None:
        """Without a key."""
        scrub.scrub(self.lab.store())

    def prune(self, lie: str, hurt: t.Collection[str]) -> None:
        """What savesets that are whole need is still there, and pins count."""
        repo = self.lab.open()
        options = PruneOptions(everywhere=True, threshold=0)
        repo.prune(Policy(last=5), options=options, dry_run=True)
        repo.prune(Policy(last=5), options=options)
        repo = self.lab.open()
        for info in repo.savesets():
            if info.id not in hurt and info.id in self.contents:
                assert repo.saveset(info).read(0, SIZE) == self.contents[info.id]

    def back_up(self, _lie: str, hurt: t.Collection[str]) -> None:
        """What is backed up now is what is restored; but what a parent tells is believed where its MAC is right."""
        saveset = self.lab.backup(self.image, volume="fs2/m")
        assert saveset.read(0, SIZE) == self.image.read_bytes()
        for number, extents in enumerate([[(3 * CHUNK + 200, 10), (8 * CHUNK, 10)], []], 1):
            told = Changes(f"s{number}", SIZE, extents)
            saveset = self.lab.backup(self.image, source_id=f"s{number + 1}", changes=told)
            assert hurt or saveset.read(0, SIZE) == self.image.read_bytes()


@pytest.fixture(scope="module", params=["none", "aes-256-gcm"])
def liar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Liar]:
    """Made once: every lie is taken back; all of them together get so much memory."""
    made = Liar(tmp_path_factory.mktemp("lies"), request.param)
    before = resource.getrlimit(resource.RLIMIT_AS)
    allowed = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (allowed, before[1]))
    yield made
    resource.setrlimit(resource.RLIMIT_AS, before)


# -- documents

KINDS = {
    "repo.json": "repository",
    "keys": "key",
    "features": "feature",
    "savesets": "saveset",
    "pins": "pin",
    "gc/forgotten": "forgotten",
    "gc/tombstones": "tombstone",
    "gc/punched": "punched",
    "checks": "check",
}
Way = tuple[str | int, ...]


def places(value: t.Any, way: Way = ()) -> t.Iterator[Way]:
    """The way to every value inside a value."""
    items: t.Iterable[tuple[t.Any, t.Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*way, key)
        yield from places(inner, (*way, key))


def replaced(body: dict[str, t.Any], way: Way, value: t.Any) -> dict[str, t.Any]:
    """The same with another value at one place."""
    found = copy.deepcopy(body)
    inner: t.Any = found
    for key in way[:-1]:
        inner = inner[key]
    inner[way[-1]] = value
    return found


def renamed(body: dict[str, t.Any], way: Way, name: str) -> dict[str, t.Any]:
    """The same with another name of a value; without it where the name is empty."""
    found = copy.deepcopy(body)
    inner: t.Any = found
    for key in way[:-1]:
        inner = inner[key]
    value = inner.pop(way[-1])
    if isinstance(inner, dict) and name:
        inner[name] = value
    return found


def lies_of(body: dict[str, t.Any], outside: Path) -> list[tuple[str, dict[str, t.Any]]]:
    """Bodies that lie, each with a text that tells where."""
    found = []
    for way in places(body):
        found += [(f"{way} = {value!r:.60}", replaced(body, way, value)) for value in evil(outside)]
        found += [(f"{way} named {name!r}", renamed(body, way, name)) for name in ("", "../outside/x", "g" * 32)]
    return found


def some_of(lies: list[t.Any]) -> list[t.Any]:
    """All, or as many as there is time for."""
    return lies if EXHAUSTIVE else random.sample(lies, min(len(lies), PLACES))


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_that_lies(liar: Liar, kind: str) -> None:
    path = liar.path / kind
    paths = [path] if path.is_file() else liar.lab.files(kind)
    if not paths:
        assert kind == "keys" and not liar.ring.encrypted
        return
    path = paths[0]
    name = str(path.relative_to(liar.path))
    body = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in ("mac", "hash")}
    hurt = {name.rpartition("-")[2]} if kind == "savesets" else set()
    for where, lie in some_of(lies_of(body, liar.outside)):
        if kind == "repo.json" and lie.get("encryption") != body["encryption"]:
            continue
        path.write_bytes(signed(liar, KINDS[kind], lie))
        liar.try_all(name, f"{name}: {where}", set(liar.contents) if kind == "repo.json" else hurt)
        liar.put_back()


def signed(liar: Liar, kind: str, body: dict[str, t.Any]) -> bytes:
    """A document with the right MAC, of just this body."""
    fields = {**body, "mac": liar.ring.mac(kind, document._canonical(body)).hex()}
    fields["hash"] = document.blake3(document._canonical(fields)).hexdigest()
    return document._canonical(fields) + b"\n"


def test_a_sealed_part_that_lies(liar: Liar) -> None:
    """What only who has a writer's keys can make."""
    if not liar.ring.encrypted:
        return  # it is in clear, and lies with the rest of the commit
    path = liar.lab.files("savesets")[0]
    name = str(path.relative_to(liar.path))
    fields = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in ("mac", "hash")}
    info = commit.decode_commit(name, path.read_bytes(), liar.ring)
    body = {key: getattr(info, key) for key in commit._SEALED} | {"stats": info.stats.as_dict()}
    for where, lie in some_of(lies_of(body, liar.outside)):
        cipher, bound = commit._cipher(liar.ring, info.id), commit._bound(info.id)
        sealed = cipher.encrypt(0, json.dumps(lie).encode(), bound)
        path.write_bytes(signed(liar, "saveset", {**fields, "sealed": base64.b64encode(sealed).decode()}))
        liar.try_all(name, f"{name}, sealed: {where}", {info.id})
        liar.put_back()


# -- packs and maps

NUMBERS = [0, 1, 3, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


def lies_of_fields(layout: struct.Struct, data: bytes, generator: random.Random) -> t.Iterator[tuple[str, bytes]]:
    """A record with each of its fields replaced by numbers and bytes that it may not have."""
    fields = list(layout.unpack(data))
    for at, field in enumerate(fields):
        values: list[t.Any] = NUMBERS
        if isinstance(field, bytes):
            values = [bytes(len(field)), b"\xff" * len(field), generator.randbytes(len(field))]
        for value in values:
            try:
                yield f"field {at} = {value!r}", layout.pack(*fields[:at], value, *fields[at + 1 :])
            except struct.error:
                continue  # it has no room for that


class Maker:
    """Takes a container apart, and puts it together anew with right checksums and right encryption."""

    def __init__(self, liar: Liar, path: Path, kind: container.Kind) -> None:
        self.liar = liar
        self.path = path
        self.kind = kind
        name = str(path.relative_to(liar.path))
        self.name = name
        opened = container.Container(liar.lab.store(), name, kind, liar.ring)
        self.layout = opened.layout
        self.data = path.read_bytes()
        self.footer = opened.footer()
        self.cipher = liar.ring.cipher(kind.footer_key, self.layout.container_id)

    def write(self, plain: bytes, frames: bytes | None = None, number: int = 0, length: int | None = None) -> None:
        """With another footer, and other frames."""
        prefix = self.layout.prefix
        frames = self.data[len(prefix) : self.layout.footer_offset] if frames is None else frames
        kind, packed = codec.Compressor(1).compress(plain)
        packing = (kind, bytes(packed), len(plain) if length is None else length)
        end = container.make_end(prefix, self.cipher, packing, len(prefix) + len(frames), number)
        self.path.write_bytes(prefix + frames + b"".join(end))


def hurt_by_pack(liar: Liar, path: Path) -> set[str]:
    repo = liar.lab.open()
    using = {info.id for info in repo.savesets() if bytes.fromhex(path.name) in repo.open_map(info).packs()}
    return using & set(liar.contents)


def test_a_footer_of_a_pack_that_lies(liar: Liar) -> None:
    path = liar.packs[0]
    hurt = hurt_by_pack(liar, path)
    maker = Maker(liar, path, container.PACK_KIND)
    session, rows = maker.footer[:32], maker.footer[32:]
    lies = [
        (where, session + row + rows[64:]) for where, row in lies_of_fields(footer.ROW, rows[:64], random.Random(1))
    ]
    lies += [("cut", maker.footer[:-1]), ("no session", b""), ("twice", maker.footer + rows), ("long", rows * 3000)]
    for where, plain in some_of(lies):
        maker.write(plain)
        liar.try_all(maker.name, f"{maker.name}, footer: {where}", hurt)
        liar.put_back()


def test_a_directory_of_a_map_that_lies(liar: Liar) -> None:
    path = next(path for path in liar.lab.files("maps") if path.name in liar.maps)
    maker = Maker(liar, path, container.MAP_KIND)
    head, rest = maker.footer[: directory._HEAD.size], maker.footer[directory._HEAD.size :]
    leaf, tail = rest[: directory._LEAF.size], rest[directory._LEAF.size :]
    generator = random.Random(2)
    lies = [(where, lie + rest) for where, lie in lies_of_fields(directory._HEAD, head, generator)]
    lies += [(where, head + lie + tail) for where, lie in lies_of_fields(directory._LEAF, leaf, generator)]
    lies += [("cut", maker.footer[:-1]), ("nothing", b""), ("long", maker.footer + bytes(1 << 20))]
    lies.append(("a volume without end", endless(leaf)))
    for where, plain in some_of(lies):
        maker.write(plain)
        liar.try_all(maker.name, f"{maker.name}, directory: {where}", {liar.maps[path.name]})
        liar.put_back()


def endless(leaf: bytes) -> bytes:
    """Of very many leaves, every second one of which uses all packs."""
    leaves, numbers = 1 << 15, 1 << 15
    head = directory._HEAD.pack(leaves * 1024 * CHUNK, CHUNK, 1024, leaves, 1, numbers)
    ends = struct.pack("<II", numbers, 0) * (leaves // 2 - 1) + struct.pack("<II", 0, numbers)
    return head + leaf * leaves + bytes(16) + ends + bytes(4 * numbers)


def test_a_page_that_lies(liar: Liar) -> None:
    """With a directory and a commit that name it as they would if it were true."""
    path = next(path for path in liar.lab.files("maps") if path.name in liar.maps)
    maker = Maker(liar, path, container.MAP_KIND)
    saveset_id = liar.maps[path.name]
    found = directory.Directory(maker.footer)
    leaf = found.leaf(0)
    opened = container.Container(liar.lab.store(), maker.name, container.MAP_KIND, liar.ring)
    _head, plain = opened.frame(leaf.offset, leaf.length)
    plain = bytes(plain)
    generator = random.Random(3)
    lies = [("cut", plain[:-1]), ("nothing", b""), ("long", plain + bytes(3 << 20))]
    for position in (0, 3, 8):
        begin, end = position * page.ENTRY_BYTES, (position + 1) * page.ENTRY_BYTES
        lies += [
            (f"entry {position}, {where}", plain[:begin] + lie + plain[end:])
            for where, lie in lies_of_fields(page.ENTRY, plain[begin:end], generator)
        ]
    tail = found.geometry.leaf_entries(0) * page.ENTRY_BYTES
    if len(plain) > tail:
        piece = plain[tail : tail + page.PIECE.size]
        lies += [
            (f"piece, {where}", plain[:tail] + lie + plain[tail + page.PIECE.size :])
            for where, lie in lies_of_fields(page.PIECE, piece, generator)
        ]
    for where, lie in some_of(lies):
        kind, packed = codec.Compressor(1).compress(lie)
        cipher = liar.ring.cipher(container.MAP_KIND.frame_key, maker.layout.container_id)
        sealed = b"".join(frame.seal_frame(maker.layout.prefix, cipher, 0, kind, b"", len(lie), packed))
        line = leaf._replace(
            offset=len(maker.layout.prefix), length=len(sealed), page_hash=document.blake3(lie).digest()
        )
        head = maker.footer[: directory._HEAD.size]
        rest = maker.footer[directory._HEAD.size + directory._LEAF.size :]
        maker.write(head + directory._LEAF.pack(*line) + rest, sealed, 1)
        liar.try_all(maker.name, f"{maker.name}, page: {where}", {saveset_id})
        liar.put_back()


@pytest.mark.parametrize("kind", ["packs", "maps"])
def test_a_header_that_lies(liar: Liar, kind: str) -> None:
    path = next(path for path in liar.lab.files(kind) if kind == "packs" or path.name in liar.maps)
    hurt = hurt_by_pack(liar, path) if kind == "packs" else {liar.maps[path.name]}
    name = str(path.relative_to(liar.path))
    good = path.read_bytes()
    header, trailer = container._HEADER, container._TRAILER
    generator = random.Random(4)
    lies = []
    for where, lie in lies_of_fields(header, good[: header.size], generator):
        prefix = lie + container._check(lie)
        end = good[-container.TRAILER_BYTES :][: trailer.size]
        lies.append((f"header, {where}", prefix + good[64:-16] + container._check(prefix + end)))
    for where, lie in lies_of_fields(trailer, good[-48:][: trailer.size], generator):
        lies.append((f"trailer, {where}", good[:-48] + lie + container._check(good[:64] + lie)))
    for where, lie in lies_of_fields(frame._HEAD, good[64 : 64 + frame._HEAD.size], generator):
        lies.append((f"frame, {where}", good[:64] + lie + good[64 + frame._HEAD.size :]))
    for where, data in some_of(lies):
        path.write_bytes(data)
        liar.try_all(name, f"{name}, {where}", hurt)
        liar.put_back()


def test_the_liar_is_whole(liar: Liar) -> None:
    """What all lies begin with."""
    repo = liar.lab.open()
    assert repo.verify(depth="full", record=False).ok
    assert set(liar.contents) < {info.id for info in repo.savesets()}
    assert checks.Checks(liar.lab.store(), liar.ring).problems == []
    liar.try_all("", "nothing", set())
    liar.put_back()

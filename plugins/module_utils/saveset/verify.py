# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification of savesets at three depths, naming every object that is damaged and the savesets it hurts.

structure: commits, maps and the packs' indexes are there, authentic, and fit each other and the volume's digest.
stored:    and every frame of the packs they use has the bytes that were written (hashes: no decryption).
full:      and every chunk they use decrypts, decompresses and hashes to its identity.
"""

from __future__ import annotations

import collections
import threading
import typing as t
from dataclasses import dataclass, field

from .commit import SavesetInfo
from .container import PACK_KIND, Container, object_name
from .directory import Leaf
from .errors import InvalidValue, SavesetError
from .extent import GRAINS, SPLIT
from .footer import PackFooter, Row
from .frame import check_hash, parse_head
from .keys import KeyRing
from .leafmap import LeafMap, content_digest, merkle_root, volume_digest
from .page import GRAINS_PER_CHUNK, Page, split_identity
from .parallel import run_parallel
from .progress import Counters, Progress
from .punched import NOTHING, PunchedPacks, Ranges
from .store import Store
from .volume import volume_folder

STRUCTURE = "structure"
STORED = "stored"
FULL = "full"
DEPTHS = (STRUCTURE, STORED, FULL)

_ROW_SETS = 64  # packs' indexes kept at once
_OFFSETS_NAMED = 5

OpenMap = t.Callable[[SavesetInfo], LeafMap]


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    ``problems`` are dictionaries with ``saveset`` and ``volume`` (None where no saveset is hurt), ``object`` and
    ``problem``; ``bytes`` of packs read; ``seconds`` of wall time.
    """

    ok: bool
    depth: str
    savesets: int
    problems: list[dict[str, str | None]] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0


class _LeafVerdict(t.NamedTuple):
    """What was found in a leaf; leaves that savesets share are looked at once."""

    packs: frozenset[bytes]
    digest: bytes
    problems: tuple[tuple[str, str], ...]


class Verifier:
    """One verification."""

    def __init__(self, store: Store, ring: KeyRing, depth: str) -> None:
        if depth not in DEPTHS:
            raise InvalidValue(f"depth {depth!r}", "it is unknown", f"Use one of {', '.join(DEPTHS)}")
        self._store = store
        self._ring = ring
        self._depth = depth
        self._lock = threading.Lock()
        self._punched = PunchedPacks(store, ring)
        self._places: collections.OrderedDict[bytes, frozenset[bytes]] = collections.OrderedDict()
        self._containers: dict[bytes, Container | None] = {}
        self._leaves: dict[tuple[str, bytes, int], _LeafVerdict] = {}
        self._bad_packs: dict[bytes, str] = {}
        self._bad_frames: dict[bytes, dict[int, str]] = {}
        self._problems: list[dict[str, str | None]] = []
        self._counters = Counters()

    def add_problem(self, name: str, problem: str, info: SavesetInfo | None = None, volume: str = "") -> None:
        """Record a problem, of a saveset or of the repository."""
        found = {
            "saveset": info.id if info else None,
            "volume": info.volume if info else volume or None,
            "object": name,
            "problem": problem,
        }
        if found not in self._problems:
            self._problems.append(found)

    def run(
        self,
        savesets: t.Sequence[SavesetInfo],
        open_map: OpenMap,
        workers: int,
        progress: t.Callable[[Progress], None] | None,
    ) -> VerifyReport:
        """Verify savesets; damage is reported, not raised."""
        maps: list[tuple[SavesetInfo, LeafMap, set[bytes]]] = []
        for info in savesets:
            try:
                leaf_map = open_map(info)
            except SavesetError as error:
                self.add_problem(_map_name(info), error.cause, info)
                continue
            maps.append((info, leaf_map, self._check_map(info, leaf_map)))
        if self._depth != STRUCTURE:
            self._check_packs(set().union(*(packs for _info, _map, packs in maps)), workers, progress)
            for info, leaf_map, packs in maps:
                if not packs.isdisjoint(self._bad_frames):
                    self._name_hurt_chunks(info, leaf_map)
        sums = self._counters
        return VerifyReport(not self._problems, self._depth, len(savesets), self._problems, sums["read"], sums.seconds)

    # -- structure

    def _check_map(self, info: SavesetInfo, leaf_map: LeafMap) -> set[bytes]:
        """Check a saveset's map against its commit and the packs; returns the packs that it uses."""
        packs: set[bytes] = set()
        digests = []
        if (leaf_map.geometry.size, leaf_map.geometry.chunk_size) != (info.size, info.chunk_size):
            self.add_problem(leaf_map.name, "its size is not the one in the commit", info)
        for number, leaf in enumerate(leaf_map.leaves()):
            verdict = self._check_leaf(info, leaf_map, number, leaf)
            packs |= verdict.packs
            digests.append(verdict.digest)
            for name, problem in verdict.problems:
                self.add_problem(name, problem, info)
        if merkle_root(self._ring, leaf_map.leaves()).hex() != info.root:
            self.add_problem(leaf_map.name, "its Merkle root is not the one in the commit", info)
        if volume_digest(self._ring, leaf_map.geometry, digests).hex() != info.digest:
            self.add_problem(leaf_map.name, "the volume's digest is not the one in the commit", info)
        return packs

    def _check_leaf(self, info: SavesetInfo, leaf_map: LeafMap, number: int, leaf: Leaf) -> _LeafVerdict:
        entries = leaf_map.geometry.leaf_entries(number)
        key = (info.volume, leaf.map_id, leaf.offset << 16 | leaf.kind << 12 | entries)
        if key not in self._leaves:
            try:
                page = leaf_map.page(number)
            except SavesetError as error:
                problems = ((leaf_map.leaf_name(leaf), error.cause),)
                return _LeafVerdict(frozenset(), leaf.digest, problems)
            self._leaves[key] = self._check_page(leaf_map.leaf_name(leaf), page, leaf_map.leaf_packs(number))
        return self._leaves[key]

    def _check_page(self, name: str, page: Page, packs: t.Collection[bytes]) -> _LeafVerdict:
        lost: dict[bytes, int] = {}
        named = set()
        for place in page.places():
            pack = place[32:48]
            named.add(pack)
            if place[:32] + place[48:] not in self._pack_places(pack):
                lost[pack] = lost.get(pack, 0) + 1
        problems = [
            (object_name(PACK_KIND, pack), self._bad_packs.get(pack, "its index lacks chunks that a map names"))
            for pack in lost
        ]
        if named != set(packs):
            problems.append((name, "its directory does not name the packs that its pages do"))
        if not self._splits_are_whole(page):
            problems.append((name, "a chunk is not what its pieces make"))
        return _LeafVerdict(frozenset(named - set(self._bad_packs)), content_digest(self._ring, page), tuple(problems))

    def _splits_are_whole(self, page: Page) -> bool:
        try:
            return all(
                split_identity(self._ring, page.pieces(position)) == entry.identity
                for position, entry in enumerate(page.entries())
                if entry.kind == SPLIT
            )
        except ValueError:
            return False

    def _pack_places(self, pack: bytes) -> frozenset[bytes]:
        """What a pack's index holds; empty, and the reason kept, when it cannot be read."""
        places = self._places.get(pack)
        if places is None:
            footer = self._footer(pack)
            punched = self._punched_of(pack)
            places = frozenset(
                place
                for place in (footer.places() if footer else ())
                if not punched or int.from_bytes(place[32:40], "little") not in punched
            )
            self._places[pack] = places
            while len(self._places) > _ROW_SETS:
                self._places.popitem(last=False)
        return places

    def _punched_of(self, pack: bytes) -> Ranges:
        """What was punched out of a pack on purpose: no map may name it, and it is not looked at."""
        try:
            return self._punched.ranges(pack)
        except SavesetError as error:
            self.add_problem(error.thing, error.cause)
            return NOTHING

    def _footer(self, pack: bytes) -> PackFooter | None:
        try:
            container = self._containers.get(pack)
            if container is None:
                container = Container(self._store, object_name(PACK_KIND, pack), PACK_KIND, self._ring)
                self._containers[pack] = container
            return PackFooter(container.footer())
        except SavesetError as error:
            self._bad_packs[pack] = error.cause
        except ValueError as error:
            self._bad_packs[pack] = f"its footer makes no sense: {error}"
        return None

    # -- stored and full

    def _check_packs(self, packs: set[bytes], workers: int, progress: t.Callable[[Progress], None] | None) -> None:
        containers = [self._containers[pack] for pack in sorted(packs)]
        good = [container for container in containers if container is not None]
        total = sum(container.layout.footer_offset for container in good)
        tick = (lambda: progress(self._counters.progress(total))) if progress else None
        run_parallel(good, self._check_pack, workers, tick)

    def _check_pack(self, container: Container) -> None:
        frames: dict[int, list[Row]] = {}
        punched = self._punched_of(container.layout.container_id)
        for row in PackFooter(container.footer()).rows():
            if not punched or row.offset not in punched:
                frames.setdefault(row.offset, []).append(row)
        for offset, rows in sorted(frames.items()):
            length = rows[0].length
            try:
                problem = self._check_frame(container, offset, length, rows)
            except SavesetError as error:
                problem = error.cause
            self._counters.add(done=length, read=length)
            if problem:
                with self._lock:
                    self._bad_frames.setdefault(container.layout.container_id, {})[offset] = problem

    def _check_frame(self, container: Container, offset: int, length: int, rows: list[Row]) -> str:
        """What is wrong with a frame; empty when nothing is."""
        data = self._store.get(container.name, offset, length)
        head = parse_head(data)
        if head is None or head.length != length or not check_hash(container.layout.prefix, head, data):
            return f"its frame at offset {offset} is damaged"
        if head.identities != tuple(row.identity for row in rows):
            return f"its frame at offset {offset} does not hold the chunks that its index names"
        if self._depth != FULL:
            return ""
        plain = container.open_frame(head, data)
        if plain is None:
            return f"its frame at offset {offset} cannot be decrypted"
        chunk_size = container.layout.chunk_size
        grain = chunk_size // GRAINS_PER_CHUNK
        for row in rows:
            unit, length = (grain, row.mask.bit_count() * grain) if row.kind == GRAINS else (chunk_size, chunk_size)
            stored = memoryview(plain)[row.place * unit : row.place * unit + length]
            if self._ring.identity(stored) != row.identity:
                return f"place {row.place} of its frame at offset {offset} does not hash to its identity"
        return ""

    def _name_hurt_chunks(self, info: SavesetInfo, leaf_map: LeafMap) -> None:
        """Record which bytes of a saveset's volume the bad frames hold."""
        hurt: dict[tuple[bytes, int], list[int]] = {}
        chunk = 0
        for number in range(leaf_map.geometry.leaves):
            for position, place in self._bad_places(leaf_map, number):
                hurt.setdefault(place, []).append(chunk + position)
            chunk += leaf_map.geometry.leaf_entries(number)
        for (pack, offset), chunks in sorted(hurt.items()):
            at = ", ".join(str(number * info.chunk_size) for number in chunks[:_OFFSETS_NAMED])
            more = f" and {len(chunks) - _OFFSETS_NAMED} more" if len(chunks) > _OFFSETS_NAMED else ""
            problem = f"{self._bad_frames[pack][offset]}; it holds the volume's chunks at offsets {at}{more}"
            self.add_problem(object_name(PACK_KIND, pack), problem, info)

    def _bad_places(self, leaf_map: LeafMap, number: int) -> t.Iterator[tuple[int, tuple[bytes, int]]]:
        """The positions of a leaf whose chunks are in bad frames, and these frames."""
        try:
            page = leaf_map.page(number)
            for position in range(page.count):
                for piece in page.pieces(position):
                    if piece.has_data and piece.offset in self._bad_frames.get(piece.pack, ()):
                        yield position, (piece.pack, piece.offset)
        except (SavesetError, ValueError):
            return  # reported already


def _map_name(info: SavesetInfo) -> str:
    return f"maps/{volume_folder(info.volume)}/{info.map_id}"

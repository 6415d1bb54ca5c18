# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verification of savesets at three depths, naming every damaged object and the savesets it affects.

structure: commits, maps and the packs' indexes exist, are authentic, and match each other and the volume's digest.
stored:    also, every frame of the packs they use has the bytes that were written (hashes: no decryption).
full:      also, every chunk they use decrypts, decompresses and hashes to its identity.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import typing as t
from dataclasses import dataclass, field

from ..base.errors import InvalidValue, NotFound, SavesetError
from ..base.extent import SPLIT
from ..base.progress import Counters, ProgressCallback
from ..base.volume import volume_folder
from ..collect.punched import NOTHING, PunchedPacks, Ranges
from ..format.commit import SavesetInfo
from ..format.container import PACK_KIND, Container, object_name
from ..format.directory import Leaf
from ..format.footer import PackFooter
from ..format.leafmap import LeafMap, content_digest, merkle_root, volume_digest
from ..format.page import Page, split_identity
from ..keys.keys import KeyRing
from ..store.store import Store
from .packcheck import Limits, PackChecker
from .records import FULL, STORED, Checks
from .scrub import objects_in

STRUCTURE = "structure"
DEPTHS = (STRUCTURE, STORED, FULL)

_ROW_SETS = 64  # the most cached packs' indexes
_ROWS_KEPT = 1 << 20  # the most cached rows in them
_OFFSETS_NAMED = 5
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_LOOSE = "no saveset uses it"

OpenMap = t.Callable[[SavesetInfo], LeafMap]


class Scope(t.NamedTuple):
    """How much to verify.

    ``older_than``: skip packs that were verified to this depth or a deeper one within this time;
    ``loose_packs``: also verify packs that no saveset uses.
    """

    older_than: datetime.timedelta | None = None
    limits: Limits = Limits()
    loose_packs: bool = False


class Coverage(t.NamedTuple):
    """How much is verified, as in VerifyReport."""

    bytes_total: int = 0
    bytes_verified: int = 0
    packs_never: int = 0
    oldest: datetime.datetime | None = None
    recorded: bool = False


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found.

    ``problems`` are dictionaries with ``saveset`` and ``volume`` (None if no saveset is affected), ``object`` and
    ``problem``; ``bytes`` of packs read; ``seconds`` of wall time.

    Except for depth ``structure``: ``bytes_total`` of the packs that the savesets use; ``bytes_verified`` of them that
    were verified to this depth now or within the given age (ever, if none was given); ``packs_never`` is the number of
    packs that were never verified or are damaged; ``oldest`` is when the least recently verified pack was verified,
    None unless all were; ``recorded``: whether what was verified now is recorded in the repository.
    """

    ok: bool
    depth: str
    savesets: int
    problems: list[dict[str, str | None]] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0
    bytes_total: int = 0
    bytes_verified: int = 0
    packs_never: int = 0
    oldest: datetime.datetime | None = None
    recorded: bool = False


class _LeafVerdict(t.NamedTuple):
    """What was found in a leaf; leaves that savesets share are verified once."""

    packs: frozenset[bytes]
    digest: bytes
    problems: tuple[tuple[str, str], ...]


class Verifier:
    """One verification."""

    def __init__(self, store: Store, ring: KeyRing, depth: str, records: bool, warn: t.Callable[[str], object]) -> None:
        """:param records: whether to record in the repository what was verified.
        :param warn: called with each warning.
        """
        if depth not in DEPTHS:
            raise InvalidValue(f"depth {depth!r}", "it is unknown", f"Use one of {', '.join(DEPTHS)}")
        self._store = store
        self._ring = ring
        self._depth = depth
        self._punched = PunchedPacks(store, ring)
        self._records = records
        self._warn = warn
        self._checks = Checks(store, ring)
        self._places: collections.OrderedDict[bytes, frozenset[bytes]] = collections.OrderedDict()
        self._places_kept = 0
        self._containers: dict[bytes, Container | None] = {}
        self._leaves: dict[tuple[str, bytes, int], _LeafVerdict] = {}
        self._bad_packs: dict[bytes, str] = {}
        self._gone: set[bytes] = set()
        self._problems: list[dict[str, str | None]] = []
        self._counters = Counters()
        self._checker = PackChecker(store, ring, self._punched_of, depth == FULL, self._counters)

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
        scope: Scope,
        workers: int,
        progress: ProgressCallback | None,
    ) -> VerifyReport:
        """Verify savesets; damage is reported, not raised."""
        for name, problem in self._checks.problems:
            self.add_problem(name, problem)
        maps: list[tuple[SavesetInfo, set[bytes]]] = []  # not the maps themselves, which together may be large
        for info in savesets:
            try:
                leaf_map = open_map(info)
            except SavesetError as error:
                self.add_problem(_map_name(info), error.cause, info)
                continue
            maps.append((info, self._check_map(info, leaf_map)))
        used: set[bytes] = set().union(*(packs for _info, packs in maps))
        loose = self._loose_packs(used) if scope.loose_packs else set()
        coverage = Coverage()
        if self._depth != STRUCTURE:
            coverage = self._check_packs(used | loose, scope, workers, progress)
            for info, packs in maps:
                if not packs.isdisjoint(self._checker.bad):
                    with contextlib.suppress(SavesetError):  # it was readable before
                        self._name_hurt_chunks(info, open_map(info))
            for pack in sorted(loose.intersection(self._checker.bad)):
                for _offset, problem in sorted(self._checker.bad[pack].items()):
                    self.add_problem(object_name(PACK_KIND, pack), f"{problem}; {_LOOSE}")
        sums = self._counters
        return VerifyReport(
            not self._problems, self._depth, len(savesets), self._problems, sums["read"], sums.seconds, *coverage
        )

    def _loose_packs(self, used: set[bytes]) -> set[bytes]:
        """Packs that no saveset uses yet; the next backup may.  Reports those with a damaged index."""
        found = {bytes.fromhex(name.rpartition("/")[2]) for name in objects_in(self._store, "packs")}
        loose = set()
        for pack in sorted(found - used - set(self._bad_packs)):
            if self._footer(pack) is not None:
                loose.add(pack)
            elif pack not in self._gone:
                self.add_problem(object_name(PACK_KIND, pack), f"{self._bad_packs[pack]}; {_LOOSE}")
        return loose

    # -- structure

    def _check_map(self, info: SavesetInfo, leaf_map: LeafMap) -> set[bytes]:
        """Verify a saveset's map against its commit and the packs; returns the packs that it uses."""
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
            problems.append((name, "its directory does not list the packs that its pages name"))
        if not self._splits_are_whole(page):
            problems.append((name, "a chunk does not match its pieces"))
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
        """The content of a pack's index; if it cannot be read, empty, and the reason is kept."""
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
            self._places_kept += len(places)
            while len(self._places) > 1 and (len(self._places) > _ROW_SETS or self._places_kept > _ROWS_KEPT):
                self._places_kept -= len(self._places.popitem(last=False)[1])
        return places

    def _punched_of(self, pack: bytes) -> Ranges:
        """What was punched out of a pack on purpose: no map may name it, and it is not verified."""
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
            if isinstance(error, NotFound):
                self._gone.add(pack)
        except ValueError as error:
            self._bad_packs[pack] = f"its footer is invalid: {error}"
        return None

    # -- stored and full

    def _check_packs(
        self, packs: set[bytes], scope: Scope, workers: int, progress: ProgressCallback | None
    ) -> Coverage:
        """Verify the packs that are due, the least recently verified first."""
        containers = {pack: container for pack in sorted(packs) if (container := self._containers.get(pack))}
        due = [pack for pack in containers if not self._is_current(pack, scope)]
        due.sort(key=lambda pack: (self._last(pack) or _NEVER, pack))
        total = sum(containers[pack].layout.footer_offset for pack in due)
        if scope.limits.bytes is not None:
            total = min(total, scope.limits.bytes)
        tick = (lambda: progress(self._counters.progress(total))) if progress else None
        try:
            self._checker.run([containers[pack] for pack in due], scope.limits, workers, tick)
        finally:
            recorded = self._record()
        return self._coverage(containers, scope, recorded)

    def _last(self, pack: bytes) -> datetime.datetime | None:
        return self._checks.last(pack, self._depth)

    def _is_current(self, pack: bytes, scope: Scope) -> bool:
        """Whether a pack was verified recently enough to be skipped now."""
        last = self._last(pack)
        return scope.older_than is not None and last is not None and last > self._checks.now - scope.older_than

    def _record(self) -> bool:
        """Record what was verified; False if that is not possible, because verifying must work read-only."""
        good, bad = self._checker.good, set(self._checker.bad) | set(self._bad_packs)
        if not self._records or not (good or bad or self._checks.problems):
            return False
        try:
            self._checks.record(self._depth, good, bad)
        except SavesetError as error:
            self._warn(
                "What was verified could not be recorded in the repository, so the next verification will not know "
                f"about it ({error})"
            )
            return False
        return True

    def _coverage(self, containers: t.Mapping[bytes, Container], scope: Scope, recorded: bool) -> Coverage:
        now = self._checks.now
        total = current = 0
        times: list[datetime.datetime | None] = []
        for pack, container in containers.items():
            size = container.layout.footer_offset + container.layout.footer_length
            good = pack in self._checker.good
            last = None if pack in self._checker.bad else now if good else self._last(pack)
            total += size
            if last is not None and (good or scope.older_than is None or self._is_current(pack, scope)):
                current += size
            times.append(last)
        known = [moment for moment in times if moment is not None]
        oldest = min(known) if known and len(known) == len(times) else None
        return Coverage(total, current, len(times) - len(known), oldest, recorded)

    def _name_hurt_chunks(self, info: SavesetInfo, leaf_map: LeafMap) -> None:
        """Report which bytes of a saveset's volume the bad frames hold."""
        hurt: dict[tuple[bytes, int], list[int]] = {}
        counts: collections.Counter[tuple[bytes, int]] = collections.Counter()
        chunk = 0
        for number in range(leaf_map.geometry.leaves):
            for position, place in self._bad_places(leaf_map, number):
                counts[place] += 1
                if counts[place] <= _OFFSETS_NAMED:
                    hurt.setdefault(place, []).append(chunk + position)
            chunk += leaf_map.geometry.leaf_entries(number)
        for (pack, offset), chunks in sorted(hurt.items()):
            at = ", ".join(str(number * info.chunk_size) for number in chunks)
            left = counts[(pack, offset)] - len(chunks)
            more = f" and {left} more" if left else ""
            problem = f"{self._checker.bad[pack][offset]}; it holds the volume's chunks at offsets {at}{more}"
            self.add_problem(object_name(PACK_KIND, pack), problem, info)

    def _bad_places(self, leaf_map: LeafMap, number: int) -> t.Iterator[tuple[int, tuple[bytes, int]]]:
        """The positions in a leaf whose chunks are in bad frames, and these frames."""
        try:
            page = leaf_map.page(number)
            for position in range(page.count):
                for piece in page.pieces(position):
                    if piece.has_data and piece.offset in self._checker.bad.get(piece.pack, ()):
                        yield position, (piece.pack, piece.offset)
        except (SavesetError, ValueError):
            return  # already reported


def _map_name(info: SavesetInfo) -> str:
    return f"maps/{volume_folder(info.volume)}/{info.map_id}"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What savesets use: packs and maps from the maps' directories, frames from their pages.

Savesets share most of their leaves, and each leaf is read once.  Volumes are processed one after the other, so that
only the leaves of one volume are in memory.
"""

from __future__ import annotations

import array
import bisect
import itertools
import operator
import struct
import typing as t

from ..base.errors import SavesetError
from ..base.volume import volume_folder
from ..format.commit import SavesetInfo
from ..format.container import MAP_KIND, PACK_KIND, Container, object_name
from ..format.directory import PAGE, Leaf
from ..format.footer import PackFooter
from ..format.leafmap import LeafMap
from ..format.page import Page
from ..keys.keys import KeyRing
from ..store.store import Store

_PLACE_OFFSET = struct.Struct("<48xQ")  # in an entry or a piece, after identity and pack id


class Root(t.NamedTuple):
    """The map of a saveset, whether or not its commit still exists."""

    volume: str
    map_id: bytes

    @classmethod
    def of(cls, info: SavesetInfo) -> Root:
        """The root of a saveset."""
        return cls(info.volume, bytes.fromhex(info.map_id))


class FrameTable:
    """The frames of one pack, and which of them are used."""

    def __init__(self, container: Container) -> None:
        """Raises Damaged; ValueError if the footer is invalid."""
        lengths = {row.offset: row.length for row in PackFooter(container.footer()).rows()}
        self._offsets = array.array("Q", sorted(lengths))
        self._lengths = array.array("I", (lengths[offset] for offset in self._offsets))
        ends = [len(container.layout.prefix), *map(operator.add, self._offsets, self._lengths)]
        if any(map(operator.lt, self._offsets, ends)) or ends[-1] > container.layout.footer_offset:
            raise ValueError("its footer names frames that overlap or are outside")  # frames in use could be punched
        self._used = bytearray(len(self._offsets))
        #: Bytes of all frames.
        self.bytes = sum(self._lengths)

    def use(self, offset: int) -> None:
        """Mark the frame at ``offset`` as used."""
        number = bisect.bisect_left(self._offsets, offset)
        if number < len(self._offsets) and self._offsets[number] == offset:
            self._used[number] = 1

    def unused(self) -> t.Iterator[tuple[int, int]]:
        """Offset and length of the unused frames."""
        for number, used in enumerate(self._used):
            if not used:
                yield self._offsets[number], self._lengths[number]


class References:
    """What some savesets use."""

    def __init__(self, store: Store, ring: KeyRing, savesets: t.Iterable[SavesetInfo]) -> None:
        """Reads the directories of all maps.  Raises NotFound, Damaged, StoreError, UnsupportedFormat."""
        self._store = store
        self._ring = ring
        savesets = list(savesets)
        #: The names of their commits.
        self.commits = frozenset(info.name for info in savesets)
        self._roots = sorted(Root.of(info) for info in savesets)
        self.packs: set[bytes] = set()
        #: Names of the maps.
        self.maps: set[str] = set()
        for root in self._roots:
            leaf_map = self._open(root)
            ids = {leaf.map_id for leaf in leaf_map.leaves() if leaf.kind == PAGE} | {root.map_id}
            self.maps |= {object_name(MAP_KIND, map_id, volume_folder(root.volume)) for map_id in ids}
            self.packs |= leaf_map.packs()

    def packs_left_by(self, roots: t.Iterable[Root]) -> set[bytes]:
        """The packs that these maps use through leaves that none of the savesets has.

        Maps that cannot be read are skipped.  Raises NotFound, Damaged for a map of the savesets.
        """
        left: set[bytes] = set()
        for volume, some in itertools.groupby(sorted(roots), key=lambda root: root.volume):
            used = {_key(leaf) for _map, _number, leaf in self._leaves(volume)}
            for root in some:
                try:
                    leaf_map = self._open(root)
                except SavesetError:
                    continue
                for number, leaf in enumerate(leaf_map.leaves()):
                    if leaf.kind == PAGE and _key(leaf) not in used:
                        left.update(leaf_map.leaf_packs(number))
        return left

    def use_frames(self, tables: dict[bytes, FrameTable]) -> None:
        """Mark in the tables the frames that the savesets use; removes tables for which that cannot be determined.

        Raises NotFound, Damaged for a map's directory.
        """
        if not tables:
            return
        for volume in sorted({root.volume for root in self._roots}):
            for leaf_map, number, _leaf in self._leaves(volume):
                packs = leaf_map.leaf_packs(number)
                if not tables.keys().isdisjoint(packs):
                    try:
                        _use_page(leaf_map.page(number), tables)
                    except SavesetError:
                        for pack in packs:
                            tables.pop(pack, None)

    def _leaves(self, volume: str) -> t.Iterator[tuple[LeafMap, int, Leaf]]:
        """Every distinct leaf with a page in a volume's savesets."""
        seen: set[bytes] = set()
        for root in self._roots:
            if root.volume != volume:
                continue
            leaf_map = self._open(root)
            for number, leaf in enumerate(leaf_map.leaves()):
                if leaf.kind == PAGE and _key(leaf) not in seen:
                    seen.add(_key(leaf))
                    yield leaf_map, number, leaf

    def _open(self, root: Root) -> LeafMap:
        return LeafMap(self._store, self._ring, volume_folder(root.volume), root.map_id)


def frame_table(store: Store, ring: KeyRing, pack: bytes) -> FrameTable:
    """The table of a pack.  Raises NotFound, Damaged; ValueError if its footer is invalid."""
    return FrameTable(Container(store, object_name(PACK_KIND, pack), PACK_KIND, ring))


def _use_page(page: Page, tables: t.Mapping[bytes, FrameTable]) -> None:
    for place in page.places():
        table = tables.get(place[32:48])
        if table is not None:
            table.use(_PLACE_OFFSET.unpack_from(place)[0])


def _key(leaf: Leaf) -> bytes:
    return leaf.map_id + leaf.offset.to_bytes(8, "little")

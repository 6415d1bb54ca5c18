# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What savesets use: packs and maps from the maps' directories, frames from their pages.

Savesets share most of their leaves; each leaf is looked at once.  Volumes are taken one after the other, so that memory
holds the leaves of one of them.
"""

from __future__ import annotations

import array
import bisect
import itertools
import operator
import struct
import typing as t

from .commit import SavesetInfo
from .container import MAP_KIND, PACK_KIND, Container, object_name
from .directory import PAGE, Leaf
from .errors import SavesetError
from .footer import PackFooter
from .keys import KeyRing
from .leafmap import LeafMap
from .page import Page
from .store import Store
from .volume import volume_folder

_PLACE_OFFSET = struct.Struct("<48xQ")  # of an entry or a piece, after identity and pack id


class Root(t.NamedTuple):
    """The map of a saveset, be there still a commit that names it or not."""

    volume: str
    map_id: bytes

    @classmethod
    def of(cls, info: SavesetInfo) -> Root:
        """The root of a saveset."""
        return cls(info.volume, bytes.fromhex(info.map_id))


class FrameTable:
    """The frames of one pack, and which of them something uses."""

    def __init__(self, container: Container) -> None:
        """Raises Damaged; ValueError when the footer makes no sense."""
        lengths = {row.offset: row.length for row in PackFooter(container.footer()).rows()}
        self._offsets = array.array("Q", sorted(lengths))
        self._lengths = array.array("I", (lengths[offset] for offset in self._offsets))
        ends = [len(container.layout.prefix), *map(operator.add, self._offsets, self._lengths)]
        if any(map(operator.lt, self._offsets, ends)) or ends[-1] > container.layout.footer_offset:
            raise ValueError("its footer names frames that lie in each other, or outside")  # one would be punched out
        self._used = bytearray(len(self._offsets))
        #: Bytes of all frames.
        self.bytes = sum(self._lengths)

    def use(self, offset: int) -> None:
        """Say that something uses the frame at ``offset``."""
        number = bisect.bisect_left(self._offsets, offset)
        if number < len(self._offsets) and self._offsets[number] == offset:
            self._used[number] = 1

    def unused(self) -> t.Iterator[tuple[int, int]]:
        """Offset and length of the frames that nothing uses."""
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
        """The packs of which these maps use something through leaves that none of the savesets has.

        Of maps that cannot be read nothing is known.  Raises NotFound, Damaged of a map of the savesets.
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
        """Say in the tables which frames the savesets use; tables of which that cannot be known are taken out.

        Raises NotFound, Damaged of a map's directory.
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
        """Every leaf of a volume's savesets that has a page, once."""
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
    """The table of a pack.  Raises NotFound, Damaged; ValueError when its footer makes no sense."""
    return FrameTable(Container(store, object_name(PACK_KIND, pack), PACK_KIND, ring))


def _use_page(page: Page, tables: t.Mapping[bytes, FrameTable]) -> None:
    for place in page.places():
        table = tables.get(place[32:48])
        if table is not None:
            table.use(_PLACE_OFFSET.unpack_from(place)[0])


def _key(leaf: Leaf) -> bytes:
    return leaf.map_id + leaf.offset.to_bytes(8, "little")

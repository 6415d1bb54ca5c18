# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps: where each chunk of a saveset is.

Every saveset is logically full: a directory names one leaf page per 1,024 chunks.  A page that did not change since
the parent is not written again; the directory points into the older map.  Pages are the frames of a map container,
and the directory is its footer.  The directory also lists the packs of each leaf, so that they are known without
reading a page.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import typing as t

from ..base.deps import blake3
from ..base.errors import Damaged
from ..keys.keys import KeyRing
from ..store.store import Store, begin_object
from .codec import Compressor
from .container import MAP_KIND, Container, make_end, make_header, object_name
from .directory import PAGE, Directory, Geometry, Leaf, encode_directory
from .frame import frame_length, seal_frame
from .page import Entry, Page

CACHE_LEAVES = 256
#: Enough for reading in order, by several threads: 2 MiB.
CACHE_LEAVES_IN_ORDER = 32
_WAY_OUT = "Restore the object from another copy of the repository, or use another saveset of the volume"


def content_digest(ring: KeyRing, page: Page) -> bytes:
    """The digest of the identities in a page; holes and zeros are equivalent, and places of chunks do not matter."""
    return ring.mac("leaf", page.identities())


def volume_digest(ring: KeyRing, geometry: Geometry, digests: t.Iterable[bytes]) -> bytes:
    """The digest of a volume's whole content, 32 bytes: in one repository, equal content has an equal digest."""
    head = geometry.size.to_bytes(8, "little") + geometry.chunk_size.to_bytes(4, "little")
    return ring.mac("volume", head + b"".join(digests))


def merkle_root(ring: KeyRing, leaves: t.Iterable[Leaf]) -> bytes:
    """The root over all leaves' page hashes."""
    return ring.mac("root", b"".join(leaf.page_hash for leaf in leaves))


class MapWriter:
    """Writes a saveset's map: the pages that changed, then the directory.

    Several threads may call add_page(), with leaves in any order.
    """

    def __init__(self, store: Store, ring: KeyRing, geometry: Geometry, folder: str, map_id: bytes) -> None:
        self._ring = ring
        self.geometry = geometry
        self.map_id = map_id
        self.name = object_name(MAP_KIND, map_id, folder)
        self._prefix = make_header(MAP_KIND, map_id, geometry.chunk_size, ring.encrypted)
        self._cipher = ring.cipher(MAP_KIND.frame_key, map_id)
        self._lock = threading.Lock()
        self._compressor = Compressor(1)
        self._frames = 0
        self._offset = len(self._prefix)
        self._leaves: dict[int, Leaf] = {}
        self._packs: dict[int, t.Collection[bytes]] = {}
        self._upload = begin_object(store, self.name, self._prefix)
        self._empty: dict[tuple[int, int], bytes] = {}

    def add_page(self, number: int, page: Page) -> None:
        """Write the page of leaf ``number``."""
        page_hash = blake3(page.data).digest()
        digest = content_digest(self._ring, page)
        packs = page.packs()
        with self._lock:
            codec, data = self._compressor.compress(page.data)
            head, body = seal_frame(self._prefix, self._cipher, self._frames, codec, b"", len(page.data), data)
            self._upload.write([head, body])
            length = frame_length(0, len(body))
            self._leaves[number] = Leaf(self.map_id, self._offset, length, PAGE, page_hash, digest)
            self._packs[number] = packs
            self._offset += length
            self._frames += 1

    def add_known(self, number: int, parent: LeafMap) -> None:
        """Take over leaf ``number`` of the parent."""
        self._packs[number] = parent.leaf_packs(number)
        self._leaves[number] = parent.leaf(number)

    def add_empty(self, number: int, kind: int) -> None:
        """Add a leaf that is all holes or all zeros: it needs no page."""
        entries = self.geometry.leaf_entries(number)
        key = (kind, entries)
        if key not in self._empty:
            self._empty[key] = content_digest(self._ring, Page.of_kind(kind, entries))
        self._packs[number] = ()
        self._leaves[number] = Leaf(bytes(16), 0, 0, kind, bytes(32), self._empty[key])

    def packs(self) -> set[bytes]:
        """The ids of all packs that the map uses, once all leaves are added."""
        return set().union(*self._packs.values())

    def publish(self) -> tuple[bytes, bytes]:
        """Write the directory and publish the map; returns the Merkle root and the volume's digest."""
        geometry = self.geometry
        numbers = range(geometry.leaves)
        leaves = [self._leaves[number] for number in numbers]
        directory = encode_directory(geometry, leaves, [self._packs[number] for number in numbers])
        codec, data = self._compressor.compress(directory)
        footer = (codec, bytes(data), len(directory))
        self._upload.write(make_end(self._prefix, self._cipher, footer, self._offset, self._frames))
        self._upload.publish()
        return merkle_root(self._ring, leaves), volume_digest(self._ring, geometry, [leaf.digest for leaf in leaves])

    def abort(self) -> None:
        """Remove what was written, unless it has been published."""
        self._upload.abort()


class LeafMap:
    """A published map, read page by page; threads may share it."""

    def __init__(
        self, store: Store, ring: KeyRing, folder: str, map_id: bytes, cache_leaves: int = CACHE_LEAVES
    ) -> None:
        self._store = store
        self._ring = ring
        self._folder = folder
        self._cached = cache_leaves
        self._lock = threading.Lock()
        self._containers: dict[bytes, Container] = {}
        self._pages: collections.OrderedDict[int, Page] = collections.OrderedDict()
        own = self._container(map_id)
        self.name = own.name
        try:
            self._directory = Directory(own.footer())
        except ValueError as error:
            raise Damaged(self.name, f"its directory is invalid: {error}", _WAY_OUT) from error
        self.geometry = self._directory.geometry

    def leaf(self, number: int) -> Leaf:
        """A leaf, from the directory."""
        return self._directory.leaf(number)

    def leaves(self) -> t.Iterator[Leaf]:
        """All leaves in order."""
        return self._directory.leaves()

    def packs(self) -> set[bytes]:
        """The ids of all packs that the saveset uses; reads no page."""
        return self._directory.packs()

    def leaf_packs(self, number: int) -> list[bytes]:
        """The ids of the packs that a leaf uses; reads no page."""
        return self._directory.leaf_packs(number)

    def leaf_name(self, leaf: Leaf) -> str:
        """The name of the map object that holds a leaf's page."""
        return object_name(MAP_KIND, leaf.map_id, self._folder)

    def page(self, number: int) -> Page:
        """The page of a leaf.  Raises Damaged, NotFound."""
        with self._lock:
            page = self._pages.get(number)
            if page is not None:
                self._pages.move_to_end(number)
                return page
        page = self._load(number)
        with self._lock:
            self._pages[number] = page
            while len(self._pages) > self._cached:
                self._pages.popitem(last=False)
        return page

    def entries(self, number: int) -> list[Entry]:
        """The entries of a leaf, unpacked."""
        return self.page(number).entries()

    def _load(self, number: int) -> Page:
        leaf = self.leaf(number)
        entries = self.geometry.leaf_entries(number)
        if leaf.kind != PAGE:
            return Page.of_kind(leaf.kind, entries)
        _head, data = self._container(leaf.map_id).frame(leaf.offset, leaf.length)
        if blake3(data).digest() == leaf.page_hash:
            with contextlib.suppress(ValueError):
                return Page(bytes(data), entries, self.leaf_name(leaf))
        raise Damaged(self.leaf_name(leaf), f"its page for leaf {number} is not the one expected", _WAY_OUT)

    def _container(self, map_id: bytes) -> Container:
        with self._lock:
            container = self._containers.get(map_id)
            if container is None:
                name = object_name(MAP_KIND, map_id, self._folder)
                container = self._containers[map_id] = Container(self._store, name, MAP_KIND, self._ring)
            return container

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps: where each chunk of a saveset is.

Every saveset is logically full: a directory names one leaf page per 1,024 chunks.  A page that did not change since
the parent is not written again, the directory points into the older map.  Pages are frames of a map container, the
directory is its footer.
"""

from __future__ import annotations

import collections
import struct
import threading
import typing as t

from .codec import Compressor
from .container import MAP_KIND, Container, make_end, make_header, object_name
from .deps import blake3
from .errors import Damaged
from .extent import HOLE, ZERO
from .frame import frame_length, seal_frame
from .keys import KeyRing
from .store import Store, begin_object

#: An entry: identity, pack id, frame offset, frame length, chunk's place in the frame, kind.
ENTRY = struct.Struct("<32s16sQIHH")
ENTRY_BYTES = ENTRY.size
LEAF_ENTRIES = 1024
LEAF_BYTES = LEAF_ENTRIES * ENTRY_BYTES

HOLE_ENTRY = ENTRY.pack(bytes(32), bytes(16), 0, 0, 0, HOLE)
ZERO_ENTRY = ENTRY.pack(bytes(32), bytes(16), 0, 0, 0, ZERO)

#: A directory's head: volume size, chunk size, entries a leaf, number of leaves.
_DIRECTORY = struct.Struct("<QIIQ")
#: A leaf in the directory: map id, frame offset, frame length, kind, page hash, content digest.
_LEAF = struct.Struct("<16sQII32s32s")
_PAGE = 2  # kind of a leaf that has a page; HOLE and ZERO leaves have none

_CACHE_LEAVES = 256
_WAY_OUT = "Restore the object from another copy of the repository, or use another saveset of the volume"


class Leaf(t.NamedTuple):
    """A leaf as the directory tells it."""

    map_id: bytes
    offset: int
    length: int
    kind: int
    page_hash: bytes
    digest: bytes


class Entry(t.NamedTuple):
    """Where one chunk is."""

    identity: bytes
    pack: bytes
    offset: int
    length: int
    place: int
    kind: int


class Geometry(t.NamedTuple):
    """A volume cut into chunks and leaves; sizes in bytes."""

    size: int
    chunk_size: int

    @property
    def chunks(self) -> int:
        """How many chunks the volume has, the last one perhaps short."""
        return -(-self.size // self.chunk_size)

    @property
    def leaves(self) -> int:
        """How many leaves its map has."""
        return -(-self.chunks // LEAF_ENTRIES)

    def leaf_entries(self, leaf: int) -> int:
        """How many entries a leaf has: fewer in the last one."""
        return min(LEAF_ENTRIES, self.chunks - leaf * LEAF_ENTRIES)

    def chunk_length(self, chunk: int) -> int:
        """The length of a chunk in bytes."""
        return min(self.chunk_size, self.size - chunk * self.chunk_size)


def content_digest(ring: KeyRing, page: bytes | bytearray) -> bytes:
    """The digest of the identities in a page; holes and zeros count alike, where chunks are stored does not count."""
    identities = [page[at : at + 32] for at in range(0, len(page), ENTRY_BYTES)]
    return ring.mac("leaf", b"".join(identities))


def volume_digest(ring: KeyRing, geometry: Geometry, digests: t.Iterable[bytes]) -> bytes:
    """The digest of a volume's whole content, 32 bytes: equal content, equal digest, in one repository."""
    head = struct.pack("<QI", geometry.size, geometry.chunk_size)
    return ring.mac("volume", head + b"".join(digests))


def merkle_root(ring: KeyRing, leaves: t.Iterable[Leaf]) -> bytes:
    """The root over all leaves' page hashes."""
    return ring.mac("root", b"".join(leaf.page_hash for leaf in leaves))


class MapWriter:
    """Writes a saveset's map: the pages that changed, then the directory.

    add_page() may be called by several threads and in any order of leaves.
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
        self._upload = begin_object(store, self.name, self._prefix)
        self._empty: dict[tuple[int, int], bytes] = {}

    def add_page(self, number: int, page: bytes) -> None:
        """Write the page of leaf ``number``."""
        page_hash = blake3(page).digest()
        digest = content_digest(self._ring, page)
        with self._lock:
            codec, data = self._compressor.compress(page)
            head, body = seal_frame(self._prefix, self._cipher, self._frames, codec, b"", len(page), data)
            self._upload.write([head, body])
            length = frame_length(0, len(body))
            self._leaves[number] = Leaf(self.map_id, self._offset, length, _PAGE, page_hash, digest)
            self._offset += length
            self._frames += 1

    def add_known(self, number: int, leaf: Leaf) -> None:
        """Take over a leaf of the parent."""
        self._leaves[number] = leaf

    def add_empty(self, number: int, kind: int) -> None:
        """Add a leaf that is all hole or all zero: it needs no page."""
        entries = self.geometry.leaf_entries(number)
        key = (kind, entries)
        if key not in self._empty:
            entry = ZERO_ENTRY if kind == ZERO else HOLE_ENTRY
            self._empty[key] = content_digest(self._ring, entry * entries)
        self._leaves[number] = Leaf(bytes(16), 0, 0, kind, bytes(32), self._empty[key])

    def publish(self) -> tuple[bytes, bytes]:
        """Write the directory and publish the map; returns the Merkle root and the volume's digest."""
        geometry = self.geometry
        leaves = [self._leaves[number] for number in range(geometry.leaves)]
        directory = _DIRECTORY.pack(geometry.size, geometry.chunk_size, LEAF_ENTRIES, len(leaves))
        directory += b"".join(_LEAF.pack(*leaf) for leaf in leaves)
        codec, data = self._compressor.compress(directory)
        footer = (codec, bytes(data), len(directory))
        self._upload.write(make_end(self._prefix, self._cipher, footer, self._offset, self._frames))
        self._upload.publish()
        return merkle_root(self._ring, leaves), volume_digest(self._ring, geometry, [leaf.digest for leaf in leaves])

    def abort(self) -> None:
        """Remove what was written, unless it is published."""
        self._upload.abort()


class LeafMap:
    """A published map, read page by page; threads may share it."""

    def __init__(self, store: Store, ring: KeyRing, folder: str, map_id: bytes) -> None:
        self._store = store
        self._ring = ring
        self._folder = folder
        self._lock = threading.Lock()
        self._containers: dict[bytes, Container] = {}
        self._pages: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        own = self._container(map_id)
        self.name = own.name
        directory = own.footer()
        try:
            size, chunk_size, entries, count = _DIRECTORY.unpack_from(directory)
        except struct.error:
            size = chunk_size = entries = count = 0
        self.geometry = Geometry(size, chunk_size or 1)
        if (
            entries != LEAF_ENTRIES
            or count != self.geometry.leaves
            or len(directory) != _DIRECTORY.size + count * _LEAF.size
        ):
            raise Damaged(self.name, "its directory makes no sense", _WAY_OUT)
        self._directory = directory

    def leaf(self, number: int) -> Leaf:
        """A leaf as the directory tells it."""
        return Leaf(*_LEAF.unpack_from(self._directory, _DIRECTORY.size + number * _LEAF.size))

    def leaves(self) -> t.Iterator[Leaf]:
        """All leaves in order."""
        for number in range(self.geometry.leaves):
            yield self.leaf(number)

    def leaf_name(self, leaf: Leaf) -> str:
        """The name of the map object that holds a leaf's page."""
        return object_name(MAP_KIND, leaf.map_id, self._folder)

    def page(self, number: int) -> bytes:
        """The entries of a leaf, one after the other.  Raises Damaged, NotFound."""
        with self._lock:
            page = self._pages.get(number)
            if page is not None:
                self._pages.move_to_end(number)
                return page
        page = self._load(number)
        with self._lock:
            self._pages[number] = page
            while len(self._pages) > _CACHE_LEAVES:
                self._pages.popitem(last=False)
        return page

    def entries(self, number: int) -> list[Entry]:
        """The entries of a leaf, unpacked."""
        return [Entry(*fields) for fields in ENTRY.iter_unpack(self.page(number))]

    def _load(self, number: int) -> bytes:
        leaf = self.leaf(number)
        entries = self.geometry.leaf_entries(number)
        if leaf.kind != _PAGE:
            return (ZERO_ENTRY if leaf.kind == ZERO else HOLE_ENTRY) * entries
        _head, page = self._container(leaf.map_id).frame(leaf.offset, leaf.length)
        if len(page) != entries * ENTRY_BYTES or blake3(page).digest() != leaf.page_hash:
            raise Damaged(self.leaf_name(leaf), f"its page for leaf {number} is not the one expected", _WAY_OUT)
        return page

    def _container(self, map_id: bytes) -> Container:
        with self._lock:
            container = self._containers.get(map_id)
            if container is None:
                name = object_name(MAP_KIND, map_id, self._folder)
                container = self._containers[map_id] = Container(self._store, name, MAP_KIND, self._ring)
            return container

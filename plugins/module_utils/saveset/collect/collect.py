# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collecting what no saveset uses, alongside running backups and restores, in steps that may stop anywhere.

::

    forget   announce (gc/forgotten), then remove the commit: from then on the saveset does not exist
    mark     a tombstone names what no commit uses
    sweep    a tombstone that every living lease has seen is carried out, except for what a commit uses by now

Nothing depends on a clock.  The next collector completes what was interrupted: what was announced is still
announced, what was not announced is untouched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing as t

from ..base.errors import Damaged, NotFound, SavesetError, StoreFull
from ..base.volume import volume_folder
from ..format.commit import SavesetInfo, parse_name
from ..format.container import PACK_KIND, Container, object_name
from ..format.document import decode_document, encode_document
from ..format.footer import PackFooter
from ..keys.keys import KeyRing
from ..store.store import Store
from .lease import BACKUP, COLLECTOR, LeaseInfo, living_leases
from .pins import is_pinned
from .punched import PunchedPacks, Ranges
from .references import FrameTable, References, Root, frame_table
from .tombstone import Tombstone, new_name, put_tombstone, read_tombstones

FORGOTTEN_KIND = "forgotten"
FORGOTTEN = "gc/forgotten"
SESSIONS = "sessions"
_BATCH = 64  # objects removed between two progress reports

Load = t.Callable[[], References]
Tell = t.Callable[[int], None]


@dataclasses.dataclass
class Swept:
    """What carrying out tombstones did or would do; bytes as the store counts them."""

    packs: int = 0
    maps: int = 0
    packs_punched: int = 0
    bytes_freed: int = 0


class Waiting(t.NamedTuple):
    """A tombstone that could not be carried out yet, the bytes that it would free, and the leases it waits for."""

    tombstone: str
    bytes: int
    leases: tuple[str, ...]


class Listing:
    """The objects in the store other than commits.

    It is made before leases and commits are read: what a living backup publishes later is not in it, and what an ended
    backup published is used by a commit that will be seen.
    """

    def __init__(self, store: Store) -> None:
        self.packs = {bytes.fromhex(name[-32:]) for name in store.list("packs")}
        self.maps = set(store.list("maps"))
        self.sessions = store.list(SESSIONS)


class Collector:
    """One collection; the caller holds the lease that lets only one process collect."""

    def __init__(self, store: Store, ring: KeyRing, load: Load, threshold: float, tell: Tell) -> None:
        """:param load: returns what all commits use; raises if one cannot be read, so that nothing is then removed.
        :param threshold: packs are punched if more than this fraction of them is dead.
        :param tell: called with the number of bytes that each step freed.
        """
        self._store = store
        self._ring = ring
        self._load = load
        self._threshold = threshold
        self._tell = tell
        self._punched = PunchedPacks(store, ring)
        tombstones, self.unreadable = read_tombstones(store, ring)
        self.tombstones = tombstones

    # -- forget

    def voided(self, savesets: t.Sequence[SavesetInfo]) -> list[Tombstone]:
        """The tombstones that name something that these savesets use.

        A reader of these savesets may have seen such a tombstone, yet relies on the commits to protect what it reads.
        So when the commits are removed, the tombstones must be replaced by new, unseen ones.
        """
        if not savesets or not self.tombstones:
            return []
        try:
            uses = References(self._store, self._ring, savesets)
        except SavesetError:
            return list(self.tombstones)
        return [tombstone for tombstone in self.tombstones if tombstone.touches(uses.packs, uses.maps)]

    def void(self, tombstones: t.Collection[Tombstone]) -> None:
        """Withdraw tombstones."""
        self._store.delete_all([*(tombstone.name for tombstone in tombstones), *self.unreadable])
        self.tombstones = [tombstone for tombstone in self.tombstones if tombstone not in tombstones]

    def forget(self, commit: str, root: Root | None) -> bool:
        """Remove a commit; False if it was pinned meanwhile.  Void the tombstones from voided() first.

        :param root: its map; None if the commit cannot be read.
        """
        parsed = parse_name(commit)
        if parsed is None:
            raise ValueError(f"{commit} is not the name of a commit")
        volume, _time, saveset_id = parsed
        announced = f"{FORGOTTEN}/{saveset_id}"
        fields = {"commit": commit, "volume": volume, "map_id": root.map_id.hex() if root else None}
        # On a full store, do without the announcement: removing the commit frees the space for the tombstone.
        with contextlib.suppress(StoreFull):
            self._store.put(announced, encode_document(FORGOTTEN_KIND, fields, self._ring.mac), exclusive=False)
        if is_pinned(self._store, saveset_id):  # pinning looks for the announcement after it has put the pin
            self._store.delete_all([announced])
            return False
        with contextlib.suppress(NotFound):
            self._store.delete(commit)
        return True

    def forgotten(self) -> tuple[list[Root], bool, list[str]]:
        """The maps of savesets forgotten since the last mark, whether some are unknown, the announcements' names."""
        roots: list[Root] = []
        unknown = False
        names = self._store.list(FORGOTTEN)
        commits = set(self._store.list("savesets")) if names else set()
        for name in names:
            try:
                document = decode_document(name, self._store.get(name), FORGOTTEN_KIND)
                document.check_mac(name, self._ring.mac)
            except SavesetError:
                unknown = True
                continue
            fields = document.fields
            if fields["commit"] in commits:
                continue  # its collector died after announcing it
            if fields["map_id"] is None:
                unknown = True
            else:
                roots.append(Root(fields["volume"], bytes.fromhex(fields["map_id"])))
        return roots, unknown, names

    # -- mark

    def find(
        self,
        listing: Listing,
        leases: t.Sequence[LeaseInfo],
        used: References,
        gone: t.Sequence[Root],
        everywhere: bool,
        standing: t.Sequence[Tombstone],
    ) -> Tombstone:
        """What no saveset uses and no tombstone names yet, as a tombstone that is not yet put.

        :param gone: maps of forgotten savesets: the packs that they used are searched for dead frames.
        :param everywhere: search all packs for dead frames.
        :param standing: the valid tombstones.
        """
        backups = [lease for lease in leases if lease.role == BACKUP]
        named_packs = frozenset[bytes]().union(*(tombstone.packs for tombstone in standing))
        named_maps = frozenset[str]().union(*(tombstone.maps for tombstone in standing))
        running = tuple(f"maps/{volume_folder(lease.volume)}/" for lease in backups)
        maps = {name for name in listing.maps - used.maps - named_maps if not name.startswith(running)}
        packs = self._without_running(listing.packs - used.packs - named_packs, backups)
        frames: dict[bytes, Ranges] = {}
        if (everywhere or gone) and self._store.can_punch():
            candidates = used.packs if everywhere else used.packs & used.packs_left_by(gone)
            frames = self._dead_frames(candidates & listing.packs, used, standing)
        return Tombstone(new_name(), frozenset(packs), frozenset(maps), frames)

    def mark(self, tombstone: Tombstone) -> None:
        """Put a tombstone, unless it names nothing."""
        if tombstone.packs or tombstone.maps or tombstone.frames:
            for part in tombstone.parts():
                put_tombstone(self._store, self._ring, part)
                self.tombstones.append(part)

    def marked(self, announcements: t.Iterable[str], listing: Listing, leases: t.Iterable[LeaseInfo]) -> None:
        """Clean up after a mark: remove announcements that it has handled, and session objects of interrupted backups.

        A tombstone now names what those backups had stored.
        """
        living = {lease.session for lease in leases}
        stale = [name for name in listing.sessions if name.rpartition("/")[2] not in living]
        self._store.delete_all([*announcements, *stale])

    def _without_running(self, packs: set[bytes], backups: t.Sequence[LeaseInfo]) -> set[bytes]:
        """The packs without those of living backups, whose commits, and later ones, will use them."""
        sessions = {lease.session for lease in backups}
        return {pack for pack in packs if not sessions or self._session(pack) not in sessions}

    def _session(self, pack: bytes) -> str:
        try:
            container = Container(self._store, object_name(PACK_KIND, pack), PACK_KIND, self._ring)
            return PackFooter(container.footer()).session.hex()
        except (SavesetError, ValueError):
            return ""  # damaged: useless

    def _dead_frames(
        self, packs: t.Iterable[bytes], used: References, standing: t.Sequence[Tombstone]
    ) -> dict[bytes, Ranges]:
        """The dead frames of packs of which more than the threshold is dead, without those already punched."""
        tables = self._tables(packs)
        used.use_frames(tables)
        found = {}
        for pack, table in tables.items():
            known = [tombstone.frames[pack] for tombstone in standing if pack in tombstone.frames]
            try:
                known.append(self._punched.ranges(pack))
            except SavesetError:
                continue
            dead = [frame for frame in table.unused() if not any(frame[0] in ranges for ranges in known)]
            if self._is_worth_it(dead, table.bytes):
                found[pack] = Ranges(dead)
        return found

    def _tables(self, packs: t.Iterable[bytes]) -> dict[bytes, FrameTable]:
        tables = {}
        for pack in packs:
            with contextlib.suppress(SavesetError, ValueError):  # verify reports what is wrong with it
                tables[pack] = frame_table(self._store, self._ring, pack)
        return tables

    def _is_worth_it(self, dead: t.Sequence[tuple[int, int]], total: int) -> bool:
        return sum(length for _offset, length in dead) > self._threshold * total and self._punchable(Ranges(dead)) > 0

    # -- sweep

    def sweep(self, used: References) -> tuple[Swept, list[Waiting]]:
        """Carry out the tombstones that every living lease has seen; the others wait.

        :param used: what the commits at the time of the mark use; read again if commits changed since.
        """
        leases = living_leases(self._store, self._ring, remove_dead=True)
        ready, waiting = self._sort(self.tombstones, used, leases)
        swept = Swept()
        if ready and used.commits != frozenset(self._store.list("savesets")):
            used = self._load()
        for tombstone in ready:
            self._carry_out(tombstone, used, swept)
        self._remove_orphaned_records()
        return swept, waiting

    def preview(
        self, tombstones: t.Iterable[Tombstone], used: References, leases: t.Sequence[LeaseInfo]
    ) -> tuple[Swept, list[Waiting]]:
        """What sweep() would do with these tombstones."""
        ready, waiting = self._sort(tombstones, used, leases)
        sizes = [self.size_of(tombstone, used) for tombstone in ready]
        sums = Swept(
            sum(size.packs for size in sizes),
            sum(size.maps for size in sizes),
            sum(size.packs_punched for size in sizes),
            sum(size.bytes_freed for size in sizes),
        )
        return sums, [item for item in waiting if item.bytes]

    def _sort(
        self, tombstones: t.Iterable[Tombstone], used: References, leases: t.Sequence[LeaseInfo]
    ) -> tuple[list[Tombstone], list[Waiting]]:
        """The tombstones that every lease has seen, and those that wait."""
        ready, waiting = [], []
        for tombstone in tombstones:
            unaware = tuple(str(lease) for lease in leases if not lease.has_seen(tombstone.name))
            if unaware:
                waiting.append(Waiting(tombstone.name, self.size_of(tombstone, used).bytes_freed, unaware))
            else:
                ready.append(tombstone)
        return ready, waiting

    def size_of(self, tombstone: Tombstone, used: References) -> Swept:
        """What carrying out a tombstone now would do."""
        packs, maps = self._removable(tombstone, used)
        names = [*(object_name(PACK_KIND, pack) for pack in packs), *maps]
        punched = [ranges for pack, ranges in tombstone.frames.items() if pack in used.packs]
        room = sum(map(self._room, names)) + sum(map(self._punchable, punched))
        return Swept(len(packs), len(maps), len(punched), room)

    def _removable(self, tombstone: Tombstone, used: References) -> tuple[set[bytes], set[str]]:
        packs = {pack for pack in tombstone.packs - used.packs if self._room(object_name(PACK_KIND, pack)) >= 0}
        return packs, {name for name in tombstone.maps - used.maps if self._room(name) >= 0}

    def _carry_out(self, tombstone: Tombstone, used: References, swept: Swept) -> None:
        packs, maps = self._removable(tombstone, used)
        names = sorted([*(object_name(PACK_KIND, pack) for pack in packs), *maps])
        for begin in range(0, len(names), _BATCH):
            batch = names[begin : begin + _BATCH]
            room = sum(max(0, self._room(name)) for name in batch)
            self._store.delete_all(batch)
            swept.bytes_freed += room
            self._tell(room)
        swept.packs += len(packs)
        swept.maps += len(maps)
        self._punch(tombstone, used, swept)
        self._store.delete(tombstone.name)

    def _punch(self, tombstone: Tombstone, used: References, swept: Swept) -> None:
        """Free the disk space of dead frames, except those that something uses by now."""
        tables = self._tables(pack for pack in tombstone.frames if pack in used.packs)
        used.use_frames(tables)
        for pack, table in sorted(tables.items()):
            dead = [frame for frame in table.unused() if frame[0] in tombstone.frames[pack]]
            if not dead:
                continue
            recorded = self._punched.ranges(pack)
            if any(offset not in recorded for offset, _length in dead):
                self._punched.record(pack, Ranges(dead))
            freed = self._store.punch(object_name(PACK_KIND, pack), Ranges(dead))
            swept.packs_punched += 1
            swept.bytes_freed += freed
            self._tell(freed)

    def _remove_orphaned_records(self) -> None:
        """Remove the records of packs that are gone: a record must not be removed before its pack."""
        for pack in self._punched.packs():
            if self._room(object_name(PACK_KIND, pack)) < 0:
                self._store.delete_all(self._punched.names(pack))

    def _room(self, name: str) -> int:
        """The bytes that an object occupies; -1 if it does not exist."""
        try:
            return self._store.room(name)
        except NotFound:
            return -1
        except Damaged:
            return 0  # not a regular file: removing it frees nothing

    def _punchable(self, ranges: Ranges) -> int:
        return sum(self._store.punchable(offset, length) for offset, length in ranges)


def is_going(store: Store, saveset_id: str) -> bool:
    """Whether a living collector is about to remove a saveset."""
    try:
        store.size(f"{FORGOTTEN}/{saveset_id}")
    except NotFound:
        return False
    return not store.abandoned(COLLECTOR)

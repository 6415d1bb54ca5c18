# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning a repository: decide what to forget, forget it, and collect what is no longer used."""

from __future__ import annotations

import dataclasses
import datetime
import time
import typing as t

from ..base.errors import Damaged, InvalidValue, NotFound, SavesetError, Unconfirmed
from ..base.progress import Progress, ProgressCallback
from ..format.commit import SavesetInfo, parse_name
from ..format.order import CLOCK_LIMIT, Known
from ..keys.keys import KeyRing
from ..store.store import Store
from .collect import FORGOTTEN, Collector, Listing, Swept, Waiting
from .lease import PREVIEW, LeaseInfo, collecting, living_leases, reading
from .pins import pin_texts, read_pins
from .references import References, Root
from .retention import Decision, Policy, check_share, decide
from .tombstone import Tombstone

#: The fraction of a pack still in use that must be dead before it is punched.
THRESHOLD = 0.1
#: More than this percentage of a volume's savesets, or of all, is forgotten only after confirmation.
MAX_PERCENT = 50.0

Scan = t.Callable[[], tuple[list[SavesetInfo], list[tuple[str, SavesetError]]]]


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """How to prune.

    ``servers``: the servers to whose savesets the policy applies, None for all.  ``threshold``: packs are punched if
    more than this fraction of them (0 to 1) is dead.  ``everywhere``: search all packs for dead parts, not only those
    that forgotten savesets used.  ``known``: the savesets in the run journal; the others are set aside.  None if there
    is no journal, and only the order decides.  ``max_percent``: if more than this percentage of a volume's savesets,
    or of all, would be forgotten, nothing is, unless ``confirmed`` is exactly their number.
    """

    servers: t.Collection[str] | None = None
    threshold: float = THRESHOLD
    everywhere: bool = False
    known: Known | None = None
    max_percent: float = MAX_PERCENT
    confirmed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_percent <= 100:
            raise InvalidValue(f"max percent {self.max_percent:g}", "it is not from 0 to 100", "Use 50")
        if not 0 <= self.threshold <= 1:
            raise InvalidValue(f"threshold {self.threshold}", "it is not from 0 to 1", "Use 0.1")


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What pruning did, or with ``dry_run`` would do.

    ``decisions`` say for every saveset to which the policy was applied why it is kept, or that it is forgotten;
    ``forgotten`` are the ids of the removed ones; ``bytes_freed`` is the disk space freed, as the store counts it;
    ``waiting`` is what a later prune will remove, because a running process may need it; ``stopped`` is why it would
    not be done without confirmation, empty if it would.
    """

    dry_run: bool
    decisions: list[Decision]
    forgotten: list[str]
    packs_deleted: int
    maps_deleted: int
    packs_punched: int
    bytes_freed: int
    waiting: list[Waiting]
    seconds: float
    stopped: str = ""


class _Plan(t.NamedTuple):
    """What a prune will do."""

    decisions: list[Decision]
    going: list[SavesetInfo]
    used: References
    voided: list[Tombstone]
    standing: list[Tombstone]
    tombstone: Tombstone
    announcements: list[str]


class Pruner:
    """One prune of a repository."""

    def __init__(
        self,
        store: Store,
        ring: KeyRing,
        scan: Scan,
        options: PruneOptions,
        progress: ProgressCallback | None,
        warn: t.Callable[[str], object] = lambda _text: None,
    ) -> None:
        """:param scan: lists all savesets and the commits that cannot be read.
        :param warn: called with each warning.
        """
        self._store = store
        self._ring = ring
        self._scan = scan
        self._options = options
        self._progress = progress
        self._warn = warn
        self._begun = time.monotonic()
        self._total = self._done = 0

    def run(self, policy: Policy | None) -> PruneReport:
        """Apply the policy to the savesets and collect; None only collects.  See Repository.prune()."""
        self._store.sweep()
        with collecting(self._store, self._ring) as check:
            listing = Listing(self._store)
            leases = living_leases(self._store, self._ring, remove_dead=True)
            collector = self._collector()
            plan = self._plan(collector, policy, listing, leases)
            self._check_share(plan.decisions)
            self._total = self._size(collector, plan)
            self._tell(0)
            forgotten = self._forget(collector, plan.voided, plan.going)
            collector.mark(plan.tombstone)
            announced = [f"{FORGOTTEN}/{saveset_id}" for saveset_id in forgotten]
            collector.marked([*plan.announcements, *announced], listing, leases)
            check()
            swept, waiting = collector.sweep(plan.used)
        return self._report(False, plan, forgotten, swept, waiting)

    def preview(self, policy: Policy | None) -> PruneReport:
        """What run() would do now.  Writes nothing except, if possible, a lease."""
        listing = Listing(self._store)
        leases = living_leases(self._store, self._ring)
        with reading(self._store, self._ring, PREVIEW) as warning:
            if warning:
                self._warn(warning)
            collector = self._collector()
            plan = self._plan(collector, policy, listing, leases)
            swept, waiting = collector.preview([*plan.standing, plan.tombstone], plan.used, leases)
        return self._report(True, plan, [info.id for info in plan.going], swept, waiting)

    def forget(self, saveset_ids: t.Collection[str]) -> list[str]:
        """Remove commits, readable or not; returns the ids of the removed savesets.  See Repository.forget()."""
        with collecting(self._store, self._ring):
            names = {parsed[2]: name for name in self._store.list("savesets") if (parsed := parse_name(name))}
            pins, unreadable = read_pins(self._store, self._ring)
            for saveset_id in saveset_ids:
                if saveset_id not in names:
                    raise NotFound(f"saveset {saveset_id}", "there is none with that id", "Give an id of the catalog")
                if saveset_id in pins or saveset_id in unreadable:
                    raise InvalidValue(
                        f"saveset {saveset_id}", "it is pinned", "Unpin it first, if it may really be removed"
                    )
            infos, _problems = self._scan()
            going = [info for info in infos if info.id in saveset_ids]
            damaged = [names[key] for key in saveset_ids if key not in {info.id for info in going}]
            collector = self._collector()
            voided = list(collector.tombstones) if damaged else collector.voided(going)
            return self._forget(collector, voided, going, damaged)

    def _forget(
        self,
        collector: Collector,
        voided: t.Collection[Tombstone],
        going: t.Iterable[SavesetInfo],
        damaged: t.Iterable[str] = (),
    ) -> list[str]:
        """Remove commits, except those pinned meanwhile.  Returns the ids of the removed savesets."""
        collector.void(voided)
        roots: dict[str, Root | None] = {**{info.name: Root.of(info) for info in going}, **dict.fromkeys(damaged)}
        return [name.rpartition("-")[2] for name, root in roots.items() if collector.forget(name, root)]

    def _collector(self) -> Collector:
        return Collector(self._store, self._ring, self._load, self._options.threshold, self._tell)

    def _plan(
        self, collector: Collector, policy: Policy | None, listing: Listing, leases: t.Sequence[LeaseInfo]
    ) -> _Plan:
        """What is to be done.  Only reads, so that damage is found before anything is changed."""
        infos = self._readable()
        decisions = self._decide(policy, infos)
        going = [item.info for item in decisions if not item.keep]
        ids = {info.id for info in going}
        used = self._references([info for info in infos if info.id not in ids])
        leftover, unknown, announcements = collector.forgotten()
        voided = collector.voided(going)
        standing = [tombstone for tombstone in collector.tombstones if tombstone not in voided]
        gone = [*leftover, *map(Root.of, going)]
        everywhere = self._options.everywhere or unknown
        tombstone = collector.find(listing, leases, used, gone, everywhere, standing)
        return _Plan(decisions, going, used, voided, standing, tombstone, announcements)

    def _decide(self, policy: Policy | None, infos: t.Iterable[SavesetInfo]) -> list[Decision]:
        if policy is None:
            return []
        servers = self._options.servers
        chosen = [info for info in infos if servers is None or info.volume.partition("/")[0] in servers]
        # This host's clock can only cause savesets to be kept: what is in its future is set aside.
        not_after = datetime.datetime.now(datetime.UTC) + CLOCK_LIMIT
        pins = pin_texts(self._store, self._ring)
        return decide(policy, chosen, pins, known=self._options.known, not_after=not_after)

    def _stopped(self, decisions: t.Sequence[Decision]) -> str:
        return check_share(decisions, self._options.max_percent, self._options.confirmed)

    def _check_share(self, decisions: t.Sequence[Decision]) -> None:
        stopped = self._stopped(decisions)
        if stopped:
            going = sum(not item.keep for item in decisions)
            raise Unconfirmed(
                self._store.location,
                f"{stopped}. Nothing was removed",
                "A dry run shows which would be forgotten, and why the others are kept. If that is what you want, "
                f"confirm it with their number, {going}",
                going,
            )

    def _readable(self) -> list[SavesetInfo]:
        infos, problems = self._scan()
        for name, error in problems:
            raise _unknown_use(name, error)
        for stray in self._store.strays(["savesets"]):
            if stray.what != "file":  # it may hide commits and what they use
                raise _unknown_use(stray.name, Damaged(stray.name, f"it is a {stray.what} where commits may be", ""))
        return infos

    def _references(self, infos: list[SavesetInfo]) -> References:
        try:
            return References(self._store, self._ring, infos)
        except (Damaged, NotFound) as error:
            raise _unknown_use(error.thing, error) from error

    def _load(self) -> References:
        return self._references(self._readable())

    def _size(self, collector: Collector, plan: _Plan) -> int:
        return sum(collector.size_of(item, plan.used).bytes_freed for item in [*plan.standing, plan.tombstone])

    def _tell(self, freed: int) -> None:
        self._done += freed
        if self._progress:
            elapsed = time.monotonic() - self._begun
            done = min(self._done, self._total)
            self._progress(Progress(bytes_total=self._total, bytes_done=done, elapsed_s=elapsed))

    def _report(
        self, dry_run: bool, plan: _Plan, forgotten: list[str], swept: Swept, waiting: list[Waiting]
    ) -> PruneReport:
        return PruneReport(
            dry_run=dry_run,
            decisions=plan.decisions,
            forgotten=forgotten,
            packs_deleted=swept.packs,
            maps_deleted=swept.maps,
            packs_punched=swept.packs_punched,
            bytes_freed=swept.bytes_freed,
            waiting=waiting,
            seconds=round(time.monotonic() - self._begun, 3),
            stopped=self._stopped(plan.decisions) if dry_run else "",
        )


def _unknown_use(name: str, error: SavesetError) -> SavesetError:
    """The error for an unreadable commit or map: what it uses must not be removed, so nothing is."""
    return type(error)(
        name,
        f"{error.cause}; what its saveset uses is not known, so nothing was removed",
        "Put back a copy of it, or forget its saveset by its id",
    )

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pruning a repository: decide what goes, forget it, and collect what nothing uses any more."""

from __future__ import annotations

import dataclasses
import datetime
import time
import typing as t

from .collect import FORGOTTEN, Collector, Listing, Swept, Waiting
from .commit import SavesetInfo, parse_name
from .errors import Damaged, InvalidValue, NotFound, SavesetError, Unconfirmed
from .keys import KeyRing
from .lease import PREVIEW, LeaseInfo, collecting, living_leases, reading
from .order import Known
from .pins import pin_texts, read_pins
from .progress import Progress
from .references import References, Root
from .retention import Decision, Policy, check_share, decide
from .store import Store
from .tombstone import Tombstone

#: Of a pack that is still used, more than this share must be dead for that to be punched out.
THRESHOLD = 0.1
#: More than so many percent of a volume's savesets, or of all, go only where somebody has confirmed it.
MAX_PERCENT = 50.0
#: How far clocks may be apart.
CLOCK_LIMIT = datetime.timedelta(seconds=60)

Scan = t.Callable[[], t.Tuple[t.List[SavesetInfo], t.List[t.Tuple[str, SavesetError]]]]
Report = t.Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class PruneOptions:
    """How to prune.

    ``servers``: whose savesets the policy is put to, None for all.  ``threshold``: packs are punched when more than
    this share of them (0 to 1) is dead.  ``everywhere``: look at all packs for dead parts, not only at those that
    forgotten savesets used.  ``known``: the savesets that the run journal knows; the others are set aside. None where
    there is no journal, and the order in which savesets came rules alone.  ``max_percent``: when more than so many
    percent of a volume's savesets, or of all, would go, nothing does unless ``confirmed`` says how many exactly.
    """

    servers: t.Collection[str] | None = None
    threshold: float = THRESHOLD
    everywhere: bool = False
    known: Known | None = None
    max_percent: float = MAX_PERCENT
    confirmed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_percent <= 100:
            raise InvalidValue(f"max percent {self.max_percent:g}", "it is no share from 0 to 100", "Use 50")
        if not 0 <= self.threshold <= 1:
            raise InvalidValue(f"threshold {self.threshold}", "it is no share from 0 to 1", "Use 0.1")


@dataclasses.dataclass(frozen=True)
class PruneReport:
    """What pruning did, or would do where ``dry_run`` is set.

    ``decisions`` tell for every saveset that the policy was put to why it stays, or that it goes; ``forgotten`` the ids
    of those that are gone; ``bytes_freed`` the room that the store won, as it counts it; ``waiting`` what will be
    removed by a later prune, as somebody uses the repository who may need it; ``stopped`` why it would not be done
    unless somebody confirms it, empty where it would.
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
    """What pruning is going to do."""

    decisions: list[Decision]
    going: list[SavesetInfo]
    used: References
    voided: list[Tombstone]
    standing: list[Tombstone]
    tombstone: Tombstone
    announcements: list[str]


class Pruner:
    """One prune of a repository."""

    def __init__(self, store: Store, ring: KeyRing, scan: Scan, options: PruneOptions, progress: Report | None) -> None:
        """:param scan: lists all savesets and the commits that cannot be read."""
        self._store = store
        self._ring = ring
        self._scan = scan
        self._options = options
        self._progress = progress
        self._begun = time.monotonic()
        self._total = self._done = 0

    def run(self, policy: Policy | None) -> PruneReport:
        """Put the policy to the savesets and collect; None only collects.  See Repository.prune()."""
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
        """What run() would do now.  Nothing is written but, where that is possible, a lease."""
        listing = Listing(self._store)
        leases = living_leases(self._store, self._ring)
        with reading(self._store, self._ring, PREVIEW):
            collector = self._collector()
            plan = self._plan(collector, policy, listing, leases)
            swept, waiting = collector.preview([*plan.standing, plan.tombstone], plan.used, leases)
        return self._report(True, plan, [info.id for info in plan.going], swept, waiting)

    def forget(self, saveset_ids: t.Collection[str]) -> list[str]:
        """Remove commits, readable or not; returns the ids of the savesets that are gone.  See Repository.forget()."""
        with collecting(self._store, self._ring):
            names = {parsed[2]: name for name in self._store.list("savesets") if (parsed := parse_name(name))}
            pins, unreadable = read_pins(self._store, self._ring)
            for saveset_id in saveset_ids:
                if saveset_id not in names:
                    raise NotFound(f"saveset {saveset_id}", "there is none with that id", "Give an id of the catalog")
                if saveset_id in pins or saveset_id in unreadable:
                    raise InvalidValue(f"saveset {saveset_id}", "it is pinned", "Unpin it first, if it may really go")
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
        """Remove commits; those that were pinned meanwhile stay.  Returns the ids of the savesets that are gone."""
        collector.void(voided)
        roots: dict[str, Root | None] = {**{info.name: Root.of(info) for info in going}, **dict.fromkeys(damaged)}
        return [name.rpartition("-")[2] for name, root in roots.items() if collector.forget(name, root)]

    def _collector(self) -> Collector:
        return Collector(self._store, self._ring, self._load, self._options.threshold, self._tell)

    def _plan(
        self, collector: Collector, policy: Policy | None, listing: Listing, leases: t.Sequence[LeaseInfo]
    ) -> _Plan:
        """What is to be done.  Only reads, so that damage is met before anything is changed."""
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
        # The clock of this host only ever keeps: what lies in its future is set aside.
        not_after = datetime.datetime.now(datetime.timezone.utc) + CLOCK_LIMIT
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
                "A dry run tells which would go and why the others stay. If that is what you want, confirm it by their "
                f"number, {going}",
                going,
            )

    def _readable(self) -> list[SavesetInfo]:
        infos, problems = self._scan()
        for name, error in problems:
            raise _unknown_use(name, error)
        for stray in self._store.strays(["savesets"]):
            if stray.what != "file":  # commits may be behind it, and what they use
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
    """The error of a commit or map that cannot be read: what it uses must not be removed, so nothing is."""
    return type(error)(
        name,
        f"{error.cause}; what its saveset uses is not known, so nothing was removed",
        "Put back a copy of it, or forget its saveset by its id",
    )

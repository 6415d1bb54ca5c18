# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one volume of a job knows of chunks: those of published packs, and its own that are not published yet.

A chunk belongs to its volume alone until its pack is published and durable.  Only then do the other volumes of the job
find it in the index that all share.  So no commit can name a pack that another volume may still fail to publish, no
volume waits for another, and the failure of one leaves no claim behind that the others would have to withdraw.  The
price: what several volumes meet at the same time is stored by each, as by backups in separate processes.  A published
pack stays valid even if its volume fails: nothing that the collector marks after the job's leases were put is removed
before they end, and then the commits of the other volumes are read.
"""

from __future__ import annotations

import typing as t

from .index import ChunkIndex, places_in

Claim: t.TypeAlias = "bytes | int"


class VolumeIndex:
    """Where chunks are, for one volume of a job; threads share it."""

    def __init__(self, shared: ChunkIndex, session: bytes = b"") -> None:
        """:param session: session of an interrupted backup whose chunks to take over; empty if there is none."""
        self._shared = shared
        self._session = session
        #: Chunks of packs that are not published: their places, or who is about to store them.
        self._unpublished: dict[bytes, Claim] = {}
        if session:
            shared.resume(session)

    def load(self) -> None:
        """Read the footers of all packs, unless another volume has done so."""
        self._shared.load()

    def trusts(self, pack: bytes, offset: int | None = None) -> bool:
        """See ChunkIndex.trusts()."""
        return self._shared.trusts(pack, offset)

    def is_whole(self, pack: bytes) -> bool:
        """See ChunkIndex.is_whole()."""
        return self._shared.is_whole(pack)

    def adopt(self, chunk: int, mask: int = 0) -> tuple[bytes, bytes] | None:
        """Identity and place of a chunk, or of these grains of it, that the interrupted backup had stored."""
        adopted = self._shared.adopted(self._session)
        return adopted.find(chunk, mask) if adopted else None

    def find(self, identity: bytes) -> bytes | None:
        """The place of a chunk, as packed by PLACE; None if it is not stored, or not placed yet."""
        place = self._unpublished.get(identity)
        if place is not None:
            return place if isinstance(place, bytes) else None
        return self._shared.find(identity)

    def claim(self, identity: bytes, claimant: int) -> bool:
        """Claim a chunk that find() did not know; True if the caller must now store it.

        :param claimant: a number that no other claim of the volume uses, such as the chunk's number.
        """
        return self._unpublished.setdefault(identity, claimant) == claimant

    def placed(self, identity: bytes, place: bytes) -> None:
        """Record the place of a claimed chunk."""
        self._unpublished[identity] = place

    def pack_finished(self, pack: bytes, rows: bytes) -> None:
        """Move the chunks of a pack that is published and durable to the shared index: it is found there first."""
        self._shared.pack_finished(pack, rows)
        for identity, place in places_in(pack, rows):
            if self._unpublished.get(identity) == place:
                del self._unpublished[identity]

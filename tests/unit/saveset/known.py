# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packs that exist only as footers, and what is said about their chunks."""

from __future__ import annotations

import random
import typing as t
from pathlib import Path

from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.footer import ROW, PackFooter
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.keys import KeyRing
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.cache import CacheFolder
from ansible_collections.openisb.backup.plugins.module_utils.saveset.known.chunks import KnownChunks

DATA, GRAINS = 2, 4
RING = KeyRing("ab" * 16, b"m" * 32)


class Packs:
    """The packs of a repository, by name, and how often each footer was read."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.footers: dict[str, PackFooter | None] = {}
        self.reads: list[str] = []
        #: All identities that ever were in a pack.
        self.identities: list[bytes] = []

    def add(self, chunks: int, session: bytes = bytes(32)) -> str:
        """Publish a pack; some of its chunks are in others too, some rows are pieces."""
        rows = []
        for number in range(chunks):
            again = self.identities and self.random.random() < 0.1
            identity = self.random.choice(self.identities) if again else self.random.randbytes(32)
            kind = GRAINS if self.random.random() < 0.1 else DATA
            rows.append(ROW.pack(identity, 64 + number // 4 * 1000, 1000, number % 4, kind, number, kind == GRAINS))
            self.identities.append(identity)
        pack = self.random.randbytes(16).hex()
        name = f"packs/{pack[:2]}/{pack}"
        self.footers[name] = PackFooter(session + b"".join(rows))
        return name

    def names(self) -> list[str]:
        """The names of all packs."""
        return sorted(self.footers)

    def read(self, name: str) -> PackFooter | None:
        """The footer of a pack; None if it is damaged."""
        self.reads.append(name)
        return self.footers[name]

    def places(self) -> dict[bytes, set[bytes]]:
        """Where each chunk is, according to the footers that can be read: the reference."""
        found: dict[bytes, set[bytes]] = {}
        for name, footer in self.footers.items():
            for row in footer.rows() if footer else ():
                if row.kind == DATA:
                    raw = ROW.pack(*row)
                    found.setdefault(row.identity, set()).add(bytes.fromhex(name[-32:]) + raw[32:48])
        return found

    def check(self, known: KnownChunks, damaged: t.Collection[str] = ()) -> None:
        """That every chunk is found where it is and nowhere else; packs that are gone or ``damaged`` do not count."""
        places = self.places()
        ignored = known.gone | {bytes.fromhex(name[-32:]) for name in damaged}
        for identity in [*self.identities, bytes(32), b"\xff" * 32]:
            found = {place for place in known.find(identity) if place[:16] not in ignored}
            assert found == places.get(identity, set())


class Opened(t.NamedTuple):
    """What one backup would know, and what it would warn of."""

    known: KnownChunks
    warnings: list[str]


def load(packs: Packs, folder: Path | None) -> Opened:
    """Load the index as a backup does."""
    warnings: list[str] = []
    cache = CacheFolder(str(folder), RING) if folder else None
    known = KnownChunks(cache, packs.names, packs.read, warnings.append)
    known.load()
    return Opened(known, warnings)


def tables(folder: Path) -> list[Path]:
    """The files of tables in a cache folder."""
    return sorted((folder / RING.repository_id).glob("*.table"))

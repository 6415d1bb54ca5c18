# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of objects, names that no object can have, and everything that can be done with a name."""

from __future__ import annotations

import typing as t

from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.names import TOP_FOLDERS
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store

from ..conftest import ID, KIB

TIME = "20260301T120000.000000Z"
GOOD = {
    "repo.json",
    f"keys/{ID}.json",
    "features/any-thing_2.json",
    f"savesets/fs1~m/{TIME}-{ID}",
    f"maps/fs1~m/{ID}",
    f"packs/ab/{ID}",
    f"sessions/fs1~m/{ID * 2}",
    f"pins/{ID}.json",
    f"gc/leases/{ID}",
    "gc/collector",
    f"gc/forgotten/{ID}",
    f"gc/tombstones/20260301T120000Z-{ID}",
    f"gc/punched/{ID}-12",
    f"checks/{TIME}-{ID}",
    "README.txt",
    "isb-saveset.pyz",
    "tool.json",
    "journal/listener%201.json",
    f"tmp/{ID}",
}
BAD = [
    *("", ".", "..", "/", "repo.json\n", "repo.json/", "/repo.json", "./repo.json", "keys", "keys/", "repo.json\0"),
    *(f"keys/../keys/{ID}.json", f"keys//{ID}.json", f"keys/{ID.upper()}.json", f"keys/{ID}.json\n", "keys/x.json"),
    *(f"packs/cd/{ID}", f"packs/{ID}", f"packs/ab/{ID}/x", f"packs/ab/{ID[:-1]}", "packs/ab/../../repo.json"),
    *(f"maps/../{ID}", f"maps/.hidden/{ID}", f"maps/fs1/m/{ID}", f"maps/{'v' * 201}/{ID}", f"maps/fs1~/{ID}"),
    *(f"maps/fs1~m/{ID}\n", f"maps/fs1\u0661/{ID}", f"savesets/fs1~m/{TIME}-{ID}.old", "gc/leases", "gc/leases/one"),
    *("etc/passwd", "/etc/passwd", "../etc/passwd", "features/..json", "features/A.json", "gc/punched/x-1"),
    *(f"gc/punched/{ID}-0", f"gc/punched/{ID}-{'9' * 10}", f"gc/collector/{ID}", "README.txt\x1b[2J", "lost+found"),
]

Action = t.Callable[[Store, str], t.Any]
ACTIONS: dict[str, Action] = {
    "get": lambda place, name: place.get(name),
    "get a part": lambda place, name: place.get(name, 0, 10),
    "size": lambda place, name: place.size(name),
    "room": lambda place, name: place.room(name),
    "create": lambda place, name: place.create(name),
    "put": lambda place, name: place.put(name, b""),
    "replace": lambda place, name: place.put(name, b"", exclusive=False),
    "delete": lambda place, name: place.delete(name),
    "delete all": lambda place, name: place.delete_all([name]),
    "hold": lambda place, name: place.hold(name, b""),
    "abandoned": lambda place, name: place.abandoned(name, remove=True),
    "punch": lambda place, name: place.punch(name, [(0, 64 * KIB)]),
    "settle": lambda place, name: place.settle([name]),
}


def names_in(store: Store) -> list[str]:
    """All names in a store, those of its strays included."""
    return [name for folder in TOP_FOLDERS for name in store.list(folder)] + [name for name, _what in store.strays()]

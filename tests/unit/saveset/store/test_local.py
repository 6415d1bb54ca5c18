# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a store in a folder has: files under tmp/, and blocks."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore

from ..conftest import KIB, noise


def test_sweep_spares_the_living(tmp_path: Path) -> None:
    """What a living writer has half-written stays; what a dead one left goes."""
    store = LocalStore(str(tmp_path))
    name = f"pins/{'aa' * 16}.json"
    living = store.create(name)
    living.write([b"half"])
    dead = tmp_path / "tmp" / ("de" * 16)
    dead.write_bytes(b"half")
    assert store.sweep() == 1
    assert not dead.exists() and len(list(dead.parent.iterdir())) == 1
    living.publish()
    assert store.get(name) == b"half" and list(dead.parent.iterdir()) == []


def test_neighbours_of_what_is_punched_are_not_written(tmp_path: Path) -> None:
    place = LocalStore(str(tmp_path))
    data = noise(256 * KIB)
    name = f"packs/aa/{'aa' * 16}"
    place.put(name, data)
    ranges = [(100, 5000), (10000, 100), (70_000, 60_000), (200_001, 8192)]
    freed = place.punch(name, ranges)
    assert freed == sum(place.punchable(*item) for item in ranges) > 0
    after = place.get(name, 0, 2 * len(data))
    assert len(after) == len(data)
    inside = bytearray(len(data))
    for offset, length in ranges:
        begin, end = -(-offset // 4096) * 4096, (offset + length) // 4096 * 4096
        inside[begin:end] = b"\1" * max(0, end - begin)
    assert all(after[at] == (0 if inside[at] else data[at]) for at in range(len(data)))

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Punching parts out of an object, in any store: what is beside them stays, and a store that cannot do it says so."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotFound, StoreError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store

from ...conftest import ID, KIB, noise
from ..objects import names_in

PACK = f"packs/ab/{ID}"
RANGES = [(100, 5000), (10000, 100), (70_000, 60_000), (200_001, 8192)]


def test_what_is_beside_a_range_stays(store: Store) -> None:
    data = noise(256 * KIB)
    store.put(PACK, data)
    expected = sum(store.punchable(*item) for item in RANGES)
    if store.can_punch():
        assert store.punch(PACK, RANGES) == expected
    else:
        assert expected == 0
        with pytest.raises(StoreError, match="cannot be removed"):
            store.punch(PACK, RANGES)
    after = store.get(PACK, 0, 2 * len(data))
    assert len(after) == len(data) == store.size(PACK)
    inside = {at for offset, length in RANGES for at in range(offset, offset + length)}
    assert all(after[at] == data[at] or (at in inside and not after[at]) for at in range(len(data)))


def test_trying_leaves_nothing(store: Store) -> None:
    store.can_punch()
    assert names_in(store) == []


def test_what_is_not_there_is_not_punched(store: Store) -> None:
    if store.can_punch():
        with pytest.raises(NotFound):
            store.punch(PACK, RANGES)
    assert names_in(store) == []

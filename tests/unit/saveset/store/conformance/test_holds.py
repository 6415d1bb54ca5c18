# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of any store that stand for a living process: nobody takes it for dead, and the dead may be known to be."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import (
    InvalidValue,
    NameTaken,
    NotFound,
    StoreError,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Hold, Store

from ...conftest import ID, MIB
from ..conftest import Child
from ..objects import names_in

LEASE = f"gc/leases/{ID}"


def test_a_hold_can_be_seen_until_it_is_released(store: Store) -> None:
    hold = store.hold(LEASE, b"0")
    assert hold.is_kept() and store.get(LEASE) == b"0" and store.list("gc/leases") == [LEASE]
    hold.replace(b"one more")
    assert hold.is_kept() and store.get(LEASE) == b"one more"
    hold.release()
    hold.release()
    assert not hold.is_kept() and names_in(store) == [] and store.abandoned(LEASE)


def test_a_hold_takes_a_name_that_is_free(store: Store) -> None:
    hold = store.hold(LEASE, b"mine")
    for other in (store, open_store(store.location)):
        with pytest.raises(NameTaken):
            other.hold(LEASE, b"another's")
        with pytest.raises(NameTaken):
            other.put(LEASE, b"another's")
    assert hold.is_kept() and store.get(LEASE) == b"mine"
    hold.release()
    store.hold(LEASE, b"another's").release()


def test_one_of_many_gets_a_hold(store: Store) -> None:
    start = threading.Barrier(8)

    def take(_number: int) -> Hold | None:
        mine = open_store(store.location)
        start.wait()
        try:
            return mine.hold(LEASE, b"")
        except NameTaken:
            return None

    for _round in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            (winner,) = filter(None, pool.map(take, range(8)))
        assert winner.is_kept()
        winner.release()


def test_a_hold_is_not_larger_than_its_kind_may_be(store: Store) -> None:
    with pytest.raises(InvalidValue, match="the limit is"):
        store.hold(LEASE, bytes(MIB + 1))
    assert names_in(store) == []


def test_the_living_are_not_taken_for_dead(store: Store, child: Child) -> None:
    hold = store.hold(LEASE, b"")
    assert not store.abandoned(LEASE, remove=True)
    child(f"assert not store.abandoned({LEASE!r}, remove=True)")
    assert hold.is_kept()
    hold.release()


def test_replacing_leaves_no_moment_in_which_it_looks_dead(store: Store) -> None:
    hold = store.hold(LEASE, b"0")
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            hold.replace(b"again")

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        assert not any(store.abandoned(LEASE, remove=True) for _number in range(3000))
    finally:
        stop.set()
        thread.join()
    assert hold.is_kept() and store.get(LEASE) == b"again"
    hold.release()
    assert not hold.is_kept() and store.abandoned(LEASE) and names_in(store) == []


def test_a_hold_that_others_removed_is_lost(store: Store) -> None:
    hold = store.hold(LEASE, b"mine")
    store.delete(LEASE)
    assert not hold.is_kept()
    with pytest.raises((NotFound, StoreError)):
        hold.replace(b"still mine")
    other = store.hold(LEASE, b"another's")
    assert not hold.is_kept()
    hold.release()
    assert other.is_kept() and store.get(LEASE) == b"another's", "what was released is not its own any more"
    other.release()


def test_the_hold_of_a_killed_process_can_be_removed(store: Store, child: Child) -> None:
    """By others, if the store knows that it is dead; else by a person."""
    owner = child(f"hold = store.hold({LEASE!r}, b'')")
    assert not store.abandoned(LEASE, remove=True)
    with pytest.raises(NameTaken):
        store.hold(LEASE, b"")
    owner.kill()
    owner.wait()
    if store.abandoned(LEASE):
        assert store.list("gc/leases") == [LEASE], "it was only asked"
        assert store.abandoned(LEASE, remove=True)
    else:
        store.delete(LEASE)
    assert names_in(store) == []
    store.hold(LEASE, b"").release()

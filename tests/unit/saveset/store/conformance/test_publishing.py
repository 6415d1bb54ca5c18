# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishing in any store: whole or not at all, under a free name, whoever else writes, is killed or gives up."""

from __future__ import annotations

import concurrent.futures
import threading
import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NameTaken, NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store

from ...conftest import ID, KIB, MIB, noise
from ..conftest import Child
from ..objects import names_in

PACK = f"packs/ab/{ID}"
PIN = f"pins/{ID}.json"
SESSION = f"sessions/fs1~m/{ID * 2}"


def assert_absent(store: Store, name: str) -> None:
    with pytest.raises(NotFound):
        store.get(name, 0, 1)
    with pytest.raises(NotFound):
        store.size(name)
    assert name not in store.list(name.partition("/")[0])


def test_names_are_taken_once(store: Store) -> None:
    store.put(PIN, b"first")
    with pytest.raises(NameTaken):
        store.put(PIN, b"second")
    with pytest.raises(NameTaken):
        store.put(PIN, b"first")
    assert store.get(PIN) == b"first" and names_in(store) == [PIN]
    store.delete(PIN)
    with pytest.raises(NotFound):
        store.get(PIN)


def test_an_object_is_replaced_only_on_purpose(store: Store) -> None:
    store.put(PIN, b"first", exclusive=False)
    store.put(PIN, b"second", exclusive=False)
    assert store.get(PIN) == b"second" and names_in(store) == [PIN]


def test_an_upload_is_invisible_until_it_is_published(store: Store) -> None:
    upload = store.create(PACK)
    assert_absent(store, PACK)
    for _part in range(3):
        upload.write([noise(3 * MIB)])
        assert_absent(store, PACK)
    upload.publish()
    assert store.size(PACK) == 9 * MIB and store.get(PACK, 6 * MIB, 3 * MIB) == noise(3 * MIB)
    upload.abort()
    assert store.size(PACK) == 9 * MIB and names_in(store) == [PACK]


@pytest.mark.parametrize("written", [0, 10, 5 * MIB])
def test_an_upload_that_is_given_up_leaves_nothing(store: Store, written: int) -> None:
    upload = store.create(PACK)
    upload.write([bytes(written)])
    upload.abort()
    upload.abort()
    assert names_in(store) == []


def test_an_upload_whose_name_was_taken_meanwhile_leaves_nothing(store: Store) -> None:
    first, second = store.create(PACK), open_store(store.location).create(PACK)
    first.write([b"first"])
    second.write([b"second"])
    second.publish()
    with pytest.raises(NameTaken):
        first.publish()
    first.abort()
    assert store.get(PACK, 0, 100) == b"second" and names_in(store) == [PACK]


def test_one_of_many_writers_takes_a_name(store: Store) -> None:
    start = threading.Barrier(8)

    def write(number: int) -> int | None:
        mine = open_store(store.location)
        start.wait()
        try:
            mine.put(PIN, b"%d" % number * 1000)
        except NameTaken:
            return None
        return number

    for _round in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            (winner,) = [number for number in pool.map(write, range(8)) if number is not None]
        assert store.get(PIN) == b"%d" % winner * 1000
        assert names_in(store) == [PIN]
        store.delete(PIN)


def test_many_writers_share_a_folder_that_is_new(store: Store) -> None:
    """Each makes it, or finds that another one just has."""
    names = [f"maps/fs1~m/{number:032x}" for number in range(16)]

    def write(name: str) -> None:
        open_store(store.location).put(name, name.encode())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
    assert store.list("maps") == names
    store.settle(names)


def test_readers_find_the_old_object_or_the_new_one(store: Store) -> None:
    whole = {b"a" * 100, b"b" * 60 * KIB}
    store.put(PIN, b"a" * 100)
    stop = threading.Event()

    def replace() -> None:
        mine = open_store(store.location)
        while not stop.is_set():
            for data in whole:
                mine.put(PIN, data, exclusive=False)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        assert all(store.get(PIN) in whole for _number in range(500))
    finally:
        stop.set()
        thread.join()


def test_a_writer_that_is_killed_leaves_nothing_to_be_seen(store: Store, child: Child) -> None:
    store.put(SESSION, b"")
    writer = child(f"upload = store.create({PACK!r})\nupload.write([bytes(5 << 20)])")
    assert_absent(store, PACK)
    assert store.sweep() == 0, "its writer is alive"
    writer.kill()
    writer.wait()
    assert_absent(store, PACK)
    store.sweep()
    assert names_in(store) == [SESSION] and store.sweep() == 0
    store.put(PACK, b"again")
    assert store.get(PACK, 0, 100) == b"again"


def test_what_a_writer_has_published_outlives_it(store: Store, child: Child) -> None:
    writer = child(f"store.put({PIN!r}, b'whole')")
    writer.kill()
    writer.wait()
    store.sweep()
    assert store.get(PIN) == b"whole"


def test_sweeping_spares_the_living(store: Store) -> None:
    living = store.create(PIN)
    living.write([b"half"])
    assert store.sweep() == 0 == open_store(store.location).sweep()
    living.publish()
    assert store.get(PIN) == b"half" and names_in(store) == [PIN]


@pytest.mark.parametrize("work", ["write", "publish"])
def test_what_fails_can_be_tried_again(store: Store, work: t.Literal["write", "publish"]) -> None:
    """The failure of one writer is no other's."""
    failed, good = store.create(PIN), store.create(PIN)
    failed.write([b"failed"])
    failed.abort()
    good.write([b"good"])
    if work == "publish":
        good.publish()
    good.abort()
    assert names_in(store) == ([PIN] if work == "publish" else [])

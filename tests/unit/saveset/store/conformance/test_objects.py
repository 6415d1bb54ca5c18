# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of any store: put, read whole and in part, listed, removed; with hostile names, and within their sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import (
    Damaged,
    InvalidValue,
    NotFound,
    RepositoryExists,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import store as interface
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.names import TOP_FOLDERS, kind_of
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store, begin_object

from ...conftest import ID, KIB, MIB, noise
from ..objects import ACTIONS, BAD, GOOD, names_in

PACK = f"packs/ab/{ID}"
PIN = f"pins/{ID}.json"


def fill(store: Store) -> dict[str, bytes]:
    """Put an object of each kind that is read whole; returns them."""
    objects = {name: name.encode() if kind_of(name).max_bytes else b"" for name in GOOD if name != PACK}
    objects = {name: data for name, data in objects.items() if not name.startswith(("maps/", "tmp/"))}
    for name, data in objects.items():
        store.put(name, data)
    return objects


def test_nothing_is_there_at_first(store: Store) -> None:
    assert names_in(store) == [] == store.folders("savesets")
    assert store.sweep() == 0
    store.delete_all([PIN, PACK])
    for action in ("get", "get a part", "size", "room", "delete"):
        with pytest.raises(NotFound):
            ACTIONS[action](store, PIN)
    assert store.abandoned(PIN)


def test_the_location_opens_it_again(store: Store) -> None:
    store.put(PIN, b"data")
    assert open_store(store.location).get(PIN) == b"data"


def test_each_kind_of_object_is_kept(store: Store) -> None:
    objects = fill(store)
    for name, data in objects.items():
        assert store.get(name) == data and store.size(name) == len(data)
        assert store.room(name) >= 0
    in_folders = sorted(name for name in objects if "/" in name)
    assert sorted(names_in(store)) == in_folders
    store.settle(in_folders)


def test_folders_are_listed(store: Store) -> None:
    objects = [
        f"savesets/{volume}/{name.rpartition('/')[2]}"
        for volume in ("fs2~m", "fs1~m")
        for name in GOOD
        if name.startswith("savesets/")
    ]
    for name in objects:
        store.put(name, b"")
    assert store.list("savesets") == sorted(objects)
    assert store.list("savesets/fs1~m") == [name for name in objects if "/fs1~m/" in name]
    assert store.list("savesets/fs3~m") == []
    assert store.folders("savesets") == ["fs1~m", "fs2~m"]


@pytest.mark.parametrize("size", [0, 1, 4096, 5 * MIB + 17])
def test_what_is_streamed_in_is_read_in_parts(store: Store, size: int) -> None:
    data = noise(size)
    upload = begin_object(store, PACK, data[:100])
    try:
        upload.write([data[100:150], bytearray(data[150:MIB]), memoryview(data)[MIB:]])
        upload.publish()
    finally:
        upload.abort()
    assert store.size(PACK) == size
    for offset, length in [(0, size), (0, 10), (1, 4096), (size // 2, size), (max(size - 1, 0), 1), (size + 10, 10)]:
        assert store.get(PACK, offset, length) == data[offset : offset + length]
    with pytest.raises(InvalidValue, match="never read whole"):
        store.get(PACK)


def test_the_rest_of_an_object_is_read_without_a_length(store: Store) -> None:
    store.put(PIN, b"0123456789")
    assert store.get(PIN, 7) == b"789"
    assert store.get(PIN, 10) == store.get(PIN, 99) == store.get(PIN, 0, 0) == b""


def test_what_was_removed_is_gone(store: Store) -> None:
    objects = fill(store)
    store.delete(PIN)
    with pytest.raises(NotFound):
        store.get(PIN)
    with pytest.raises(NotFound):
        store.delete(PIN)
    store.delete_all(objects)
    assert names_in(store) == []
    store.put(PIN, b"again")
    assert store.get(PIN) == b"again"


# -- names


@pytest.mark.parametrize("action", ACTIONS)
def test_a_name_that_is_none_is_refused_by_every_door(store: Store, tmp_path: Path, outside: Path, action: str) -> None:
    fill(store)
    before = sorted(tmp_path.rglob("*")), names_in(store)
    for name in [*BAD, str(outside / "precious"), "../outside/precious", f"keys/../../outside/{ID}"]:
        with pytest.raises(InvalidValue, match="no object of a repository"):
            ACTIONS[action](store, name)
    assert (sorted(tmp_path.rglob("*")), names_in(store)) == before
    for folder in ("..", "/", "keys/..", str(outside), "packs/ab/cd", "", "keys\n"):
        with pytest.raises(InvalidValue, match="no folder of a repository"):
            store.list(folder)
        with pytest.raises(InvalidValue, match="no folder of a repository"):
            store.folders(folder)


# -- sizes


@pytest.mark.parametrize("name", sorted(GOOD))
def test_nothing_is_put_that_could_not_be_read(store: Store, name: str) -> None:
    largest = kind_of(name).max_bytes
    if largest is None:
        return
    for exclusive in (True, False):
        with pytest.raises(InvalidValue, match="the limit is"):
            store.put(name, bytes(largest + 1), exclusive)
    store.put(name, bytes(largest))
    assert store.size(name) == largest


def test_what_is_larger_than_its_kind_may_be_is_not_read(store: Store) -> None:
    upload = store.create(PIN)
    upload.write([bytes(64 * KIB + 1)])
    upload.publish()
    assert store.size(PIN) == 64 * KIB + 1
    with pytest.raises(Damaged, match="the limit is"):
        store.get(PIN)


def test_no_part_is_larger_than_readers_need(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(PACK, bytes(2 * KIB))
    monkeypatch.setattr(interface, "_READ_MAX", KIB)
    assert store.get(PACK, 0, KIB) == bytes(KIB)
    with pytest.raises(Damaged, match="a part of it"):
        store.get(PACK, 0, KIB + 1)


# -- a new repository


def test_a_creation_that_was_interrupted_can_be_repeated(store: Store) -> None:
    store.prepare()
    for name in ("README.txt", "isb-saveset.pyz", "tool.json", f"keys/{ID}.json"):
        store.put(name, b"")
        store.prepare()
    store.put("repo.json", b"")
    with pytest.raises(RepositoryExists, match=r"repo\.json"):
        store.prepare()


def test_what_is_in_use_is_no_place_for_a_new_repository(store: Store) -> None:
    store.put(PACK, b"data")
    with pytest.raises(RepositoryExists, match="packs"):
        store.prepare()
    assert store.get(PACK, 0, 10) == b"data"


# -- room


def test_room_is_bytes_or_unknown(store: Store) -> None:
    store.prepare()
    free = store.free_bytes()
    assert free is None or free >= 0
    assert all(isinstance(text, str) for text in store.lacks())
    assert store.strays() == store.strays(TOP_FOLDERS) == []

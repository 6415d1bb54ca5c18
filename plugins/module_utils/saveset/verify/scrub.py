# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verifying objects without any key: checksums and hashes of what is stored, encrypted or not."""

from __future__ import annotations

import typing as t

from ..base.errors import Damaged, SavesetError
from ..collect.punched import NOTHING, PunchedPacks, Ranges
from ..format.container import MAP_KIND, PACK_KIND, ContainerLayout, Kind, read_layout
from ..format.document import decode_document
from ..format.frame import check_hash, frame_length_max, parse_head
from ..program.tool import problems as tool_problems
from ..store.store import Store, Stray

_BLOCK = 4 << 20
_HEAD_MAX = 64 << 10  # a frame's head with the most identities that a frame can have

#: The folders of documents, and the kind of document in each.
DOCUMENTS = {
    "keys": "key",
    "features": "feature",
    "savesets": "saveset",
    "pins": "pin",
    "checks": "check",
    "gc/punched": "punched",
    "gc/tombstones": "tombstone",
    "gc/forgotten": "forgotten",
}

Problem = tuple[str, str]


def objects_in(store: Store, folder: str) -> list[str]:
    """The names of the objects in a folder; none if it is not a folder, which Store.strays() reports."""
    try:
        return store.list(folder)
    except Damaged:
        return []


def stray_problem(stray: Stray) -> str:
    """What is wrong with something that is not an object."""
    return f"it is a {stray.what}, not an object of a repository: it is never read"


def walk_frames(store: Store, layout: ContainerLayout, punched: Ranges = NOTHING) -> t.Iterator[tuple[int, int, bool]]:
    """Yield ``(offset, length, good)`` for every frame and the footer, reading the container once, in order.

    After a damaged head the following frames cannot be found: the rest is yielded as one bad frame.

    :param punched: discarded frames, which are skipped.
    """
    largest = frame_length_max(layout.kind.frame_max)
    offset = len(layout.prefix)
    end = layout.footer_offset + layout.footer_length
    block, block_offset = b"", offset
    while offset < end:
        offset = punched.end_of(offset) or offset
        if offset >= end:
            return
        if offset + _HEAD_MAX > block_offset + len(block) and block_offset + len(block) < end:
            block, block_offset = store.get(layout.name, offset, min(_BLOCK, end - offset)), offset
        head = parse_head(memoryview(block)[offset - block_offset :])
        if head is None or offset + head.length > end or (offset < layout.footer_offset and head.length > largest):
            yield offset, end - offset, False
            return
        if offset + head.length > block_offset + len(block):
            block, block_offset = store.get(layout.name, offset, max(_BLOCK, head.length)), offset
        data = memoryview(block)[offset - block_offset : offset - block_offset + head.length]
        yield offset, head.length, check_hash(layout.prefix, head, data)
        offset += head.length


def scrub_container(store: Store, name: str, kind: Kind, punched: PunchedPacks | None = None) -> list[Problem]:
    """What is wrong with a pack or a map, as (object, text)."""
    try:
        layout = read_layout(store, name, kind)
        gone = punched.ranges(layout.container_id) if punched else NOTHING
        bad = [offset for offset, _length, good in walk_frames(store, layout, gone) if not good]
    except SavesetError as error:
        return [(name, error.cause)]
    return [(name, f"its frame at offset {offset} is damaged") for offset in bad]


def scrub_document(store: Store, name: str, kind: str) -> list[Problem]:
    """What is wrong with a document, as (object, text)."""
    try:
        decode_document(name, store.get(name), kind)
    except SavesetError as error:
        return [(name, error.cause)]
    return []


def scrub(store: Store) -> list[Problem]:
    """Verify every object of a repository without a key; returns the problems, as (object, text).

    This finds all damage to existing objects.  Finding missing objects, or ones replaced on purpose by others with
    correct checksums, needs the key: see Repository.verify().
    """
    problems = [*scrub_document(store, "repo.json", "repository"), *tool_problems(store, None)]
    for folder, kind in DOCUMENTS.items():
        for name in objects_in(store, folder):
            problems += scrub_document(store, name, kind)
    for name in objects_in(store, "maps"):
        problems += scrub_container(store, name, MAP_KIND)
    punched = PunchedPacks(store, None)
    for name in objects_in(store, "packs"):
        problems += scrub_container(store, name, PACK_KIND, punched)
    return [*problems, *((stray.name, stray_problem(stray)) for stray in store.strays())]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate what one host answers before another host acts on it; what the inventory knows is taken from there instead.

A compromised file server, storage host, DR host or backup server can answer anything. It must not be able to choose a
path, an address or a name on another host. Every function takes what a module returned, unchanged, and raises
AnswerError for what cannot be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..host.nbd_addresses import KEY, NAME, address_of
from ..journal.journal import DRILL_ID, RUN_ID
from ..saveset.format.order import SEQUENCE_MAX
from ..saveset.io import blocks
from .entries import Entry

SAVESET = re.compile(r"[0-9a-f]{32}")
VOLUME = re.compile(r"[^/\s][^/\n\r\t\0]*/[^/\n\r\t\0]+")
FILESYSTEM = re.compile(r"[A-Za-z0-9._+-]{1,64}")
DEVICE = re.compile(r"/[ -~]{1,512}")
MOST_BYTES = 2**63 - 1
LONGEST_TEXT = 1024
LONGEST_EXTENTS = 64 * 1024**2
"""Characters of packed changed extents: far more than lun_changes.MOST_EXTENTS need."""


class AnswerError(ValueError):
    """A host's answer cannot be right; the text says why, and never contains a secret."""


def nbd_address(answer: object, host: Entry) -> str:
    """Return the address of an export, from what nbd_export answered or a part of an answer that has this form.

    ``host``: the fact openisb_host of the host that it is on. Only the port and the name are taken from the answer.
    """
    export = answer.get("export") if isinstance(answer, dict) else None
    if not isinstance(export, dict):
        raise AnswerError("the answer contains no export")
    port = _integer(export.get("port"), 1, 65535, "the port of the export")
    name = _text(export.get("name"), NAME, "the name of the export")
    return address_of(str(host["address"]), port, name, host["tls"])


def nbd_key(answer: object, host: Entry) -> str:
    """Return the key of that export; empty without TLS."""
    key: str = _entry(answer, "the answer of the export").get("psk") or ""
    if bool(key) != bool(host["tls"]) or (key and not (isinstance(key, str) and KEY.fullmatch(key))):
        raise AnswerError("the key of the export is not 64 hex digits" if host["tls"] else "there is a key without TLS")
    return key


def held_saveset(answer: object) -> str:
    """Return the id of the saveset that a standby holds, from nbd_export; empty where it is not known."""
    held = _entry(answer, "the answer of the export").get("held")
    found = held.get("saveset") if isinstance(held, dict) else None
    return _text(found, SAVESET, "the saveset that the target holds") if found else ""


def lun_changes(told: Any) -> Entry:
    """Return what lun_map reports as changed on one LUN; where it cannot be right, a reason to read all of it."""
    try:
        found: Entry = {key: _text(told.get(key, ""), None, key) for key in ("id", "since")}
        found["reason"] = "".join(each if each.isprintable() else "?" for each in str(told.get("reason", "")))
        found["reason"] = found["reason"][:LONGEST_TEXT]
        found["size"] = _integer(told.get("size", 0), 0, MOST_BYTES, "size")
        extents = told.get("extents", "")
        if not isinstance(extents, str) or len(extents) > LONGEST_EXTENTS:
            raise AnswerError("the extents are not text, or too long")
        return dict(found, extents=extents)
    except (AnswerError, AttributeError) as error:
        return {"reason": f"the storage's answer cannot be used: {error}"}


def volumes(found: object, wanted: list[Entry]) -> list[Entry]:
    """Return what server_info found of a server's volumes; their names and LUNs must be those of the inventory.

    ``wanted``: the inventory's volumes.
    """
    if not isinstance(found, list) or len(found) != len(wanted):
        raise AnswerError("the server reports other volumes than the inventory has")
    return [_volume(told, volume) for told, volume in zip(found, wanted, strict=True)]


def _volume(told: object, volume: Entry) -> Entry:
    name = volume["name"]
    if not isinstance(told, dict) or (told.get("name"), told.get("serial")) != (name, volume["serial"]):
        raise AnswerError(f"the server reports another volume in place of {name} with serial {volume['serial']}")
    filesystem = told.get("filesystem")
    return {
        "name": name,
        "serial": volume["serial"],
        "device": volume.get("path") or _text(told.get("device"), DEVICE, f"the device of volume {name}"),
        "size": _integer(told.get("size"), 0, MOST_BYTES, f"the size of volume {name}"),
        "mount": None if volume.get("path") else volume.get("mount"),
        "filesystem": None if filesystem is None else _text(filesystem, FILESYSTEM, f"the filesystem of volume {name}"),
        "sector_size": _one_of(blocks.SECTORS, told.get("sector_size"), f"the sector size of volume {name}"),
        "block_size": _one_of(blocks.SIZES, told.get("block_size"), f"the block size of volume {name}"),
    }


def disk_blocks(metadata: object) -> dict[str, int]:
    """Return sector_size and block_size of a volume's disk from its saveset's metadata; 0 for what is missing there."""
    found = metadata if isinstance(metadata, dict) else {}
    return {name: blocks.told(found, name) for name in ("sector_size", "block_size")}


def saveset(value: object) -> Entry:
    """Validate a saveset of a catalog, whose names go to other hosts."""
    entry = _entry(value, "a saveset of the catalog")
    _text(entry.get("volume"), VOLUME, "a volume of the catalog")
    _text(entry.get("id"), SAVESET, "a saveset's id")
    _text(entry.get("run_id"), NAME, "a saveset's run id")
    _integer(entry.get("size"), 0, MOST_BYTES, "a saveset's size")
    _integer(entry.get("sequence"), 1, SEQUENCE_MAX, "a saveset's number")
    return entry


def run_id(value: object) -> str:
    """Validate a run id from a journal or storage host: other hosts build names of files and snapshots from it."""
    return _text(value, RUN_ID, "the id of a run")


def drill_id(value: object) -> str:
    """Validate a drill id from a journal."""
    return _text(value, DRILL_ID, "the id of a drill")


def snapshot(value: object) -> Entry:
    """Validate a snapshot as lun_snapshot_info returns it."""
    entry = _entry(value, "a snapshot")
    run_id(entry.get("run_id"))
    for size in _entry(entry.get("luns_bytes"), "the LUNs of a snapshot").values():
        _integer(size, 0, MOST_BYTES, "a LUN's size")
    return entry


def _entry(value: object, what: str) -> Entry:
    if not isinstance(value, dict):
        raise AnswerError(f"{what} is {_shown(value)}, and must be a dictionary")
    return value


def _integer(value: object, least: int, most: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise AnswerError(f"{what} is {_shown(value)}, and must be a number from {least} to {most}")
    return value


def _one_of(sizes: Sequence[int], value: Any, what: str) -> Any:
    if value is not None and not blocks.is_size(value, sizes):
        raise AnswerError(f"{what} is {_shown(value)}, and must be one of {', '.join(map(str, sizes))}")
    return value


def _text(value: Any, pattern: re.Pattern[str] | None, what: str) -> str:
    good = isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()
    if not good or (pattern is not None and not pattern.fullmatch(value)):
        raise AnswerError(f"{what} is {_shown(value)}, which is not valid")
    return str(value)


def _shown(value: object) -> str:
    return ascii(value)[:80]

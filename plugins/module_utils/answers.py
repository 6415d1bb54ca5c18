# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one host has answered, before another host acts on it: what the inventory can tell is taken from there.

A file server, storage host, DR host or backup server that was taken over can answer anything. It must not be able to
choose a path, an address or a name on another host. Every function takes what a module has returned, as it is, and
raises AnswerError for what cannot be right.
"""

from __future__ import annotations

import re

from ansible_collections.openisb.backup.plugins.module_utils.journal import DRILL_ID, RUN_ID
from ansible_collections.openisb.backup.plugins.module_utils.nbd_addresses import NAME, address_of
from ansible_collections.openisb.backup.plugins.module_utils.saveset.order import SEQUENCE_MAX

KEY = re.compile(r"[0-9a-f]{64}")
SAVESET = re.compile(r"[0-9a-f]{32}")
VOLUME = re.compile(r"[^/\s][^/\n\r\t\0]*/[^/\n\r\t\0]+")
FILESYSTEM = re.compile(r"[A-Za-z0-9._+-]{1,64}")
DEVICE = re.compile(r"/[ -~]{1,512}")
MOST_BYTES = 2**63 - 1
LONGEST_TEXT = 1024
LONGEST_EXTENTS = 64 * 1024**2
"""Characters of changed extents: far more than lun_changes.MOST_EXTENTS take."""


class AnswerError(ValueError):
    """A host has answered what cannot be right; the text says what, and never a secret."""


def nbd_address(answer, host):
    """The address of an export that nbd_export or saveset_export has started on ``host``, its fact openisb_host.

    Of the answer only its port and name are taken.
    """
    export = answer.get("export") if isinstance(answer, dict) else None
    if not isinstance(export, dict):
        raise AnswerError("the answer tells of no export")
    port = _integer(export.get("port"), 1, 65535, "the port of the export")
    name = _text(export.get("name"), NAME, "the name of the export")
    return address_of(str(host["address"]), port, name, host["tls"])


def nbd_key(answer, host):
    """The key of that export; empty without TLS."""
    key = answer.get("psk") or ""
    if bool(key) != bool(host["tls"]) or (key and not (isinstance(key, str) and KEY.fullmatch(key))):
        raise AnswerError("the key of the export is not 64 hex digits" if host["tls"] else "there is a key without TLS")
    return key


def held_saveset(answer):
    """The id of the saveset that a standby holds, as nbd_export tells it; empty where that is not known."""
    held = answer.get("held")
    found = held.get("saveset") if isinstance(held, dict) else None
    return _text(found, SAVESET, "the saveset that the target holds") if found else ""


def lun_changes(told):
    """What lun_changes tells of one LUN; only a reason where it cannot be right, so that all of it is read."""
    try:
        found = {key: _text(told.get(key, ""), None, key) for key in ("id", "since")}
        found["reason"] = "".join(each if each.isprintable() else "?" for each in str(told.get("reason", "")))
        found["reason"] = found["reason"][:LONGEST_TEXT]
        found["size"] = _integer(told.get("size", 0), 0, MOST_BYTES, "size")
        extents = told.get("extents", "")
        if not isinstance(extents, str) or len(extents) > LONGEST_EXTENTS:
            raise AnswerError("extents are no text, or too long")
        return dict(found, extents=extents)
    except (AnswerError, AttributeError) as error:
        return {"reason": f"what the storage told cannot be used: {error}"}


def volumes(found, wanted):
    """What volume_info found of a server's volumes. Which ones they are, and of which LUNs, is as the inventory says.

    ``wanted``: the inventory's volumes.
    """
    if not isinstance(found, list) or len(found) != len(wanted):
        raise AnswerError("the server has told of other volumes than the inventory has")
    return [_volume(told, volume) for told, volume in zip(found, wanted)]


def _volume(told, volume):
    name = volume["name"]
    if not isinstance(told, dict) or (told.get("name"), told.get("serial")) != (name, volume["serial"]):
        raise AnswerError(f"the server has told of another volume than {name} with serial {volume['serial']}")
    filesystem = told.get("filesystem")
    return {
        "name": name,
        "serial": volume["serial"],
        "device": volume.get("path") or _text(told.get("device"), DEVICE, f"the device of volume {name}"),
        "size": _integer(told.get("size"), 0, MOST_BYTES, f"the size of volume {name}"),
        "mount": None if volume.get("path") else volume.get("mount"),
        "filesystem": None if filesystem is None else _text(filesystem, FILESYSTEM, f"the filesystem of volume {name}"),
    }


def saveset(entry):
    """A saveset of a catalog, whose names go to other hosts."""
    _text(entry.get("volume"), VOLUME, "a volume of the catalog")
    _text(entry.get("id"), SAVESET, "a saveset's id")
    _text(entry.get("run_id"), NAME, "a saveset's run id")
    _integer(entry.get("size"), 0, MOST_BYTES, "a saveset's size")
    _integer(entry.get("sequence"), 1, SEQUENCE_MAX, "a saveset's number")
    return entry


def run_id(value):
    """The id of a run, from a journal or a storage host: names of files and of snapshots are made of it elsewhere."""
    return _text(value, RUN_ID, "the id of a run")


def drill_id(value):
    """The id of a drill, from a journal."""
    return _text(value, DRILL_ID, "the id of a drill")


def snapshot(entry):
    """A snapshot as lun_snapshot_info returns it."""
    run_id(entry.get("run_id"))
    for size in entry["luns_bytes"].values():
        _integer(size, 0, MOST_BYTES, "a LUN's size")
    return entry


def _integer(value, least, most, what):
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise AnswerError(f"{what} is {_shown(value)}, and can only be a number from {least} to {most}")
    return value


def _text(value, pattern, what):
    good = isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()
    if not good or (pattern is not None and not pattern.fullmatch(value)):
        raise AnswerError(f"{what} is {_shown(value)}, which cannot be")
    return str(value)


def _shown(value):
    return ascii(value)[:80]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backup of a server reads: its volumes, with the LUNs that the storage host has mapped for it."""

from __future__ import annotations

from typing import Any

from ..host.plain import plain
from .answers import LONGEST_TEXT, AnswerError, lun_changes, nbd_address, nbd_key
from .entries import Entry


def sources(
    mapped: Entry,
    server: str,
    volumes: list[Entry],
    storage: Entry,
    metadata: Entry,
    parents: dict[str, str],
    reason: str = "",
) -> Entry:
    """The options ``volumes`` and ``psks`` of the module block_backup.

    ``mapped``: what lun_map answered, or the result of a task whose host did not answer. ``volumes``: of the server,
    each with name and serial. ``storage``: the storage host's fact openisb_host. ``metadata``: of the consistency
    point. ``parents``: by serial, the id of the saveset to build upon. ``reason``: why the storage was not asked what
    has changed, if it was not.

    A LUN that is not mapped, or whose answer cannot be right, becomes a ``problem`` of its volume and of no other.
    """
    wanted, psks = [], {}
    for volume in volumes:
        entry, psk = _source(mapped, volume, storage, reason)
        name = f"{server}/{volume['name']}"
        parent = parents.get(volume["serial"], "")
        wanted.append({"volume": name, "metadata": {**volume, **metadata}, "parent": parent, **entry})
        psks.update({name: psk} if psk else {})
    return {"volumes": wanted, "psks": psks}


def _source(mapped: Entry, volume: Entry, storage: Entry, reason: str) -> tuple[Entry, str]:
    """Where a volume's LUN is read and what has changed on it, and the key of its export."""
    try:
        lun = _lun(mapped, volume["serial"])
        answer = {"export": lun.get("export"), "psk": _known(mapped, "psks").get(volume["serial"])}
        changes = {"reason": reason} if reason else lun_changes(lun)
        found = {"source": nbd_address(answer, storage), "host": str(storage["address"]), "changes": changes}
        return found, nbd_key(answer, storage)
    except AnswerError as error:
        return {"source": "", "problem": f"its LUN was not mapped to the backup server: {error}"}, ""


def _lun(mapped: Entry, serial: str) -> Entry:
    if mapped.get("unreachable"):
        raise AnswerError("the storage host does not answer")
    lun: Any = _known(mapped, "luns").get(serial)
    if not isinstance(lun, dict):
        raise AnswerError("the storage host's answer does not contain it")
    if lun.get("problem"):
        raise AnswerError(plain(str(lun["problem"])[:LONGEST_TEXT]))
    return lun


def _known(mapped: Entry, name: str) -> Entry:
    found = mapped.get(name)
    return found if isinstance(found, dict) else {}

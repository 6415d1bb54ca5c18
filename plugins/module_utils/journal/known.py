# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which savesets the run journal knows: those that a run made, and those that a person adopted."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from .journal import Record

SAVESET = "saveset"
ADOPTED = "adopted"
PLACE = ("id", "volume", "sequence", "time")


def known_savesets(records: Iterable[Record], ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the journal knows of the savesets with these ids: dicts of id, volume, sequence and time (ISO 8601).

    Where the controller knew a value, that value is used: the consistency point is the run's, not the one that the
    backup server named.
    """
    known = Known(ids)
    for record in records:
        known.put(record)
    return known.told()


class Known:
    """The same, for records that are put in one after the other."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids, self._wanted = ids, set(ids)
        self._found: dict[str, dict[str, Any]] = {}

    def put(self, record: Record) -> None:
        """The next record."""
        for saveset in _named(record):
            if saveset.get("id") in self._wanted:
                self._found[saveset["id"]] = {key: saveset.get(key) for key in PLACE}

    def told(self) -> list[dict[str, Any]]:
        """The known savesets, in the order of the ids."""
        return [self._found[saveset_id] for saveset_id in self._ids if saveset_id in self._found]


def _named(record: Record) -> list[dict[str, Any]]:
    """The savesets that a record vouches for."""
    data = record["data"]
    if record["event"] == SAVESET:
        return [dict(data["saveset"], time=data.get("consistency_point") or data["saveset"]["time"])]
    return data["savesets"] if record["event"] == ADOPTED else []

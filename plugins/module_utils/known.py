# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which savesets the run journal knows: those that a run made, and those that a person took into it."""

from __future__ import annotations

SAVESET = "saveset"
ADOPTED = "adopted"
PLACE = ("id", "volume", "sequence", "time")


def known_savesets(records, ids):
    """What the journal knows of the savesets with these ids: dicts of id, volume, sequence and time (ISO 8601).

    Its word is taken from what the controller knew where it did: the consistency point is the run's, not the one that
    the backup server named.
    """
    wanted, found = set(ids), {}
    for record in records:
        for saveset in _named(record):
            if saveset.get("id") in wanted:
                found[saveset["id"]] = {key: saveset.get(key) for key in PLACE}
    return [found[saveset_id] for saveset_id in ids if saveset_id in found]


def _named(record):
    """The savesets that a record vouches for."""
    data = record["data"]
    if record["event"] == SAVESET:
        return [dict(data["saveset"], time=data.get("consistency_point") or data["saveset"]["time"])]
    return data["savesets"] if record["event"] == ADOPTED else []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses savesets from a catalog, a list of them, by volume and then in the order in which they came.

A catalog that with_places() made says of each saveset whether it is set aside, and so never a latest one.
"""

from __future__ import annotations

import datetime

from ansible_collections.openisb.backup.plugins.module_utils.answers import saveset as checked
from ansible_collections.openisb.backup.plugins.module_utils.saveset.order import Place, set_aside

FACTS = ("id", "volume", "sequence", "time")


def with_places(savesets, known):
    """The savesets in order, each with ``aside`` (why it is set aside, or empty) and ``unknown``.

    ``savesets``: of each volume all that it has. ``known``: what the journal knows of them, dicts of id, volume,
    sequence and time; None where no journal is asked, and the order alone rules. What the journal does not know is
    ``unknown``.
    """
    places = {saveset["id"]: place_of(saveset) for saveset in savesets}
    told = None if known is None else {entry["id"]: place_of(entry) for entry in known}
    aside = set_aside(places.values(), told)
    return [
        dict(
            saveset,
            aside=aside.get(saveset["id"], ""),
            unknown=told is not None and told.get(saveset["id"]) != places[saveset["id"]],
        )
        for saveset in sorted(savesets, key=lambda saveset: places[saveset["id"]])
    ]


def place_of(saveset):
    """The place of a saveset in the order."""
    time = datetime.datetime.fromisoformat(saveset["time"])
    return Place(saveset["volume"], saveset["sequence"], time, saveset["id"])


def unknown_savesets(savesets):
    """Those that the journal does not know, a line each; for people."""
    heading = (
        "The journal does not know these savesets, so they are set aside: no latest one, no parent, in no rule of "
        "retention. If they are yours, as the journal was lost or a run died before it could record them, take them "
        "into it with 'ansible-playbook adopt.yml'; if not, somebody else has a key of the repository:"
    )
    lines = [
        "{volume} of {time}, run {run_id}, saveset {id}".format(**saveset) for saveset in savesets if saveset["unknown"]
    ]
    return lines and [heading, *lines]


def choose_savesets(savesets, servers, volume, run_id=""):
    """The wanted saveset of each wanted volume: a dict of savesets and problem (a text, empty where all were found).

    ``servers``: names with commas. ``volume``: a volume's name, or empty for all volumes of these servers. ``run_id``:
    the run; the latest saveset of each volume where it is empty. Of a run those count that the journal knows.
    """
    wanted = [name.strip() for name in servers.split(",") if name.strip()]
    there = [
        checked(saveset)
        for saveset in savesets
        if saveset["server"] in wanted
        and volume in ("", saveset["volume"].partition("/")[2])
        and run_id in ("", saveset["run_id"])
    ]
    good = [saveset for saveset in there if not (saveset["unknown"] if run_id else saveset["aside"])]
    chosen = {saveset["volume"]: saveset for saveset in good}
    found = {saveset["server"] for saveset in good}
    missing = [name for name in wanted if name not in found]
    problem = ""
    if missing:
        problem = "There is no saveset{}{} of {} to restore: 'ansible-playbook catalog.yml' lists all{}".format(
            f" of volume {volume}" if volume else "",
            f" of run {run_id}" if run_id else "",
            ", ".join(missing),
            set_aside_text([saveset for saveset in there if saveset["server"] in missing]),
        )
    return {"savesets": [chosen[name] for name in sorted(chosen)], "problem": problem}


def set_aside_text(savesets):
    """What to add where there are savesets, and every one is set aside."""
    if not savesets:
        return ""
    return (
        "; set aside are {}. 'adopt.yml' takes those into the journal that it does not know, and with "
        "-e isb_without_journal=true it is not asked".format(
            ", ".join("{id} ({why})".format(why=saveset["aside"], **saveset) for saveset in savesets)
        )
    )


def bases(volumes, server, savesets):
    """The run of each volume's latest saveset, by the volume's serial; empty where it has none."""
    return _of_latest(volumes, server, savesets, "run_id")


def parents(volumes, server, savesets):
    """The id of each volume's latest saveset, by the volume's serial; empty where it has none."""
    return _of_latest(volumes, server, savesets, "id")


def _of_latest(volumes, server, savesets, what):
    latest = {saveset["volume"]: saveset[what] for saveset in savesets if not saveset["aside"]}
    return {volume["serial"]: latest.get("{}/{}".format(server, volume["name"]), "") for volume in volumes}


def to_adopt(savesets, wanted, confirmed):
    """What the journal is to know from now on: a dict of savesets (id, volume, sequence, time) and problem (a text).

    ``savesets``: as with_places() makes them. ``wanted``: ids with commas, or ``all``, which counts only where
    ``confirmed`` is how many there are.
    """
    unknown = {saveset["id"]: saveset for saveset in savesets if saveset["unknown"]}
    ids = [name.strip() for name in wanted.split(",") if name.strip()]
    problem = ""
    if ids == ["all"]:
        ids = list(unknown)
        if str(confirmed) != str(len(ids)):
            problem = (
                f"all are {len(ids)} savesets, each of which would count from now on: look at every one of them, then "
                f"confirm it by their number with -e adopt_confirm={len(ids)}"
            )
    strangers = [name for name in ids if name not in unknown]
    if strangers:
        problem = "the journal knows these, or no repository has them: {}. Give whole ids of those listed".format(
            ", ".join(strangers)
        )
    adopted = [{key: unknown[name][key] for key in FACTS} for name in ids if name in unknown]
    return {"savesets": [] if problem else adopted, "problem": problem}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses savesets from a catalog: a list of savesets by volume, and within a volume in the order they were made.

with_places() marks in a catalog which savesets are set aside, and so never the latest.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from ..saveset.format.order import CLOCK_LIMIT, Place, in_the_future, set_aside
from .answers import saveset as checked
from .entries import Entry

FACTS = ("id", "volume", "sequence", "time")


def with_places(savesets: list[Entry], known: list[Entry] | None, now: float | None = None) -> list[Entry]:
    """The savesets in order, each with ``aside`` (why it is set aside, or empty), ``ahead`` and ``unknown``.

    ``savesets``: all savesets of each volume. ``known``: what the journal knows of them, as dicts of id, volume,
    sequence and time; None where there is no journal, so that only the order decides. ``unknown``: whether the journal
    does not know it. ``now``: seconds since the epoch by this host's clock, or None. ``ahead``: why a saveset that is
    not set aside is in the future of that clock; it keeps its place, because it is not known which clock was wrong.
    """
    places = {saveset["id"]: place_of(saveset) for saveset in savesets}
    told = None if known is None else {entry["id"]: place_of(entry) for entry in known}
    aside = set_aside(places.values(), told)
    ahead = _ahead([place for place in places.values() if place.id not in aside], now)
    return [
        dict(
            saveset,
            aside=aside.get(saveset["id"], ""),
            ahead=ahead.get(saveset["id"], ""),
            unknown=told is not None and told.get(saveset["id"]) != places[saveset["id"]],
        )
        for saveset in sorted(savesets, key=lambda saveset: places[saveset["id"]])
    ]


def _ahead(places: Iterable[Place], now: float | None) -> dict[str, str]:
    if now is None:
        return {}
    return in_the_future(places, datetime.datetime.fromtimestamp(float(now), datetime.UTC) + CLOCK_LIMIT)


def place_of(saveset: Entry) -> Place:
    """The place of a saveset in the order."""
    time = datetime.datetime.fromisoformat(saveset["time"])
    return Place(saveset["volume"], saveset["sequence"], time, saveset["id"])


def unknown_savesets(savesets: list[Entry]) -> list[str]:
    """The savesets that the journal does not know, one line each, for people."""
    heading = (
        "The journal does not know these savesets, so they are set aside: never the latest, never a parent, and not "
        "counted by retention. If they are yours, because the journal was lost or a run died before it could record "
        "them, adopt them with 'ansible-playbook adopt.yml'; if not, somebody else has a key of the repository:"
    )
    lines = [
        "{volume} of {time}, run {run_id}, saveset {id}".format(**saveset) for saveset in savesets if saveset["unknown"]
    ]
    return lines and [heading, *lines]


def out_of_order(savesets: list[Entry]) -> list[str]:
    """The savesets with a time from a wrong clock, or otherwise out of order, one line each, for people.

    Savesets that the journal does not know are not among them: see unknown_savesets().
    """
    heading = (
        "These savesets are out of order (docs/retention.md, The order of savesets). One that is set aside is never "
        "the latest, never a parent, and not counted by retention; one that is ahead of the clock is refused by drills:"
    )
    lines = [
        named(saveset) for saveset in savesets if (saveset["aside"] or saveset["ahead"]) and not saveset["unknown"]
    ]
    return lines and [heading, *lines]


def named(saveset: Entry) -> str:
    """One line that identifies a saveset, and says what is wrong with its time."""
    text = "{volume} of {time}, run {run_id}, saveset {id}".format(**saveset)
    return text + "".join(f"; {why}" for why in (saveset.get("aside"), saveset.get("ahead")) if why)


def choose_savesets(savesets: list[Entry], servers: str, volume: str, run_id: str = "") -> Entry:
    """Choose a saveset for each wanted volume: a dict of savesets and problem (a text, empty where all were found).

    ``servers``: names, separated by commas. ``volume``: a volume's name; empty for all volumes of these servers.
    ``run_id``: the run; empty for the latest saveset of each volume. Of a run, only savesets that the journal knows
    count.
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


def set_aside_text(savesets: list[Entry]) -> str:
    """What to add where there are savesets, but all are set aside."""
    if not savesets:
        return ""
    return (
        "; set aside are {}. 'adopt.yml' adopts those that the journal does not know, and with "
        "-e isb_without_journal=true the journal is ignored".format(
            ", ".join("{id} ({why})".format(why=saveset["aside"], **saveset) for saveset in savesets)
        )
    )


def bases(volumes: list[Entry], server: str, savesets: list[Entry]) -> dict[str, str]:
    """The run of each volume's latest saveset, by the volume's serial; empty where it has none."""
    return _of_latest(volumes, server, savesets, "run_id")


def parents(volumes: list[Entry], server: str, savesets: list[Entry]) -> dict[str, str]:
    """The id of each volume's latest saveset, by the volume's serial; empty where it has none."""
    return _of_latest(volumes, server, savesets, "id")


def _of_latest(volumes: list[Entry], server: str, savesets: list[Entry], what: str) -> dict[str, str]:
    latest = {saveset["volume"]: saveset[what] for saveset in savesets if not saveset["aside"]}
    return {volume["serial"]: latest.get("{}/{}".format(server, volume["name"]), "") for volume in volumes}


def to_adopt(savesets: list[Entry], wanted: str, confirmed: int | str) -> Entry:
    """The savesets to adopt: a dict of savesets (id, volume, sequence, time) and problem (a text).

    ``savesets``: as with_places() makes them. ``wanted``: ids separated by commas, or ``all``, which is accepted only
    if ``confirmed`` is their number.
    """
    unknown = {saveset["id"]: saveset for saveset in savesets if saveset["unknown"]}
    ids = [name.strip() for name in wanted.split(",") if name.strip()]
    problem = ""
    if ids == ["all"]:
        ids = list(unknown)
        if str(confirmed) != str(len(ids)):
            problem = (
                f"'all' is {len(ids)} savesets, each of which would count from now on: look at every one of them, then "
                f"confirm their number with -e adopt_confirm={len(ids)}"
            )
    strangers = [name for name in ids if name not in unknown]
    if strangers:
        problem = "the journal knows these, or no repository has them: {}. Give complete ids from the list".format(
            ", ".join(strangers)
        )
    adopted = [{key: unknown[name][key] for key in FACTS} for name in ids if name in unknown]
    return {"savesets": [] if problem else adopted, "problem": problem}

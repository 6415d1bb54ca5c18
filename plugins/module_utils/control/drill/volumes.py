# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds a volume's filesystem on its LUN, and the context for checks over several servers."""

from __future__ import annotations

from ...saveset.format.order import set_aside
from .. import answers
from ..catalog import place_of
from ..entries import Entry, Record
from ..inventory import HostVars
from ..verdict import FAILED
from .mounting import mount_options, mount_type

UNKNOWN: Entry = {"time": "", "verdict": FAILED, "sequence": 0}
"""The consistency point of a snapshot that the journal does not know."""
NOT_MOUNTED = ("LVM2_member", "swap", "crypto_LUKS", "linux_raid_member", "")


def part_of(lun: Entry, volume: Entry, writable: bool, in_use: bool = False) -> Entry:
    """The part of a LUN that holds a volume's filesystem: a dict of device, type, mount_type, options and problem.

    ``lun``: as the module idr_lun returns it. ``volume``: of the plan; its ``part`` is a partition's number or the name
    of a logical volume, needed where the LUN has more than one filesystem. ``in_use``: whether production continues on
    it. ``problem``: empty where the part was found.
    """
    found = [part for part in lun["parts"] if part["type"] not in NOT_MOUNTED]
    wanted = str(volume.get("part") or "")
    if wanted:
        found = [part for part in lun["parts"] if wanted in (str(part["number"]), part.get("name") or "")]
    if len(found) != 1:
        return {"problem": _problem(lun, found, wanted)}
    return {
        "device": found[0]["device"],
        "type": found[0]["type"],
        "mount_type": mount_type(found[0]["type"]),
        "options": mount_options(found[0]["type"], writable, in_use),
        "problem": "",
    }


def _problem(lun: Entry, found: list[Entry], wanted: str) -> str:
    there = "; ".join(
        "{} {}".format(part.get("name") or part["number"], part["type"] or "of unknown type") for part in lun["parts"]
    )
    if wanted:
        return f"the LUN has no part {wanted} ({there or 'it has none'}): correct idr_part"
    if not found:
        return f"there is no filesystem on it ({there or 'it is empty'})"
    return f"it has {len(found)} filesystems ({there}): name the one of the volume with idr_part"


def context(servers: dict[str, Entry], hostvars: HostVars, drill: str, dr_host: str) -> Entry:
    """The context for a check over several servers: a dict of drill and servers, those that are up on ``dr_host``.

    ``servers``: of the plan. Each server has run_id, consistency_point, mounts (production's mount point to that here)
    and devices (volume to device).
    """
    return {
        "drill": drill,
        "servers": {
            server: {
                "run_id": entry["run_id"],
                "consistency_point": entry["volumes"][0]["consistency_point"],
                **hostvars[server].get("idr_up", {"mounts": {}, "devices": {}}),
            }
            for server, entry in servers.items()
            if entry["dr_host"] == dr_host
        },
    }


def saveset_points(servers: list[str], hostvars: HostVars, catalogs: dict[str, list[Entry]]) -> list[Entry]:
    """The savesets of these servers, each from its own backup server. ``catalogs``: by backup server."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for host, catalog in catalogs.items():
        for saveset in catalog:
            found.setdefault((host, saveset["server"]), []).append(saveset)
    return [
        answers.saveset(saveset)
        for server in servers
        for saveset in found.get((hostvars[server]["isb_backup_server"], server), [])
    ]


def snapshot_points(
    servers: list[str], hostvars: HostVars, snapshots: dict[str, list[Entry]], thawed: list[Record]
) -> list[Entry]:
    """The LUNs of snapshots in the form of a catalog of savesets, in the order of the journal.

    ``snapshots``: by storage host, as lun_snapshot_info returns them. ``thawed``: the journal's records of that event.
    LUNs that the journal does not know have the verdict ``failed``, come first, and are ``unknown``; those with a time
    from a wrong clock are set aside, like savesets.
    """
    found = []
    points = _points(thawed)
    hosts = dict.fromkeys(hostvars[server]["isb_storage_host"] for server in servers)
    valid = {host: [answers.snapshot(snapshot) for snapshot in snapshots.get(host, [])] for host in hosts}
    for server in servers:
        for snapshot in valid[hostvars[server]["isb_storage_host"]]:
            point = points.get((snapshot["run_id"], server), UNKNOWN)
            found += [
                {
                    "id": "{}/{}".format(snapshot["run_id"], volume["serial"]),
                    "volume": "{}/{}".format(server, volume["name"]),
                    "server": server,
                    "run_id": snapshot["run_id"],
                    "sequence": point["sequence"],
                    "aside": "" if point["sequence"] else "the journal does not know it",
                    "unknown": not point["sequence"],
                    "time": point["time"] or _time_of(snapshot["run_id"]),
                    "verdict": point["verdict"],
                    "size": snapshot["luns_bytes"][volume["serial"]],
                }
                for volume in hostvars[server]["isb_volumes"]
                if volume["serial"] in snapshot["luns_bytes"]
            ]
    aside = set_aside(place_of(entry) for entry in found if not entry["unknown"])
    return [
        dict(entry, aside=entry["aside"] or aside.get(entry["id"], ""))
        for entry in sorted(found, key=lambda entry: entry["sequence"])
    ]


def _points(thawed: list[Record]) -> dict[tuple[str, str], Entry]:
    """By run and server, the time and verdict of its consistency point, and its place in the journal (from 1 on)."""
    found: dict[tuple[str, str], Entry] = {}
    for number, record in enumerate(thawed, 1):
        for server, entry in record["data"]["servers"].items():
            point = {"time": record["data"]["time"], "verdict": entry["verdict"], "sequence": number}
            found.setdefault((record["run_id"], server), point)
    return found


def _time_of(run_id: str) -> str:
    """The time in a run id: ``isb-20261123T021500Z-4f1c2a``."""
    date, clock = run_id.split("-")[1].rstrip("Z").split("T")
    return f"{date[:4]}-{date[4:6]}-{date[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}+00:00"


def by_dr_host(servers: dict[str, Entry]) -> dict[str, list[Entry]]:
    """The volumes that each DR host brings up. ``servers``: of the plan."""
    found: dict[str, list[Entry]] = {}
    for entry in servers.values():
        found.setdefault(entry["dr_host"], []).extend(entry["volumes"])
    return found


def obstacles(asked: list[Entry]) -> list[str]:
    """Obstacles on the DR hosts, as texts that name the host. ``asked``: the results of idr_host_info, by item."""
    found = []
    for result in asked:
        if result.get("unreachable"):
            found.append("{}: it cannot be reached ({})".format(result["item"], _text(result)))
        else:
            found += ["{}: {}".format(result["item"], text) for text in result["problems"]]
    return found


def _text(result: Entry) -> str:
    return " ".join(str(result.get("msg") or "it gave no reason").split())

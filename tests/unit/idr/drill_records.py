# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills as their journal tells of them: whole ones that a test then changes."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import GENESIS, record_hash

DRILL = "idr-20261128T210000Z-4f1c2a"
RUN = "isb-20261128T205512Z-90be12"
OTHER_RUN = "isb-20261127T205509Z-17c0aa"
POINT = "2026-11-28T20:55:19.412+00:00"
BEGIN = datetime.datetime(2026, 11, 28, 21, 0, 0, tzinfo=datetime.UTC)
GIB = 1024**3

Event = tuple[float, str, dict[str, Any]]
"""Seconds since the drill was opened, the event and its data."""

E2FSCK = """e2fsck 1.47.0 (5-Feb-2023)
Pass 1: Checking inodes, blocks, and sizes
Pass 2: Checking directory structure
Pass 3: Checking directory connectivity
Pass 4: Checking reference counts
Pass 5: Checking group summary information
{device}: 214/24576 files (0.5% non-contiguous), 71644/98304 blocks
"""
INTEG = """Integ of region DEFAULT

No errors detected by integ.

Type           Blocks         Records          % Used      Adjacent

Directory           2               4           1.098            NA
Index              61           12044          73.220             4
Data            11984          418210          81.407         11801
Free            20321              NA              NA            NA
Total           32368          430258              NA         11805
[Spanning Nodes:0 ; Blocks:0]
"""

DAMAGE = """Block:Offset Level
%GTM-E-DBBSIZMN, 3F1A:0  0  Block too small
          Directory Path:  1:10, 2:1F2
Total error count from integ:           1."""


def hexed(text: str) -> str:
    """Something that looks like a digest, always the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()


def volume(server: str, name: str = "m", **changes: Any) -> dict[str, Any]:
    """A volume as the record `opened` plans it."""
    return {
        "volume": f"{server}/{name}",
        "name": name,
        "saveset": hexed(f"saveset {server}/{name}")[:32],
        "run_id": RUN,
        "consistency_point": POINT,
        "verdict": "application-consistent",
        "size": 4 * GIB,
        "digest": hexed(f"digest {server}/{name}"),
        "mount": f"/srv/{name}",
        "dr_mount": f"/idr/{server}/{name}",
        **changes,
    }


def planned(*volumes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A server as the record `opened` plans it."""
    targets = {"rpo_target_s": 900, "rto_target_s": 300}
    return {"dr_host": "dr1", "ring": "", **targets, "volumes": list(volumes), **changes}


def opened(servers: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The data of the record `opened`."""
    return {
        "mode": "test",
        "source": "instant",
        "who": {"user": "m.okafor", "host": "awx-3.example.org"},
        "declared": "2026-11-28T21:00:00.000000+00:00",
        "controller": {"host": "awx-3.example.org", "pid": 4711, "ticks": 99},
        "repository": "/var/lib/openisb/repository",
        "keep": False,
        "ttl_s": None,
        "dr_hosts": ["dr1"],
        "servers": servers,
        "targets": {"rpo_s": 900, "rto_s": 600},
        **changes,
    }


def check(kind: str, what: str, ok: bool = True, **changes: Any) -> dict[str, Any]:
    """A check as recovery_check returns it."""
    output = changes.get("output", "")
    return {
        "kind": kind,
        "what": what,
        "ok": ok,
        "detail": "" if ok else "exit status 4",
        "seconds": 0.84,
        "output": output,
        "output_sha256": hexed(output),
        "commands": [],
        "files": [],
        **changes,
    }


def filesystem_check(name: str, seconds: float) -> dict[str, Any]:
    """A filesystem that is sound."""
    device = "/dev/loop7"
    argv = ["e2fsck", "-fn", device]
    commands = [{"argv": argv, "rc": 0, "seconds": seconds}]
    return check("filesystem", f"{name} ext4", output=E2FSCK.format(device=device), commands=commands, seconds=seconds)


def gtm_check(server: str, seconds: float) -> dict[str, Any]:
    """An M database that is sound."""
    file = f"/idr/{server}/m/mumps.dat"
    commands = [
        {"argv": ["mupip", "rundown", "-file", file, "-override"], "rc": 0, "seconds": 0.21},
        {"argv": ["mupip", "freeze", "-off", "-override", "DEFAULT"], "rc": 0, "seconds": 0.11},
        {"argv": ["mupip", "integ", "-noonline", "-file", file], "rc": 0, "seconds": round(seconds - 0.32, 2)},
    ]
    files = [{"path": "/srv/m/mumps.dat", "size": 268435456, "sha256": hexed(f"{server} mumps.dat")}]
    what = f"{server}/m: /srv/m/mumps.dat"
    return check("gtm", what, output=INTEG, commands=commands, files=files, seconds=seconds)


def files_check(server: str) -> dict[str, Any]:
    """Files that are there."""
    names = ["index.db", "2026/11/admissions.log", "2026/11/orders.log"]
    files = [
        {"path": f"/srv/files/{name}", "size": 48213 * n, "sha256": hexed(name)} for n, name in enumerate(names, 1)
    ]
    return check("files", f"{server}/files: 3 files", files=files, seconds=0.06)


def group_check(servers: list[str]) -> dict[str, Any]:
    """The check of all servers together."""
    report = {"one_point_in_time": True, "transfers": {"sent": 18211, "received": 18211, "lost": 0}, "servers": servers}
    argv = ["/lab/check", "--mounted"]
    output = json.dumps(report, indent=2)
    return check(
        "command", " ".join(argv), output=output, commands=[{"argv": argv, "rc": 0, "seconds": 3.4}], seconds=3.4
    )


def server_events(server: str, begin: float, names: tuple[str, ...]) -> list[Event]:
    """What a drill does for one server."""
    events: list[Event] = []
    at = begin
    for number, name in enumerate(names):
        at += 1.1 + 0.3 * number
        lun = {"device": "/dev/loop7", "type": "ext4", "dr_mount": f"/idr/{server}/{name}", "method": "nbdfuse"}
        events.append((at, "lun", {"server": server, "volume": f"{server}/{name}", **lun, "seconds": 1.05}))
    for name in names:
        whose = {"server": server, "volume": f"{server}/{name}"}
        at += 2.2
        events.append((at, "check", {**whose, "check": filesystem_check(f"{server}/{name}", 2.05)}))
        at += 4.0 if name == "m" else 0.2
        events.append((at, "check", {**whose, "check": gtm_check(server, 3.9) if name == "m" else files_check(server)}))
    return [*events, (at + 0.1, "ready", {"server": server})]


def good() -> list[Event]:
    """A drill of three servers that passes."""
    layout = {"fs1": ("m", "files"), "fs2": ("m",), "fs3": ("m", "files")}
    servers = {server: planned(*(volume(server, name) for name in names)) for server, names in layout.items()}
    events: list[Event] = [(0.0, "opened", opened(servers))]
    for number, (server, names) in enumerate(layout.items()):
        events += server_events(server, 1.2 + 0.4 * number, names)
    events.sort(key=lambda event: event[0])
    end = events[-1][0]
    events.append((end + 3.6, "check", {"server": "", "volume": "", "check": group_check(list(layout))}))
    events.append((end + 6.1, "torn_down", {"host": "dr1", "left": []}))
    return events


def bad() -> list[Event]:
    """A drill in which much goes wrong: fs1 is damaged, fs2 of another run, fs3 never up, and something is left."""
    events = [event for event in good() if event[2].get("server") != "fs3"]
    data = events[0][2]
    data["servers"]["fs2"]["volumes"][0].update(run_id=OTHER_RUN, consistency_point="2026-11-27T20:55:14.100+00:00")
    for _at, event, data in events:
        if event == "check" and data["server"] == "fs1" and data["check"]["kind"] == "gtm":
            data["check"].update(ok=False, detail="mupip integ found 1 error in /srv/m/mumps.dat: DBBSIZMN")
            data["check"]["output"] = INTEG.replace("No errors detected by integ.", DAMAGE)
            data["check"]["commands"][-1]["rc"] = 1
        if event == "check" and not data["server"]:
            data["check"].update(ok=False, detail="fs2 has received 211 transfers that fs1 has not sent")
        if event == "torn_down":
            data["left"] = ["the mount /idr/fs3/m", "process 48113: nbdfuse"]
    problem = "pack 7c/7c1e09 of saveset 3f9a is damaged at offset 18874368: restore it from a copy of the repository"
    return [*events[:4], (9.2, "failed", {"server": "fs3", "problem": problem}), *events[4:]]


def large(count: int = 30) -> list[Event]:
    """A drill of many servers in two rings, restored in full, declared hours before it began, with long names."""
    names = [f"meditech-file-server-{number:02d}" for number in range(1, count + 1)]
    servers = {
        name: planned(
            volume(name, size=700 * GIB, consistency_point="2026-11-28T18:05:12.101+00:00"),
            ring="ring-a" if number % 2 else "ring-b",
            rto_target_s=4 * 3600,
        )
        for number, name in enumerate(names)
    }
    declared = "2026-11-28T18:22:41.000000+00:00"
    targets = {"rpo_s": 4 * 3600, "rto_s": 6 * 3600}
    for server in servers.values():
        server["rpo_target_s"] = 4 * 3600
    data = opened(servers, source="restore", declared=declared, targets=targets, dr_hosts=["dr1", "dr2"])
    for number, server in enumerate(servers.values()):
        server["dr_host"] = f"dr{number % 2 + 1}"
    events: list[Event] = [(0.0, "opened", data)]
    for number, name in enumerate(names):
        end = 900.0 + 137.0 * number
        stats = {"bytes_written": 700 * GIB - number * 12345678, "bytes_kept": 0}
        events.append((end, "restored", {"server": name, "volume": f"{name}/m", "stats": stats, "seconds": end - 12.0}))
        events += [(end + at, event, item) for at, event, item in server_events(name, 0.0, ("m",))]
    events.sort(key=lambda event: event[0])
    end = events[-1][0]
    return [
        *events,
        (end + 30, "torn_down", {"host": "dr1", "left": []}),
        (end + 41, "torn_down", {"host": "dr2", "left": []}),
    ]


def records(events: list[Event], drill: str = DRILL, after: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    """The events as records of a journal, chained behind those of ``after``."""
    chain = after or []
    made: list[dict[str, Any]] = []
    for at, event, data in events:
        last = (made or chain or [None])[-1]
        record = {
            "seq": len(chain) + len(made) + 1,
            "time": (BEGIN + datetime.timedelta(seconds=at)).isoformat(timespec="microseconds"),
            "run_id": drill,
            "event": event,
            "data": data,
            "previous": last["hash"] if last else GENESIS,
        }
        record["hash"] = record_hash(record)
        made.append(record)
    return made


def find(events: list[Event], event: str, **wanted: Any) -> dict[str, Any]:
    """The data of the first event of a kind whose data has what is wanted."""
    return next(data for _at, name, data in events if name == event and wanted.items() <= data.items())


def without(events: list[Event], event: str, **wanted: Any) -> list[Event]:
    """The events but those of a kind whose data has what is wanted."""
    return [item for item in events if not (item[1] == event and wanted.items() <= item[2].items())]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which savesets a drill reads completely, beyond what its checks read, and the result for each server."""

from __future__ import annotations

from ..entries import Entry
from ..inventory import HostVars

KIND = "content"
TOLD = 20  # the most problems in a check's output


def jobs(servers: dict[str, Entry], hostvars: HostVars) -> list[Entry]:
    """Which savesets are read together: dicts of backup_server, run_id and servers. ``servers``: of the plan."""
    found: dict[tuple[str, str], list[str]] = {}
    for server, entry in servers.items():
        found.setdefault((hostvars[server]["isb_backup_server"], entry["run_id"]), []).append(server)
    return [{"backup_server": host, "run_id": run_id, "servers": names} for (host, run_id), names in found.items()]


def checks(results: list[Entry]) -> list[Entry]:
    """A check for each server, in the form of recovery_check: a list of dicts of server and check.

    ``results``: of saveset_verify, by item (a job of jobs()). Damage that belongs to no volume counts for every server.
    """
    return [
        {"server": server, "check": _check(result, server)}
        for result in results
        for server in result["item"]["servers"]
    ]


def _check(result: Entry, server: str) -> Entry:
    read = "problems" in result
    mine = [
        problem for problem in result.get("problems") or [] if (problem["volume"] or server).split("/")[0] == server
    ]
    return {
        "kind": KIND,
        "what": "every byte of its savesets of run {}".format(result["item"]["run_id"]),
        "ok": read and not mine,
        "detail": _detail(result, mine) if read else _text(result),
        "seconds": round(result.get("seconds") or 0.0, 3),
        "output": "\n".join(_line(problem) for problem in mine[:TOLD]),
        "output_sha256": "",
        "commands": [],
        "files": [],
    }


def _detail(result: Entry, mine: list[Entry]) -> str:
    if not mine:
        return "{} MiB read, no damage".format(result["bytes"] // 1024**2)
    more = f" (and {len(mine) - 1} more)" if mine[1:] else ""
    return f"damage found: {_line(mine[0])}{more}. Keep the repository as it is, and restore from another copy of it"


def _line(problem: Entry) -> str:
    return "{}: {}: {}".format(problem["volume"] or "the repository", problem["object"], problem["problem"])


def _text(result: Entry) -> str:
    reason = " ".join(str(result.get("msg") or "it gave no reason").split())
    return f"the savesets could not be read: {reason}"

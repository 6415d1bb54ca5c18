# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks copies of all volumes of the lab's file servers: filesystems, databases, and one point in time.

Reads a JSON document from its input: ``images`` (server to volume to path of the copy), ``gtm_dist``, ``routines``
(folder of LABCHECK.m), ``scratch`` (folder that may be emptied and filled). Prints the report as JSON:

    one_point_in_time   whether the copies agree with each other, and each with itself
    sound               whether all filesystems and databases are clean
    violations          list of what speaks against one_point_in_time (see cross_check)
    servers             per server: volumes (path, filesystem, clean, said), database (clean, said), and how far it came

The copies themselves are never changed.
"""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import copies
import cross_check
from command import CheckError
from database_check import Database


def check(asked: dict[str, Any]) -> dict[str, Any]:
    """The report on all servers."""
    servers, states = {}, {}
    for server, volumes in sorted(asked["images"].items()):
        scratch = copies.fresh_folder(asked["scratch"])
        try:
            servers[server], states[server] = check_server(server, volumes, asked, scratch)
        finally:
            shutil.rmtree(scratch)
    violations = cross_check.violations(states)
    sound = all(
        part["clean"] for server in servers.values() for part in [*server["volumes"].values(), server["database"]]
    )
    return {"one_point_in_time": not violations, "sound": sound, "violations": violations, "servers": servers}


def check_server(server: str, volumes: dict[str, str], asked: dict[str, Any], scratch: str) -> tuple[Any, Any]:
    """The report on one server, and the state of its database."""
    checked, database = {}, None
    for name, path in sorted(volumes.items()):
        checked[name], found = copies.check(path, scratch)
        database = found or database
    if not database:
        where = ", ".join(volumes.values())
        raise CheckError(f"{server}: none of its copies holds {copies.DATABASE}: {where}")
    integrity, told = Database(database, asked["gtm_dist"], asked["routines"]).check()
    state = cross_check.parse(told)
    return {"volumes": checked, "database": integrity, **cross_check.summary(state)}, state


def main() -> int:
    try:
        report = check(json.load(sys.stdin))
    except CheckError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

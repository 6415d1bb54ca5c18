# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks databases on volumes that a drill has mounted, on copies because the mounts belong to the drill."""

from __future__ import annotations

import os
import shutil
from typing import Any

import copies
import cross_check
import judgement
from command import CheckError
from database_check import Database


def check(context: dict[str, Any], gtm_dist: str, routines: str, scratch: str) -> dict[str, Any]:
    """Return the report on the servers of ``context``: each has ``mounts``, production's mount point to the one here.

    Filesystems are not checked, because they are mounted.
    """
    servers = context.get("servers") or {}
    if not servers:
        raise CheckError("'servers' has no server: nothing is mounted that could be checked")
    found, states = {}, {}
    for server, told in sorted(servers.items()):
        folder = copies.fresh_folder(os.path.join(scratch, "labcheck"))
        try:
            database = copies.copy_file(_database(server, told.get("mounts") or {}), folder)
            integrity, lines = Database(database, gtm_dist, routines).check()
        finally:
            shutil.rmtree(folder)
        found[server] = {"volumes": {}, "database": integrity}
        states[server] = cross_check.parse(lines)
    return judgement.report(found, states)


def _database(server: str, mounts: dict[str, str]) -> str:
    for _there, here in sorted(mounts.items()):
        path = os.path.join(here, copies.DATABASE)
        if os.path.isfile(path):
            return path
    where = ", ".join(sorted(mounts.values())) or "nothing is mounted"
    raise CheckError(f"{server}: none of its mounts holds {copies.DATABASE}: {where}")

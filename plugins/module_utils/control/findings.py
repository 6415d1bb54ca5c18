# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight found on file servers, from what their one task returned."""

from __future__ import annotations

from typing import Any

from .answers import AnswerError, volumes
from .entries import Entry
from .failures import failure_text


def server_findings(servers: list[str], hostvars: Any) -> dict[str, Entry]:
    """By server, a dict of checks, holders and volumes, or of problem; nothing of a server that did not answer.

    ``hostvars``: each host's variables, with ``preflight_server``, what server_info returned.
    """
    found = {server: _findings(hostvars[server]) for server in servers}
    return {server: entry for server, entry in found.items() if entry}


def _findings(variables: Any) -> Entry | None:
    wanted = variables["isb_volumes"]
    if not variables.get("isb_drivers"):
        # It is not contacted: the ring quiesces it, and the storage finds its LUNs.
        return {"checks": [], "holders": [], "volumes": [{**volume, "size": None} for volume in wanted]}
    told = variables.get("preflight_server")
    if not isinstance(told, dict) or told.get("unreachable"):
        return None
    if "volumes" not in told:
        return {"problem": failure_text(told)}
    try:
        return {"checks": told["checks"], "holders": told["holders"], "volumes": volumes(told["volumes"], wanted)}
    except (AnswerError, KeyError) as error:
        return {"problem": str(error)}

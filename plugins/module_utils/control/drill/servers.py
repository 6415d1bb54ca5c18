# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What concerns every server of a drill, derived once for all of them: who takes part, and what each is told."""

from __future__ import annotations

from typing import Any

from ...checks.defaults import default_checks
from ...checks.known import problems_of
from ..entries import Entry
from ..options import option_problems
from .plan import FAILOVER

OPTIONS = ("idr",)
"""The roles that work on each server."""
NOTHING: Entry = {"mounts": {}, "devices": {}}


def taking_part(hostvars: Any, groups: Any, dry_run: bool) -> list[str]:
    """The servers that a drill brings up, as planned; none in a dry run, nor where there is no inventory."""
    return [] if dry_run else list(_planned(hostvars, groups, "idr_plans"))


def standing_by(hostvars: Any, groups: Any) -> list[str]:
    """The servers whose standbys are brought up to date, as planned."""
    return list(_planned(hostvars, groups, "idr_standbys"))


def fenced(hostvars: Any, groups: Any) -> list[str]:
    """The servers that must not answer before they are brought up: those of a failover."""
    planned = _planned(hostvars, groups, "idr_plans")
    return list(planned) if planned and hostvars[_keeper(groups)]["idr_asked"]["mode"] == FAILOVER else []


def _planned(hostvars: Any, groups: Any, fact: str) -> Entry:
    """The servers of the plan in a fact; none where playbooks are only parsed and there is no inventory."""
    keeper = _keeper(groups)
    if not hostvars or keeper is None:
        return {}
    planned: Entry = hostvars[keeper].get(fact, {}).get("servers", {})
    return planned


def _keeper(groups: Any) -> str | None:
    return next(iter(groups.get("backup_servers", [])), None)


def told(servers: dict[str, Entry], asked: Entry, drill: str, expires: int) -> dict[str, Entry]:
    """The facts of each server, as the role idr reads them. ``servers``: of the plan; ``asked``: as plan() takes it."""
    common = {"idr_drill": drill, "idr_expires": expires, "idr_source": asked["source"], "idr_mode": asked["mode"]}
    unknown = {"idr_up": NOTHING, "idr_through": False}
    return {server: {**common, **unknown, "idr_plan": entry} for server, entry in servers.items()}


def description_problems(servers: list[str], hostvars: Any) -> list[str]:
    """What is wrong with the checks of these servers and with the options of the role that runs them, as texts."""
    problems = option_problems(servers, hostvars, OPTIONS)
    wrong = {} if problems else {server: problems_of(_checks(hostvars[server])) for server in servers}
    return problems + [f"In idr_checks of {server}: {'; '.join(texts)}" for server, texts in wrong.items() if texts]


def _checks(variables: Any) -> list[Entry]:
    """The checks of a server: its own, or those that its drivers imply, as the defaults of the role idr have it."""
    own = variables.get("idr_checks")
    if own is not None:
        return list(own)
    return default_checks(variables.get("isb_drivers") or [], variables.get("isb_volumes") or [])


def lost(servers: dict[str, Entry], hostvars: Any) -> list[Entry]:
    """The journal's data for each server whose tasks ended without a result, as they do if a host is unreachable."""
    return [
        {
            "server": server,
            "problem": f"a host that it needs ({entry['dr_host']}, or its backup server or storage) became unreachable",
        }
        for server, entry in servers.items()
        if not hostvars[server].get("idr_through")
    ]

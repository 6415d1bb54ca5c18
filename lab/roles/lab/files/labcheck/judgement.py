# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report on all servers, and its conclusion."""

from __future__ import annotations

from typing import Any

import cross_check


def report(servers: dict[str, Any], states: dict[str, cross_check.State]) -> dict[str, Any]:
    """Build the report from the findings on each server (volumes and database) and the state of its database."""
    for server, state in states.items():
        servers[server].update(cross_check.summary(state))
    violations = cross_check.violations(states)
    sound = all(
        part["clean"] for server in servers.values() for part in [*server["volumes"].values(), server["database"]]
    )
    return {"one_point_in_time": not violations, "sound": sound, "violations": violations, "servers": servers}


def good(made: dict[str, Any]) -> bool:
    """Whether all copies are sound and from one point in time."""
    return bool(made["one_point_in_time"] and made["sound"])


def sentence(made: dict[str, Any]) -> str:
    """Summarize the report in one line."""
    names = ", ".join(sorted(made["servers"]))
    if good(made):
        return f"one point in time: {names}; all clean"
    unclean = [
        f"{server}: {name} is not clean"
        for server, found in sorted(made["servers"].items())
        for name, part in [*found["volumes"].items(), ("its database", found["database"])]
        if not part["clean"]
    ]
    details = [violation["detail"] for violation in made["violations"]]
    when = "one point in time" if made["one_point_in_time"] else "NOT one point in time"
    return f"{when} ({names}): " + "; ".join(unclean + details)

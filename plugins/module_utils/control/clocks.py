# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the clocks of a run's hosts before anything is armed: times from a wrong clock stay wrong permanently."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from .connection_limits import explained

CONTROLLER = "the controller"


def hosts_with_clocks(hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, list[str]]) -> list[str]:
    """The hosts whose clocks are compared: those of a run that preflight has reached, each once.

    A run does not connect to file servers and rings without drivers of their own.
    """
    quiescing = [
        host for host in [*groups["file_servers"], *groups.get("rings", [])] if hostvars[host].get("isb_drivers")
    ]
    hosts = [*groups["listeners"][:1], *groups["storage_hosts"], *groups["backup_servers"], *quiescing]
    return [host for host in dict.fromkeys(hosts) if _was_reached(hostvars[host])]


def _was_reached(variables: Mapping[str, Any]) -> bool:
    found: Any = variables.get("preflight_found")
    return bool(found) and not any(check.get("problem") for check in found.values())


def clock_problems(answers: Mapping[str, dict[str, Any]], limit: float) -> list[str]:
    """What is wrong with the clocks, as texts; empty unless two provably differ by more than ``limit`` seconds.

    ``answers``: by host, how many seconds its clock is ``ahead`` of the controller's, give or take ``bound``, where it
    is ``ok``; else the ``error``. The clocks named are those that differ from the median, possibly the controller's.
    """
    problems = [
        "{}: its clock could not be read: {}".format(host, explained(answer["error"]))
        for host, answer in answers.items()
        if not answer["ok"]
    ]
    clocks = {host: (answer["ahead"], answer["bound"]) for host, answer in answers.items() if answer["ok"]}
    clocks[CONTROLLER] = (0.0, 0.0)
    highest = max(ahead - bound for ahead, bound in clocks.values())
    lowest = min(ahead + bound for ahead, bound in clocks.values())
    if highest - lowest <= limit:
        return problems
    middle = statistics.median(ahead for ahead, _bound in clocks.values())
    return problems + [
        f"{host}: its clock is {abs(ahead - middle):.1f} s {'ahead of' if ahead > middle else 'behind'} most hosts' "
        f"(give or take {bound:.1f} s), and clocks may differ by {limit:g} s: set it and keep it synchronised "
        "(chronyc makestep, timedatectl set-ntp true), then start again, or raise preflight_clock_limit"
        for host, (ahead, bound) in clocks.items()
        if abs(ahead - middle) + bound > limit / 2
    ]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares the clocks of the hosts of a run before anything is armed: what a wrong one names is wrong for good."""

from __future__ import annotations

import statistics

CONTROLLER = "the controller"


def hosts_with_clocks(hostvars, groups):
    """The hosts whose clocks are compared: those of a run that preflight has reached, each once.

    File servers and rings without drivers of their own are not reached by a run.
    """
    quiescing = [
        host for host in [*groups["file_servers"], *groups.get("rings", [])] if hostvars[host].get("isb_drivers")
    ]
    hosts = [*groups["listeners"][:1], *groups["storage_hosts"], *groups["backup_servers"], *quiescing]
    return [host for host in dict.fromkeys(hosts) if _was_reached(hostvars[host])]


def _was_reached(variables):
    found = variables.get("preflight_found")
    return bool(found) and not any(check.get("problem") for check in found.values())


def clock_problems(answers, limit):
    """What is wrong with the clocks, as texts; empty where no two differ, beyond doubt, by more than ``limit`` seconds.

    ``answers``: by host, how many seconds its clock is ``ahead`` of the controller's, give or take ``bound``, where it
    is ``ok``; else the ``error``. Those are named that are off what most have, be it the controller's own.
    """
    problems = [
        "{}: its clock could not be read: {}".format(host, answer["error"])
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
        f"(give or take {bound:.1f} s), and clocks may differ by {limit:g} s: set it right and have it kept so "
        "(chronyc makestep, timedatectl set-ntp true), then start again; preflight_clock_limit widens the bound"
        for host, (ahead, bound) in clocks.items()
        if abs(ahead - middle) + bound > limit / 2
    ]

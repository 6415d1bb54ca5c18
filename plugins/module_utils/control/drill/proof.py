# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what keeps a drill from being a proof: everything that was not seen to be good is a problem."""

from __future__ import annotations

from typing import Any

from ...checks.known import CHECKS
from ..entries import Entry, Record
from ..moments import duration, seconds_from
from ..verdict import APPLICATION

AHEAD = 60
"""Seconds by which two clocks may differ."""
CLOCKS = "set the clocks right and drill again ('catalog.yml' shows what is out of order)"
PROVING = {check.name for check in CHECKS.values() if check.proves}


def within(measured: float | None, target: float) -> bool:
    """Whether a measure was taken, and is not more than its target."""
    return measured is not None and measured <= target


def server_problems(server: str, entry: Entry, failures: list[str], report: Entry) -> list[str]:
    """What keeps one server from being proven, apart from targets.

    ``failures``: why the drill gave it up. ``report``: the report so far.
    """
    problems = [f"{server}: {text}" for text in failures]
    for volume in entry["volumes"]:
        problems += volume_problems(volume, "" if failures else entry["dr_host"], report)
    problems += [check_problem(server, check) for check in entry["checks"] if not check["ok"]]
    if not entry["volumes"]:
        problems.append(f"{server}: none of its volumes was in the drill, so there was nothing to prove")
    if not failures and not any(check["kind"] in PROVING for check in entry["checks"]):
        problems.append(f"{server}: none of its filesystems and applications was checked, so nothing is proven")
    if before(entry["rto_s"]):
        problems.append(
            f"{server}: it was ready {duration(-entry['rto_s'])} before the disaster was declared, so the clocks of "
            f"the controller and of the host with the journal of drills differ, and no RTO is proven: {CLOCKS}"
        )
    if not entry["ready"] and not failures:
        problems.append(f"{server}: it was never ready to be used, because its checks did not finish")
    return problems


def failures(records: list[Record]) -> dict[str, list[str]]:
    """By server, why the drill gave it up."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record["event"] == "failed":
            found.setdefault(record["data"].get("server") or "", []).append(record["data"]["problem"])
    return found


def before(seconds: float | None) -> bool:
    """Whether something ended before it began, by more than clocks may differ."""
    return seconds is not None and seconds < -AHEAD


def moment_problems(volume: Entry, declared: str) -> list[str]:
    """What is wrong with a copy's moment, so that its age is not known."""
    name, point = volume["volume"], volume["consistency_point"]
    if not point:
        return [f"{name}: its consistency point is not known, so neither is how much would be lost"]
    problems = []
    if volume["aside"]:
        problems.append(
            f"{name}: run {volume['run_id']}, saveset {volume['saveset']}, is out of order ({volume['aside']}), so how "
            "old it is, and with it the RPO, is not known"
        )
    if before(seconds_from(point, declared)):
        problems.append(
            f"{name}: run {volume['run_id']}, saveset {volume['saveset']}, is of {point}, which is after the disaster "
            f"({declared}): it would not exist then, or its time is wrong, so no RPO is proven: {CLOCKS}"
        )
    return problems


def volume_problems(volume: Entry, dr_host: str, report: Entry) -> list[str]:
    """What is wrong with one volume. ``dr_host``: empty where it is already reported why it did not come up there."""
    name, problems = volume["volume"], []
    if dr_host and not volume["up"]:
        problems.append(f"{name}: it did not come up on {dr_host}: nothing shows that it could be used there")
    problems += moment_problems(volume, report["declared"])
    if volume["verdict"] != APPLICATION and not report["any_verdict"]:
        problems.append(f"{name}: {not_application(volume)}")
    return problems


def not_application(volume: Entry) -> str:
    """The problem text for a copy that is not application-consistent."""
    verdict = volume["verdict"] or "of an unknown verdict"
    return f"its saveset {volume['saveset']} is {verdict}, not {APPLICATION}"


def check_problem(server: str, check: Entry) -> str:
    """The problem text for a failed check, with its reason."""
    whose = server or "all servers together"
    about = f"{whose}: the check {check['kind']} of {check['what']} failed"
    return f"{about}: {check.get('detail') or 'it gave no reason'}"


def target_problems(name: str, entry: Entry) -> list[str]:
    """Missed targets, except those of a server that was never ready, which is already reported."""
    problems = []
    for kind in ("rpo", "rto"):
        measured, target = entry[f"{kind}_s"], entry[f"{kind}_target_s"]
        if target is not None and measured is not None and not within(measured, target):
            over = duration(measured - target)
            problems.append(
                f"{name}: the {kind.upper()} is {duration(measured)}, {over} over its target of {duration(target)}"
            )
    return problems


def group_problems(group: Entry) -> list[str]:
    """What keeps the servers together from being proven."""
    problems = [ring_problem(ring) for ring in group["rings"] if not ring["ok"]]
    return problems + [check_problem("", check) for check in group["checks"] if not check["ok"]]


def ring_problem(ring: Entry) -> str:
    """The problem text for copies that are not of one moment."""
    name = ring_name(ring["ring"]) or "servers"
    what = "runs" if len(ring["run_ids"]) != 1 else "moments"
    which = ring["run_ids"] if what == "runs" else ring["consistency_points"]
    told = ", ".join(text or "unknown" for text in which) or "none"
    return (
        f"{name} {', '.join(ring['servers'])}: their copies are not of one consistency point but of the {what} {told}"
    )


def ring_name(ring: str) -> str:
    """A ring's name, with the word ring in front unless it begins with it; empty for servers of no ring."""
    return f"ring {ring}" if ring and not ring.casefold().startswith("ring") else ring


def drill_problems(report: Entry, records: list[Record], journal_problems: list[str]) -> list[str]:
    """What is wrong with the drill as a whole."""
    problems = [f"the journal cannot be trusted: {text}" for text in journal_problems]
    if not report["servers"]:
        problems.append("no server was in the drill, so nothing was proven")
    problems += [
        f"{record['data'].get('server') or 'the drill'}: {record['data']['problem']}"
        for record in records
        if record["event"] == "failed" and record["data"].get("server") not in report["servers"]
    ]
    problems += [
        "the drill did not finish on its own, and was cleaned up by recover.yml"
        for record in records
        if record["event"] == "closed" and record["data"].get("recovered")
    ]
    return problems


def left_behind(report: Entry) -> list[str]:
    """Leftovers found after the teardown, and hosts that should have been torn down but were not."""
    torn_down: dict[str, Any] = report["torn_down"]
    left = [f"{host}: left behind: {text}" for host, texts in torn_down.items() for text in texts]
    if report["mode"] == "test" and not report["keep"]:
        left += [f"{host}: it was not torn down" for host in not_looked_at(report)]
    return left


def not_looked_at(report: Entry) -> list[str]:
    """DR hosts that were not searched for leftovers. A record may name several hosts, separated by commas."""
    looked_at = {host.strip() for hosts in report["torn_down"] for host in hosts.split(",")}
    return [host for host in report["dr_hosts"] if host not in looked_at]


def remarks(report: Entry) -> list[str]:
    """What a reader must know although it does not fail the drill."""
    texts = []
    if report["any_verdict"]:
        texts += [
            f"{volume['volume']}: {not_application(volume)}; the operator of the drill allowed that"
            for entry in report["servers"].values()
            for volume in entry["volumes"]
            if volume["verdict"] != APPLICATION
        ]
    if report["source"] == "instant" and not report["content"]:
        texts.append("only what the checks needed was read: damage elsewhere in the savesets would not have been found")
    if report["keep"] and not report["torn_down"]:
        for_how_long = f" for {duration(report['ttl_s'])}" if report["ttl_s"] else ""
        texts.append(f"the volumes were kept in use{for_how_long} when this report was made, so no teardown is proven")
    if report["mode"] == "failover":
        texts.append("this was a failover, not a test: the volumes stay in use on the DR hosts")
    return texts

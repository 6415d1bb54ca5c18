# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what keeps a drill from being a proof. Silence is no proof: what was not seen to be good is a problem."""

from __future__ import annotations

from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.idr.moments import duration
from ansible_collections.openisb.backup.plugins.module_utils.verdict import APPLICATION

Entry = dict[str, Any]
Record = dict[str, Any]

PROVING = ("filesystem", "gtm", "postgresql", "command")
"""Kinds of checks that prove something; that files are there proves nothing of what is in them."""


def within(measured: float | None, target: float) -> bool:
    """Whether a measure was taken, and is not more than its target."""
    return measured is not None and measured <= target


def server_problems(server: str, entry: Entry, records: list[Record], any_verdict: bool) -> list[str]:
    """What keeps one server from being proven, targets aside."""
    failures = failures_of(server, records)
    problems = [f"{server}: {text}" for text in failures]
    for volume in entry["volumes"]:
        problems += volume_problems(volume, "" if failures else entry["dr_host"], any_verdict)
    problems += [check_problem(server, check) for check in entry["checks"] if not check["ok"]]
    if not entry["volumes"]:
        problems.append(f"{server}: no volume of it was in the drill, so there was nothing to prove")
    if not failures and not any(check["kind"] in PROVING for check in entry["checks"]):
        problems.append(f"{server}: none of its filesystems and applications was checked, so nothing is proven")
    if not entry["ready"] and not failures:
        problems.append(f"{server}: it was never ready to be used, as its checks did not come to their end")
    return problems


def failures_of(server: str, records: list[Record]) -> list[str]:
    """Why the drill gave a server up."""
    return [
        record["data"]["problem"]
        for record in records
        if record["event"] == "failed" and record["data"].get("server") == server
    ]


def volume_problems(volume: Entry, dr_host: str, any_verdict: bool) -> list[str]:
    """What is wrong with one volume. Without ``dr_host`` it is told already why it did not come up there."""
    name, problems = volume["volume"], []
    if dr_host and not volume["up"]:
        problems.append(f"{name}: it did not come up on {dr_host}: nothing tells that it could be used there")
    if not volume["consistency_point"]:
        problems.append(f"{name}: its consistency point is not known, so what would be lost cannot be told")
    if volume["verdict"] != APPLICATION and not any_verdict:
        problems.append(f"{name}: {not_application(volume)}")
    return problems


def not_application(volume: Entry) -> str:
    """What to say of a copy that is less than application-consistent."""
    verdict = volume["verdict"] or "of an unknown verdict"
    return f"its saveset {volume['saveset']} is {verdict}, not {APPLICATION}"


def check_problem(server: str, check: Entry) -> str:
    """A failed check: of what, and why."""
    whose = server or "all servers together"
    about = f"{whose}: the check {check['kind']} of {check['what']} failed"
    return f"{about}: {check.get('detail') or 'it gave no reason'}"


def target_problems(name: str, entry: Entry) -> list[str]:
    """Targets that were missed. Those of a server that was never ready are missed, too, but that is told already."""
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
    """Copies that are not of one moment."""
    name = ring_name(ring["ring"]) or "servers"
    what = "runs" if len(ring["run_ids"]) != 1 else "moments"
    which = ring["run_ids"] if what == "runs" else ring["consistency_points"]
    told = ", ".join(text or "unknown" for text in which) or "none"
    return (
        f"{name} {', '.join(ring['servers'])}: their copies are not of one consistency point but of the {what} {told}"
    )


def ring_name(ring: str) -> str:
    """A ring by its name, of which many begin with the word already; empty for servers of no ring."""
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
        "the drill did not come to its own end, and was mended by recover.yml"
        for record in records
        if record["event"] == "closed" and record["data"].get("recovered")
    ]
    return problems


def left_behind(report: Entry) -> list[str]:
    """What was found after the teardown, and hosts on which nobody looked although the drill was to be torn down."""
    torn_down: dict[str, Any] = report["torn_down"]
    left = [f"{host}: left behind: {text}" for host, texts in torn_down.items() for text in texts]
    if report["mode"] == "test" and not report["keep"]:
        left += [f"{host}: it was not torn down" for host in not_looked_at(report)]
    return left


def not_looked_at(report: Entry) -> list[str]:
    """DR hosts on which nobody looked for what is left. A record may be of several hosts at once, with commas."""
    looked_at = {host.strip() for hosts in report["torn_down"] for host in hosts.split(",")}
    return [host for host in report["dr_hosts"] if host not in looked_at]


def remarks(report: Entry) -> list[str]:
    """What a reader must know although it does not fail the drill."""
    texts = []
    if report["any_verdict"]:
        texts += [
            f"{volume['volume']}: {not_application(volume)}; whoever ran the drill allowed that"
            for entry in report["servers"].values()
            for volume in entry["volumes"]
            if volume["verdict"] != APPLICATION
        ]
    if report["source"] == "instant" and not report["content"]:
        texts.append(
            "only what the checks looked at was read: damage elsewhere in the savesets would not have been found"
        )
    if report["keep"] and not report["torn_down"]:
        for_how_long = f" for {duration(report['ttl_s'])}" if report["ttl_s"] else ""
        texts.append(f"the volumes were kept in use{for_how_long} when this report was made, so no teardown is proven")
    if report["mode"] == "failover":
        texts.append("this was a failover, not a test: the volumes stay in use on the DR hosts")
    return texts

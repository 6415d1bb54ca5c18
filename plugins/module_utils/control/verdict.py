# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges from the answers of the holders and the storage whether the copies of a run show one moment."""

from __future__ import annotations

import datetime

from .entries import Entry

Call = tuple[float, float]

APPLICATION, CRASH, FAILED = "application-consistent", "crash-consistent", "failed"
NO_REASON = "no reason given"
ROUNDING = 1.0
"""Milliseconds by which the times of synchronised clocks may differ."""
EVIDENCE = (
    "freeze_started",
    "frozen",
    "thaw_started",
    "thawed",
    "window_ms",
    "hold_unbroken",
    "reason",
    "drivers",
    "degraded",
    "without",
)


def judge(evidence: Entry, on_quiesce_failure: str) -> Entry:
    """The verdict: a dict of verdict, time (ISO 8601, UTC), ring, storage_ms, window_ms, degraded, servers, problems,
    clocks and warnings (texts about clocks and connections to holders, which do not affect the verdict).

    ``evidence``: run_id, servers, storage_hosts, freeze and thaw (answers of the action hold), snapshots (answers of
    the storage drivers, one per storage host), seconds (of freeze, snapshot and thaw) and problems (texts); for a ring
    also ring, leaders (hosts whose hold covers all servers), holders (servers with a hold of their own) and names (of
    the servers in the leaders' answers).
    ``application-consistent`` needs an unbroken hold of every server, with this run's id, around a snapshot that ended
    before the first thaw was requested.
    """
    calls, storage_problems = storage_calls(evidence)
    leaders = {leader: hold_of(leader, evidence) for leader in evidence.get("leaders", [])}
    servers: list[str] = evidence["servers"]
    own = {server: hold_of(server, evidence) for server in evidence.get("holders", servers)}
    broken = [f"{host}: {hold['problem']}" for host, hold in sorted({**leaders, **own}.items()) if hold["problem"]]
    holds = {server: joined(server, own.get(server), leaders, evidence) for server in evidence["servers"]}
    problems = list(evidence["problems"]) or storage_problems
    verdict = verdict_of(calls, problems, broken, on_quiesce_failure)
    left_out = [f"{server}: {hold['problem']}" for server, hold in sorted(holds.items()) if hold.pop("left_out")]
    common = {"time": point_of(calls), "ring": evidence.get("ring", "")}
    return {
        "verdict": verdict,
        **common,
        "storage_ms": round(sum(end - start for start, end in calls) * 1000, 1),
        "window_ms": window_of({**leaders, **own}, evidence.get("seconds") or {}),
        "degraded": sorted({text for hold in holds.values() for text in hold["degraded"]}),
        "servers": {
            server: dict(hold, verdict=server_verdict(verdict, hold), **common) for server, hold in holds.items()
        },
        "problems": problems + (broken + left_out if evidence["freeze"] else []),
        "clocks": evidence.get("clocks") or {},
        "warnings": evidence.get("warnings") or [],
    }


def joined(server: str, own: Entry | None, leaders: dict[str, Entry], evidence: Entry) -> Entry:
    """What is proven of one server: by its own hold, where it has one, and by those of its ring.

    Adds degraded (texts: what is incomplete, but allowed by the site) and left_out: whether its ring was held but this
    server was not, or did not confirm it at the end.
    """
    parts = ([own] if own else []) + list(leaders.values())
    problem = next((hold["problem"] for hold in parts if hold["problem"]), "")
    name = evidence.get("names", {}).get(server, server).casefold()
    left_out = not problem and any(name == other.casefold() for hold in parts for other in hold["without"] or [])
    return dict(
        parts[0],
        problem="its ring was quiesced or unquiesced without it" if left_out else problem,
        degraded=sorted({text for hold in parts for text in hold["degraded"] or []}),
        left_out=left_out,
    )


def verdict_of(calls: list[Call], problems: list[str], broken: list[str], on_quiesce_failure: str) -> str:
    """The run's verdict: without complete proof it is never application-consistent."""
    if problems or not calls:
        return FAILED
    if not broken:
        return APPLICATION
    return CRASH if on_quiesce_failure == "crash_consistent" else FAILED


def server_verdict(verdict: str, hold: Entry) -> str:
    """One server's verdict: a server that was not held itself is crash-consistent with those that were."""
    return CRASH if verdict == APPLICATION and hold["problem"] else verdict


def storage_calls(evidence: Entry) -> tuple[list[Call], list[str]]:
    """The start and end of the storage calls (seconds since 1970, by each storage host's clock), and the problems."""
    answers = {entry["storage_host"]: entry["answer"] for entry in evidence["snapshots"]}
    calls, problems = [], []
    for host in evidence["storage_hosts"] if answers else []:
        answer = answers.get(host, {"error": NO_REASON})
        if answer.get("ok"):
            calls.append(times_of(answer))
        else:
            problems.append(f"storage host {host} did not take its snapshot: {answer.get('error') or NO_REASON}")
    return calls, problems


def times_of(answer: Entry) -> Call:
    """The moments before and after a driver's call: the first and last line of its answer."""
    lines = answer["stdout"].split()
    return float(lines[0]), float(lines[-1])


def hold_of(server: str, evidence: Entry) -> Entry:
    """What one holder proved: EVIDENCE, with times in seconds since 1970 by the server's clock, and a problem text."""
    frozen = evidence["freeze"].get("servers", {}).get(server)
    thawed = evidence["thaw"].get("servers", {}).get(server)
    answer = thawed or frozen or {}
    hold = {key: answer.get(key) for key in EVIDENCE}
    return dict(hold, problem=hold_problem(frozen, thawed, evidence["run_id"]))


def hold_problem(frozen: Entry | None, thawed: Entry | None, run_id: str) -> str:
    """Why a hold proves nothing; empty where it does."""
    if not frozen:
        return "was not asked to freeze"
    if not frozen.get("ok"):
        return "did not freeze: " + (frozen.get("error") or NO_REASON)
    if not thawed or not thawed.get("ok"):
        return "did not confirm its thaw: " + ((thawed or {}).get("error") or NO_REASON)
    if thawed.get("run_id") != run_id:
        return "its holder belongs to run {}".format(thawed.get("run_id"))
    if not thawed.get("hold_unbroken"):
        why = [text for text in (thawed.get("reason"), thawed.get("error")) if text]
        return f"its hold was broken before the thaw ({': '.join(why) or NO_REASON})"
    return ""


def point_of(calls: list[Call]) -> str:
    """The consistency point: the end of the first storage call, since the copies show nothing later; empty without."""
    if not calls:
        return ""
    return datetime.datetime.fromtimestamp(calls[0][1], datetime.UTC).isoformat(timespec="milliseconds")


def window_of(holds: dict[str, Entry], seconds: dict[str, float]) -> float | None:
    """First freeze to last thaw, in ms; None where no server was frozen.

    Measured by the hosts' own clocks, unless they contradict a monotonic clock's measurements: that every hold lay
    between the first request and the last answer (``seconds``), and how long each hold was.
    """
    starts = [hold["freeze_started"] for hold in holds.values() if hold["freeze_started"]]
    ends = [hold["thawed"] for hold in holds.values() if hold["thawed"]]
    if not starts or not ends:
        return None
    told: float = (max(ends) - min(starts)) * 1000
    longest = max(hold["window_ms"] or 0.0 for hold in holds.values())
    most = sum(seconds.values()) * 1000 if seconds else told
    unbroken = all(hold["hold_unbroken"] for hold in holds.values())
    if told < longest - ROUNDING or (unbroken and told > most + ROUNDING):
        told = max(longest, most if unbroken else 0.0)
    return round(told, 1)

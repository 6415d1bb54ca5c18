# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides from their databases whether copies of the lab's servers are from one point in time. Pure functions.

A state is LABCHECK's output for one database (`parse`). The rules are those of LABLOAD: see its header.

A violation is a dict of ``kind``, ``scope`` (``cross``: between servers; ``server``: within one; ``copy``: part of it
cannot be read), ``server``, ``peer`` (None within one server) and ``detail``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict

# Evaluated at import, so in a form that Python 3.8 supports.
Entries = Dict[int, str]
Violation = Dict[str, Any]


@dataclass
class State:
    """The content of the copy of one server's database. Entries are by sequence number, for each peer."""

    server: str = ""
    base: int = 0
    money: int = 0
    total_out: dict[str, int] = field(default_factory=dict)
    total_in: dict[str, int] = field(default_factory=dict)
    acknowledged: dict[str, int] = field(default_factory=dict)
    high_out: dict[str, int] = field(default_factory=dict)
    high_in: dict[str, int] = field(default_factory=dict)
    sent: dict[str, Entries] = field(default_factory=dict)
    received: dict[str, Entries] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    complete: bool = False

    @property
    def readable(self) -> bool:
        """Whether the whole database could be read."""
        return self.complete and not self.errors


def parse(text: str) -> State:
    """Parse LABCHECK's lines into a state."""
    state = State()
    for line in text.split("\n"):
        name, *fields = line.split("\t")
        if name == "server":
            state.server = fields[0]
        elif name == "base":
            state.base = int(fields[0])
        elif name == "accounts":
            state.money = int(fields[1])
        elif name == "acknowledged":
            state.acknowledged[fields[0]] = int(fields[1])
        elif name in ("total", "high"):
            _numbers(state, name, fields[0])[fields[1]] = int(fields[2])
        elif name == "entry":
            entries = state.sent if fields[0] == "out" else state.received
            entries.setdefault(fields[1], {})[int(fields[2])] = "\t".join(fields[3:])
        elif name == "error":
            state.errors.append("{}: {}".format(fields[0], " ".join(fields[1:])))
        elif name == "end":
            state.complete = True
    return state


def violations(states: dict[str, State]) -> list[Violation]:
    """Return all violations of the rules by the copies of all servers; empty for one point in time."""
    found: list[Violation] = []
    for server, state in sorted(states.items()):
        found += _within(server, state)
    for server in sorted(states):
        for peer in sorted(states):
            if peer != server:
                found += _between(server, states[server], peer, states[peer])
    return found


def summary(state: State) -> dict[str, Any]:
    """Return the progress of a server's load in its copy, for the report."""
    return {
        "sent": state.high_out,
        "acknowledged": state.acknowledged,
        "received": state.high_in,
        "money": state.money,
        "readable": state.readable,
    }


def _numbers(state: State, name: str, way: str) -> dict[str, int]:
    if name == "total":
        return state.total_out if way == "out" else state.total_in
    return state.high_out if way == "out" else state.high_in


def _within(server: str, state: State) -> list[Violation]:
    """Test the rules within one server, whose values one transaction changes together."""
    found = []
    if not state.readable:
        detail = "; ".join(state.errors) or "its end is missing"
        found.append(_violation("unreadable", "copy", server, None, detail))
    if state.server != server:
        found.append(_violation("wrong_server", "server", server, None, f"the database is that of '{state.server}'"))
    expected = state.base + sum(state.total_in.values()) - sum(state.total_out.values())
    if state.money != expected:
        detail = f"{state.money} on the accounts, {expected} by the totals"
        found.append(_violation("money", "server", server, None, detail))
    for way, highs, all_entries in (("sent", state.high_out, state.sent), ("received", state.high_in, state.received)):
        for peer in sorted(set(highs) | set(all_entries)):
            problem = _gap(highs.get(peer, 0), all_entries.get(peer, {}))
            if problem:
                found.append(_violation("gap_" + way, "server", server, peer, problem))
    return found


def _gap(high: int, entries: Entries) -> str:
    """Return what is wrong with entries that must end at ``high`` without a gap; the oldest are deleted."""
    last = max(entries, default=0)
    if last != high:
        return f"the highest is {high}, the last entry is {last}"
    missing = last - min(entries, default=last + 1) + 1 - len(entries)
    if missing:
        return f"{missing} of the entries {min(entries)} to {last} are missing"
    return ""


def _between(server: str, state: State, peer: str, other: State) -> list[Violation]:
    """Test the path of entries from ``server`` to ``peer``: sent, then received, then acknowledged."""
    sent, received = state.high_out.get(peer, 0), other.high_in.get(server, 0)
    acknowledged = state.acknowledged.get(peer, 0)
    found = []
    if received > sent:
        detail = f"{peer} has received entry {received}, {server} has sent no further than {sent}"
        found.append(_violation("received_before_sent", "cross", server, peer, detail))
    if acknowledged > received:
        detail = f"{server} knows entry {acknowledged} as received, {peer} has none after {received}"
        found.append(_violation("acknowledged_before_received", "cross", server, peer, detail))
    differing = _differing(state.sent.get(peer, {}), other.received.get(server, {}))
    if differing:
        detail = f"entry {differing[0]} and {len(differing) - 1} more differ between the two"
        found.append(_violation("entry_differs", "cross", server, peer, detail))
    return found + _money_between(server, state, peer, other)


def _differing(sent: Entries, received: Entries) -> list[int]:
    return sorted(number for number in set(sent) & set(received) if sent[number] != received[number])


def _money_between(server: str, state: State, peer: str, other: State) -> list[Violation]:
    """Test that money sent and not received is in transit. Only possible if the entries in transit are known."""
    on_its_way, known = _on_its_way(state.sent.get(peer, {}), other.high_in.get(server, 0), state.high_out.get(peer, 0))
    missing = state.total_out.get(peer, 0) - other.total_in.get(server, 0) - on_its_way
    if not known or not missing:
        return []
    detail = f"{missing} between what {server} sent, what {peer} received and what is on its way"
    return [_violation("money_between", "cross", server, peer, detail)]


def _on_its_way(sent: Entries, received: int, high: int) -> tuple[int, bool]:
    """Return the money in the entries after ``received``, and whether all of these exist."""
    numbers = range(received + 1, high + 1)
    if received > high or not all(number in sent for number in numbers):
        return 0, False
    return sum(int(sent[number].split("|")[0]) for number in numbers), True


def _violation(kind: str, scope: str, server: str, peer: Any, detail: str) -> Violation:
    return {"kind": kind, "scope": scope, "server": server, "peer": peer, "detail": detail}

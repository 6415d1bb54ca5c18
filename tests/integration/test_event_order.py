# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every server goes its own way: the fast ones are cleaned up while the slow one's backup still runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

FAST = ["fs1", "fs2"]
SLOW = "fs3"
# Megabytes a second: slow enough that the other servers end long before, fast enough for a test.
RATE_LIMIT = 20
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

pytestmark = [pytest.mark.lab, pytest.mark.root]


def progress(events: list[dict[str, Any]], label: str) -> list[float]:
    """The percentages that were shown for a server while its backup was being followed."""
    lines = [COLOUR.sub("", line).split() for event in events for line in event["stdout"].splitlines()]
    return [float(words[1]) for words in lines if words[:1] == [label] and words[2:3] == ["%"]]


def test_fast_servers_do_not_wait_for_the_slow_one(run_isb: Callable[..., Any]) -> None:
    """By the order of Ansible's own events, and again by the run's report."""
    # In full, for what has changed is read in no time.
    run = run_isb(**{SLOW: {"block_backup_rate_limit": RATE_LIMIT, "isb_changed_extents": False}})

    slow_backup_ended = run.of(SLOW, "block_backup")[-1]["counter"]
    for server in FAST:
        cleanup_ended = run.of(server, "cleanup")[-1]["counter"]
        assert run.of(server, "block_backup")[-1]["counter"] < cleanup_ended
        assert cleanup_ended < slow_backup_ended, f"{server} was cleaned up only after {SLOW}'s backup had ended"
    assert slow_backup_ended < run.of(SLOW, "cleanup")[-1]["counter"]

    assert run.report["verdict"] == "application-consistent"
    at = {(entry["server"], entry["event"]): entry["at"] for entry in run.report["timeline"]}
    for server in FAST:
        assert at[server, "cleaned"] < at[SLOW, "saveset"]

    shown = progress(run.events, f"{SLOW}:")
    assert len(set(shown)) > 2, f"progress was not shown while the backup ran: {shown}"
    assert shown == sorted(shown), f"progress went back: {shown}"

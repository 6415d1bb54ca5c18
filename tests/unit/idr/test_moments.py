# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moments mean the same in every time zone, and spans are shown as they were measured."""

from __future__ import annotations

import datetime
import re
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.moments import duration, epoch


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
def test_a_moment_without_a_zone_is_one_of_utc(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So is Ansible's now(utc=true): its timestamp() was hours off wherever the controller was not in UTC."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        now = datetime.datetime.now(datetime.UTC)
        assert epoch(now.replace(tzinfo=None)) == epoch(now) == now.timestamp()
        assert epoch(now.replace(tzinfo=None)) == pytest.approx(time.time(), abs=60)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_no_playbook_takes_seconds_from_a_moment_that_has_no_zone(project_root: Path) -> None:
    files = [path for folder in ("playbooks", "roles", "plugins") for path in (project_root / folder).rglob("*.yml")]
    wrong = [
        path.name for path in files if re.search(r"now\((utc=)?[Tt]rue[^)]*\)\.(timestamp|strftime)", path.read_text())
    ]
    assert files and wrong == []


@pytest.mark.parametrize(("seconds", "text"), [(-5.0, "-5.0 s"), (-31536000, "-365 d"), (0.0, "0 s"), (None, "–")])
def test_a_span_that_ended_before_it_began_has_a_minus(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text

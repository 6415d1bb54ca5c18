# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A journal that was cut on its host stops the next run, until the operator accepts it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

JOURNAL = "/var/lib/openisb/journal/runs.jsonl"
KEPT = "/var/lib/openisb/repository/journal/backup1.json"
AWAY = "/var/tmp/runs.jsonl"


def kept(lab: Lab) -> dict[str, Any]:
    """The head that the repository keeps, which must be that of the controller."""
    head: dict[str, Any] = json.loads(lab.on("backup1", f"cat {KEPT}"))
    assert json.loads((lab.folder / "journal-heads" / "backup1.json").read_text()) == head
    return head


@pytest.fixture
def one_run(lab: Lab) -> Iterator[None]:
    """A run that has ended, so that a head is kept; afterwards, the journal as it was before it was hurt."""
    status, output = lab.play("isb.yml")
    assert status == 0, output
    lab.on("backup1", f"cp {JOURNAL} {AWAY}")
    yield
    lab.on("backup1", f"rm -f {AWAY}")


@pytest.mark.usefixtures("one_run")
def test_a_cut_journal_stops_the_next_run(lab: Lab) -> None:
    whole = lab.journal()
    head = kept(lab)
    assert (head["seq"], head["hash"], head["accepted"]) == (len(whole), whole[-1]["hash"], False)

    # Everything but the first two records is gone: what is left is a chain that holds.
    lab.on("backup1", f"head -n 2 {AWAY} > {JOURNAL}")
    status, output = lab.play("preflight.yml")
    assert status != 0, output
    assert f"it has 2 records, and by the repository /var/lib/openisb/repository it had {len(whole)}" in output
    assert "the copy" in output and "Nothing was started and nothing was frozen" in output
    (accept,) = set(re.findall("isb_journal_accept=([0-9a-f]{64})", output))
    assert kept(lab) == head

    # Put back, it is the one that was kept.
    lab.on("backup1", f"cp {AWAY} {JOURNAL}")
    status, output = lab.play("preflight.yml")
    assert status == 0, output

    # Lost for good, with the operator's word for that very state: a new one begins, and the heads go on from it.
    lab.on("backup1", f"rm {JOURNAL}")
    status, output = lab.play("isb.yml", "-e", f"isb_journal_accept={accept}")
    assert status != 0 and f"(not {accept})" in output and lab.journal() == [], output
    status, output = lab.play("isb.yml", "-e", f"isb_journal_accept={'0' * 64}")
    assert status == 0, output
    begun = lab.journal()
    assert [record["event"] for record in (begun[0], begun[-1])] == ["opened", "closed"]
    after = kept(lab)
    assert (after["seq"], after["number"], after["accepted"]) == (len(begun), head["number"] + 2, False)
    status, output = lab.play("preflight.yml")
    assert status == 0, output


@pytest.fixture
def nothing_can_be_kept(lab: Lab) -> Iterator[None]:
    """The folder of kept heads can be read, and not be written."""
    folder = KEPT.rpartition("/")[0]
    lab.on("backup1", f"mkdir -p {folder} && mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}")
    try:
        yield
    finally:
        lab.on("backup1", f"umount {folder}")


@pytest.mark.usefixtures("nothing_can_be_kept")
def test_a_run_whose_head_cannot_be_kept_ends_before_it_freezes(lab: Lab) -> None:
    before = lab.journal()
    status, output = lab.play("isb.yml")
    assert status != 0, output
    assert "Nothing was frozen. The head of the journal was not kept: journal/backup1.json" in output
    opened, closed = lab.journal()[len(before) :]
    assert (opened["event"], closed["event"], closed["data"]["verdict"]) == ("opened", "closed", "failed")
    assert "was not kept" in closed["data"]["problem"]
    assert lab.holders() == {}
    status, output = lab.play("preflight.yml")
    assert status == 0, output

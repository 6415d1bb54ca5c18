# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A saveset that no run made, ten years ahead: it is never the latest one for a playbook, and no other goes for it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

REPOSITORY = "/var/lib/openisb/repository"
TEN_YEARS = """
import datetime, os, sys
sys.path.insert(0, "{repository}/isb-saveset.pyz")
from saveset.repository import Repository
from saveset.keys.secret import Secret
from saveset.io.source import open_source
from saveset.backup.request import BackupRequest
from saveset.store.registry import open_store
with open("/tmp/strange", "wb") as image:
    image.truncate(1 << 20)
repository = Repository.open(open_store("{repository}"), Secret(sys.stdin.read().encode()))
long = datetime.timedelta(days=3653)
with open_source("/tmp/strange") as source:
    saveset = repository.backup(
        source,
        BackupRequest(
            volume="fs1/m", run_id="{run_id}", time=datetime.datetime.now(datetime.timezone.utc) + long,
            verdict="application-consistent", clock_limit=2 * long,
        ),
    )
print(saveset.id)
"""


def engine(lab: Lab, arguments: str, stdin: str) -> str:
    """Run the backup server's Python, as somebody who has the repository's key does."""
    return lab.on("backup1", f"printf %s {shlex.quote(stdin)} | /var/lib/openisb/venv/bin/python {arguments}")


def run_isb(lab: Lab, report: Path) -> dict[str, Any]:
    status, output = lab.play("isb.yml", "-e", f"isb_report_path={report}")
    assert status == 0, output
    found: dict[str, Any] = json.loads(report.read_text())
    return found


@pytest.fixture
def passphrase(lab: Lab) -> str:
    return (lab.folder / "passphrase").read_text().strip()


@pytest.fixture
def honest(lab: Lab, tmp_path: Path) -> dict[str, Any]:
    """The report of a run."""
    return run_isb(lab, tmp_path / "honest.json")


@pytest.fixture
def strange(lab: Lab, passphrase: str, honest: dict[str, Any]) -> Iterator[str]:
    """The id of a saveset of fs1/m that bears that run's id and was not made by it."""
    program = TEN_YEARS.format(repository=REPOSITORY, run_id=honest["run_id"])
    strange = engine(lab, f"-c {shlex.quote(program)}", passphrase).strip()
    yield strange
    forget = f"{REPOSITORY}/isb-saveset.pyz forget --passphrase-file /dev/stdin -r {REPOSITORY} {strange}"
    engine(lab, forget, passphrase)


def test_it_is_named_and_counts_for_nothing(
    lab: Lab, passphrase: str, honest: dict[str, Any], strange: str, tmp_path: Path
) -> None:
    (mine,) = [volume for volume in honest["servers"]["fs1"]["volumes"] if volume["volume"] == "fs1/m"]
    catalog = tmp_path / "catalog.json"
    status, output = lab.play("catalog.yml", "-e", f"catalog_path={catalog}")
    assert status == 0 and "The journal does not know these savesets" in output and strange in output
    savesets = {saveset["id"]: saveset for saveset in json.loads(catalog.read_text())}
    assert savesets[strange]["aside"] == "the journal does not know it"
    assert savesets[mine["saveset"]]["aside"] == ""

    # A restore of the latest, and one of that very run, take the run's own.
    for wanted in ({}, {"restore_run_id": honest["run_id"]}):
        variables = {"restore_server": "fs1", "restore_volume": "m", "restore_folder": "/tmp/not-made", **wanted}
        status, output = lab.play("restore.yml", "--check", "-e", json.dumps(variables))
        assert status == 0, output
        assert f"run {honest['run_id']}, saveset {mine['saveset']} (" in " ".join(output.split()), output

    # The next run builds upon the run's own.
    after = run_isb(lab, tmp_path / "after.json")
    (volume,) = [volume for volume in after["servers"]["fs1"]["volumes"] if volume["volume"] == "fs1/m"]
    assert volume["origin"]["method"] == "changed" and volume["origin"]["since"] == mine["origin"]["source_id"]

    # Nothing goes because of it, and it does not go.
    policy = {"prune_keep_last": 0, "prune_keep_daily": 0, "prune_keep_weekly": 0, "prune_keep_monthly": 0}
    policy |= {"prune_keep_yearly": 0, "prune_keep_within": "14d"}
    status, output = lab.play("prune.yml", "-e", json.dumps(policy))
    assert status == 0, output
    assert "0 of " in output and "set aside: the journal does not know it" in output

    # It counts once a person has taken it into the journal. A journal that was lost before leaves more of its kind.
    unknown = [saveset["id"] for saveset in savesets.values() if saveset["unknown"]]
    assert strange in unknown
    status, output = lab.play("adopt.yml", "-e", "adopt_savesets=all", "-e", "adopt_confirm=9999")
    assert status != 0 and f"adopt_confirm={len(unknown)}" in output, output
    status, output = lab.play("adopt.yml", "-e", f"adopt_savesets={strange}")
    assert status == 0, output
    status, output = lab.play("catalog.yml", "-e", f"catalog_path={catalog}")
    savesets = {saveset["id"]: saveset for saveset in json.loads(catalog.read_text())}
    assert not savesets[strange]["unknown"]
    assert "came later" in savesets[strange]["aside"]  # the run after it shows that its time is wrong


def test_a_prune_that_would_remove_most_stops(lab: Lab, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.json"
    while True:
        status, output = lab.play("catalog.yml", "-e", f"catalog_path={catalog}")
        there = [saveset for saveset in json.loads(catalog.read_text()) if saveset["volume"] == "fs1/m"]
        if len(there) > 1:
            break
        run_isb(lab, tmp_path / "report.json")
    policy = {"prune_keep_last": 1, "prune_keep_daily": 0, "prune_keep_weekly": 0, "prune_keep_monthly": 0}
    policy |= {"prune_keep_yearly": 0, "prune_keep_consistent": False, "prune_max_percent": 10}
    status, output = lab.play("prune.yml", "--check", "-e", json.dumps(policy))
    assert status == 0 and "But this stops: " in output and "prune_confirm=" in output
    status, output = lab.play("prune.yml", "-e", json.dumps(policy))
    assert status != 0 and "Nothing was removed" in output
    status, output = lab.play("catalog.yml", "-e", f"catalog_path={catalog}")
    assert [saveset for saveset in json.loads(catalog.read_text()) if saveset["volume"] == "fs1/m"] == there

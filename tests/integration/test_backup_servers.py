# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two backup servers with one repository: a run is spread over both, and survives the death of one of them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import ROOT, TIMEOUT, Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

REPOSITORY = "/srv/shared/repository"
SLOTS = "/run/openisb/slots"
#: Megabytes a second: slow enough to kill a backup server in the middle.
RATE_LIMIT = 4


def set_up_lab(lab: Lab) -> None:
    """Have two backup servers in the lab; also after one was killed."""
    command = ["ansible-playbook", "lab/lab.yml", "-e", f"lab_dir={lab.folder}", "-e", "lab_backup_servers=2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[list[str]]:
    """The options of playbooks that use both; afterwards the lab is as it was, but for the second one."""
    set_up_lab(lab)
    options = ["-i", str(lab.folder / "backup.json")]
    status, output = lab.play("setup.yml", *options)
    assert status == 0, output
    yield options
    lab.on("backup1", f"rm -rf {REPOSITORY}")


def report_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_one_of_them_dies_in_the_middle(lab: Lab, shared: list[str], tmp_path: Path) -> None:
    """The repository is new, so everything is read, at a rate that leaves time for that."""
    slow = {"block_backup_rate_limit": RATE_LIMIT, "block_backup_patience": 10}
    pinned = {"fs2": {"isb_backup_server": "backup1"}, "fs3": {"isb_backup_server": "backup1"}}
    path = tmp_path / "isb.json"
    options = [*shared, "-e", f"isb_report_path={path}"]
    with lab.start("isb.yml", *options, host_vars={"fs1": slow, **pinned}) as process:
        try:
            wait_for_backup(lab, "backup2")
            time.sleep(3)
            lab.on("backup2", "setsid sh -c 'sleep 1; kill -KILL -1' >/dev/null 2>&1 &")
            output, dummy = process.communicate(timeout=TIMEOUT)
        finally:
            if process.poll() is None:
                process.kill()
            set_up_lab(lab)
    assert process.returncode == 0, output
    report = report_of(path)
    assert (report["verdict"], report["exit_status"]) == ("application-consistent", 0)
    (move,) = report["servers"]["fs1"]["moves"]
    assert (move["from"], move["to"]) == ("backup2", "backup1")
    assert "its host has not answered for 10 s" in move["problem"]
    assert report["servers"]["fs1"]["backup_server"] == "backup1"
    assert any(text.startswith("fs1 moved from backup server backup2 to backup1") for text in report["degraded"])
    # The others were not touched, and each server was cleaned up when its own backup had ended.
    assert all(report["servers"][name]["moves"] == [] for name in ("fs2", "fs3"))
    at = [(entry["event"], entry["server"]) for entry in report["timeline"]]
    assert at.index(("moved", "fs1")) < at.index(("saveset", "fs1")) < at.index(("cleaned", "fs1"))
    assert at.index(("cleaned", "fs2")) < at.index(("cleaned", "fs1"))
    mine = [r["data"] for r in lab.journal() if r["run_id"] == report["run_id"] and r["data"].get("server") == "fs1"]
    assert any(data["saveset"]["origin"]["resumed"] for data in mine if "saveset" in data)
    lab.nothing_is_left()
    restored_is_right(lab, shared, report["run_id"])


def test_a_run_is_spread_over_both(lab: Lab, shared: list[str], tmp_path: Path) -> None:
    """And reads what has changed, whichever of them has written the savesets that it builds on."""
    for host in ("backup1", "backup2"):
        lab.on(host, f"rm -rf {SLOTS}")
    status, output = lab.play("isb.yml", *shared, "-e", f"isb_report_path={tmp_path / 'isb.json'}")
    assert status == 0, output
    report = report_of(tmp_path / "isb.json")
    assert (report["exit_status"], report["degraded"]) == (0, [])
    places = {name: entry["backup_server"] for name, entry in report["servers"].items()}
    assert set(places.values()) == {"backup1", "backup2"}
    for host in places.values():
        lab.on(host, f"test -d {SLOTS}")  # made by a backup there
    volumes = [volume for entry in report["servers"].values() for volume in entry["volumes"]]
    assert {volume["origin"]["method"] for volume in volumes} == {"changed"}
    lab.nothing_is_left()
    status, output = lab.play("verify.yml", *shared)
    assert status == 0 and output.count("no damage") == 1, output


def wait_for_backup(lab: Lab, host: str) -> None:
    """Return when a backup server reads fs1."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        jobs = lab.on(host, "cat /run/openisb/jobs/isb-*.fs1.json 2>/dev/null || true")
        if '"running"' in jobs:
            return
        time.sleep(0.2)
    pytest.fail(f"{host} has begun no backup")


def restored_is_right(lab: Lab, shared: list[str], run_id: str) -> None:
    """What the second one finished is whole: every byte of the run is read, and the databases are of one moment."""
    status, output = lab.play("verify.yml", *shared, "-e", f"verify_run_id={run_id}")
    assert status == 0, output
    more = {
        "restore_server": ",".join(lab.servers),
        "restore_run_id": run_id,
        "restore_host": "dr1",
        "restore_folder": "/var/lib/openisb/restored",
    }
    try:
        status, output = lab.play("restore.yml", *shared, "-e", json.dumps(more))
        assert status == 0, output
        status, output = lab.play("lab/lab_check.yml", *shared)
        assert status == 0, output
    finally:
        lab.on("dr1", "rm -rf /var/lib/openisb/restored")

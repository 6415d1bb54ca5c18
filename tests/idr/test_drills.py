# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills that go as they should, kept ones, and those that are refused; nothing is ever left of any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from families import kill_family
from lab import Lab

from .conftest import Drills

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

MOUNT = "/srv/idr/{}/srv/m"


def test_an_instant_drill_of_all_servers(drills: Drills, lab: Lab, tmp_path: Path) -> None:
    drill = drills.run("-e", f"idr_report_controller_folder={tmp_path}")
    assert drill.status == 0, drill.output
    assert drill.report["verdict"] == "passed"
    assert set(drill.report["servers"]) == set(lab.servers)
    for server, entry in drill.report["servers"].items():
        kinds = [check["kind"] for check in entry["checks"]]
        assert kinds == ["filesystem"] * len(entry["volumes"]) + ["gtm", "content"], server
        assert entry["rto_s"] > 0 and entry["rpo_s"] > 0
    (together,) = drill.report["group"]["checks"]
    assert together["what"] == "one point in time over all servers" and together["ok"]
    assert f"Drill {drill.id}: PASSED" in drill.output
    assert lab.left_of_drills() == {}

    page = tmp_path / f"{drill.id}.html"
    assert json.loads((tmp_path / f"{drill.id}.json").read_text()) == drill.report
    told = lab.on("backup1", "openssl pkey -in /var/lib/openisb/report-key.pem -pubout -outform DER | sha256sum")
    key = ["-e", f"key_fingerprint={told.split()[0]}"]
    for document in (page, page.with_suffix(".json")):
        status, output = lab.play("verify_report.yml", "-e", f"report={document}", *key)
        assert status == 0, output
    page.write_text(page.read_text().replace("passed", "failed", 1))
    status, output = lab.play("verify_report.yml", "-e", f"report={page}", *key)
    assert status != 0, output

    savesets = tmp_path / "savesets.json"
    status, output = lab.play("catalog.yml", "-e", f"catalog_path={savesets}")
    assert status == 0, output
    (run_id,) = drill.report["servers"]["fs1"]["run_ids"]
    proven = [
        saveset["proven"].get("drill") for saveset in json.loads(savesets.read_text()) if saveset["run_id"] == run_id
    ]
    assert len(proven) >= 5 and set(proven) == {drill.id}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["-e", "idr_declared=2999-01-01T00:00:00+00:00", "-e", "idr_source=tape", "-e", "idr_servers=fs2,fs9"],
            ["which is in the future", "idr_source is 'tape'", "there is no file server fs9"],
        ),
        (
            ["-e", "idr_mode=failover", "-e", "idr_servers=fs2"],
            ["confirm it by their names", "a failover needs permanent disks: give fs2/m"],
        ),
    ],
    ids=["what was asked for cannot be", "a failover that nobody confirmed"],
)
def test_refused_before_anything_is_started(drills: Drills, options: list[str], said: list[str]) -> None:
    drill = drills.run(*options)
    assert drill.status != 0 and drill.id == ""
    assert "Nothing was started." in drill.said
    for text in said:
        assert text in drill.said


@pytest.mark.parametrize("playbook", ["idr.yml", "idr_fresh.yml"])
def test_a_check_that_is_described_wrongly(drills: Drills, lab: Lab, playbook: str) -> None:
    """It would only show once all is up; so it is looked at before anything is started, or frozen."""
    runs = len(lab.runs("fs1"))
    wrong = {"fs1": {"idr_checks": [{"name": "files", "path": "/srv/m"}]}}
    drill = drills.run(playbook=playbook, host_vars=wrong)
    assert drill.status != 0 and drill.id == ""
    assert "Nothing was started. In idr_checks of fs1: the description of check 1 is wrong: check files" in drill.said
    assert len(lab.runs("fs1")) == runs


def test_what_is_in_the_way_is_told_at_once(drills: Drills, lab: Lab) -> None:
    """A place with files in it, production's LUN on the DR host, and a target that is too small."""
    lab.on("dr1", "mkdir -p /dev/disk/by-id && ln -s /dev/loop0 /dev/disk/by-id/wwn-0x6f70656e69736221")
    lab.on("dr1", f"mkdir -p {MOUNT.format('fs2')} && touch {MOUNT.format('fs2')}/notes")
    lab.on("dr1", "test -e /srv/small || truncate -s 1M /srv/small")
    device = lab.on("dr1", "losetup --find --show /srv/small").strip()
    volumes = [{"name": "m", "serial": "6f70656e69736221", "mount": "/srv/m", "idr_target": device}]
    try:
        drill = drills.run(
            "-e", "idr_servers=fs2", "-e", "idr_source=restore", "--check", host_vars={"fs2": {"isb_volumes": volumes}}
        )
    finally:
        lab.on("dr1", f"losetup -d {device}; rm -rf /srv/small /srv/idr/fs2 /dev/disk/by-id/wwn-0x6f70656e69736221")
    assert drill.status != 0 and drill.id == ""
    assert "production's own LUN 6f70656e69736221 is attached to this host" in drill.said
    assert f"{MOUNT.format('fs2')} is not empty" in drill.said
    assert f"{device}: it has 1048576 bytes and the volume has" in drill.said


def test_kept_drills(drills: Drills, lab: Lab) -> None:
    """Two at once; one is swept when its time is over, the other is in the way of a second one of its server."""
    first = drills.run("-e", "idr_servers=fs1", "-e", "idr_keep=true")
    second = drills.run("-e", "idr_servers=fs2", "-e", "idr_keep=true", "-e", "idr_ttl=1")
    assert (first.status, second.status) == (0, 0), first.output + second.output
    lab.on(
        "dr1", f"ls {MOUNT.format('fs1')}/mumps.dat {MOUNT.format('fs2')}/mumps.dat && touch {MOUNT.format('fs1')}/here"
    )
    options = lab.on("dr1", f"findmnt --noheadings --output OPTIONS {MOUNT.format('fs1')}").strip().split(",")
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options)
    left = lab.left_of_drills()
    assert len([line for line in left["dr1"] if line.startswith("/dev/")]) >= 3
    assert left["backup1"] and left["machine"]

    again = drills.run("-e", "idr_servers=fs1")
    assert again.status != 0 and again.id == ""
    assert f"fs1/m: {MOUNT.format('fs1')} is in use: drill {first.id} keeps it up" in again.said
    assert f"idr_end={first.id}" in again.said
    # What was over is gone by then, and what is kept is as it was.
    lab.on("dr1", f"test -e {MOUNT.format('fs1')}/here && test ! -e {MOUNT.format('fs2')}")
    assert [r["event"] for r in lab.drills() if r["run_id"] == second.id][-2:] == ["torn_down", "closed"]

    status, output = lab.play("idr.yml", "--tags", "teardown")
    assert status == 0, output
    assert f"Drill {first.id}: PASSED" in output
    assert lab.drill_report(first.id)["torn_down"] == {"dr1": []}


def test_a_drill_whose_playbook_was_killed(drills: Drills, lab: Lab, tmp_path: Path) -> None:
    known = drills.opened()
    with drills.held("idr : Mount the volumes", tmp_path, "-e", "idr_servers=fs2,fs3") as process:
        kill_family(process.pid)
        process.communicate()
    (dead,) = [drill for drill in drills.opened() if drill not in known]
    left = lab.left_of_drills()
    assert left["dr1"] and left["backup1"]

    status, output = lab.play("recover.yml", "-e", "recover_dry_run=true")
    assert status == 0, output
    assert f"would be taken down: {dead}" in output
    assert lab.left_of_drills() == left

    # Somebody works in what is left: nothing is torn from under him, and that it stays is no success.
    holder = lab.on(
        "dr1", "cd $(ls -d /run/openisb/luns/*/fuse | head -n 1) && { sleep 300 >/dev/null 2>&1 & echo $!; }"
    )
    try:
        status, output = lab.play("recover.yml")
    finally:
        lab.on("dr1", f"kill {holder}")
    assert status != 0, output
    assert "which stay open" in " ".join(output.split())

    status, output = lab.play("recover.yml")
    assert status == 0, output
    assert lab.left_of_drills() == {}
    report = lab.drill_report(dead)
    assert report["verdict"] == "failed"
    assert any("its playbook was interrupted" in problem for problem in report["problems"])


def test_drill_proves_the_server_that_was_not_proven_for_longest(drills: Drills, lab: Lab) -> None:
    last: dict[str, str] = {}
    for record in lab.drills():
        if record["event"] == "closed":
            last.update(dict.fromkeys(record["data"]["proven"], record["time"]))
    oldest = min(lab.servers, key=lambda server: last[server])
    drill = drills.run(playbook="drill.yml")
    assert drill.status == 0, drill.output
    assert list(drill.report["servers"]) == [oldest]
    assert f"{oldest}: last proven on {last[oldest]}" in drill.said

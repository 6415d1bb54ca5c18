# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills from the storage and by restoring, and failovers: a copy stays one, whatever is written to what is up."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from lab import Lab

from .conftest import Drills

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

SERIAL = "6f70656e69736221"  # of fs2/m
TARGET = "/srv/standby/fs2-m.img"
STANDBY = {"fs2": {"isb_volumes": [{"name": "m", "serial": SERIAL, "mount": "/srv/m", "idr_target": TARGET}]}}
PROGRAM = "/var/lib/openisb/venv/bin/python /var/lib/openisb/repository/isb-saveset.pyz"


def content(lab: Lab, run_id: str) -> str:
    """The SHA-256 of fs2's volume as a run has saved it: by the stand-alone program, on the backup server."""
    secret = (lab.folder / "passphrase").read_text().strip()
    image = "/var/tmp/of-the-saveset.img"
    lab.on("backup1", f"OPENISB_PASSPHRASE='{secret}' {PROGRAM} restore --quiet fs2/m:{run_id} {image}")
    return lab.on("backup1", f"sha256sum < {image}; rm {image}").split()[0]


def sum_of(lab: Lab, host: str, path: str) -> str:
    return lab.on(host, f"sha256sum < {path}").split()[0]


def test_the_storage_as_it_is_now(drills: Drills, lab: Lab) -> None:
    """What is written to a clone reaches neither the snapshot nor production, and the snapshot goes with the drill."""
    bases = lab.luns_in_snapshots()
    drill = drills.run("-e", "idr_servers=fs2", "-e", "idr_keep=true", playbook="idr_fresh.yml")
    assert drill.status == 0, drill.output
    volume = next(each for each in drill.report["servers"]["fs2"]["volumes"] if each["name"] == "m")
    assert volume["method"] == "storage" and volume["run_id"] not in bases[SERIAL]
    lun = f"/srv/pool/snapshots/{volume['run_id']}/{SERIAL}.lun"
    before = sum_of(lab, "storage1", lun)
    lab.on("dr1", f"echo here > {volume['dr_mount']}/.written && sync -f {volume['dr_mount']}")
    assert sum_of(lab, "storage1", lun) == before
    lab.on("fs2", "test ! -e /srv/m/.written")

    status, output = lab.play("idr.yml", "--tags", "teardown")
    assert status == 0, output
    assert lab.luns_in_snapshots() == bases
    lab.on("storage1", f"test ! -e {lun}")

    status, output = lab.play("isb.yml")
    assert status == 0, output
    run_id = lab.journal()[-1]["run_id"]
    saved = [r["data"]["saveset"] for r in lab.journal() if r["run_id"] == run_id and r["event"] == "saveset"]
    assert {saveset["origin"]["method"] for saveset in saved} == {"changed"}


def test_a_standby_is_brought_up_to_date_and_stays_one(drills: Drills, lab: Lab) -> None:
    lab.on("dr1", "mkdir -p /srv/standby")
    first, *_others, newest = lab.runs("fs2")
    options = ("-e", "idr_servers=fs2", "-e", "idr_source=restore")
    whole = drills.run(*options, "-e", f"idr_point={first}", host_vars=STANDBY)
    assert whole.status == 0, whole.output
    assert sum_of(lab, "dr1", TARGET) == content(lab, first)

    # What somebody has done to it in the meantime is found and put right.
    lab.on("dr1", f"printf damaged | dd of={TARGET} bs=1 seek=200000000 conv=notrunc status=none")
    change = drills.run(*options, host_vars=STANDBY)
    assert change.status == 0, change.output
    assert change.report["servers"]["fs2"]["run_ids"] == [newest]
    assert written(change) < written(whole) / 2
    assert sum_of(lab, "dr1", TARGET) == content(lab, newest)


def test_a_standby_follows_at_the_cost_of_the_change(drills: Drills, lab: Lab) -> None:
    """After a run only what differs is written, and nothing read; unless somebody has written to it."""
    lab.on("dr1", f"mkdir -p /srv/standby && rm -rf {TARGET} /var/lib/openisb/standby")
    none = drills.run(playbook="standby.yml")
    assert none.status != 0 and "No volume in the inventory has an idr_target" in none.said

    assert "nothing is on record of what it holds" in follow(drills)
    assert lab.play("isb.yml")[0] == 0
    newest = lab.runs("fs2")[-1]
    said = follow(drills)
    assert re.search(rf"fs2/m of \S+, run {newest}, saveset \S+, is on {TARGET} of dr1", said)
    assert " 0.00 Bytes compared" in said
    assert " 0.00 Bytes written" not in said
    assert sum_of(lab, "dr1", TARGET) == content(lab, newest)
    assert " 0.00 Bytes written, 0.00 Bytes compared" in follow(drills)

    lab.on("dr1", f"printf damaged | dd of={TARGET} bs=1 seek=200000000 conv=notrunc status=none")
    damaged = sum_of(lab, "dr1", TARGET)
    looked = drills.run("--check", playbook="standby.yml", host_vars=STANDBY)
    assert looked.status == 0 and f", run {newest}, saveset " in looked.said
    assert sum_of(lab, "dr1", TARGET) == damaged
    assert "it was written to since" in follow(drills)
    assert sum_of(lab, "dr1", TARGET) == content(lab, newest)


def test_what_is_not_ours_is_not_written_over(drills: Drills, lab: Lab) -> None:
    """Not by a standby, a drill or a restore, until its very identity is named; then it is a standby."""
    other = {"fs2": {"isb_volumes": [{**STANDBY["fs2"]["isb_volumes"][0], "idr_target": "/srv/standby/other.img"}]}}
    lab.on("dr1", "mkdir -p /srv/standby && truncate -s 384M /srv/standby/other.img")
    lab.on("dr1", "mkfs.ext4 -q -F -L clinic /srv/standby/other.img")
    before = sum_of(lab, "dr1", "/srv/standby/other.img")
    size = lab.on("dr1", "stat -c %s /srv/standby/other.img").strip()
    restore = ("-e", "restore_server=fs2", "-e", "restore_volume=m", "-e", "restore_host=dr1")
    for playbook, options in [
        ("standby.yml", ()),
        ("idr.yml", ("-e", "idr_servers=fs2", "-e", "idr_source=restore")),
        ("restore.yml", (*restore, "-e", "restore_target=/srv/standby/other.img", "-e", "restore_overwrite=true")),
    ]:
        refused = drills.run(*options, playbook=playbook, host_vars=other)
        assert refused.status != 0 and "it holds ext4 labelled 'clinic'" in refused.said, refused.output
        assert f"-e restore_overwrite=/srv/standby/other.img:{size}" in refused.said
        assert sum_of(lab, "dr1", "/srv/standby/other.img") == before
    named = ("-e", f"restore_overwrite=/srv/standby/other.img:{size}")
    for options in (named, ()):
        done = drills.run(*options, playbook="standby.yml", host_vars=other)
        assert done.status == 0, done.output
    assert sum_of(lab, "dr1", "/srv/standby/other.img") == content(lab, lab.runs("fs2")[-1])
    lab.on("dr1", "rm /srv/standby/other.img")


def follow(drills: Drills) -> str:
    """Bring the standby up to date; what was said."""
    done = drills.run(playbook="standby.yml", host_vars=STANDBY)
    assert done.status == 0, done.output
    return done.said


def test_a_standby_that_a_drill_works_with_is_left_alone(drills: Drills, lab: Lab) -> None:
    lab.on("dr1", "mkdir -p /srv/standby")
    options = ("-e", "idr_servers=fs2", "-e", "idr_source=restore", "-e", "idr_keep=true")
    kept = drills.run(*options, host_vars=STANDBY)
    assert kept.status == 0, kept.output
    refused = drills.run(playbook="standby.yml", host_vars=STANDBY)
    assert refused.status != 0
    assert f"{TARGET}: it is the source of {kept.id}.fs2.m. End that drill first" in refused.said
    assert lab.play("idr.yml", "--tags", "teardown")[0] == 0


def written(drill: Any) -> int:
    (volume,) = drill.report["servers"]["fs2"]["volumes"]
    return int(volume["restored"]["stats"]["bytes_written"])


def test_a_failover(drills: Drills, lab: Lab) -> None:
    """While its restore runs, an instant drill of the same server is up, in which its users can look things up."""
    lab.on("dr1", "mkdir -p /srv/standby")
    instant = drills.run("-e", "idr_servers=fs2", "-e", "idr_keep=true")
    assert instant.status == 0, instant.output
    options = ("-e", "idr_mode=failover", "-e", "idr_servers=fs2", "-e", json.dumps({"idr_confirm": "failover fs2"}))
    refused = drills.run(*options, host_vars=STANDBY)
    assert refused.status != 0 and refused.id == ""
    assert "fs2 still answers" in refused.said and "Ansible reaches it" in refused.said

    failover = drills.run(*options, "-e", "idr_override_fencing=fs2", host_vars=STANDBY)
    try:
        assert failover.status == 0, failover.output
        assert f"Failover {failover.id}: PASSED" in failover.output
        assert "fs2/m is at /srv/m of dr1" in failover.said
        assert f"--tags teardown -e idr_end={failover.id}" in failover.said
        lab.on(
            "dr1", "test ! -e /srv/idr/fs2/srv/m/.after-the-failover && cat /srv/idr/fs2/srv/m/mumps.dat > /dev/null"
        )
        options = lab.on("dr1", "findmnt --noheadings --output OPTIONS /srv/m").strip().split(",")
        assert not {"nosuid", "nodev", "noexec"} & set(options)  # production goes on with it
        lab.on("dr1", "mountpoint -q /srv/m && touch /srv/m/.after-the-failover && sync -f /srv/m")

        # Neither a sweep nor an end of what is kept touches it.
        status, output = lab.play("idr.yml", "--tags", "teardown")
        assert status == 0, output
        assert f"drill {failover.id} on dr1: it was a failover, and stays permanently" in " ".join(output.split())
        lab.on("dr1", "test -e /srv/m/.after-the-failover")
        # The end of what was kept was that of the instant drill alone.
        assert f"Drill {instant.id}: PASSED" in output
    finally:
        status, output = lab.play("idr.yml", "--tags", "teardown", "-e", f"idr_end={failover.id}")
    assert status == 0, output
    lab.on("dr1", "! mountpoint -q /srv/m")
    assert lab.left_of_drills() == {}
    # The disk keeps what was written since.
    lab.on("dr1", f"grep -q -a after-the-failover {TARGET}")

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Good and bad runs through MBF: the right verdict, and nothing left quiesced, whatever MBF answers."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import RINGS, ROOT, SERVERS, Site

REPOSITORY = "/var/lib/openisb/repository"
RESTORED = "/var/lib/openisb/restored"


def last_report(site: Site) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(site.on("backup1", f"cat $(ls -d {REPOSITORY}/reports/isb-*.json | tail -n 1)"))
    return report


def ring_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [ring for ring in report["rings"] if ring["ring"] == name]
    return dict(found)


def check_copies(site: Site, run_id: str) -> None:
    """Restore all volumes of a run, and check for each ring that its servers are at one moment."""
    everything = {
        "restore_server": ",".join(SERVERS),
        "restore_host": "dr1",
        "restore_folder": RESTORED,
        "restore_run_id": run_id,
    }
    status, output = site.play("restore.yml", "-e", json.dumps(everything))
    assert status == 0, output
    volumes = {"fs1": ["e", "f"], "fs2": ["e"], "fs3": ["e", "f"]}
    for servers in RINGS.values():
        images = {server: {name: f"{RESTORED}/{server}-{name}.img" for name in volumes[server]} for server in servers}
        status, output = site.play("lab/lab_check.yml", "-e", json.dumps({"lab_check_images": images}))
        assert status == 0, output
        checked = json.loads((site.folder / "check.json").read_text())
        assert (checked["one_point_in_time"], checked["sound"]) == (True, True)
        assert sorted(checked["servers"]) == servers


# The run of converge.yml comes first, before the tests change anything.


def test_the_run_is_application_consistent_ring_by_ring(site: Site) -> None:
    report = last_report(site)
    assert (report["verdict"], report["exit_status"], report["problems"]) == ("application-consistent", 0, [])
    assert (report["left"], report["degraded"]) == ([], [])
    assert [(ring["ring"], ring["servers"]) for ring in report["rings"]] == list(RINGS.items())
    assert ring_of(report, "npr")["consistency_point"] < ring_of(report, "mat")["consistency_point"]
    events = [(entry["event"], entry["ring"]) for entry in report["timeline"] if entry["ring"]]
    assert events[:4] == [("freezing", "npr"), ("thawed", "npr"), ("freezing", "mat"), ("thawed", "mat")]


def test_nothing_is_left_of_it(site: Site) -> None:
    assert site.frozen() == []
    assert site.holders() == ""
    last = last_report(site)["run_id"]
    for ring in RINGS:
        assert site.on("storage1", f"ls /srv/pool/snapshots/{ring}").split() == [last]


def test_each_rings_copies_are_of_one_moment(site: Site) -> None:
    check_copies(site, last_report(site)["run_id"])


def test_savesets_tell_the_ring(site: Site) -> None:
    records = [json.loads(line) for line in site.on("backup1", "cat /var/lib/openisb/journal/runs.jsonl").splitlines()]
    found = {
        r["data"]["saveset"]["volume"]: r["data"]["saveset"]["metadata"] for r in records if r["event"] == "saveset"
    }
    assert {volume: metadata["ring"] for volume, metadata in found.items()} == {
        "fs1/e": "npr",
        "fs1/f": "npr",
        "fs2/e": "npr",
        "fs3/e": "mat",
        "fs3/f": "mat",
    }


def test_the_census_is_written_for_the_inventory(site: Site, tmp_path: Path) -> None:
    status, output = site.play("playbooks/mbf_census.yml", "-e", f"census_folder={tmp_path}")
    assert status == 0, output
    for ring in RINGS:
        name = f"census-{ring}.txt"
        assert (tmp_path / name).read_text() == (ROOT / "inventories/lab_mbf" / name).read_text()


# The password


def test_neither_ansible_nor_ps_of_another_user_shows_the_password(healed: Site) -> None:
    healed.inject("npr", quiesce={"hang": 2, "times": 1})
    process = healed.start("isb.yml", "-vvvv")
    seen = ""
    try:
        deadline = time.monotonic() + 90
        root_sees, other = "", "setpriv --reuid=65534 --regid=65534 --clear-groups ps -eww -o args"
        while "C=Quiesce" not in root_sees:
            assert time.monotonic() < deadline, "MBF was not seen at work"
            both = healed.on("backup1", f"ps -eww -o args; echo ======; {other}")
            root_sees, dummy, seen = both.partition("======")
        assert f"P={healed.password}" in root_sees
        process.wait(120)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, healed.said()
    assert "ps -eww" in seen
    assert healed.password not in seen
    assert healed.password not in healed.said()
    assert healed.password not in healed.on("backup1", "cat /run/openisb-*/* 2>/dev/null || true")


def test_preflight_refuses_where_others_could_read_it(healed: Site) -> None:
    remount = "mount -o remount,nosuid,nodev,noexec,hidepid={} /proc"
    healed.on("backup1", remount.format(0))
    try:
        status, output = healed.play("preflight.yml")
    finally:
        healed.on("backup1", remount.format(2))
    assert status != 0
    assert "every user of this machine can read the password" in " ".join(output.split())


# Preflight


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"fs2": {"isb_volumes": [{"name": "e", "serial": "6f70656e69736229"}]}},
            "fs2/e: the LUN with serial 6f70656e69736229 is not in the census of ring npr",
        ),
        (
            {"fs1": {"isb_volumes": [{"name": "e", "serial": "6f70656e69736211"}]}},
            "MBF's census has the drive FS1:F (serial 6f70656e69736212), and fs1 has no such volume",
        ),
        ({"fs3": {"isb_mbf_name": "MT3"}}, "MBF's census names the server FS3, which is no file server of that ring"),
    ],
)
def test_what_census_and_inventory_do_not_agree_on_stops_before_any_quiesce(
    healed: Site, tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": dict.fromkeys(changes, {})}}))
    for host, variables in changes.items():
        (tmp_path / "host_vars" / f"{host}.json").write_text(json.dumps(variables))
    status, output = healed.play("isb.yml", "-i", str(tmp_path))
    assert status != 0
    assert "Nothing was started and nothing was frozen." in output
    assert text in " ".join(output.split())


# What MBF may answer


@pytest.mark.parametrize("code", range(1, 13))
def test_every_other_exit_code_is_unquiesced_and_fails(healed: Site, code: int) -> None:
    healed.inject("npr", quiesce={"code": code})
    status, output = healed.module("quiesce")
    assert status != 0
    assert f"exit code {code}, " in output
    assert "it was unquiesced again" in output
    assert healed.frozen() == []


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ({"code": 9}, "exit code 9"),
        ({"code": 12, "effect": "first"}, "exit code 12"),
        ({"text": "partial"}, "no success of FS2"),
        ({"text": "missing"}, "no success of FS2"),
        ({"text": "garbage"}, "no success of FS1, FS2"),
        ({"signal": 9}, "ended by signal 9"),
        ({"hang": 60}, "longer than 10 s"),
        ({"late": 12}, "longer than 10 s"),
    ],
)
def test_a_ring_that_fails_is_unquiesced_and_fails_its_servers_alone(
    healed: Site, fault: dict[str, Any], text: str
) -> None:
    healed.inject("npr", quiesce=fault)
    status, output, report = healed.isb()
    assert status != 0
    assert text in " ".join(report["problems"]), output
    assert report["exit_status"] == 2
    assert {ring["ring"]: ring["verdict"] for ring in report["rings"]} == {
        "npr": "failed",
        "mat": "application-consistent",
    }
    assert {name: entry["verdict"] for name, entry in report["servers"].items()} == {
        "fs1": "failed",
        "fs2": "failed",
        "fs3": "application-consistent",
    }
    assert [entry["volumes"] for name, entry in report["servers"].items() if name != "fs3"] == [[], []]
    assert report["left"] == []
    assert healed.frozen() == []
    assert healed.holders() == ""


def test_an_unquiesce_that_fails_at_first_is_repeated(healed: Site) -> None:
    healed.inject("npr", unquiesce={"code": 5, "effect": "none", "times": 2})
    status, dummy, report = healed.isb()
    assert status != 0
    assert "npr: did not confirm its thaw: mbf: the ring may still be quiesced" in " ".join(report["problems"])
    assert report["left"] == []
    assert healed.frozen() == []
    assert healed.holders() == ""


def test_what_the_site_accepts_goes_on_and_is_called_degraded(healed: Site) -> None:
    healed.inject("mat", quiesce={"code": 10})
    status, output, report = healed.isb("-e", json.dumps({"mbf_proceed": [0, 10]}))
    assert status == 0, output
    assert report["verdict"] == "application-consistent"
    assert ring_of(report, "npr")["degraded"] == []
    (degraded,) = ring_of(report, "mat")["degraded"]
    assert degraded.startswith("MBF: exit code 10")
    assert report["degraded"] == report["servers"]["fs3"]["degraded"] == [degraded]
    assert "Degraded" in output
    status, output = healed.play("catalog.yml")
    assert status == 0
    assert "application-consistent (degraded)" in output


def test_a_server_that_the_site_accepts_to_be_missing_is_not_called_consistent(healed: Site) -> None:
    healed.inject("npr", quiesce={"code": 1, "text": "missing", "effect": "first"})
    status, dummy, report = healed.isb("-e", json.dumps({"mbf_proceed": [0, 1]}))
    assert status != 0
    found = {name: entry["verdict"] for name, entry in report["servers"].items()}
    assert found == {"fs1": "application-consistent", "fs2": "crash-consistent", "fs3": "application-consistent"}
    assert "fs2: its ring was quiesced or unquiesced without it" in report["problems"]
    assert healed.frozen() == []


def test_a_server_that_died_in_the_middle_does_not_keep_its_ring(healed: Site) -> None:
    healed.inject("npr", unquiesce={"code": 1, "text": "missing"})
    status, dummy, report = healed.isb()
    assert status != 0
    found = {name: entry["verdict"] for name, entry in report["servers"].items()}
    assert found == {"fs1": "application-consistent", "fs2": "crash-consistent", "fs3": "application-consistent"}
    assert "no success of FS2 at the unquiesce" in report["degraded"][0]
    assert report["left"] == []
    assert (healed.frozen(), healed.holders()) == ([], "")


def test_with_abort_a_ring_that_fails_ends_the_run(healed: Site) -> None:
    healed.inject("npr", quiesce={"code": 9})
    status, dummy, report = healed.isb("-e", "isb_on_ring_failure=abort")
    assert status != 0
    assert {entry["verdict"] for entry in report["servers"].values()} == {"failed"}
    assert "no consistency point was taken of fs3" in report["problems"]
    assert (report["left"], healed.frozen(), healed.holders()) == ([], [], "")


# The dead man's switch


def test_a_controller_that_is_killed_leaves_no_ring_quiesced(healed: Site) -> None:
    hanging = ("-e", "snapshot_command='date +%s.%N; sleep 120; date +%s.%N'", "-e", "isb_freeze_budget=5")
    process = healed.start("isb.yml", *hanging)
    try:
        deadline = time.monotonic() + 90
        while healed.frozen() != ["fs1", "fs2"]:
            assert time.monotonic() < deadline, "the ring was not quiesced"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 15
    while healed.frozen():
        assert time.monotonic() < deadline, "the ring is still quiesced"
    status, output = healed.play("isb.yml")
    assert status != 0
    assert "is still open" in output
    status, output = healed.play("recover.yml")
    assert status == 0, output
    assert healed.holders() == ""
    status, output, report = healed.isb()
    assert status == 0, output
    check_copies(healed, report["run_id"])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs after the first read only what has changed, what they restore is all there, and one base of each LUN stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

RESTORE = {
    "restore_server": "{{ groups.file_servers | join(',') }}",
    "restore_host": "dr1",
    "restore_folder": "{{ hostvars.dr1.openisb_host.state_dir }}/restored",
}


def run_isb(lab: Lab, report: Path, status: int = 0, **host_vars: Any) -> dict[str, Any]:
    """A run with this exit status; its report."""
    ended, output = lab.play("isb.yml", "-e", f"isb_report_path={report}", host_vars=host_vars)
    assert ended == status, output
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def origins(report: dict[str, Any], server: str) -> list[dict[str, Any]]:
    """How each volume of a server was read."""
    return [volume["origin"] for volume in report["servers"][server]["volumes"]]


def test_a_second_run_reads_only_what_changed(lab: Lab, tmp_path: Path) -> None:
    first, second = (run_isb(lab, tmp_path / f"{number}.json") for number in (1, 2))
    for server in lab.servers:
        for before, after in zip(origins(first, server), origins(second, server), strict=True):
            assert after["method"] == "changed", after
            assert after["since"] == before["source_id"]
        entry = second["servers"][server]
        assert entry["bytes_read"] < entry["bytes_size"] / 20
    lab.nothing_is_left()
    assert set(map(tuple, lab.luns_in_snapshots().values())) == {(second["run_id"],)}

    for playbook, variables in [
        ("restore.yml", {**RESTORE, "restore_run_id": second["run_id"]}),
        ("lab/lab_compare.yml", {"compare_run_id": second["run_id"]}),
    ]:
        status, output = lab.play(playbook, "-e", json.dumps(variables))
        assert status == 0, output


def test_bases_follow_the_savesets(lab: Lab, tmp_path: Path) -> None:
    first = run_isb(lab, tmp_path / "1.json")
    second = run_isb(
        lab,
        tmp_path / "2.json",
        2,
        fs1={"isb_changed_extents": False},
        fs2={"block_backup_level": 99},
        fs3={"isb_paranoid": True},
    )
    bases = lab.luns_in_snapshots()
    serials = {
        server: {record["data"]["saveset"]["metadata"]["serial"] for record in lab.journal() if is_of(record, server)}
        for server in lab.servers
    }
    assert bases == {
        **{serial: [first["run_id"]] for serial in serials["fs2"]},
        **{serial: [second["run_id"]] for serial in serials["fs3"]},
    }
    assert {origin["reason"] for origin in origins(second, "fs1")} == {"isb_changed_extents is off"}
    assert {origin["reason"] for origin in origins(second, "fs3")} == {"asked to read everything and compare"}
    assert {origin["missed"] for origin in origins(second, "fs3")} == {0}

    third = run_isb(lab, tmp_path / "3.json")
    assert {origin["reason"] for origin in origins(third, "fs1")} == {
        f"there is no base snapshot of run {second['run_id']}"
    }
    assert {origin["since"].partition("/")[0] for origin in origins(third, "fs2")} == {first["run_id"]}
    assert {origin["since"].partition("/")[0] for origin in origins(third, "fs3")} == {second["run_id"]}
    lab.nothing_is_left()


def is_of(record: dict[str, Any], server: str) -> bool:
    """Whether a journal record tells of a saveset of a server."""
    return record["event"] == "saveset" and record["data"]["server"] == server


def test_a_snapshot_that_is_kept_outlives_later_runs(lab: Lab, tmp_path: Path) -> None:
    kept = run_isb(lab, tmp_path / "1.json", **dict.fromkeys(lab.servers, {"isb_keep_snapshot": True}))["run_id"]
    last = run_isb(lab, tmp_path / "2.json")
    try:
        assert set(map(tuple, lab.luns_in_snapshots().values())) >= {(kept, last["run_id"])}
        assert {origin["since"].partition("/")[0] for origin in origins(last, "fs2")} == {kept}
    finally:
        lab.on("storage1", f"btrfs subvolume delete /srv/pool/snapshots/{kept} && rm /srv/pool/snapshots/{kept}.kept")
    lab.nothing_is_left()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What two runs leave behind on the lab's hosts: savesets and reports, the base of the next run, and nothing else.

Inspected over plain SSH with the hosts' own tools, not through the collection.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import testinfra

RUNS = 2
VOLUMES = {
    "fs1": ["files", "m"],
    "fs2": ["docs", "m"],
    "fs3": ["files", "m"],
}
FILE_SERVERS = sorted(VOLUMES)
REPOSITORY = "/var/lib/openisb/repository"
JOURNAL = "/var/lib/openisb/journal/runs.jsonl"
LUNS = "/srv/pool/luns"
SNAPSHOTS = "/srv/pool/snapshots"

LAB = Path(os.environ["LAB_DIR"])


def connect(name: str) -> Any:
    """Connect to a host of the lab as `ssh -F .../ssh_config NAME` does."""
    return testinfra.get_host(f"ssh://{name}", ssh_config=str(LAB / "ssh_config"))


@pytest.fixture(params=FILE_SERVERS)
def file_server(request: pytest.FixtureRequest) -> Any:
    """Each file server in turn."""
    return connect(request.param)


@pytest.fixture(params=[*FILE_SERVERS, "storage1", "backup1", "dr1"])
def any_host(request: pytest.FixtureRequest) -> Any:
    """Each host in turn."""
    return connect(request.param)


@pytest.fixture(scope="module")
def storage() -> Any:
    """The storage host."""
    return connect("storage1")


@pytest.fixture(scope="module")
def backup_server() -> Any:
    """The backup server, which is also the listener."""
    return connect("backup1")


@pytest.fixture(scope="module")
def reports(backup_server: Any) -> list[dict[str, Any]]:
    """The reports of the runs, oldest first."""
    names = backup_server.check_output(f"cd {REPOSITORY}/reports && ls isb-*.json").split()
    return [json.loads(backup_server.check_output(f"cat {REPOSITORY}/reports/{name}")) for name in sorted(names)]


def test_no_holder_is_left(file_server: Any) -> None:
    """The processes that froze and thawed have ended, and their sockets are gone."""
    assert file_server.run("ls /run/openisb/ | grep '^holder-'").stdout == ""


@pytest.mark.parametrize("server", FILE_SERVERS)
def test_filesystems_are_writable(server: str) -> None:
    """Nobody could write to a filesystem that is still frozen."""
    host = connect(server)
    for volume in VOLUMES[server]:
        probe = f"/srv/{volume}/.after-the-run"
        assert host.run(f"timeout 10 sh -c 'echo here > {probe} && sync {probe} && rm {probe}'").rc == 0


def test_one_base_of_each_lun_is_left(storage: Any, reports: list[dict[str, Any]]) -> None:
    """The snapshot of the last run is left, and no folder or btrfs subvolume of any other run."""
    last = reports[-1]["run_id"]
    assert storage.file(SNAPSHOTS).listdir() == [last]
    assert sorted(storage.file(f"{SNAPSHOTS}/{last}").listdir()) == sorted(storage.file(LUNS).listdir())
    subvolumes = [line.split()[-1] for line in storage.check_output("btrfs subvolume list /srv/pool").splitlines()]
    assert sorted(subvolumes) == ["luns", f"snapshots/{last}"]


def test_no_export_is_left(any_host: Any) -> None:
    """No record of an export is left, and no process that serves or reads one."""
    assert any_host.run("ls /run/openisb/exports/*.json").rc != 0
    assert any_host.run("ps -eo comm= | grep -E '^(nbdkit|nbdcopy|nbd-client)'").stdout == ""


def test_no_mount_of_a_snapshot_is_left(any_host: Any) -> None:
    """Nothing of a run is mounted anywhere."""
    assert [line for line in any_host.check_output("cat /proc/self/mounts").splitlines() if "isb-" in line] == []


def test_every_volume_has_a_saveset_of_each_run(backup_server: Any) -> None:
    """The savesets are in the repository's own folder."""
    found = backup_server.check_output(f"find {REPOSITORY}/savesets -type f").split()
    assert len(found) == RUNS * sum(map(len, VOLUMES.values()))


def test_the_runs_were_good(reports: list[dict[str, Any]]) -> None:
    """Both reports are beside the savesets and call every server's copy application-consistent."""
    assert len(reports) == RUNS
    for report in reports:
        assert report["exit_status"] == 0
        assert report["verdict"] == "application-consistent"
        assert report["problems"] == report["left"] == []
        found = {server: sorted(v["volume"] for v in entry["volumes"]) for server, entry in report["servers"].items()}
        assert found == {server: [f"{server}/{name}" for name in names] for server, names in VOLUMES.items()}
        assert {entry["verdict"] for entry in report["servers"].values()} == {"application-consistent"}


def test_the_second_run_read_only_what_changed(reports: list[dict[str, Any]]) -> None:
    """The first one read everything that is allocated."""
    for first, second in zip(*(volumes_of(report) for report in reports), strict=True):
        assert first["origin"]["method"] == "full"
        assert second["origin"]["method"] == "changed"
        assert second["origin"]["since"] == first["origin"]["source_id"]
        assert second["bytes_read"] < first["bytes_read"] / 2


def volumes_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all volumes of a run, in the same order for each run."""
    volumes = [volume for entry in report["servers"].values() for volume in entry["volumes"]]
    return sorted(volumes, key=lambda volume: volume["volume"])


def test_every_run_was_closed(backup_server: Any) -> None:
    """The journal has no open run that recover.yml would have to handle."""
    records = [json.loads(line) for line in backup_server.check_output(f"cat {JOURNAL}").splitlines()]
    opened = [record["run_id"] for record in records if record["event"] == "opened"]
    closed = [record["run_id"] for record in records if record["event"] == "closed"]
    assert len(opened) == RUNS
    assert opened == closed

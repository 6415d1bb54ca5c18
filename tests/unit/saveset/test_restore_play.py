# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks themselves: restore.yml and standby.yml, to a disk of another host that is this machine under another name;
those that read, and preflight, where the repository is mounted read-only."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from local_site import SERVER, place, python_with_nbd, run_playbook, write_inventory

from . import media
from .conftest import MIB, Lab, MakeImage, noise, write

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(deps.nbd is None, reason="needs the Python module nbd (python3-libnbd)"),
]
RUN = "isb-20260301T120000Z-00000{}"
Play = t.Callable[..., tuple[int, str]]


@pytest.fixture
def disk(tmp_path: Path) -> t.Iterator[str]:
    """The disk of the other host, which holds something of its own."""
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 20 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-L", "clinic", image], check=True)
    command = ["losetup", "--find", "--show", str(image)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def play(lab: Lab, disk: str, project_root: Path) -> Play:
    """Run a playbook of the collection; its exit status, and what it said with one space between words."""
    write_inventory(
        lab.folder,
        {
            "file_servers": {
                "hosts": {"fs1": {**SERVER, "isb_volumes": [{**SERVER["isb_volumes"][0], "idr_target": disk}]}}
            },
            "storage_hosts": {"hosts": {"storage1": {}}},
            "listeners": {"hosts": {"backup1": {}}},
            "backup_servers": {"hosts": {"backup1": place(lab.folder, "backup1")}},
            "dr_hosts": {"hosts": {"dr1": place(lab.folder, "dr1")}},
        },
        repository_passphrase="correct horse",
        repository_path=str(lab.path),
        repository_python=python_with_nbd(lab.folder),
        openisb_data_address="127.0.0.1",
        isb_without_journal=True,  # no run made the savesets
        openisb_data_tls=False,
    )

    def run(name: str, *options: str) -> tuple[int, str]:
        return run_playbook(lab.folder, project_root / name, *options)

    return run


def test_a_disk_becomes_a_standby_when_it_is_named_and_is_followed(
    lab: Lab, make_image: MakeImage, play: Play, disk: str, tmp_path: Path
) -> None:
    image = make_image("volume", 16 * MIB, [(0, noise(16 * MIB))])
    lab.backup(image, run_id=RUN.format(1))
    before = Path(disk).read_bytes()
    to_disk = ("-e", "restore_server=fs1", "-e", f"restore_target={disk}", "-e", "restore_host=dr1")
    for command in [("restore.yml", *to_disk, "-e", "restore_overwrite=true"), ("standby.yml",)]:
        status, said = play(*command)
        assert status and f"{disk}: it holds ext4 labelled 'clinic'" in said, said
        assert Path(disk).read_bytes() == before
    (identity,) = set(re.findall(r"-e restore_overwrite=(content:[0-9a-f]{16})", said))

    status, said = play("standby.yml", "-e", f"restore_overwrite={identity}")
    assert status == 0 and "nothing is on record of what it holds" in said, said
    assert Path(disk).read_bytes()[: 16 * MIB] == image.read_bytes()
    write(image, MIB, noise(1000, seed=2))
    lab.backup(image, run_id=RUN.format(2))
    status, said = play("standby.yml")
    assert status == 0 and " 0.00 Bytes compared" in said and " 0.00 Bytes written" not in said, said
    hosts = lab.folder / "hosts.json"
    inventory = json.loads(hosts.read_text())
    inventory["all"]["vars"]["standby_reread"] = True
    hosts.write_text(json.dumps(inventory))
    status, said = play("standby.yml")
    assert status == 0 and " 0.00 Bytes compared" not in said and " 0.00 Bytes written" in said, said
    assert Path(disk).read_bytes()[: 16 * MIB] == image.read_bytes()

    # Restored for use, it is a standby no more as soon as somebody writes to it.
    assert play("restore.yml", *to_disk)[0] == 0
    assert play("restore.yml", *to_disk)[0] == 0
    write(Path(disk), 2 * MIB, b"the first patient after the failover")
    status, said = play("standby.yml")
    assert status and "which would be lost" in said, said
    # Nothing is left of any of it.
    os.close(os.open(disk, os.O_RDONLY | os.O_EXCL))
    assert list((lab.folder / "dr1/run/exports").iterdir()) == []


def test_a_repository_that_is_mounted_read_only(lab: Lab, make_image: MakeImage, play: Play, disk: str) -> None:
    """Nothing that reads writes to it first; that it could put no lease is told."""
    image = make_image("volume", 16 * MIB, [(0, noise(16 * MIB))])
    lab.backup(image, run_id=RUN.format(1))
    output = lab.folder / "restored"
    to_file = ("-e", "restore_server=fs1", "-e", f"restore_target={output}")
    with media.read_only(lab.path):
        for command in [("catalog.yml",), ("verify.yml",), ("restore.yml", *to_file)]:
            status, said = play(*command)
            assert status == 0, said
            assert (media.NO_LEASE in said) == (command != ("catalog.yml",)), said
    assert output.read_bytes() == image.read_bytes()


PREFLIGHT = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: openisb.backup.preflight
        tasks_from: backup_server
    - ansible.builtin.debug:
        msg: "problem: {{ preflight_found.repository.problem | default('none') }}"
"""


def test_preflight_tries_to_write(lab: Lab, play: Play) -> None:
    """A medium that can only be read is found out there, and not by the backup, when all is frozen."""
    playbook = lab.folder / "preflight.yml"
    playbook.write_text(PREFLIGHT)
    status, said = play(str(playbook))
    assert status == 0 and '"msg": "problem: none"' in said, said
    with media.read_only(lab.path):
        status, said = play(str(playbook))
    assert status == 0 and "was refused: Read-only file system (EROFS)" in said.partition("problem: ")[2], said
    assert lab.files("tmp") == []


def test_a_saveset_from_the_future_is_named_wherever_it_is_used(
    lab: Lab, make_image: MakeImage, play: Play, disk: str, tmp_path: Path
) -> None:
    """It was restored without a word of which run it is, and a drill of it passed with an RPO of 0 s."""
    image = make_image("volume", 16 * MIB, [(0, noise(MIB))])
    facts = {"verdict": "application-consistent"}
    right = lab.backup(image, run_id=RUN.format(1), **facts)
    a_year, decade = datetime.timedelta(days=366), datetime.timedelta(days=3660)
    now = datetime.datetime.now(datetime.UTC)
    ahead = lab.backup(image, run_id=RUN.format(2), time=now + a_year, clock_limit=decade, **facts)
    named = f"fs1/m of {ahead.time.isoformat()}, run {ahead.run_id}, saveset {ahead.id}"

    said = play("catalog.yml")[1]
    assert f"Ahead of the clock: saveset {ahead.id} of fs1/m, run {ahead.run_id}: its time is in the future" in said
    folder = ("-e", "restore_server=fs1", "-e", f"restore_folder={tmp_path}/restored")
    status, said = play("restore.yml", *folder)
    assert status == 0, said
    future = "its time is in the future of this host's clock (16.00 MB)"
    for word in ("Restoring", "Restored"):
        assert f"{word} {named}; {future} to {tmp_path}" in said, said
    status, said = play("restore.yml", *folder, "--check", "-e", f"restore_run_id={right.run_id}")
    assert f"Would restore fs1/m of {right.time.isoformat()}, run {right.run_id}, saveset {right.id} (" in said, said

    # A drill takes the one before it and says so; of this one it proves nothing. Check mode ends behind the plan.
    status, said = play("idr.yml", "--check")
    assert f"so a clock was wrong, and no drill chooses them: {named}" in said, said
    assert f"fs1/m of run {right.run_id}, as of" in said, said
    status, said = play("idr.yml", "--check", "-e", f"idr_point={ahead.run_id}")
    assert status and "Nothing was started. these are from after now" in said and named in said, said

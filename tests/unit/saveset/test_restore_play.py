# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""restore.yml and standby.yml themselves, to a disk of another host that is this machine under another name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import deps

from .conftest import MIB, Lab, MakeImage, noise, write

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(deps.nbd is None, reason="needs the Python module nbd (python3-libnbd)"),
]
SYSTEM = Path("/usr/lib/python3/dist-packages")
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
    folder = lab.folder / "nbd"
    folder.mkdir()
    for path in [SYSTEM / "nbd.py", *SYSTEM.glob("libnbdmod*.so")]:
        (folder / path.name).symlink_to(path)
    python = lab.folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    server = {
        "isb_drivers": [{"name": "command", "freeze": ["x"], "thaw": ["y"]}],
        "isb_volumes": [{"name": "m", "serial": "600a098000000011", "mount": "/srv/m", "idr_target": disk}],
    }
    places = {
        name: {"openisb_state_dir": f"{lab.folder}/{name}", "openisb_run_dir": f"{lab.folder}/{name}/run"}
        for name in ("backup1", "dr1")
    }
    inventory = {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "repository_passphrase": "correct horse",
                "repository_path": str(lab.path),
                "repository_python": str(python),
                "openisb_data_address": "127.0.0.1",
                "isb_without_journal": True,  # no run made the savesets
                "openisb_data_tls": False,
            },
            "children": {
                "file_servers": {"hosts": {"fs1": server}},
                "storage_hosts": {"hosts": {"storage1": {}}},
                "listeners": {"hosts": {"backup1": {}}},
                "backup_servers": {"hosts": {"backup1": places["backup1"]}},
                "dr_hosts": {"hosts": {"dr1": places["dr1"]}},
            },
        }
    }
    (lab.folder / "hosts.json").write_text(json.dumps(inventory))
    (lab.folder / "ansible.cfg").touch()
    environment = dict(
        os.environ,
        ANSIBLE_CONFIG=str(lab.folder / "ansible.cfg"),
        ANSIBLE_COLLECTIONS_PATH=str(project_root / "collections"),
        ANSIBLE_HOME=str(lab.folder / "home"),
    )

    def run(name: str, *options: str) -> tuple[int, str]:
        program = Path(sys.executable).parent / "ansible-playbook"
        command = [program, "-i", lab.folder / "hosts.json", project_root / name, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        return done.returncode, " ".join((done.stdout + done.stderr).split())

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

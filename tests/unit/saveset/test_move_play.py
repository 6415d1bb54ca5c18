# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup of a server moves to another backup server when the first one is gone. All hosts are this machine."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from local_site import SERIAL, SERVER, place, python_with_nbd, run_playbook, write_inventory

from .conftest import MIB, Lab, MakeImage, noise

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(deps.nbd is None, reason="needs the Python module nbd (python3-libnbd)"),
]
RUN = "isb-20260301T120000Z-4f1c2a"
#: Nothing listens there.
UNREACHABLE = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}

#: The part of isb.yml that backs up, with what preflight and the consistency point have found.
PLAYBOOK = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: listeners[0]
  gather_facts: false
  tasks:
    - openisb.backup.run_journal:
        path: "{{ openisb_host.journal }}"
        run_id: "{{ isb_run_id }}"
        event: opened
    - ansible.builtin.set_fact:
        preflight_placed:
          fs1: {host: backup1, hosts: "{{ hostvars.fs1.openisb_host.backup_servers }}", seconds: 1.0}
- hosts: file_servers
  gather_facts: false
  strategy: ansible.builtin.host_pinned
  vars:
    block_backup_bases: {}
    block_backup_parents: {}
    block_backup_patience: 0
  tasks:
    - block:
        - ansible.builtin.import_role:
            name: openisb.backup.block_backup
            rolespec_validate: false
      rescue:
        - ansible.builtin.debug:
            msg: "NOT SAVED: {{ ansible_failed_result | openisb.backup.failure_text }}"
      always:
        - openisb.backup.lun_snapshot:
            driver: file
            directory: "{{ hostvars[isb_storage_host].snapshot_directory }}"
            run_id: "{{ isb_run_id }}"
            run_dir: "{{ hostvars[isb_storage_host].openisb_host.run_dir }}"
          delegate_to: "{{ isb_storage_host }}"
"""


class Site(t.NamedTuple):
    """What a play did."""

    said: str
    events: list[tuple[str, dict[str, t.Any]]]


@pytest.fixture
def back_up(lab: Lab, make_image: MakeImage) -> t.Callable[..., Site]:
    """Back up fs1 in a site with these backup servers; variables by host."""
    python = python_with_nbd(lab.folder)
    snapshot = lab.folder / "snapshots" / RUN
    snapshot.mkdir(parents=True)
    make_image("lun", 4 * MIB, [(0, noise(2 * MIB))]).rename(snapshot / f"{SERIAL}.lun")
    (lab.folder / "move.yml").write_text(PLAYBOOK)
    volume = {"name": "m", "serial": SERIAL, "size": 4 * MIB, "mount": "/srv/m"}
    server = {
        **SERVER,
        "preflight_found": {"server": {"volumes": [volume]}},
        "isb_verdict": {
            "verdict": "crash-consistent",
            "time": "2026-03-01T12:00:00+00:00",
            "ring": "",
            "degraded": [],
        },
    }

    def run(**backup_servers: dict[str, t.Any]) -> Site:
        children = {
            "file_servers": {"hosts": {"fs1": server}},
            "storage_hosts": {
                "hosts": {
                    "storage1": place(
                        lab.folder, "storage1", snapshot_driver="file", snapshot_directory=str(lab.folder / "snapshots")
                    )
                }
            },
            "listeners": {"hosts": {"listener1": place(lab.folder, "listener1")}},
            "backup_servers": {
                "hosts": {name: place(lab.folder, name, **more) for name, more in backup_servers.items()},
                "vars": {"repository_shared": True},
            },
        }
        write_inventory(
            lab.folder,
            children,
            repository_passphrase="correct horse",
            repository_path=str(lab.path),
            repository_python=python,
            openisb_data_address="127.0.0.1",
            isb_run_id=RUN,
        )
        (lab.folder / "listener1/journal").mkdir(parents=True)
        _status, said = run_playbook(lab.folder, lab.folder / "move.yml")
        journal = Journal(f"{lab.folder}/listener1/journal/runs.jsonl")
        events = [(record["event"], record["data"]) for record in journal.records()]
        return Site(said, events)

    return run


def test_another_backup_server_finishes_what_one_that_is_gone_began(lab: Lab, back_up: t.Callable[..., Site]) -> None:
    said, events = back_up(backup1=UNREACHABLE, backup2={})
    assert [event for event, _data in events] == ["opened", "moved", "saveset"], said
    moved = events[1][1]
    assert (moved["server"], moved["from"], moved["to"]) == ("fs1", "backup1", "backup2")
    assert moved["problem"].startswith("fs1 did not start: its host does not answer")
    (saveset,) = lab.open().savesets()
    assert (saveset.volume, saveset.run_id) == ("fs1/m", RUN) and saveset.id == events[2][1]["saveset"]["id"]
    assert "NOT SAVED" not in said and "unreachable=0" in said


def test_it_ends_when_each_was_tried_once(lab: Lab, back_up: t.Callable[..., Site]) -> None:
    said, events = back_up(backup1=UNREACHABLE, backup2=UNREACHABLE, backup3=UNREACHABLE)
    tried = [(data["from"], data["to"]) for event, data in events if event == "moved"]
    assert tried == [("backup1", "backup2"), ("backup2", "backup3")], said
    assert "NOT SAVED: fs1 did not start: its host does not answer" in said
    assert "No other backup server takes over: all others have died in this run as well" in said
    assert lab.open().savesets() == []


def test_any_other_failure_moves_nothing(lab: Lab, back_up: t.Callable[..., Site]) -> None:
    said, events = back_up(backup1={"repository_passphrase": "wrong"}, backup2={})
    assert [event for event, _data in events] == ["opened"], said
    assert "NOT SAVED: Backup of volume fs1/m" in said and "No other backup server" not in said
    assert lab.open().savesets() == []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two hosts share a repository and its locks: both are this machine, or one that sees no locks."""

from __future__ import annotations

import sys
import time
import typing as t
from pathlib import Path

import pytest
from local_site import SERVER, place, python_with, run_playbook, write_inventory

from .conftest import ID, Lab

pytestmark = pytest.mark.slow
Play = t.Callable[..., list[dict[str, t.Any]]]


def task(path: Path, state: str, **more: t.Any) -> dict[str, t.Any]:
    return {"openisb.backup.saveset_lock": {"repository": str(path), "name": ID, "state": state, **more}}


def leases(lab: Lab) -> list[str]:
    return lab.store().list("gc/leases")


def test_a_lock_is_seen_until_it_is_removed(lab: Lab, play: Play) -> None:
    before, held, seen, gone, again, after = play(
        [task(lab.path, state) for state in ("seen", "held", "seen", "absent", "absent", "seen")]
    )
    assert (before["found"], before["locked"]) == (after["found"], after["locked"]) == (False, False)
    assert (held["changed"], gone["changed"], again["changed"]) == (True, True, False)
    assert (seen["found"], seen["locked"], seen["changed"]) == (True, True, False)
    assert leases(lab) == []


def test_a_lock_that_nobody_removes_ends_by_itself(lab: Lab, play: Play) -> None:
    play([task(lab.path, "held", seconds=0.5)])
    end = time.monotonic() + 20
    while leases(lab) and time.monotonic() < end:
        time.sleep(0.1)
    assert leases(lab) == []


def test_a_file_that_nobody_locks_is_found_and_not_locked(lab: Lab, play: Play) -> None:
    """As on a host that does not see the locks of the other."""
    (lab.path / "gc/leases").mkdir(parents=True, exist_ok=True)
    (lab.path / f"gc/leases/{ID}").touch()
    (seen,) = play([task(lab.path, "seen")])
    assert (seen["found"], seen["locked"]) == (True, False)


def test_what_cannot_be_is_named(lab: Lab, play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    twice, name, nowhere = play(
        [
            task(lab.path, "held", seconds=5),
            {"openisb.backup.saveset_lock": {"repository": str(lab.path), "name": "../x"}},
            task(tmp_path / "file", "held"),
        ]
    )
    assert not twice.get("failed")
    assert name["failed"] and "name '../x' is not 32 lowercase hex digits" in name["msg"]
    assert nowhere["failed"] and str(tmp_path / "file") in nowhere["msg"]
    play([task(lab.path, "absent")])


PREFLIGHT = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: openisb.backup.preflight
        tasks_from: backup_server
    - ansible.builtin.debug:
        msg: "{{ inventory_hostname }}: {{ preflight_found.repository.problem | default('none') }} END"
"""


def preflight(lab: Lab, *options: str, **second: t.Any) -> str:
    """What preflight says of two backup servers, the second of which has these variables."""
    children = {
        # A third backup server, so that nothing is read from the storage.
        "file_servers": {"hosts": {"fs1": {**SERVER, "isb_backup_server": "backup3"}}},
        "storage_hosts": {"hosts": {"storage1": {}}},
        "listeners": {"hosts": {"backup1": {}}},
        "backup_servers": {
            "hosts": {
                "backup1": place(lab.folder, "backup1"),
                "backup2": place(lab.folder, "backup2", **second),
                "backup3": place(lab.folder, "backup3"),
            }
        },
    }
    write_inventory(
        lab.folder,
        children,
        repository_python=sys.executable,
        repository_passphrase="correct horse",
        repository_path=str(lab.path),
        repository_shared=True,
        isb_without_journal=True,
    )
    (lab.folder / "preflight.yml").write_text(PREFLIGHT)
    return run_playbook(lab.folder, lab.folder / "preflight.yml", *options)[1]


def test_preflight_finds_a_repository_that_is_shared(lab: Lab) -> None:
    for options in ((), ("--check",)):
        said = preflight(lab, *options)
        assert "backup1: none END" in said and "backup2: none END" in said, said
        assert leases(lab) == []


def test_preflight_finds_a_repository_that_is_a_copy(lab: Lab) -> None:
    other = Lab(lab.folder / "other")
    said = preflight(lab, repository_path=str(other.path))
    assert "backup1: none END" in said
    assert f"backup2: the repository {other.path} here and {lab.path} on backup1 is not the same storage" in said
    assert "remove repository_shared END" in said and leases(lab) == leases(other) == []


#: As on a network filesystem that is mounted with local locks: a host sees its own and those of no other.
LOCAL_LOCKS = """
import fcntl, os
flock, held = fcntl.flock, {}
def inode_of(fd):
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return 0
def local(fd, how):
    for other in [other for other in held if other == fd or inode_of(other) != held[other][1]]:
        held.pop(other)[0].close()  # the file is closed, which ends its lock
    file = open(f"%s/{inode_of(fd)}", "a")
    flock(file, how)
    held[fd] = file, inode_of(fd)
fcntl.flock = local
"""


def test_preflight_finds_locks_that_are_not_seen(lab: Lab, tmp_path: Path) -> None:
    """What no test on the second host alone can tell."""
    (tmp_path / "locks").mkdir()
    (tmp_path / "sitecustomize.py").write_text(LOCAL_LOCKS % (tmp_path / "locks"))
    python = python_with(tmp_path / "python-with-local-locks", tmp_path)
    said = preflight(lab, repository_python=python)
    assert "backup1: none END" in said
    assert "on backup1 has locks that the other does not see (nolock, local_lock?)" in said, said
    assert leases(lab) == []

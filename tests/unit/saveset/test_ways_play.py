# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Preflight's own tasks try the way from a backup server to a storage host, both of which are this machine."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from local_site import SERVER, place, python_with_nbd, run_playbook, write_inventory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(deps.nbd is None, reason="needs the Python module nbd (python3-libnbd)"),
]

PLAYBOOK = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: openisb.backup.preflight
        tasks_from: ways
    - ansible.builtin.debug:
        msg: "FOUND {{ preflight_found | default({}) | to_json }} {{ __read.bytes | default(0) }}"
      vars:
        __read: "{{ preflight_read | default({}) }}"
"""


@pytest.fixture
def try_way(tmp_path: Path) -> t.Callable[..., str]:
    """Tries the way to a storage host with these variables; what was found, or why nothing was started."""
    python = python_with_nbd(tmp_path)
    (tmp_path / "ways.yml").write_text(PLAYBOOK)

    def run(*options: str, server: str = "fs1", storage: dict[str, t.Any]) -> str:
        children = {
            "file_servers": {"hosts": {server: SERVER}},
            "storage_hosts": {"hosts": {"storage1": place(tmp_path, "storage1", **storage)}},
            "listeners": {"hosts": {"backup1": {}}},
            "backup_servers": {"hosts": {"backup1": place(tmp_path, "backup1")}},
        }
        write_inventory(tmp_path, children, repository_python=python, openisb_data_address="127.0.0.1")
        _status, said = run_playbook(tmp_path, tmp_path / "ways.yml", *options)
        left = [path for path in tmp_path.glob("*/run/**/*") if path.is_file()]
        assert not left, (left, said)
        return said

    return run


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("tls", [True, False])
def test_a_way_that_works_is_no_problem(try_way: t.Callable[..., str], address: str, tls: bool) -> None:
    said = try_way(storage={"openisb_data_address": address, "openisb_data_tls": tls})
    assert "FOUND {} 65536" in said, said


def test_it_is_tried_in_check_mode_too(try_way: t.Callable[..., str]) -> None:
    assert "FOUND {} 65536" in try_way("--check", storage={})


def test_an_address_that_is_not_the_hosts(try_way: t.Callable[..., str]) -> None:
    said = try_way(storage={"openisb_data_address": "192.0.2.1"})
    assert "a backup could not read from storage1 (Have the storage host export a sample)" in said
    assert "cannot listen at 192.0.2.1" in said and "correct openisb_data_address" in said


def test_a_storage_host_that_is_not_reached_says_so_itself(try_way: t.Callable[..., str]) -> None:
    said = try_way(storage={"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1})
    assert "FOUND {} 0" in said, said


def test_a_folder_of_jobs_that_cannot_be_made(try_way: t.Callable[..., str], tmp_path: Path) -> None:
    """The path of its result is a file."""
    run_dir = tmp_path / "backup1/run"
    run_dir.mkdir(parents=True)
    (run_dir / "async").symlink_to("/dev/null/no")
    said = try_way(storage={})
    (run_dir / "async").unlink()
    assert "a backup could not read from storage1 (" in said, said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"server": "_fs1", "storage": {}}, "'_fs1' cannot name a server"),
        ({"storage": {"openisb_data_address": "fe80::1%lo"}}, "storage1: 'fe80::1%lo' is a link-local address"),
    ],
)
def test_what_no_later_phase_could_use_is_refused_before(
    try_way: t.Callable[..., str], more: dict[str, t.Any], says: str
) -> None:
    said = try_way(**more)
    assert f"Nothing was started. {says}" in said
    assert "FOUND" not in said

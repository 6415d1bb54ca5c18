# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A playbook is run as a whole, or refuses with a sentence and a status: none ends well having done nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.plugin_utils import undivided
from local_site import ansible_environment

ROOT = Path(__file__).parents[3]
PLAYBOOKS = sorted(path for folder in ("lab", "playbooks") for path in (ROOT / folder).glob("*.yml"))
SHIMS = sorted(path.stem for path in ROOT.glob("*.yml") if (ROOT / "playbooks" / path.name).exists())
TASKS = [*PLAYBOOKS, *ROOT.glob("roles/*/tasks/**/*.yml"), *ROOT.glob("lab/roles/*/tasks/**/*.yml")]
GROUPS = {"file_servers": ["fs1"], "backup_servers": ["backup1"], "all": ["fs1", "backup1"], "rings": []}
NEEDED = ["file_servers", "backup_servers[0]", "localhost"]

#: Every group has its hosts, and a name that is misspelt.
MISSPELT = """
all:
  children:
    file_server: {hosts: {fs1: {isb_drivers: [{name: filesystem, mounts: [/srv/m]}]}}}
    storage_host: {hosts: {storage1: }}
    backup_server: {hosts: {backup1: }}
    listener: {hosts: {backup1: }}
    dr_host: {hosts: {dr1: }}
    ring: {hosts: {npr: }}
"""


def problems(options: dict[str, Any], tags: tuple[str, ...] = (), **variables: Any) -> list[str]:
    asked = {"tags": ["all"], "skip_tags": [], **options}
    return undivided.problems(asked, {"groups": GROUPS, **variables}, NEEDED, tags, "name servers with -e x=")


def called(playbook: Path) -> str:
    """How it is run: by its full name, or by its path if it is not in the collection."""
    return f"openisb.backup.{playbook.stem}" if playbook.parent.name == "playbooks" else str(playbook)


def first_play(playbook: Path) -> dict[str, Any]:
    """The first play of a playbook, through whatever imports it."""
    play = yaml.safe_load(playbook.read_text())[0]
    imported = play.get("ansible.builtin.import_playbook")
    return first_play(ROOT / "playbooks" / f"{imported.rpartition('.')[2]}.yml") if imported else play


def run(playbook: str, folder: Path, *options: str) -> tuple[int, str]:
    """A playbook, with the collection installed and without the project's ansible.cfg; its status and output."""
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", playbook, *options],
        env=ansible_environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


def assert_refused(done: tuple[int, str], why: str) -> None:
    status, output = done
    assert status != 0, output
    assert "Nothing was started." in output and why in output, output
    assert "TASK [" not in output, output


def test_a_playbook_that_is_run_as_a_whole_starts() -> None:
    assert problems({}) == []
    assert problems({"tags": ["teardown"]}, tags=("teardown",)) == []
    assert problems({"skip_tags": ["molecule-notest", "notest"]}) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"subset": "fs1"}, "the limit 'fs1' would leave out hosts"),
        ({"subset": "all"}, "give no --limit, and name servers with -e x="),
        ({"tags": ["teardown"]}, "the tags 'teardown' would leave out tasks"),
        ({"tags": ["untagged"]}, "give no --tags"),
        ({"skip_tags": ["always"]}, "give no --skip-tags"),
        ({"skip_tags": ["untagged"]}, "give no --skip-tags"),
        ({"start_at_task": "Report"}, "give no --start-at-task"),
        ({"step": True}, "give no --step"),
    ],
)
def test_what_leaves_out_a_part_is_named(options: dict[str, Any], why: str) -> None:
    (problem,) = problems(options)
    assert why in problem


def test_tags_that_are_allowed_are_named_and_come_alone() -> None:
    (problem,) = problems({"tags": ["teardown", "x"]}, tags=("teardown",))
    assert "or --tags teardown alone" in problem


@pytest.mark.parametrize("listing", undivided.LISTINGS)
def test_a_listing_does_nothing_and_may_be_of_a_part(listing: str) -> None:
    assert problems({"subset": "fs1", listing: True}) == []


def test_a_slice_of_a_job_is_no_whole() -> None:
    (problem,) = problems({}, awx_workflow_job_name="nightly", awx_job_template_name="nightly")
    assert "job slicing to 1" in problem
    assert problems({}, awx_workflow_job_name="all jobs", awx_job_template_name="nightly") == []
    assert problems({}, awx_job_template_name="nightly") == []


def test_a_group_without_hosts_is_named_once() -> None:
    found = undivided.problems({}, {"groups": GROUPS}, ["rings", "dr_hosts[0]", "dr_hosts", "fs1", "localhost"])
    assert len(found) == 2
    assert "in the group rings:" in found[0] and "in the group dr_hosts:" in found[1]


@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_begins_with_the_look_at_what_is_left_out(playbook: Path) -> None:
    """Before any other play: one whose hosts a limit leaves out is skipped, and its tasks never run."""
    assert "lookup('openisb.backup.undivided'" in first_play(playbook)["hosts"]


def test_all_tags_are_known_to_it() -> None:
    def tags(value: Any) -> set[str]:
        if isinstance(value, list):
            return {tag for item in value for tag in tags(item)}
        if isinstance(value, dict):
            own = value.get("tags", [])
            return {*([own] if isinstance(own, str) else own)} | {t for item in value.values() for t in tags(item)}
        return set()

    used = {tag for path in TASKS for tag in tags(yaml.safe_load(path.read_text()))}
    assert used == set(undivided.TAGS)


@pytest.mark.parametrize("name", ["isb", "recover", "verify"])
def test_a_limit_stops_the_playbook_of_an_installed_collection(name: str, tmp_path: Path) -> None:
    done = run(
        f"openisb.backup.{name}", tmp_path, "-i", str(ROOT / "inventories/example"), "--limit", "fs1.example.org"
    )
    assert_refused(done, "The limit 'fs1.example.org' would leave out hosts")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIMS)
def test_a_limit_stops_every_playbook_of_the_checkout(name: str, tmp_path: Path) -> None:
    done = run(str(ROOT / f"{name}.yml"), tmp_path, "-i", str(ROOT / "inventories/example"), "--limit", "all")
    assert_refused(done, "The limit 'all' would leave out hosts")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--limit", "fs1.example.org", "The limit 'fs1.example.org' would leave out hosts"),
        ("--tags", "nonsense", "The tags 'nonsense' would leave out tasks"),
        ("--start-at-task", "nonsense", "give no --start-at-task"),
    ],
)
@pytest.mark.parametrize("playbook", PLAYBOOKS, ids=lambda path: path.stem)
def test_every_playbook_refuses_to_leave_out_a_part(
    playbook: Path, option: str, value: str, why: str, tmp_path: Path
) -> None:
    done = run(called(playbook), tmp_path, "-i", str(ROOT / "inventories/example"), option, value)
    assert_refused(done, why)


@pytest.mark.slow
@pytest.mark.parametrize(
    "playbook", [path for path in PLAYBOOKS if path.stem not in ("lab", "verify_report")], ids=lambda path: path.stem
)
def test_every_playbook_refuses_groups_whose_names_are_misspelt(playbook: Path, tmp_path: Path) -> None:
    """But for those that need no inventory."""
    (tmp_path / "hosts.yml").write_text(MISSPELT)
    done = run(called(playbook), tmp_path, "-i", str(tmp_path / "hosts.yml"))
    assert_refused(done, "he inventory has no host in the group")

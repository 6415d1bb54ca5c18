# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site must know to set up its own is in the README and in the example, and tests/site goes that way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from first_site import SERIALS, filled_in

ROOT = Path(__file__).parents[2]
#: The lab, in each of its forms, and the example that a site like it would copy.
EXAMPLES = {"lab": "example", "lab_plain": "example", "lab_mbf": "example_meditech"}
#: What the lab sets because of what it is: folders of one machine that plays all hosts, how Ansible reaches them,
#: and what its stand-in for MBF is told.
OF_THE_LAB = re.compile(r"lab_|ansible_|mbf_|openisb_(state_dir|run_dir|data_address)$")


def set_by(inventory: str) -> set[str]:
    """The variables that an inventory of the lab sets for its groups and hosts."""
    paths = (ROOT / "inventories" / inventory).glob("*_vars/*.yml")
    return {name for path in paths for name in yaml.safe_load(path.read_text()) or {} if not OF_THE_LAB.match(name)}


@pytest.mark.parametrize(("lab", "example"), EXAMPLES.items())
def test_the_example_names_what_the_lab_sets(lab: str, example: str) -> None:
    """In use or in a comment: else what works in the lab fails at a site that never heard of it."""
    text = (ROOT / "inventories" / example / "hosts.yml").read_text()
    names = set_by(lab)
    assert len(names) > 4
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_what_belongs_to_the_lab_is_in_the_manual_all_the_same() -> None:
    manual = (ROOT / "docs/inventory.md").read_text()
    assert all(f"`{name}`" in manual for name in ("openisb_state_dir", "openisb_run_dir", "openisb_data_address"))


def test_every_command_of_the_readme_is_tried() -> None:
    table = re.findall(r"^\| `([a-z_]+\.yml)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(table) > 10
    tried = set(re.findall(r'site\.play\(\s*"([a-z_]+\.yml)"', (ROOT / "tests/site/test_first_site.py").read_text()))
    assert {*table, "setup.yml", "idr_fresh.yml"} == tried


def test_the_site_of_the_tests_is_the_example() -> None:
    """They fill in what its comments ask for and leave the rest as it is; its settings are none of the lab's."""
    example = yaml.safe_load((ROOT / "inventories/example/hosts.yml").read_text())
    site = filled_in(yaml.safe_load((ROOT / "inventories/example/hosts.yml").read_text()))
    assert set(site) == set(example)
    assert site["storage_hosts"] == example["storage_hosts"] and site["dr_hosts"] == example["dr_hosts"]
    backup = {
        **example["backup_servers"]["hosts"]["backup.example.org"],
        "repository_wheels": str(ROOT / "build/wheels"),
    }
    assert site["backup_servers"]["hosts"] == {"backup.example.org": backup}
    for name in SERIALS:
        assert set(site["file_servers"]["hosts"][name]) == set(example["file_servers"]["hosts"][name])

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drivers, checks and verbs are named in documents too: each of these lists has just what its registry has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.checks.base import COMMON, Check
from ansible_collections.openisb.backup.plugins.module_utils.checks.known import CHECKS
from ansible_collections.openisb.backup.plugins.module_utils.host.options import Option
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers import DRIVERS
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import TIMEOUT

OF_A_RING = {"mbf"}
"""Drivers that freeze more than one server: the role ring gives them, not the inventory of a file server."""


def section(text: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or a higher one."""
    level = heading.split(" ")[0]
    after = text.split(f"\n{heading}\n", 1)[1]
    return re.split(rf"^#{{1,{len(level)}}} ", after, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """The names in the first cells of a text's tables."""
    return [
        name for cell in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)
    ]


def documentation(path: Path) -> dict[str, dict[str, object]]:
    """The options of a module, as documented."""
    return yaml.safe_load(path.read_text().split('DOCUMENTATION = r"""', 1)[1].split('"""', 1)[0])["options"]


def values_in(description: object) -> set[str]:
    """The values that a description names."""
    return set(re.findall(r"V\((\w+)\)", str(description)))


@pytest.fixture(scope="module")
def quiescing(project_root: Path) -> str:
    return section((project_root / "docs/quiesce.md").read_text(), "## Drivers")


@pytest.fixture(scope="module")
def checks(project_root: Path) -> str:
    return (project_root / "docs/idr-checks.md").read_text()


def test_each_driver_has_a_chapter(quiescing: str) -> None:
    assert sorted(re.findall(r"^### (\w+)$", quiescing, re.MULTILINE)) == sorted(DRIVERS)


def test_the_table_has_each_driver(quiescing: str) -> None:
    table = quiescing.split("\n### ", 1)[0]
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", table, re.MULTILINE)) == sorted(DRIVERS)


def test_the_module_names_each_driver(project_root: Path) -> None:
    drivers = documentation(project_root / "plugins/modules/quiesce.py")["drivers"]
    assert values_in(drivers["description"]) >= set(DRIVERS)


def test_the_role_names_each_driver_of_a_server(project_root: Path) -> None:
    specs = yaml.safe_load((project_root / "roles/prepare/meta/argument_specs.yml").read_text())
    text = " ".join(str(specs["argument_specs"]["main"]["options"]["prepare_drivers"]["description"]).split())
    named = re.search(r"C\(name\) \(([^)]*)\)", text)
    assert named is not None
    assert set(re.findall(r"\w+", named[1])) - {"or"} == set(DRIVERS) - OF_A_RING


@pytest.mark.parametrize("name", sorted(set(DRIVERS) - OF_A_RING))
def test_each_option_of_a_driver_is_documented(quiescing: str, name: str) -> None:
    text = section("\n" + quiescing, f"### {name}")
    assert missing(text, DRIVERS[name].options) == set()


def test_each_check_has_a_chapter(checks: str) -> None:
    assert sorted(re.findall(r"^## `(\w+)`$", checks, re.MULTILINE)) == sorted(CHECKS)


def test_the_module_names_each_check(project_root: Path) -> None:
    described = documentation(project_root / "plugins/modules/recovery_check.py")["checks"]
    assert values_in(described["description"]) >= set(CHECKS)


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: str(check.name))
def test_each_option_of_a_check_is_documented(checks: str, check: type[Check]) -> None:
    assert missing(section(checks, f"## `{check.name}`"), check.options) == set()


@pytest.mark.parametrize("check", CHECKS.values(), ids=lambda check: str(check.name))
def test_a_check_says_all_of_itself(check: type[Check]) -> None:
    assert check.label and isinstance(check.proves, bool)


def test_each_verb_of_storage_is_documented(project_root: Path) -> None:
    files = {path.stem for path in (project_root / "roles/snapshot/tasks").glob("*.yml")} - {"main"}
    text = (project_root / "docs/storage-drivers.md").read_text()
    assert {name for name in files if f"`{name}`" not in text} == set()


def test_each_storage_driver_is_documented(project_root: Path) -> None:
    tasks = project_root / "roles/snapshot/tasks"
    drivers = {path.name for path in tasks.iterdir() if (path / "create.yml").exists() and path.name != "folder"}
    text = (project_root / "docs/storage-drivers.md").read_text()
    table = text.split("| driver | LUNs | snapshot |", 1)[1].split("\n\n", 1)[0]
    assert set(first_cells(table)) == drivers


def missing(text: str, options: dict[str, Option]) -> set[str]:
    """The options that a text does not name."""
    return {name for name in options if f"`{name}`" not in text and name not in {**COMMON, "timeout": TIMEOUT}}

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The locked dependencies agree with each other, with pyproject.toml and with requirements.yml."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import ansible_collections
import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program.requirements import REQUIREMENTS

LOCKS = {"dev": "requirements-dev.txt", "controller": "requirements.txt", "engine": "requirements-engine.txt"}


def locked(path: Path) -> dict[str, str]:
    """Package to version, as locked; every entry must carry a hash."""
    text = path.read_text().replace("\\\n", " ")
    entries = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    assert entries
    assert [line for line in entries if "--hash=sha256:" not in line] == []
    return dict(re.match(r"([a-z0-9._-]+)==(\S+)", line).groups() for line in entries)


@pytest.mark.parametrize("group", LOCKS)
def test_every_dependency_is_locked(project_root: Path, group: str) -> None:
    """What a group of pyproject.toml names stands in its locked file."""
    groups = tomllib.loads((project_root / "pyproject.toml").read_text())["dependency-groups"]
    names = {re.match(r"[A-Za-z0-9_.-]+", item)[0].lower() for item in groups[group] if isinstance(item, str)}
    assert names <= set(locked(project_root / LOCKS[group]))


@pytest.mark.parametrize("group", ["controller", "engine"])
def test_what_is_run_is_what_is_tested(project_root: Path, group: str) -> None:
    """The smaller sets are parts of the one that the tests run with."""
    assert locked(project_root / LOCKS[group]).items() <= locked(project_root / LOCKS["dev"]).items()


def test_the_program_carries_what_is_locked(project_root: Path) -> None:
    """What isb-saveset tells whoever has nothing else to install is word for word what the backup server gets."""
    assert (project_root / LOCKS["engine"]).read_text() == REQUIREMENTS


def test_nowhere_else_is_a_package_named_without_a_hash(project_root: Path) -> None:
    """Neither in what a repository carries nor in the manual: on the day of the disaster nobody chooses versions."""
    texts = [*(project_root / "docs").glob("*.md"), project_root / "README.md"]
    texts += (project_root / "plugins/module_utils/saveset").rglob("*.py")
    found = [
        f"{path.name}: {line}"
        for path in texts
        for line in re.sub(r"\\+\n\s*", "", path.read_text()).splitlines()
        if re.search(r"\bpip3? (install|download)\b", line) and "--require-hashes" not in line
    ]
    assert found == []


def test_collections_are_those_that_ansible_brings(project_root: Path) -> None:
    """A checkout uses the collections of the Python package `ansible`; requirements.yml names the same versions."""
    wanted = yaml.safe_load((project_root / "requirements.yml").read_text())["collections"]
    versions = {item["name"]: item["version"] for item in wanted if "name" in item}
    assert versions
    for name, version in versions.items():
        manifests = [Path(root, *name.split("."), "MANIFEST.json") for root in ansible_collections.__path__]
        manifest = next(path for path in manifests if path.exists())
        assert json.loads(manifest.read_text())["collection_info"]["version"] == version


def test_the_execution_environment_stands_on_one_image(project_root: Path) -> None:
    """By digest, as a tag is whatever the registry says it is; with the tag, so that people see its age."""
    wanted = yaml.safe_load((project_root / "execution-environment.yml").read_text())["images"]
    assert list(wanted) == ["base_image"]
    name = wanted["base_image"]["name"]
    assert re.fullmatch(r"registry\.access\.redhat\.com/ubi9/python-312:[0-9.]+-[0-9]+@sha256:[0-9a-f]{64}", name), name


def test_the_execution_environment_is_the_same(project_root: Path) -> None:
    """execution-environment.yml, which takes no locked file, names the locked versions."""
    wanted = yaml.safe_load((project_root / "execution-environment.yml").read_text())["dependencies"]
    pinned = [wanted["ansible_core"]["package_pip"], wanted["ansible_runner"]["package_pip"], *wanted["python"]]
    assert dict(pin.split("==") for pin in pinned).items() <= locked(project_root / LOCKS["controller"]).items()

    collections = yaml.safe_load((project_root / "requirements.yml").read_text())["collections"]
    assert wanted["galaxy"]["collections"] == [item for item in collections if "name" in item]

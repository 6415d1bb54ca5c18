# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks and roles use of other collections is declared, so that who installs this one gets it as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OWN = "openisb.backup"
BUILTIN = "ansible.builtin"
#: Where a plugin is named in full: a task's action, a filter or test in a template, a lookup, and what plays are told.
NAMED = (
    re.compile(r"^\s*(?:- )?([a-z_]+\.[a-z_]+)\.[a-z_0-9]+:(?:\s|$)", re.MULTILINE),
    re.compile(r"(?:\||\bis(?: not)?)\s*([a-z_]+\.[a-z_]+)\.[a-z_0-9]+\b"),
    re.compile(r"\b(?:lookup|query|q)\(\s*['\"]([a-z_]+\.[a-z_]+)\.[a-z_0-9]+['\"]"),
    re.compile(
        r"^\s*(?:- )?(?:connection|ansible_connection|strategy|become_method|ansible_become_method|name|role"
        r"|import_playbook|ansible\.builtin\.import_playbook):\s*[\"']?([a-z_]+\.[a-z_]+)\.[a-z_0-9]+[\"']?\s*$",
        re.MULTILINE,
    ),
)
#: Settings that name a plugin, and may only name one of Ansible's own without a collection.
SHORT = re.compile(r"^\s*(?:- )?(?:connection|strategy|become_method):\s*[\"']?([a-z_]+)[\"']?\s*$", re.MULTILINE)


def texts() -> dict[str, str]:
    """Every file with plays or tasks, by its path; without comments."""
    paths = [*ROOT.glob("*.yml"), *ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/**/*.yml")]
    return {str(path.relative_to(ROOT)): re.sub(r"(?m)^\s*#.*$", "", path.read_text()) for path in paths}


def named(text: str) -> Iterator[str]:
    """The collections of the plugins that a text names."""
    for pattern in NAMED:
        yield from pattern.findall(text)


def declared() -> dict[str, str]:
    """Collection to the lowest version, as galaxy.yml has it."""
    return yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"]


def test_every_collection_that_is_used_is_declared() -> None:
    """And nothing else is."""
    used = {collection: path for path, text in texts().items() for collection in named(text)}
    assert {OWN, BUILTIN, "ansible.windows"} <= set(used), "the patterns find nothing"
    assert set(used) - {OWN, BUILTIN} == set(declared())


@pytest.mark.parametrize(
    "text",
    [
        "- a.b.c:\n    x: 1",
        "  a.b.c: {x: 1}",
        "x: \"{{ y | a.b.c('z') }}\"",
        'x: "{{ y is not a.b.c }}"',
        "x: \"{{ lookup('a.b.c', y) }}\"",
        "connection: a.b.c",
        "- role: a.b.c",
        "- ansible.builtin.import_playbook: a.b.c",
    ],
)
def test_whatever_names_one_is_seen(text: str) -> None:
    assert "a.b" in set(named(text))


def test_nothing_is_used_by_a_short_name() -> None:
    """But for connections of Ansible itself: a short name is looked for in collections that nobody has declared."""
    found = {name for text in texts().values() for name in SHORT.findall(text)}
    assert found <= {"local"}


def test_versions_are_those_of_the_tests() -> None:
    """The lowest version that is declared is the one in requirements.yml; a newer one must not be kept out."""
    wanted = yaml.safe_load((ROOT / "requirements.yml").read_text())["collections"]
    assert declared() == {item["name"]: f">={item['version']}" for item in wanted if "name" in item}


def test_the_readme_installs_what_the_collection_needs() -> None:
    """Before it installs the collection, which then finds its dependencies."""
    readme = (ROOT / "README.md").read_text()
    assert readme.index("--require-hashes -r requirements.txt") < readme.index("ansible-galaxy collection install")


def test_no_module_of_ours_uses_what_ansible_warns_of_in_others() -> None:
    """These warnings do not say of which module they are, and tests/site passes over those of other collections."""
    sources = {path: path.read_text() for path in (ROOT / "plugins").rglob("*.py")}
    assert len(sources) > 200
    pattern = re.compile(r"module_utils\._text|(?:exit|fail)_json\([^)]*\bwarnings=")
    assert [path for path, text in sources.items() if pattern.search(text)] == []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection has what customers need, and nothing of the lab, the tests and the tools of development."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAYBOOKS = {path.name for path in ROOT.glob("playbooks/*.yml")}
#: All that may be at the top, besides the playbooks that only import those of the collection.
TOP = {
    *("FILES.json", "LICENSE", "MANIFEST.json", "README.md"),
    *("changelogs", "docs", "inventories", "meta", "playbooks", "plugins", "roles"),
    *("execution-environment.yml", "requirements-engine.txt", "requirements.txt", "requirements.yml"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tarfile.TarInfo]:
    """Each path in the tarball, with what it is."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "none.cfg").touch()
    subprocess.run(
        [Path(sys.executable).parent / "ansible-galaxy", "collection", "build", ROOT, "--output-path", folder],
        env={**os.environ, "ANSIBLE_CONFIG": str(folder / "none.cfg"), "ANSIBLE_HOME": str(folder)},
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("openisb-backup-*.tar.gz")
    with tarfile.open(path) as tarball:
        return {member.name: member for member in tarball}


def test_nothing_else_is_in_it(built: dict[str, tarfile.TarInfo]) -> None:
    assert {name.partition("/")[0] for name in built} - PLAYBOOKS == TOP
    assert [name for name in built if re.search(r"\A(inventories|playbooks|roles)/lab|\.pyc\Z", name)] == []


@pytest.mark.parametrize(
    "pattern", ["inventories/example*/*", "playbooks/*", "plugins/**/*.py", "plugins/**/*.yml", "roles/**/*.*"]
)
def test_all_of_these_is_in_it(built: dict[str, tarfile.TarInfo], pattern: str) -> None:
    needed = {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern)}
    assert needed and needed <= set(built)


@pytest.mark.parametrize("name", ["meta/runtime.yml", "requirements-engine.txt"])
def test_this_is_in_it(built: dict[str, tarfile.TarInfo], name: str) -> None:
    assert built[name].isfile()


def test_each_link_leads_to_a_file_in_it(built: dict[str, tarfile.TarInfo]) -> None:
    links = {name: os.path.normpath(f"{name}/../{link.linkname}") for name, link in built.items() if link.issym()}
    assert links["roles/repository/files/requirements-engine.txt"] == "requirements-engine.txt"
    assert all(built[target].isfile() for target in links.values())


def test_no_role_takes_a_file_from_outside_itself() -> None:
    """Whoever moves a role sees all that it needs in its own folder."""
    outside = re.compile(r"role_path[^\n]*\.\.|playbook_dir|collection_path")
    assert [path for path in ROOT.glob("roles/**/*.yml") if outside.search(path.read_text())] == []

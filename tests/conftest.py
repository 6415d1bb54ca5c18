# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test may count on: the collection importable by its full name, and the marker `root`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lab import Lab

ROOT = Path(__file__).resolve().parent.parent

# Before anything of Ansible is imported: its settings are read once, at import. Settings of the caller, a person or
# scripts/lib.sh, would change what programs print.
for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
    del os.environ[name]
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

# Makes `ansible_collections.openisb.backup...` importable from this checkout, as it is on a controller.
init_plugin_loader([str(ROOT / "collections")])


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The root of the checkout."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `root` for an ordinary user, with a reason that the summary shows."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run `make test`, or pytest with sudo")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def lab_dir() -> Path:
    """The folder of the lab, which must be up."""
    path = Path(os.environ.get("LAB_DIR", ROOT / "build/lab"))
    profile = path / "profile"
    assert profile.exists(), f"no lab in {path}: start it with make lab-up, or run make integration or make test-faults"
    assert profile.read_text().strip() == "namespaces", "these tests need the lab in network namespaces"
    return path


@pytest.fixture(scope="session")
def lab(lab_dir: Path) -> Lab:
    """The lab, set up for runs."""
    # Here, for tests also import this file in processes of their own, which know no tests/support.
    from lab import Lab

    lab = Lab(lab_dir)
    status, output = lab.play("setup.yml")
    assert status == 0, output
    return lab

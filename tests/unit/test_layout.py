# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkout is the collection: it is found under its full name, and its root playbooks lead to the collection's."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WRAPPERS = sorted(path.name for path in ROOT.glob("*.yml") if (ROOT / "playbooks" / path.name).exists())


def test_the_link_leads_to_the_checkout() -> None:
    """Ansible finds openisb.backup in collections/, which is this very checkout."""
    link = ROOT / "collections/ansible_collections/openisb/backup"
    assert link.is_symlink()
    assert link.resolve() == ROOT


def test_the_main_playbooks_can_be_called_from_the_root() -> None:
    """The commands that the documentation names."""
    assert {"isb.yml", "restore.yml", "verify.yml", "catalog.yml", "prune.yml", "recover.yml", "preflight.yml"} <= set(
        WRAPPERS
    )


@pytest.mark.parametrize("name", WRAPPERS)
def test_root_playbooks_only_import(name: str) -> None:
    """A root playbook has no content of its own, so that `openisb.backup.isb` and `isb.yml` are one thing."""
    (play,) = yaml.safe_load((ROOT / name).read_text())
    assert set(play) == {"name", "ansible.builtin.import_playbook"}
    assert play["ansible.builtin.import_playbook"] == f"openisb.backup.{Path(name).stem}"

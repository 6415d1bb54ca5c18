# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy of the program that set-up keeps away from the repository."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.version import VERSION
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool
from ansible_collections.openisb.backup.plugins.modules import saveset_tool

ROOT = Path(__file__).resolve().parents[3]
FILES = {"isb-saveset.pyz", "README.txt", "requirements.txt", "SHA256SUMS"}

Result = dict[str, t.Any]


@pytest.fixture
def keep(capsys: pytest.CaptureFixture[str]) -> t.Callable[..., Result]:
    """Calls the module."""

    def run(**options: t.Any) -> Result:
        with patch_module_args({"_ansible_diff": True, **options}), pytest.raises(SystemExit):
            saveset_tool.main()
        result: Result = json.loads(capsys.readouterr().out)
        return result

    return run


def test_the_copy_proves_itself_and_is_made_once(keep: t.Callable[..., Result], tmp_path: Path) -> None:
    folder = tmp_path / "kept" / "here"
    planned = keep(path=str(folder), _ansible_check_mode=True)
    assert planned["changed"] and not folder.exists()
    first = keep(path=str(folder))
    assert first["changed"] and {path.name for path in folder.iterdir()} == FILES
    assert first["diff"] == {"before": "", "after": (folder / "SHA256SUMS").read_text()}
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    digest = hashlib.sha256(tool.build()).hexdigest()
    assert (first["sha256"], first["version"]) == (digest, VERSION) == (planned["sha256"], planned["version"])
    assert f"{digest}  isb-saveset.pyz\n" in (folder / "SHA256SUMS").read_text()
    assert (folder / "requirements.txt").read_bytes() == (ROOT / "requirements-engine.txt").read_bytes()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert not keep(path=str(folder))["changed"]


def test_an_older_copy_is_brought_up_to_date(keep: t.Callable[..., Result], tmp_path: Path) -> None:
    keep(path=str(tmp_path))
    (tmp_path / "isb-saveset.pyz").write_bytes(b"older")
    (tmp_path / "notes").write_text("mine")
    assert keep(path=str(tmp_path))["changed"]
    assert (tmp_path / "isb-saveset.pyz").read_bytes() == tool.build() and (tmp_path / "notes").read_text() == "mine"


def test_without_a_folder_it_only_tells(keep: t.Callable[..., Result]) -> None:
    told = keep()
    assert (told["changed"], told["sha256"]) == (False, hashlib.sha256(tool.build()).hexdigest())


def test_a_folder_that_cannot_be(keep: t.Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = keep(path=str(tmp_path / "file" / "kept"))
    assert failed["failed"] and failed["msg"].startswith(f"The copy of isb-saveset.pyz in {tmp_path}/file/kept: ")


@pytest.mark.slow
def test_the_role_keeps_it_on_the_controller_with_the_wheels(tmp_path: Path) -> None:
    """Run by Ansible, which sends the module as an archive of what it imports; the second time nothing changes."""
    kept, wheels = tmp_path / "kept", tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some.whl").write_text("a wheel")
    role = {"name": "openisb.backup.repository", "tasks_from": "tool"}
    play = {
        "hosts": "far",
        "gather_facts": False,
        "tasks": [{"name": "Keep it", "ansible.builtin.include_role": role}],
    }
    playbook = tmp_path / "play.yml"
    playbook.write_text(yaml.safe_dump([play]))
    # The backup server cannot be reached, and need not be.
    command = [sys.executable, "-m", "ansible", "playbook", str(playbook), "--inventory", "far,"]
    command += ["--extra-vars", json.dumps({"repository_tool_copy": str(kept), "repository_wheels": str(wheels)})]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        "HOME": str(tmp_path),
    }
    for changed in (2, 0):
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"changed={changed} " in done.stdout
        digest = hashlib.sha256((kept / "isb-saveset.pyz").read_bytes()).hexdigest()
        assert digest == hashlib.sha256(tool.build()).hexdigest()
        assert f"isb-saveset.pyz {VERSION} has the SHA-256 {digest}" in done.stdout
        assert {path.name for path in kept.iterdir()} == {*FILES, "wheels"}
        assert (kept / "wheels" / "some.whl").read_text() == "a wheel"

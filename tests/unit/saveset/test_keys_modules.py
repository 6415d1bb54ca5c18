# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys as Ansible manages them: the modules, and the tasks of the role repository."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.sealing import generate_escrow_pair
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import registry
from ansible_collections.openisb.backup.plugins.modules import (
    block_restore,
    saveset_info,
    saveset_key,
    saveset_key_info,
)
from local_site import ansible_environment

from .conftest import Lab

PRIVATE, PUBLIC = generate_escrow_pair(b"of the pem")
Result = dict[str, t.Any]
Call = t.Callable[..., Result]


@pytest.fixture
def call(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a module with the repository and its passphrase, and returns its result."""
    monkeypatch.delenv("OPENISB_PASSPHRASE", raising=False)
    monkeypatch.setattr(ScryptCost.__init__, "__defaults__", (16, 8, 1))

    def run(module: t.Any, check: bool = False, **options: t.Any) -> Result:
        arguments = {
            "repository": str(lab.path),
            "passphrase": "correct horse",
            **options,
            "_ansible_check_mode": check,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: Result = json.loads(capsys.readouterr().out)
        return result

    return run


METHODS = [
    ("scrypt", {"new_passphrase": "second"}),
    ("writer", {"new_passphrase": "third"}),
    ("x25519", {"public_key": PUBLIC.decode()}),
]


@pytest.mark.parametrize(("method", "secret"), METHODS)
def test_a_key_comes_and_goes(call: Call, lab: Lab, method: str, secret: dict[str, str]) -> None:
    before = lab.files("keys")
    planned = call(saveset_key, check=True, method=method, label="x", **secret)
    assert planned["changed"] and planned["key"]["method"] == method and lab.files("keys") == before
    added = call(saveset_key, method=method, label="x", **secret)
    assert added["changed"] and len(lab.files("keys")) == len(before) + 1
    assert added["diff"] == {"before": {"key": None}, "after": {"key": added["key"]}}
    assert added["key"]["reads"] == (method != "writer")
    again = call(saveset_key, method=method, label="other", **secret)
    assert not again["changed"] and again["key"] == added["key"]
    listed = call(saveset_key_info)
    assert added["key"] in listed["repository_keys"] and listed["problems"] == [] and not listed["write_only"]

    assert call(saveset_key, check=True, state="absent", method=method, **secret)["changed"]
    assert len(lab.files("keys")) == len(before) + 1
    by_id = method == "scrypt"
    named = {"key_id": added["key"]["id"]} if by_id else {"method": method, **secret}
    removed = call(saveset_key, state="absent", **named)
    assert removed["changed"] and removed["key"] is None and removed["diff"]["before"] == {"key": added["key"]}
    assert lab.files("keys") == before
    assert not call(saveset_key, state="absent", **named)["changed"]


def test_a_write_only_server(call: Call, lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    call(saveset_key, method="writer", new_passphrase="third")
    writer = {"passphrase": "third"}
    assert len(call(saveset_info, **writer)["savesets"]) == 1
    assert call(saveset_key_info, **writer)["write_only"]
    assert not call(saveset_key, method="writer", new_passphrase="third", **writer)["changed"]
    for check in (True, False):
        added = call(saveset_key, check=check, method="scrypt", new_passphrase="mine", **writer)
        assert added["failed"] and "write-only" in added["msg"]
        (first,) = (key for key in call(saveset_key_info)["repository_keys"] if key["reads"])
        removed = call(saveset_key, check=check, state="absent", key_id=first["id"], **writer)
        assert removed["failed"] and "write-only" in removed["msg"]
    output = lab.folder / "output.img"
    job = {"job": "restore.fs1.m", "run_dir": str(lab.folder / "run")}
    restored = call(block_restore, volume="fs1/m", target=str(output), **job, **writer)
    assert restored["failed"] and "opened with a write-only key" in restored["msg"]
    assert not output.exists()


def test_the_private_key_opens(call: Call, lab: Lab, mixed: Path, tmp_path: Path) -> None:
    lab.backup(mixed)
    call(saveset_key, method="x25519", public_key=PUBLIC.decode())
    (tmp_path / "private.pem").write_bytes(PRIVATE)
    escrow = {"passphrase": None, "private_key": str(tmp_path / "private.pem")}
    job = {"job": "restore.fs1.m", "run_dir": str(lab.folder / "run")}
    output = lab.folder / "output.img"
    restored = call(
        block_restore, volume="fs1/m", target=str(output), private_key_password="of the pem", **escrow, **job
    )
    assert restored["changed"] and output.read_bytes() == mixed.read_bytes()
    assert "password does not open" in call(saveset_info, private_key_password="another one", **escrow)["msg"]
    missing = call(saveset_info, passphrase=None, private_key=str(tmp_path / "none.pem"))
    assert missing["failed"] and str(tmp_path / "none.pem") in missing["msg"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "writer"}, "needs new_passphrase"),
        ({"method": "x25519", "new_passphrase": "x"}, "needs public_key"),
        ({}, "one of the following is required: method, key_id"),
        ({"key_id": "00" * 16}, "state is present but all of the following are missing: method"),
        ({"state": "absent"}, "one of the following is required: method, key_id"),
        ({"method": "writer", "new_passphrase": "correct horse"}, "must not also give the master key"),
        ({"method": "x25519", "public_key": PRIVATE.decode()}, "it is a private key"),
        (
            {"method": "scrypt", "state": "absent", "new_passphrase": "correct horse"},
            "no other key file gives the master key",
        ),
    ],
)
def test_what_is_refused(call: Call, lab: Lab, options: dict[str, str], says: str) -> None:
    before = lab.files("keys")
    for check in (True, False):
        result = call(saveset_key, check=check, **options)
        assert result["failed"] and says in result["msg"]
    assert lab.files("keys") == before


# -- the role


Play = t.Callable[..., str]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs the role's tasks that have to do with the repository itself, and returns what Ansible says."""
    environment = ansible_environment(tmp_path)
    environment.pop("OPENISB_PASSPHRASE", None)

    def run(**variables: t.Any) -> str:
        include = [{"ansible.builtin.include_role": {"name": "openisb.backup.repository", "tasks_from": "create.yml"}}]
        host = {
            "ansible_connection": "local",
            "openisb_host": {"repository": str(tmp_path / "repository"), "python": sys.executable},
            **variables,
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"backup1": host}}}))
        (tmp_path / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": include}]))
        done = subprocess.run(
            [Path(sys.executable).parent / "ansible-playbook", "-i", tmp_path / "hosts.json", tmp_path / "play.json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout + done.stderr

    return run


@pytest.mark.slow
def test_the_role_adds_the_keys(play: Play, tmp_path: Path) -> None:
    place = registry.open_store(str(tmp_path / "repository"))
    keys = {"repository_writer_passphrase": "third", "repository_escrow_public_key": PUBLIC.decode()}
    assert "failed=1" in play(**keys), "a write-only passphrase alone must not create a repository"
    with pytest.raises(errors.NotARepository):
        repository.Repository.open(place, Secret(b"third"))
    assert "changed=3" in play(repository_passphrase="second", **keys)
    assert "changed=0" in play(repository_passphrase="second", **keys)
    assert "changed=0" in play(**keys), "from now on the write-only passphrase is enough"
    opened = repository.Repository.open(place, Secret(b"third"))
    assert opened.write_only and {key.label for key in opened.key_files.all()} == {"", "backup1", "escrow"}
    assert not repository.Repository.open(place, Secret(b"second")).write_only

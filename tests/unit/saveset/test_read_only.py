# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that read, on a repository that is mounted read-only; and those that write, which say so beforehand."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.modules import (
    block_restore,
    saveset_export,
    saveset_info,
    saveset_key_info,
    saveset_prune,
    saveset_repository,
    saveset_verify,
)

from . import media
from .conftest import MIB, Lab, MakeImage, served, serving, text
from .media import LINK, NO_LEASE
from .refusing import Refusing

Result = dict[str, t.Any]
Call = t.Callable[..., Result]


@pytest.fixture
def call(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls a module with the repository and its passphrase, and returns its result."""
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warnings.append(text))

    def run(module: t.Any, **options: t.Any) -> Result:
        given = {"repository": str(lab.path), "passphrase": "correct horse", **options}
        capsys.readouterr()
        warnings.clear()
        with patch_module_args(given), pytest.raises(SystemExit):
            module.main()
        result: Result = json.loads(capsys.readouterr().out.splitlines()[-1])
        return {**result, "warnings": [*warnings]}

    return run


def told(result: Result) -> str:
    """What a module warned of; it must have ended well."""
    assert not result.get("failed"), result
    return "\n".join(result["warnings"])


@pytest.mark.root
def test_modules_that_read(lab: Lab, make_image: MakeImage, call: Call, tmp_path: Path) -> None:
    image = make_image("volume", MIB, [(0, text(MIB))])
    lab.backup(image)
    (lab.path / "gc/leases" / ("ab" * 16)).write_bytes(b"")  # as a copy has it that was made meanwhile
    job = {"job": "job", "run_dir": str(tmp_path / "run")}
    output = tmp_path / "output"
    name = {"name": "an-export", "run_dir": str(tmp_path / "run")}
    with media.read_only(lab.path):
        assert len(call(saveset_info)["savesets"]) == 1 == len(call(saveset_key_info)["repository_keys"])
        verified = call(saveset_verify, **job)
        assert verified["problems"] == [] and NO_LEASE in told(verified)
        assert "could not be recorded" in told(verified)
        target = {"volume": "fs1/m", "target": str(output), "state_dir": str(tmp_path / "state")}
        assert NO_LEASE in told(call(block_restore, **job, **target)) and output.read_bytes() == image.read_bytes()
        export = {"volume": "fs1/m", "drill": "drill", "address": "127.0.0.1", "tls": False}
        try:
            exported = served(call(saveset_export, **serving({**name, **export})))
            assert NO_LEASE in told(exported) and exported["export"]["running"]
        finally:
            SavesetExports(str(tmp_path / "run")).end("an-export")
        assert call(saveset_export, **name, state="absent").get("failed") is None


@pytest.mark.root
@pytest.mark.parametrize("module", [saveset_repository, saveset_prune])
def test_modules_that_write(lab: Lab, make_image: MakeImage, call: Call, module: t.Any) -> None:
    lab.backup(make_image("volume", MIB, [(0, text(MIB))]))
    run = {"job": "job", "run_dir": str(lab.folder / "run")}
    options = {"keep_last": 1, **run} if module is saveset_prune else {"state": "checked"}
    with media.read_only(lab.path):
        assert "(EROFS)" in call(module, **options)["msg"]
    assert call(module, **options).get("failed") is None


def test_preflight_says_what_a_medium_does_another_way(lab: Lab, call: Call) -> None:
    with Refusing(lab.path).refuse(LINK, "EPERM"):
        warned = told(call(saveset_repository, state="checked"))
    assert "making a hard link (link) was refused: Operation not permitted (EPERM)" in warned
    assert told(call(saveset_repository, state="checked")) == ""


def test_the_same_task_lists_the_savesets_for_preflight(lab: Lab, make_image: MakeImage, call: Call) -> None:
    lab.backup(make_image("volume", MIB, [(0, text(MIB))]))
    savesets = call(saveset_repository, state="checked")["savesets"]
    assert len(savesets) == 1 and savesets == call(saveset_info)["savesets"]
    assert "savesets" not in call(saveset_repository)


def test_a_new_repository_on_a_medium_that_does_not_do(
    lab: Lab, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before anything is in it, with what is refused and what helps."""
    new = tmp_path / "new"
    with Refusing(new).refuse("flock", "ENOLCK"):
        said = call(saveset_repository, repository=str(new))["msg"]
    assert "locking a file (flock) was refused" in said and "(ENOLCK)" in said and "NFS" in said
    assert not (new / "repo.json").exists() and not list((new / lease.FOLDER).iterdir())
    assert call(saveset_repository, repository=str(new))["changed"]

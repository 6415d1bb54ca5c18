# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that are handed over in memory: a text or a dict of texts, each of them hidden in what a module returns."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential
from ansible_collections.openisb.backup.plugins.plugin_utils.confidential import ActionModule

KEYS = {"fs1/m": "0123456789abcdef" * 4, "fs1/data": "fedcba9876543210" * 4}
PSK = "00112233" * 8
SPEC = {"psks": confidential.option("psks", kind="dict"), "psk": confidential.option("psk"), "shown": {"type": "str"}}


def run(capsys: pytest.CaptureFixture[str], **arguments: Any) -> tuple[dict[str, Any], str]:
    """What a module is given, and what it prints if it returns all of that."""
    with patch_module_args(arguments):
        module = AnsibleModule(argument_spec=SPEC)
        with pytest.raises(SystemExit):
            module.exit_json(given=module.params, texts=[f"the key is {key}" for key in (*KEYS.values(), PSK)])
    return module.params, capsys.readouterr().out


def test_secrets_reach_the_module_and_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "handed"
    path.write_text(json.dumps({"psks": KEYS, "psk": PSK}))
    monkeypatch.setattr(confidential, "_handed", {})
    monkeypatch.setenv(confidential.VARIABLE, str(path))
    given, printed = run(capsys, shown="fs1/m")
    assert given["psks"] == KEYS and given["psk"] == PSK and not path.exists()
    assert not [key for key in (*KEYS.values(), PSK) if key in printed]
    assert json.loads(printed)["given"]["shown"] == "fs1/m"  # what a key is for is no secret


def test_secrets_that_are_given_are_hidden_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(confidential, "_handed", {})
    given, printed = run(capsys, psks=KEYS, psk=PSK)
    assert given["psks"] == KEYS
    assert not [key for key in (*KEYS.values(), PSK) if key in printed]


def test_the_action_hands_over_every_secret() -> None:
    """Nothing of them is left in the arguments, which Ansible writes into files."""
    handed: list[Any] = []
    started: list[Any] = []
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(environment=[])
    action._hand_over = lambda secrets, arguments: handed.append(secrets) or "/run/handed"
    action._execute_module = lambda module_args, **_more: started.append(module_args) or {"ansible_job_id": "1"}
    arguments = {"psks": {**KEYS, "fs1/none": None}, "psk": PSK, "passphrase": None, "volumes": [{"volume": "fs1/m"}]}
    assert action._start(arguments, None) == {"ansible_job_id": "1"}
    assert handed == [json.loads(json.dumps({"psks": KEYS, "psk": PSK}))]
    assert started == [{"passphrase": None, "volumes": [{"volume": "fs1/m"}]}]

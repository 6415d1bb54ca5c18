# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy calls its parts is a stranger's text, and becomes arguments, paths and lines of reports."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns import commands as luns_commands
from ansible_collections.openisb.backup.plugins.module_utils.luns import lvm as luns_lvm
from ansible_collections.openisb.backup.plugins.module_utils.luns import table as luns_table
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

LVM = {
    "pvs": [("vg_name", "vg-prod"), ("vg_systemid", ""), ("vg_lock_type", "none")],
    "lvs": [("lv_name", "m"), ("lv_size", "4096"), ("lv_active", "active")],
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What LVM says of a copy."""
    answers: dict[str, Any] = {command: dict(fields) for command, fields in LVM.items()}

    def must(arguments: list[str], timeout: float) -> str:
        return json.dumps({"report": [{"row": [answers[arguments[0]]]}]})

    monkeypatch.setattr(luns_commands, "must", must)
    return answers


def test_names_of_lvm(told: dict[str, Any]) -> None:
    assert luns_lvm.group_of("/dev/loop1", 1) == "vg-prod"
    assert luns_lvm.volumes("/dev/loop1", "idr_1", 1) == [{"name": "m", "device": "/dev/idr_1/m", "size": 4096}]
    told["pvs"]["vg_name"] = ""
    assert luns_lvm.group_of("/dev/loop1", 1) == ""


@pytest.mark.parametrize("name", ["-an", "--config=x", "../../sda", "..", ".", "a b", "a\nb", "a\x1b[2J", ""])
def test_names_that_lvm_takes_from_nobody(told: dict[str, Any], name: str) -> None:
    told["lvs"]["lv_name"] = name
    with pytest.raises(LunError, match="which LVM never creates") as caught:
        luns_lvm.volumes("/dev/loop1", "idr_1", 1)
    assert str(caught.value).isprintable()
    told["pvs"]["vg_name"] = name
    if name:
        with pytest.raises(LunError, match="which LVM never creates"):
            luns_lvm.group_of("/dev/loop1", 1)


def test_names_of_partitions_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    line = 'NR="1" START="2048" SECTORS="8" NAME="a\\x1b[2J\\x0aok: b" TYPE="0x83"\n'
    done = luns_commands.Done(0, line, "")
    monkeypatch.setattr(luns_commands, "run", lambda *_arguments: done)
    (part,) = luns_table.partitions("/dev/loop1", 1)
    assert part["name"] == "a\\x1b[2J\\nok: b"
    done = luns_commands.Done(0, "LABEL=\\x9b31m\nTYPE=ext4\n", "")
    assert luns_table.filesystem("/dev/loop1", 1) == {
        "type": "ext4",
        "uuid": "",
        "label": "\N{REPLACEMENT CHARACTER}31m",
    }
    failed = luns_commands.Done(1, "", "cannot open 'a\x1b]0;you\x07'\n")
    assert luns_commands.told(failed) == "cannot open 'a\\x1b]0;you\\x07'"

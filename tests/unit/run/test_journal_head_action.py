# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller keeps a copy of what the backup server returns as the journal's head, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.action.journal_head import write_copy
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import HeadError

HEAD: dict[str, Any] = {
    "openisb": "journal-head",
    "version": 1,
    "number": 3,
    "listener": "../backup1",
    "repository": "a" * 32,
    "seq": 7,
    "hash": "0" * 64,
    "run_id": "isb-20261123T021500Z-4f1c2a",
    "time": "2026-11-23T02:15:00+00:00",
    "accepted": False,
    "key": "k",
    "signature": "s",
}


def test_the_copy_stays_in_its_folder_whatever_the_listener_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "heads"
    for number in (3, 4):
        write_copy(folder, "../backup1", {**HEAD, "number": number})
        (copy,) = folder.iterdir()
        assert json.loads(copy.read_text())["number"] == number
    assert copy.name == "..%2Fbackup1.json"


@pytest.mark.parametrize("wrong", [{"listener": "other"}, {"seq": "7"}, {"hash": "x"}, {"more": "x" * 5000}])
def test_what_is_no_head_of_that_journal_does_not_replace_the_copy(tmp_path: Path, wrong: dict[str, Any]) -> None:
    write_copy(tmp_path, "../backup1", HEAD)
    with pytest.raises(HeadError):
        write_copy(tmp_path, "../backup1", {**HEAD, **wrong})
    assert [json.loads(path.read_text()) for path in tmp_path.iterdir()] == [HEAD]

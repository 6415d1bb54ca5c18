# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module secret_file: a password in the file that is to hold it, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Play = Callable[..., list[dict[str, Any]]]


def test_a_secret_is_written_once(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "secret-folder/password"
    path.parent.mkdir()
    task = {"openisb.backup.secret_file": {"path": str(path), "secret": "first"}}
    planned, first, second, other = play(
        [
            {**task, "check_mode": True, "diff": True},
            task,
            task,
            {"openisb.backup.secret_file": {"path": str(path), "secret": "other"}},
        ]
    )
    assert [result["changed"] for result in (planned, first, second, other)] == [True, True, False, True]
    assert "first" not in str([planned, first, second]) and "other" not in str(other)
    assert path.read_text() == "other\n" and path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["password"]


@pytest.mark.root
def test_a_file_keeps_its_owner_and_loses_its_readers(play: Play, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("same\n")
    path.chmod(0o644)
    os.chown(path, 65534, 65534)
    (result,) = play([{"openisb.backup.secret_file": {"path": str(path), "secret": "same"}}])
    assert result["changed"]
    assert (path.stat().st_uid, path.stat().st_mode & 0o777, path.read_text()) == (65534, 0o600, "same\n")


def test_a_folder_that_is_missing_is_named(play: Play, tmp_path: Path) -> None:
    (result,) = play([{"openisb.backup.secret_file": {"path": str(tmp_path / "no/password"), "secret": "x"}}])
    assert result["failed"] and f"{tmp_path}/no/password cannot be written" in result["msg"]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records of what is on a host: whole, private, and there after a power loss where that was asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import records


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    assert records.read(path) is None
    for record in ({"name": "Ärzte", "marks": [1, {"a": None}]}, {}):
        records.write(path, record)
        assert records.read(path) == record
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and os.listdir(tmp_path) == ["a.json"]


def test_a_writer_that_died_is_overwritten_and_never_read(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    records.write(path, {"n": 1})
    Path(path + records.NEW).write_text('{"n": 2, "a long torn', encoding="utf-8")
    assert records.read(path) == {"n": 1}
    records.write(path, {"n": 3})
    assert records.read(path) == {"n": 3} and os.listdir(tmp_path) == ["a.json"]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept", encoding="utf-8")
    os.symlink(victim, str(tmp_path / "a.json") + records.NEW)
    with pytest.raises(OSError, match="[Ll]evels of symbolic links|symlinks"):
        records.write(str(tmp_path / "a.json"), {})
    assert victim.read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("lasting", [False, True])
def test_only_a_lasting_record_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool
) -> None:
    """A holder's record is written in the freeze, where nothing may wait for a disk."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    path = str(tmp_path / "a.json")
    records.write(path, {"n": 1}, lasting=lasting)
    assert synced == ([path + records.NEW, str(tmp_path)] if lasting else [])


@pytest.mark.parametrize("content", ["", "not json", '"text"'])
def test_a_damaged_record_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r".+"):
        records.read(str(tmp_path / "a.json"))

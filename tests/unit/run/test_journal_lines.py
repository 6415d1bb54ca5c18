# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole lines from both ends of a file, wherever its blocks end."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

from ansible_collections.openisb.backup.plugins.module_utils.journal import files
from ansible_collections.openisb.backup.plugins.module_utils.journal import lines as journal_lines
from hypothesis import example, given
from hypothesis import strategies as st


@given(st.lists(st.sampled_from([b"", b"a", b"bc", b"\n", b"a longer piece"])).map(b"".join), st.integers(1, 20))
@example(b"", 1)
@example(b"torn", 2)
@example(b"\n", 1)
@example(b"one\ntwo\nto", 4)
def test_both_ends_tell_the_same_lines(content: bytes, block: int) -> None:
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(journal_lines, "BLOCK", block):
        path = Path(folder) / "lines"
        path.write_bytes(content)
        whole = content.split(b"\n")[:-1]
        with open(path, "rb") as stream:
            assert list(journal_lines.forwards(stream)) == whole
            assert list(journal_lines.backwards(stream)) == whole[::-1]
            assert journal_lines.end_of_whole(stream) == sum(len(line) + 1 for line in whole)


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert list(files.forwards(str(folder / "runs.jsonl"))) == []
        assert list(files.backwards(str(folder / "runs.jsonl"))) == []

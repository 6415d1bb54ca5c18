# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/security.md promises nothing that no test shows: every row of its threat tables names tests that exist."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
HEADER = ("attacker", "asset", "what stops it", "shown by")
REFERENCE = re.compile(r"`([a-z_/]+\.py)::(test_\w+)`")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def _rows() -> list[tuple[str, ...]]:
    """The rows of all tables with HEADER."""
    rows, inside = [], False
    for line in DOCUMENT.splitlines():
        cells = _cells(line) if line.startswith("|") else ()
        inside = cells == HEADER or (inside and bool(cells))
        if inside and cells != HEADER and not set("".join(cells)) <= set("-: "):
            rows.append(cells)
    return rows


ROWS = _rows()


@functools.cache
def _tests_of(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_there_are_tables() -> None:
    """So that a change of their form does not leave this file with nothing to look at."""
    assert len(ROWS) > 30
    assert DOCUMENT.count(" | ".join(HEADER)) >= 5


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:40])
def test_every_row_is_shown_by_tests_that_exist(row: tuple[str, ...]) -> None:
    """A test that was renamed or removed takes its promise with it."""
    assert len(row) == len(HEADER), f"{row}: a cell too many or too few"
    references = REFERENCE.findall(row[-1])
    assert references, f"{row[0]} x {row[1]}: no test shows what stops it"
    assert REFERENCE.sub("", row[-1]).strip(" ,") == "", f"{row[-1]}: what is not a test does not belong here"
    for path, name in references:
        assert name in _tests_of(ROOT / "tests" / path), f"tests/{path} has no {name}"

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel and other programs print is taken apart as they mean it: a line ends at a line feed alone.

Python's own idea of lines and of text has more ends (a carriage return, a form feed, U+0085, U+2028), and fails for
bytes that are no text. All of these are parts of names that anybody may give.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = sorted(path for folder in ("plugins", "roles") for path in (ROOT / folder).rglob("*.py"))
FILES = [*OURS, *sorted((ROOT / "lab").rglob("*.py"))]
STRICT = {"text", "universal_newlines", "encoding"}
READER = "plugins/module_utils/saveset/base/mountinfo.py"


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_end_at_line_feeds(path: Path) -> None:
    for call in calls(ast.parse(path.read_text())):
        if isinstance(call.func, ast.Attribute):
            assert call.func.attr != "splitlines", f"line {call.lineno}: use split('\\n')"


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_what_programs_print_is_read_as_bytes(path: Path) -> None:
    for call in calls(ast.parse(path.read_text())):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("run", "Popen", "check_output"):
            assert not STRICT & {word.arg for word in call.keywords}, f"line {call.lineno}: decode it with a handler"


def test_one_reader_of_mounts() -> None:
    """Others may name the file of another process; none takes it apart."""
    apart = [
        str(path.relative_to(ROOT)) for path in FILES if re.search(r"(split|partition)\(b?\" - ", path.read_text())
    ]
    assert apart == [READER]

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
r"""No regular expression ends with ``$``, which lets a line feed pass at the end of a name: ``\Z`` does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = sorted(path for folder in ("lab", "plugins", "roles", "scripts") for path in (ROOT / folder).rglob("*.py"))
FOLDERS = ("inventories", "lab", "playbooks", "roles")
YAML = sorted(
    path
    for pattern in ("*.yml", *(f"{folder}/**/*.{suffix}" for folder in FOLDERS for suffix in ("yml", "j2")))
    for path in ROOT.glob(pattern)
)
FUNCTIONS = {"compile", "match", "fullmatch", "search", "findall", "finditer", "split", "sub", "subn"}
IN_JINJA = re.compile(r"""\b(?:match|search|regex\w*)(?:\s*\(\s*|['"]\s*,\s*)(?:r?)(['"])(.*?)(?<!\\)\1""", re.DOTALL)


def has_dollar(pattern: str) -> bool:
    """Whether a ``$`` of a pattern is an anchor: not escaped, and not in a class of characters."""
    without = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL)
    return "$" in without


def literal(node: ast.expr) -> str | None:
    """The text of a pattern; of an f-string, what is written in it. None where it is made otherwise."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value for part in node.values if isinstance(part, ast.Constant) and isinstance(part.value, str)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (literal(node.left) or "") + (literal(node.right) or "")
    return None


def in_python(source: str) -> Iterator[tuple[int, str]]:
    """Line and pattern of each regular expression of a program with such a ``$``; those of many lines mean it."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FUNCTIONS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.args):
            continue
        more = "".join(ast.unparse(part) for part in [*node.args[1:], *(keyword.value for keyword in node.keywords)])
        pattern = literal(node.args[0])
        if pattern and has_dollar(pattern) and "re.M" not in more:
            yield node.lineno, pattern


def in_yaml(source: str) -> Iterator[tuple[int, str]]:
    """The same of Jinja's tests and filters."""
    for found in IN_JINJA.finditer(source):
        if has_dollar(found[2]):
            yield source.count("\n", 0, found.start()) + 1, found[2]


def test_no_program_takes_a_line_feed_for_the_end() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}" for path in PYTHON for line, text in in_python(path.read_text())
    ]
    assert found == []


def test_no_playbook_takes_a_line_feed_for_the_end() -> None:
    found = [f"{path.relative_to(ROOT)}:{line}: {text}" for path in YAML for line, text in in_yaml(path.read_text())]
    assert found == []


def test_there_is_something_to_look_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in [*PYTHON, *YAML]}
    assert {"plugins/module_utils/journal/journal.py", "lab/roles/lab/files/labtool/spec.py"} <= names
    assert {"playbooks/isb.yml", "roles/preflight/tasks/decide.yml"} <= names


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('import re\nNAME = re.compile(r"^[a-z]+$")', 1),
        ('import re\nNAME = re.compile(rf"^{x}[a-z]+$")', 1),
        ("import re\nre.match('a$|b', name)", 1),
        ('import re\nre.compile("^a" + "$")', 1),
        ('import re\nre.compile(rb"a$")', 1),
        ('import re\nre.compile(r"^[a-z$]+\\Z")', 0),
        ('import re\nre.compile(r"costs \\$\\Z")', 0),
        ('import re\nre.compile(r"^a$", re.MULTILINE)', 0),
        ("text.split('$')", 0),
    ],
)
def test_what_is_found_in_programs(source: str, count: int) -> None:
    assert len(list(in_python(source))) == count


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("that: name is match('^[a-z]+$')", 1),
        ("that: \"{{ names | select('match', '^[a-z]+$') }}\"", 1),
        ("x: \"{{ name | regex_replace('/+$', '') }}\"", 1),
        ("that: name is search('^a$') and b is match('c')", 1),
        ("that: name is match('^[a-z$]+\\Z')", 0),
        ("x: \"{{ a | regex_search('b') }} costs $\"", 0),
    ],
)
def test_what_is_found_in_playbooks(source: str, count: int) -> None:
    assert len(list(in_yaml(source))) == count

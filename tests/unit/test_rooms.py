# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folders of module_utils are layers: each imports only what is below it, and no imports form a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from imports import own_imports

BELOW = {
    "saveset": set(),
    "host": {"saveset"},
    "journal": {"host"},
    "quiesce": {"host", "saveset"},
    "storage": {"host", "journal"},
    "luns": {"host", "saveset"},
    "checks": {"host"},
    "backup": {"host", "journal", "saveset"},
    "control": {"checks", "host", "journal", "quiesce", "saveset"},
}
"""What each folder may import besides itself."""

ENGINE = (
    "base",
    "io",
    "store",
    "keys",
    "format",
    "program",
    "access",
    "collect",
    "known",
    "restore",
    "backup",
    "verify",
    "",
    "serve",
    "cli",
)
"""The folders of the engine from the lowest to the highest; "" is for the files beside them, such as repository.py."""

LEAVES = {
    *(f"base.{name}" for name in ("errors", "kerneltables", "memory", "mountinfo")),
    *(f"io.{name}" for name in ("blocks", "claim", "disk_identity", "nbd_uri", "tls")),
}
"""The files of the engine that code on hosts without the engine's libraries may import, as they need none."""

WITHOUT_ENGINE = {"host", "quiesce", "luns"}


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below a node, without those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield child
            yield from at_run_time(child)


def imports(path: Path, folder: Path) -> Iterator[str]:
    """The modules below module_utils that a file imports, by their dotted names."""
    package = ".".join(path.relative_to(folder.parent).parts[:-1])
    for module, names in own_imports(at_run_time(ast.parse(path.read_text())), package):
        name = module.partition(".")[2]
        for each in names:
            child = f"{name}.{each}".strip(".")
            yield child if (folder / f"{child.replace('.', '/')}.py").exists() else name


@pytest.fixture(scope="module")
def graph(project_root: Path) -> dict[str, set[str]]:
    folder = project_root / "plugins/module_utils"
    files = {".".join(path.relative_to(folder).with_suffix("").parts): path for path in folder.rglob("*.py")}
    return {name.removesuffix(".__init__"): set(imports(path, folder)) for name, path in files.items()}


def test_every_file_is_in_a_room(graph: dict[str, set[str]]) -> None:
    assert {name.partition(".")[0] for name in graph} == set(BELOW)


def test_no_import_goes_up(graph: dict[str, set[str]]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if (room := name.partition(".")[0]) != (its := other.partition(".")[0]) and its not in BELOW[room]
    ]
    assert wrong == []


def test_hosts_need_no_library_of_the_engine(graph: dict[str, set[str]]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        if name.partition(".")[0] in WITHOUT_ENGINE
        for other in others
        if other.startswith("saveset.") and other.partition(".")[2] not in LEAVES
    ]
    assert wrong == []


def test_no_import_of_the_engine_goes_up(graph: dict[str, set[str]]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in others
        if name.startswith("saveset.") and other.startswith("saveset.")
        if ENGINE.index(folder_of(name)) < ENGINE.index(folder_of(other))
    ]
    assert wrong == []


def folder_of(name: str) -> str:
    """The engine's folder that a module is in."""
    parts = name.split(".")[1:]
    return parts[0] if parts[0] in ENGINE else ""


@pytest.mark.parametrize("room", sorted(BELOW))
def test_there_is_no_circle(graph: dict[str, set[str]], room: str) -> None:
    TopologicalSorter({name: others for name, others in graph.items() if name.startswith(room)}).prepare()

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs on managed hosts needs nothing newer than Python 3.8: imported with one, and read for what is newer.

The import finds whatever happens when a module is loaded, and needs that Python. Reading needs none, and finds newer
syntax, newer parts of the standard library and builtins that are subscripted, also inside of functions. It does not see
what depends on the type of a value: so methods that are newer are looked for by their names. What newer Pythons do in
another way, under the same name, neither finds.
"""

from __future__ import annotations

import ast
import builtins
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import ansible.module_utils
import pytest
from ansible_collections.openisb.backup.plugins.action import hold
from imports import PACKAGE, own_imports

OLDEST = "3.8"

ENGINE = {
    *(f"modules.{name}" for name in ("block_backup", "block_restore", "nbd_sample")),
    *(f"modules.{name}" for name in ("journal_head", "journal_head_info")),
    *(f"modules.saveset_{name}" for name in ("export", "info", "key", "key_info", "lock", "pin", "prune")),
    *(f"modules.saveset_{name}" for name in ("repository", "tool", "verify")),
}
"""Modules that run with the engine, on the backup server and in its environment, which is Python 3.11."""

NEWER_METHODS = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "hardlink_to", "bit_count"}


def listed(root: Path) -> set[Path]:
    """The files that pyproject.toml says are for Python 3.8."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["ruff"]["per-file-target-version"]
    return {
        path
        for pattern, version in settings.items()
        if version == "py" + OLDEST.replace(".", "")
        for one in braces(pattern)
        for path in root.glob(one)
        if path.suffix == ".py"
    }


def braces(pattern: str) -> list[str]:
    """A pattern with ``{a,b}`` as those without."""
    before, found, rest = pattern.partition("{")
    if not found:
        return [pattern]
    inner, _brace, after = rest.partition("}")
    return [before + choice + after for choice in inner.split(",")]


def name_of(path: Path, root: Path) -> str:
    """A plugin's file as a module, below PACKAGE."""
    parts = path.relative_to(root / "plugins").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, name: str) -> set[str]:
    """Modules of the collection that a file may import, below PACKAGE."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = own_imports(ast.walk(ast.parse(path.read_text())), package)
    return {each for module, names in found for each in (module, *(f"{module}.{name}" for name in names))}


@pytest.fixture(scope="module")
def on_hosts(project_root: Path) -> dict[str, Path]:
    """What runs on managed hosts, by its name below PACKAGE; without what runs with the engine."""
    files = {name_of(path, project_root): path for path in listed(project_root) if "plugins" in path.parts}
    return {name: path for name, path in files.items() if not name.startswith("doc_fragments") and name not in ENGINE}


def test_only_what_is_said_to_needs_the_engine(project_root: Path, on_hosts: dict[str, Path]) -> None:
    """A module that comes to import something for newer Pythons would fail on a host; here it is named."""
    plugins = project_root / "plugins"
    there = {name_of(path, project_root) for path in plugins.glob("module*/**/*.py")}
    wrong = {
        name: sorted(newer)
        for name, path in on_hosts.items()
        if (newer := (imports(path, name) & there) - set(on_hosts) - packages(plugins))
    }
    assert wrong == {}


def packages(plugins: Path) -> set[str]:
    return {name_of(path, plugins.parent) for path in plugins.glob("module_utils/**/__init__.py")}


# With that Python


def oldest_python() -> str:
    """A Python of that version that runs; empty where there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for candidate in (f"python{OLDEST}", *map(str, versions.glob(f"{OLDEST}.*/bin/python{OLDEST}"))):
        try:
            done = subprocess.run([candidate, "-V"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if done.returncode == 0 and f" {OLDEST}." in done.stdout:
            return candidate
    return ""


@pytest.fixture
def as_ansible_sends_it(tmp_path: Path, project_root: Path) -> Path:
    """A folder with what Ansible sends to a host: its module_utils and the collection's, in packages that are empty."""
    collection = tmp_path / "ansible_collections/openisb/backup"
    for folder in (collection, tmp_path / "ansible"):
        folder.mkdir(parents=True)
        folder.joinpath("__init__.py").touch()
    (collection / "plugins").symlink_to(project_root / "plugins")
    (tmp_path / "ansible/module_utils").symlink_to(Path(ansible.module_utils.__file__).parent)
    return tmp_path


@pytest.mark.skipif(not oldest_python(), reason=f"there is no Python {OLDEST} on this machine")
def test_everything_can_be_imported_with_the_oldest_python(
    project_root: Path, on_hosts: dict[str, Path], as_ansible_sends_it: Path
) -> None:
    script = project_root / "tests/support/import_all.py"
    names = [f"{PACKAGE}.{name}" for name in sorted(on_hosts)]
    command = [oldest_python(), "-I", "-B", "-W", "error", script, as_ansible_sends_it, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr


# Without it


class Unannotated(ast.NodeTransformer):
    """Takes out what is not evaluated where annotations are not, so that what is left really runs."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.copy_location(ast.Constant(value=None), node.annotation)
        return self.generic_visit(node)


def what_runs(source: str) -> ast.Module:
    """A module without its annotations, unless these are evaluated."""
    tree = ast.parse(source, feature_version=tuple(map(int, OLDEST.split("."))))
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    postponed = any(alias.name == "annotations" for node in future for alias in node.names)
    stripped = Unannotated().visit(tree) if postponed else tree
    assert isinstance(stripped, ast.Module)
    return stripped


def newer(sources: dict[str, str], folder: Path) -> list[str]:
    """What in these sources, by name, needs a newer Python."""
    found: list[str] = []
    for name, source in sources.items():
        tree = what_runs(source)
        (folder / f"{name}.py").write_text(ast.unparse(tree))
        found += [f"{name}: {what}" for what in read_for_newer(tree)]
    vermin = Path(sys.executable).with_name("vermin")
    command = [vermin, f"--target={OLDEST}-", "--violations", "--eval-annotations"]
    command += ["--no-tips", "--no-parse-comments", "--processes=1", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Minimum required versions: " in done.stdout, done.stdout + done.stderr
    return found + ([] if done.returncode == 0 else done.stdout.splitlines())


def read_for_newer(tree: ast.Module) -> Iterator[str]:
    """Methods that are newer, by their names, and unions of types as values."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in NEWER_METHODS:
            yield f".{node.func.attr}()"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            yield from (ast.unparse(node) for side in (node.left, node.right) if is_type(side))


def is_type(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return isinstance(getattr(builtins, node.id, None), type)
    return isinstance(node, ast.Constant) and node.value is None


def test_nothing_newer_is_used(project_root: Path, on_hosts: dict[str, Path], tmp_path: Path) -> None:
    files = {name: path for name, path in on_hosts.items() if path.read_text().strip()}
    files |= {f"lab.{path.parent.name}.{path.stem}": path for path in listed(project_root) if "files" in path.parts}
    assert len(files) > 100
    sources = {name: path.read_text() for name, path in files.items()}
    sources |= {f"program.{command}": hold.program(command, "r1", "/run/openisb", 5.0) for command in hold.COMMANDS}
    assert newer(sources, tmp_path) == []


@pytest.mark.parametrize(
    "line",
    [
        "Volume = dict[str, int]",
        "def f():\n    return list[int]()",
        "def f(x):\n    return isinstance(x, int | str)",
        "import datetime\nNOW = datetime.UTC",
        "def f(x):\n    import math\n    return math.lcm(x, 2)",
        "def f(x):\n    return zip(x, x, strict=True)",
        "def f(x):\n    return x.removeprefix('a')",
        "class A(dict[str, int]):\n    pass",
        "class A:\n    x: int = 0\n    def f(self, *, y: int = len(dict[str, int]())): ...",
        "import functools\n@functools.cache\ndef f():\n    pass",
    ],
)
def test_what_is_newer_is_found(tmp_path: Path, line: str) -> None:
    known = "from __future__ import annotations\ndef g(x: dict[str, int]) -> int | None:\n    y: list[int] = []\n"
    assert newer({"sample": known}, tmp_path) == []
    assert newer({"sample": known + line + "\n"}, tmp_path) != []

# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""isb-saveset.pyz: the same bytes for the same sources, in every repository, and usable with the repository alone."""

from __future__ import annotations

import ast
import filecmp
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing as t
import zipfile
from pathlib import Path

import pytest
import yaml
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import version
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import main
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program.readme import README

from .conftest import Lab

ROOT = Path(__file__).resolve().parents[3]
UTILS = ROOT / "plugins" / "module_utils"
ENGINE = UTILS / "saveset"


@pytest.fixture(scope="module", autouse=True)
def one_build() -> None:
    """Here each is made anew."""


def run(python: Path, *arguments: str | Path, **options: t.Any) -> subprocess.CompletedProcess[str]:
    """Run the tool as on a machine that knows nothing: no environment, no terminal, the root as current folder."""
    options = {"env": {}, "cwd": "/", "stdin": subprocess.DEVNULL, "start_new_session": True, **options}
    command = [str(python), "-I", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def carried(lab: Lab, mixed: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A copy of a repository on another medium, the key, and what was backed up; the original is gone."""
    lab.backup(mixed)
    repository = tmp_path / "medium" / "copy"
    shutil.copytree(lab.path, repository)
    shutil.rmtree(lab.path)
    key = tmp_path / "key"
    key.write_text("correct horse\n")
    return repository, key, mixed


def test_a_machine_that_has_only_the_repository_and_the_key(
    bare_python: Path, carried: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    repository, key, image = carried
    archive, secret = repository / "isb-saveset.pyz", ("--passphrase-file", key)
    for module in ("ansible", "ansible_collections", "yaml", "saveset"):
        asked = run(bare_python, "-c", f"import {module}")
        assert asked.returncode == 1 and f"No module named '{module}'" in asked.stderr

    listed = run(bare_python, archive, "list", *secret)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(
        r"^fs1/m +2026-03-01 12:01:00 +run-1 +application-consistent +6.0 MiB", listed.stdout, re.MULTILINE
    )
    verified = run(bare_python, archive, "verify", *secret)
    assert verified.returncode == 0 and "1 savesets, depth full: good" in verified.stdout
    output = tmp_path / "restored"
    restored = run(bare_python, archive, "restore", *secret, "fs1/m", output)
    assert restored.returncode == 0, restored.stderr
    assert filecmp.cmp(image, output, shallow=False)
    exported = subprocess.run(
        [bare_python, "-I", archive, "export", *secret, "fs1/m"], env={}, cwd="/", capture_output=True, check=True
    )
    assert exported.stdout == image.read_bytes()


def test_nothing_of_ansible_is_imported(bare_python: Path, carried: tuple[Path, Path, Path]) -> None:
    """Not even where it is installed: this Python has it."""
    repository, key, _image = carried
    arguments = (repository / "isb-saveset.pyz", "list", "--passphrase-file", key)
    listed = run(Path(sys.executable), "-X", "importtime", *arguments)
    assert listed.returncode == 0 and "fs1/m" in listed.stdout
    assert "saveset.cli.main" in listed.stderr and "ansible" not in listed.stderr


def test_the_way_of_the_readme(carried: tuple[Path, Path, Path]) -> None:
    """Every command that README.txt shows is one that the tool has, with the options that it shows."""
    repository, _key, _image = carried
    text_of = (repository / "README.txt").read_text()
    assert text_of == README and max(map(len, text_of.splitlines())) <= 80
    shown = re.findall(r"^     isb ([a-z]+) ?(.*)$", text_of, re.MULTILINE)
    assert {command for command, _options in shown} == {"list", "verify", "restore", "serve"}
    parser = main.make_parser()
    for command, rest in shown:
        parser.parse_args([command, *shlex.split(rest)])
    options = re.findall(r"^     (--[a-z-]+) (\S+)", text_of, re.MULTILINE)
    assert {name for name, _value in options} == {
        "--passphrase-file",
        "--private-key",
        "--recovery-sheet",
        "--exported-key",
    }
    for option in options:
        parser.parse_args(["list", *option])


def test_the_ways_of_the_manual() -> None:
    """Every command of isb-saveset that the manual shows is one that it has, with the options that it shows."""
    shown = [
        shlex.split(line.partition("|")[0], comments=True)[1:]
        for path in (ROOT / "docs").glob("*.md")
        for line in path.read_text().splitlines()
        if line.startswith("isb ")
    ]
    assert {arguments[0] for arguments in shown} >= {
        *("list", "verify", "restore", "export", "serve"),
        *("prune", "pin", "unpin", "forget", "key"),
    }
    parser = main.make_parser()
    for arguments in shown:
        parser.parse_args(arguments)


@pytest.mark.parametrize("arguments", [["list"], ["restore", "fs1/m", "x"], ["serve", "fs1/m"]])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    empty_python: Path, carried: tuple[Path, Path, Path], arguments: list[str]
) -> None:
    ended = run(empty_python, carried[0] / "isb-saveset.pyz", *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(
        r"isb-saveset: Python library blake3: it cannot be imported .*"
        r"'isb-saveset requirements' prints the list for pip install --require-hashes -r\n",
        ended.stderr,
    )
    assert run(empty_python, carried[0] / "isb-saveset.pyz", "--help").returncode == 0


def test_an_old_python_is_told(tmp_path: Path) -> None:
    """The first lines of the archive run anywhere; here a newer Python says that it is an old one."""
    with zipfile.ZipFile(io.BytesIO(tool.build())) as archive:
        program = archive.read("__main__.py").decode()
    ast.parse(program, feature_version=(3, 4))
    script = tmp_path / "main.py"
    script.write_text(program.replace("import sys\n", "import sys\nsys.version_info = (3, 9, 2)\n", 1))
    ended = run(Path(sys.executable), script)
    assert ended.returncode == 1
    assert ended.stderr == "isb-saveset: Python 3.9: it is too old. Use Python 3.11 or newer, such as Debian 12's\n"


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    """Imported by Ansible or not, at another time zone and umask, from a copy with other times, or from an archive."""
    built = tool.build()
    assert built == tool.build()
    copy = tmp_path / "elsewhere" / "saveset"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copyfile)
    output = tmp_path / "from-copy.pyz"
    environment = {**os.environ, "TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-m", "saveset.program.tool", str(output)]
    subprocess.run(command, cwd=copy.parent, env=environment, check=True, umask=0o077)
    assert output.read_bytes() == built
    again = tmp_path / "from-archive.pyz"
    program = f"import sys; sys.path.insert(0, {str(output)!r}); from saveset.program import tool; \
open({str(again)!r}, 'wb').write(tool.build())"
    subprocess.run([sys.executable, "-I", "-c", program], check=True)
    assert again.read_bytes() == built


def test_what_is_in_it() -> None:
    with zipfile.ZipFile(io.BytesIO(tool.build())) as archive:
        names = archive.namelist()
        sources = {str(path.relative_to(UTILS)): path.read_bytes() for path in ENGINE.rglob("*.py")}
        assert {name: archive.read(name) for name in names if name != "__main__.py"} == sources
        assert names == sorted(names)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.testzip() is None
    assert yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"] == version.VERSION


def test_made_by_a_module_it_is_the_same(tmp_path: Path) -> None:
    """Ansible sends a module with what it imports, as an archive.  The tool is made of that on the backup server."""
    folder = tmp_path / "repository"
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "--inventory", "localhost,", "--connection=local"]
    command += ["--extra-vars", f"ansible_python_interpreter={sys.executable}"]
    command += ["--module-name", "openisb.backup.saveset_repository"]
    command += ["--args", f"repository={folder} encryption=none"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "HOME": str(tmp_path)}
    environment.pop("OPENISB_PASSPHRASE", None)
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert (folder / "isb-saveset.pyz").read_bytes() == tool.build()

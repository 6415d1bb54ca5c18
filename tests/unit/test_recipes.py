# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recipes of docs/architecture.md for a driver, a check and a store: followed in a copy of the collection."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DRIVER = '''
"""Freezes by making a file."""

import os

from ...host.options import Option
from .base import Driver


class ToyDriver(Driver):
    name = "toy"
    options = {"file": Option("path", "The file that says that it is frozen.", required=True)}

    def check(self, surroundings):
        return f"{self.values['file']} can be made"

    def freeze(self):
        self.mark("file", self.values["file"])
        open(self.values["file"], "x").close()

    def thaw(self):
        os.unlink(self.values["file"])
        self.clear_marks()
        return []

    def status(self):
        return {"frozen": os.path.exists(self.values["file"])}
'''

CHECK = '''
"""Whether a file of the copy says hello."""

from ..host.options import Option
from .base import Check
from .errors import CheckFailed


class ToyCheck(Check):
    name = "toy"
    label = "Toy"
    proves = True
    options = {"path": Option("path", "The file, by its path in production.", required=True)}

    def subject(self):
        return self.values["path"]

    def run(self, bench):
        with open(self.places.here(self.values["path"])) as stream:
            if stream.read() != "hello":
                raise CheckFailed("it does not say hello")
        return "it says hello"
'''

STORE = '''
"""Objects are rows of a database: nothing here is a folder or a file of an object."""

import contextlib
import secrets
import sqlite3

from ..base.errors import NameTaken, NotFound, RepositoryExists
from .names import UNFINISHED, check_folder, kind_of
from .store import Hold, Store, Upload, check_size, length_to_read


class ToyUpload(Upload):
    def __init__(self, store, name):
        self._store, self._name, self._data = store, name, bytearray()

    def write(self, buffers):
        for buffer in buffers:
            self._data += buffer

    def publish(self, exclusive=True):
        self._store.insert(self._name, bytes(self._data), exclusive)

    def abort(self):
        self._data.clear()


class ToyHold(Hold):
    def __init__(self, store, name, data):
        self._store, self._key = store, (name, secrets.token_hex(16))
        store.insert(name, data, owner=self._key[1])

    def replace(self, data):
        self._store.change(self._key[0], "UPDATE objects SET data = ? WHERE name = ? AND owner = ?", data, *self._key)

    def is_kept(self):
        return bool(self._store.ask("SELECT 1 FROM objects WHERE name = ? AND owner = ?", *self._key))

    def release(self):
        self._store.ask("DELETE FROM objects WHERE name = ? AND owner = ?", *self._key)


class ToyStore(Store):
    def __init__(self, location):
        self.location = location

    @classmethod
    def at(cls, location):
        return cls(location)

    @contextlib.contextmanager
    def _base(self):
        with contextlib.closing(sqlite3.connect(self.location.partition("://")[2], timeout=60)) as base, base:
            base.execute("PRAGMA synchronous = OFF")
            base.execute("CREATE TABLE IF NOT EXISTS objects (name TEXT PRIMARY KEY, data BLOB, owner TEXT)")
            yield base

    def ask(self, statement, *values):
        with self._base() as base:
            return base.execute(statement, values).fetchall()

    def change(self, name, statement, *values):
        with self._base() as base:
            if not base.execute(statement, values).rowcount:
                raise NotFound(name, "there is no such row", "Look")

    def insert(self, name, data, exclusive=True, owner=None):
        verb = "INSERT" if exclusive else "INSERT OR REPLACE"
        try:
            self.ask(f"{verb} INTO objects VALUES (?, ?, ?)", name, data, owner)
        except sqlite3.IntegrityError as error:
            raise NameTaken(name, "there is such a row", "Use another name") from error

    def prepare(self):
        for (name,) in self.ask("SELECT name FROM objects"):
            if name.partition("/")[0] not in UNFINISHED:
                raise RepositoryExists(self.location, f"it holds {name}", "Use another place")

    def create(self, name):
        kind_of(name)
        return ToyUpload(self, name)

    def get(self, name, offset=0, length=None):
        data = self._data(name)
        wanted = length_to_read(name, len(data), offset, length)
        return data[offset : offset + max(wanted, 0)]

    def size(self, name):
        return len(self._data(name))

    def _data(self, name):
        kind_of(name)
        rows = self.ask("SELECT data FROM objects WHERE name = ?", name)
        if not rows:
            raise NotFound(name, "there is no such row", "Look")
        return rows[0][0]

    def list(self, prefix):
        start = check_folder(prefix) + "/"
        rows = self.ask("SELECT name FROM objects WHERE substr(name, 1, ?) = ? ORDER BY name", len(start), start)
        return [name for (name,) in rows]

    def delete(self, name):
        kind_of(name)
        self.change(name, "DELETE FROM objects WHERE name = ?", name)

    def hold(self, name, data):
        check_size(name, len(data))
        return ToyHold(self, name, data)

    def abandoned(self, name, remove=False):
        kind_of(name)
        return not self.ask("SELECT 1 FROM objects WHERE name = ?", name)

    def settle(self, names):
        for name in names:
            kind_of(name)

    def free_bytes(self):
        return None

    def sweep(self):
        return 0
'''

PLACE = """

@pytest.fixture
def toy_location(tmp_path: Path) -> str:
    return f"toy://{tmp_path}/toy.db"
"""

#: A repository in that store, backed up to twice, verified, pruned and restored from.
USE = """
import datetime, sys
from saveset import repository
from saveset.backup.request import BackupRequest
from saveset.collect.retention import Policy
from saveset.io.source import open_source
from saveset.io.target import open_target
from saveset.keys.secret import ScryptCost, Secret
from saveset.store.registry import open_store
location, image, restored = sys.argv[1:]
secret = Secret(b"correct horse", ScryptCost(n=16))
repository.Repository.create(open_store(location), secret, chunk_size=4096)
opened = repository.Repository.open(open_store(location), secret)
opened.try_writing()
for run in ("one", "two"):
    with open(image, "ab") as stream, open_source(image) as source:
        opened.backup(source, BackupRequest(volume="fs1/m", run_id=run, time=datetime.datetime.now(datetime.UTC),
                                            verdict="crash-consistent", source_id=run))
        stream.write(run.encode() * 4096)
assert opened.verify(depth="full").ok
assert len(opened.prune(Policy(last=1)).forgotten) == 1
saveset = opened.find("fs1/m")
with open_target(restored, saveset.size) as target:
    saveset.restore(target, check=True)
assert opened.verify(depth="full").ok and opened.warnings == []
"""


class Copy:
    """A copy of the collection, to which a recipe is applied."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.collection = folder / "ansible_collections/openisb/backup"
        self.utils = self.collection / "plugins/module_utils"
        for name in ("plugins", "meta"):
            shutil.copytree(root / name, self.collection / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "ansible.cfg").touch()

    def register(self, path: str, module: str, name: str, last: str) -> None:
        """Name a class in its registry, after the last one that is there."""
        file = self.utils / path
        text = file.read_text()
        imported = f"from .{last.lower().removesuffix(name[3:].lower())} import {last}\n"
        assert imported in text and f"{last})" in text
        text = text.replace(imported, f"{imported}from .{module} import {name}\n")
        file.write_text(text.replace(f"{last})", f"{last}, {name})"))

    def run(self, module: str, **arguments: Any) -> dict[str, Any]:
        """The result of a module of the copy, run on this host."""
        command = [Path(sys.executable).parent / "ansible", "localhost", "-m", f"openisb.backup.{module}"]
        environment = {
            "PATH": "/usr/bin:/bin",
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "LC_ALL": "C.UTF-8",
        }
        done = subprocess.run(
            [*command, "-a", json.dumps(arguments)], env=environment, capture_output=True, text=True, check=False
        )
        assert "=> {" in done.stdout, done.stdout + done.stderr
        result: dict[str, Any] = json.loads(done.stdout[done.stdout.index("=> {") + 3 :])
        return result


@pytest.fixture
def copy(tmp_path: Path, project_root: Path) -> Copy:
    return Copy(tmp_path, project_root)


@pytest.mark.root
def test_a_quiesce_driver(copy: Copy, tmp_path: Path) -> None:
    (copy.utils / "quiesce/drivers/toy.py").write_text(DRIVER)
    copy.register("quiesce/drivers/__init__.py", "toy", "ToyDriver", "PostgresqlDriver")
    frozen = tmp_path / "frozen"
    common = {"run_dir": str(tmp_path / "run"), "run_id": "isb-20261130T000000Z-aaaaaa"}
    found = copy.run("quiesce_info", run_dir=common["run_dir"], drivers=[{"name": "toy", "file": str(frozen)}])
    assert [check["message"] for check in found["checks"]] == [f"{frozen} can be made"]
    armed = copy.run("quiesce", state="armed", drivers=[{"name": "toy", "file": str(frozen)}], **common)
    assert armed["changed"] and not frozen.exists(), armed
    assert copy.run("quiesce", state="frozen", **common)["changed"] and frozen.exists()
    assert copy.run("quiesce", state="absent", **common)["changed"] and not frozen.exists()


@pytest.mark.root
@pytest.mark.parametrize(("content", "ok"), [("hello", True), ("goodbye", False)])
def test_a_check(copy: Copy, tmp_path: Path, content: str, ok: bool) -> None:
    (copy.utils / "checks/toy.py").write_text(CHECK)
    copy.register("checks/known.py", "toy", "ToyCheck", "PostgresqlCheck")
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount/letter").write_text(content)
    checked = copy.run(
        "recovery_check",
        checks=[{"name": "toy", "path": "/srv/letter"}],
        mounts={"/srv": str(tmp_path / "mount")},
        scratch=str(tmp_path),
    )["checks"][0]["check"]
    assert (checked["kind"], checked["ok"]) == ("toy", ok)


@pytest.mark.slow
def test_a_store(copy: Copy, tmp_path: Path, project_root: Path) -> None:
    """The conformance suite runs against it without being told, and no part of the engine needs a folder."""
    registry = copy.utils / "saveset/store/registry.py"
    (registry.parent / "toy.py").write_text(STORE)
    text = registry.read_text().replace("from .store import", "from .toy import ToyStore\nfrom .store import")
    registry.write_text(text.replace("{FILE: LocalStore", '{"toy": ToyStore, FILE: LocalStore'))

    image = tmp_path / "image"
    image.write_bytes(bytes(range(256)) * 4096)
    arguments = [sys.executable, "-c", USE, f"toy://{tmp_path}/repository.db", image, tmp_path / "restored"]
    subprocess.run(arguments, env={"PYTHONPATH": str(copy.utils)}, check=True)
    assert (tmp_path / "restored").read_bytes() == image.read_bytes()[: -3 * 4096]

    for name in ("pyproject.toml", "ansible.cfg", "tests/conftest.py", "tests/unit/saveset/conftest.py"):
        (copy.collection / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project_root / name, copy.collection / name)
    shutil.copytree(project_root / "tests/unit/saveset/store", copy.collection / "tests/unit/saveset/store")
    with (copy.collection / "tests/unit/saveset/store/conftest.py").open("a") as stream:
        stream.write(PLACE)
    found = copy.collection / "collections/ansible_collections/openisb/backup"
    found.parent.mkdir(parents=True)
    found.symlink_to(copy.collection)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "toy"]
    done = subprocess.run(
        [*command, "tests/unit/saveset/store/conformance"],
        cwd=copy.collection,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout + done.stderr

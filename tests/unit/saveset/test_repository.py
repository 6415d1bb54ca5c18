# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Creating and opening repositories; versions, features, missing libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import document
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys import keys
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import registry

from .conftest import MIB, Lab, MakeImage, text

CHEAP = Secret(b"correct horse", ScryptCost(n=16))
ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"


def test_creating_twice_is_refused(lab: Lab) -> None:
    with pytest.raises(errors.RepositoryExists, match="not empty"):
        repository.Repository.create(lab.store(), CHEAP)


def test_creating_in_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(errors.RepositoryExists, match="precious"):
        repository.Repository.create(registry.open_store(str(tmp_path)), CHEAP)


def test_a_creation_cut_short_can_be_repeated(lab: Lab, mixed: Path) -> None:
    (lab.path / "repo.json").unlink()
    with pytest.raises(errors.NotARepository):
        lab.open()
    repository.Repository.create(lab.store(), CHEAP, chunk_size=64 * 1024)
    assert len(lab.files("keys")) == 2
    assert lab.restore(lab.backup(mixed)).read_bytes() == mixed.read_bytes()


@pytest.mark.parametrize(
    "options", [{"chunk_size": 1000}, {"chunk_size": 1 << 23}, {"encryption": "rot13"}, {"encryption": "none"}]
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, t.Any]) -> None:
    with pytest.raises(errors.InvalidValue):
        repository.Repository.create(registry.open_store(str(tmp_path / "r")), CHEAP, **options)
    assert not (tmp_path / "r").exists()


def test_encryption_needs_a_passphrase(tmp_path: Path) -> None:
    for secret in (Secret(), Secret(b"")):
        with pytest.raises(errors.InvalidValue, match="passphrase"):
            repository.Repository.create(registry.open_store(str(tmp_path)), secret)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(errors.NotARepository):
        repository.Repository.open(registry.open_store(str(tmp_path / "nowhere")), CHEAP)
    with pytest.raises(errors.InvalidValue):
        registry.open_store("s3://bucket")


def test_the_repository_says_what_it_is(lab: Lab) -> None:
    repo = lab.open()
    assert (repo.chunk_size, repo.encryption, repo.location) == (64 * 1024, "aes-256-gcm", str(lab.path))
    assert (repo.free_bytes() or 0) > 0
    assert len(repo.id) == 32 and not repo.read_only
    assert "saveset repository" in (lab.path / "README.txt").read_text()


def ring_of(lab: Lab) -> keys.KeyRing:
    """The keys of a lab's repository."""
    ring: keys.KeyRing = lab.open()._ring
    return ring


def rewrite(lab: Lab, path: Path, kind: str, **changes: t.Any) -> None:
    """Write a document anew with other fields, rightly authenticated."""
    name = str(path.relative_to(lab.path))
    fields = {**document.decode_document(name, path.read_bytes(), kind).fields, **changes}
    path.write_bytes(document.encode_document(kind, fields, ring_of(lab).mac))


@pytest.mark.parametrize("changes", [{"version": 2}, {"features": {"read": ["warp"], "write": [], "optional": []}}])
def test_newer_repositories_are_refused(lab: Lab, changes: dict[str, t.Any]) -> None:
    rewrite(lab, lab.path / "repo.json", "repository", **changes)
    with pytest.raises(errors.UnsupportedFormat, match="newer version"):
        lab.open()


def test_unknown_write_features_make_it_read_only(lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    feature = {"features": {"read": [], "write": ["tombstones"], "optional": ["colour"]}}
    (lab.path / "features").mkdir()
    (lab.path / "features" / "tombstones.json").write_bytes(
        document.encode_document("feature", feature, ring_of(lab).mac)
    )
    repo = lab.open()
    assert repo.read_only
    assert repo.verify(depth="full").ok
    assert lab.restore(repo.find("fs1/m")).read_bytes() == mixed.read_bytes()
    with pytest.raises(errors.UnsupportedFormat, match="forbid"):
        lab.backup(mixed)
    assert [info.id for info in repo.savesets()] == [saveset.id]


@pytest.mark.parametrize("features", [{}, {"read": ["warp"]}, {"read": 7}])
def test_a_forged_feature_keeps_nobody_from_reading(lab: Lab, mixed: Path, features: dict[str, t.Any]) -> None:
    """It could be a real one that was damaged, which forbids to write: so nothing is written, and verify names it."""
    saveset = lab.backup(mixed)
    (lab.path / "features").mkdir()
    forged = document.sign_document("feature", {"features": features}, lambda _label, _data: bytes(32))
    (lab.path / "features" / "x.json").write_bytes(forged)
    repo = lab.open()
    assert repo.read_only
    assert lab.restore(repo.find("fs1/m")).read_bytes() == mixed.read_bytes()
    (problem,) = repo.verify().problems
    assert problem["object"] == "features/x.json" and "MAC" in str(problem["problem"])
    for write in (lambda: lab.backup(mixed), lambda: repo.prune(None), lambda: repo.pin(saveset, "ada", "so")):
        with pytest.raises(errors.UnsupportedFormat, match=r"features/x.json.*MAC.*remove it"):
            write()
    (lab.path / "features" / "x.json").unlink()
    assert lab.backup(mixed).info.parent == saveset.id


def test_newer_commits_are_told_and_do_not_hide_older_ones(lab: Lab, make_image: MakeImage) -> None:
    image = make_image("a", MIB, [(0, text(MIB))])
    old, new = lab.backup(image), lab.backup(image)
    rewrite(lab, lab.path / new.info.name, "saveset", version=2)
    repo = lab.open()
    assert [info.id for info in repo.savesets()] == [old.id]
    with pytest.raises(errors.UnsupportedFormat):
        repo.find("fs1/m")
    assert not repo.verify().ok


def test_fields_that_a_newer_version_adds_are_ignored(lab: Lab, make_image: MakeImage) -> None:
    saveset = lab.backup(make_image("a", MIB, [(0, text(MIB))]))
    rewrite(lab, lab.path / saveset.info.name, "saveset", colour="blue")
    assert lab.open().find("fs1/m").info == saveset.info


def test_every_error_names_thing_cause_and_way_out() -> None:
    assert str(errors.StoreFull("packs/ab", "no room", "Add space")) == "packs/ab: no room. Add space"
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert issubclass(kind, errors.SavesetError) and kind.__doc__


def test_imports_without_any_library() -> None:
    """On a host without the libraries everything imports, and use says what to install."""
    program = """
import sys
for name in ("blake3", "zstandard", "cryptography", "nbd"):
    sys.modules[name] = None
sys.path.insert(0, sys.argv[1])
import importlib, pkgutil, saveset
for module in pkgutil.iter_modules(saveset.__path__):
    importlib.import_module("saveset." + module.name)
from saveset.base import errors
from saveset import repository
from saveset.keys import secret
from saveset.io import source
from saveset.store import registry
for use in (lambda: repository.Repository.open(registry.open_store("/nowhere"), secret.Secret(b"x")),
            lambda: source.open_source("nbd://localhost/x")):
    try:
        use()
    except errors.MissingLibrary as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, str(ENGINE)], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "pip install" in first
    assert "python3-libnbd" in second


def test_the_engine_imports_relatively_and_at_the_top_only() -> None:
    """A worker may outlive the zip file that it was started from: nothing may be imported later, nothing of Ansible."""
    for path in sorted((ENGINE / "saveset").rglob("*.py")):
        tree = ast.parse(path.read_text())
        inside = [node for part in ast.walk(tree) if isinstance(part, _SCOPES) for node in ast.walk(part)]
        assert not [node.lineno for node in inside if isinstance(node, _IMPORTS)], path.name
        for node in ast.walk(tree):
            if isinstance(node, _IMPORTS):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                assert not [name for name in names if name.startswith("ansible")], path.name


_SCOPES = (ast.FunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)

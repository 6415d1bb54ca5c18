# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program in a repository is never believed for its own word: whoever can write there could replace it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import typing as t
import zipfile
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.version import VERSION
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.keys import KeyRing
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program.readme import README
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.names import kind_of
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Upload
from blake3 import blake3

from .conftest import MIB, Cli, Lab, MakeImage, text

PROGRAM, TEXT, DOCUMENT = "isb-saveset.pyz", "README.txt", "tool.json"
HIGHER = "99.0.0"


@pytest.fixture
def back_up(lab: Lab, make_image: MakeImage) -> t.Callable[[], None]:
    """Makes a saveset, as a later run does."""

    def run() -> None:
        lab.backup(make_image("a", MIB, [(0, text(MIB))]))

    return run


def thief(stolen: str = "the passphrase") -> bytes:
    """A program that steals what it is given, and says that it is of a higher version."""
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = f"isb-saveset {HIGHER}".encode()
        archive.writestr("__main__.py", f"print('I have {stolen}')\n")
    return buffer.getvalue()


def found(lab: Lab) -> dict[str, str]:
    """What a verification finds, by object."""
    return {str(item["object"]): str(item["problem"]) for item in lab.open().verify().problems}


def ring_of(lab: Lab) -> KeyRing:
    """The repository's keys."""
    return lab.open().key_files._ring


def sign(fields: dict[str, t.Any], ring: KeyRing | None) -> bytes:
    """A document by the format alone, whatever is in it."""

    def canonical() -> bytes:
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    features: dict[str, list[str]] = {"read": [], "write": [], "optional": []}
    body = {"openisb": "tool", "version": 1, "features": features, **fields}
    if ring is not None:
        body["mac"] = ring.mac("tool", canonical()).hex()
    body["hash"] = blake3(canonical()).hexdigest()
    return canonical() + b"\n"


def bind(lab: Lab, release: str, program: bytes, readme: bytes = b"a text", ring: KeyRing | None = None) -> None:
    """Put program, text and document there, as the given release would."""
    files = {PROGRAM: tool.sha256(program), TEXT: tool.sha256(readme)}
    (lab.path / PROGRAM).write_bytes(program)
    (lab.path / TEXT).write_bytes(readme)
    (lab.path / DOCUMENT).write_bytes(sign({"release": release, "files": files}, ring or ring_of(lab)))


def is_mine(lab: Lab) -> bool:
    """Whether the repository carries what this version makes, and nothing else."""
    return (
        (lab.path / PROGRAM).read_bytes() == tool.build()
        and (lab.path / TEXT).read_text() == README
        and json.loads((lab.path / DOCUMENT).read_bytes())["release"] == VERSION
        and not found(lab)
    )


# -- replaced


def test_a_replaced_program_is_found_and_goes(lab: Lab, back_up: t.Callable[[], None], cli: Cli) -> None:
    """Of a higher version by its own word: verified with the key and without, and replaced by the next backup."""
    back_up()
    assert found(lab) == {}
    (lab.path / PROGRAM).write_bytes(thief())
    problem = "it is not what tool.json vouches for: damaged or replaced. Do not run it"
    assert found(lab) == {PROGRAM: problem}
    for how in ([], ["--depth", "structure"], ["--volume", "fs1/m"], ["--without-key"]):
        told = cli("verify", *how)
        assert told.status == 1 and f"{PROGRAM}: {problem}\n" in told.out
    back_up()
    assert is_mine(lab)


@pytest.mark.parametrize("name", [PROGRAM, TEXT])
@pytest.mark.parametrize("content", [b"", b"rubbish", None], ids=["empty", "rubbish", "missing"])
def test_a_damaged_file_is_found_and_replaced(
    lab: Lab, back_up: t.Callable[[], None], name: str, content: bytes | None
) -> None:
    path = lab.path / name
    path.unlink() if content is None else path.write_bytes(content)
    assert list(found(lab)) == [name]
    back_up()
    assert is_mine(lab)
    before = [(lab.path / some).stat().st_ino for some in (PROGRAM, TEXT, DOCUMENT)]
    back_up()
    assert [(lab.path / some).stat().st_ino for some in (PROGRAM, TEXT, DOCUMENT)] == before


def test_a_huge_file_is_not_read_to_its_end(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: dict[str, int] = {}
    get = LocalStore.get

    def counted(store: LocalStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
        data = get(store, name, offset, length)
        reads[name] = max(reads.get(name, 0), len(data))
        return data

    monkeypatch.setattr(LocalStore, "get", counted)
    for name in (PROGRAM, TEXT, DOCUMENT):
        os.truncate(lab.path / name, 1 << 30)
    assert set(found(lab)) == {PROGRAM, TEXT, DOCUMENT}
    tool.refresh(lab.store(), ring_of(lab))
    assert all(length <= (kind_of(name).max_bytes or 0) for name, length in reads.items())
    assert is_mine(lab)


@pytest.mark.parametrize("name", [PROGRAM, TEXT, DOCUMENT])
@pytest.mark.parametrize("error", [errors.Damaged, errors.StoreError])
def test_what_cannot_be_read_is_named_and_replaced(
    lab: Lab,
    back_up: t.Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[errors.SavesetError],
) -> None:
    get = LocalStore.get

    def refused(store: LocalStore, wanted: str, *part: t.Any) -> bytes:
        if wanted == name and (lab.path / name).is_symlink():
            raise error(name, "it is a link", "Put back a copy of it")
        return get(store, wanted, *part)

    monkeypatch.setattr(LocalStore, "get", refused)
    (lab.path / name).rename(lab.folder / name)
    (lab.path / name).symlink_to(lab.folder / name)
    assert found(lab) == {name: "it is a link"}
    back_up()
    assert is_mine(lab) and not (lab.path / name).is_symlink()


# -- the document


def _of_another_repository(lab: Lab) -> None:
    (lab.folder / "other").mkdir()
    bind(lab, HIGHER, thief(), ring=ring_of(Lab(lab.folder / "other")))


def _without_a_key(lab: Lab) -> None:
    bind(lab, HIGHER, thief())
    fields = {"release": HIGHER, "files": {PROGRAM: tool.sha256(thief()), TEXT: tool.sha256(b"a text")}}
    (lab.path / DOCUMENT).write_bytes(sign(fields, None))


def _of_another_kind(lab: Lab) -> None:
    bind(lab, HIGHER, thief())
    (lab.path / DOCUMENT).write_bytes((lab.path / "repo.json").read_bytes())


def _changed(lab: Lab) -> None:
    bind(lab, HIGHER, thief())
    mine = tool.sha256(thief()).encode()
    data = (lab.path / DOCUMENT).read_bytes()
    (lab.path / PROGRAM).write_bytes(thief("even more"))
    (lab.path / DOCUMENT).write_bytes(data.replace(mine, tool.sha256(thief("even more")).encode()))


def _of_a_later_format(lab: Lab) -> None:
    """What cannot be read cannot be authenticated either."""
    bind(lab, HIGHER, thief())
    fields = json.loads((lab.path / DOCUMENT).read_bytes())
    for name in ("mac", "hash"):
        del fields[name]
    features = {"read": ["news"], "write": [], "optional": []}
    (lab.path / DOCUMENT).write_bytes(sign({**fields, "features": features}, ring_of(lab)))


def _with_other_fields(release: t.Any, files: t.Any) -> t.Callable[[Lab], None]:
    def make(lab: Lab) -> None:
        bind(lab, HIGHER, thief())
        (lab.path / DOCUMENT).write_bytes(sign({"release": release, "files": files}, ring_of(lab)))

    return make


def _missing(lab: Lab) -> None:
    bind(lab, HIGHER, thief())
    (lab.path / DOCUMENT).unlink()


_BOTH = {PROGRAM: tool.sha256(thief()), TEXT: tool.sha256(b"a text")}


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (_missing, "it is missing: nothing vouches for isb-saveset.pyz"),
        (_without_a_key, "its MAC is wrong"),
        (_of_another_repository, "its MAC is wrong"),
        (_of_another_kind, "it is not a whole tool document"),
        (_changed, "its hash does not match its content"),
        (_of_a_later_format, "it needs the features news"),
        (_with_other_fields(f"{HIGHER}-1", _BOTH), "its fields are not those of a tool"),
        (_with_other_fields("9" * 5000, _BOTH), "its fields are not those of a tool"),
        (_with_other_fields([99], _BOTH), "its fields are not those of a tool"),
        (_with_other_fields(HIGHER, {**_BOTH, PROGRAM: "00"}), "its fields are not those of a tool"),
        (_with_other_fields(HIGHER, {TEXT: _BOTH[TEXT]}), "its fields are not those of a tool"),
        (_with_other_fields(HIGHER, [PROGRAM, TEXT]), "its fields are not those of a tool"),
    ],
)
def test_a_document_that_is_not_ours_vouches_for_nothing(
    lab: Lab, back_up: t.Callable[[], None], tamper: t.Callable[[Lab], None], problem: str
) -> None:
    back_up()
    tamper(lab)
    problems = found(lab)
    assert set(problems) == {PROGRAM, TEXT, DOCUMENT} and problem in problems[DOCUMENT]
    back_up()
    assert is_mine(lab)


def test_only_a_missing_document_is_a_problem_too(lab: Lab, back_up: t.Callable[[], None]) -> None:
    """As in a repository whose program was made before there was such a document."""
    (lab.path / DOCUMENT).unlink()
    assert list(found(lab)) == [DOCUMENT]
    back_up()
    assert is_mine(lab)


def test_without_encryption_it_finds_accidents(plain_lab: Lab) -> None:
    assert found(plain_lab) == {}
    (plain_lab.path / PROGRAM).write_bytes(thief())
    assert list(found(plain_lab)) == [PROGRAM]


# -- versions


def test_that_of_a_newer_version_stays_as_long_as_its_document_vouches_for_it(
    lab: Lab, back_up: t.Callable[[], None]
) -> None:
    """Two versions share a repository.  Whoever has a key that writes can do that, too: so a copy is kept elsewhere."""
    bind(lab, "0.10.0", b"a newer program")
    assert found(lab) == {}
    back_up()
    assert (lab.path / PROGRAM).read_bytes() == b"a newer program" and found(lab) == {}
    (lab.path / PROGRAM).write_bytes(thief())
    assert list(found(lab)) == [PROGRAM]
    back_up()
    assert is_mine(lab)


def test_that_of_an_older_version_goes(lab: Lab, back_up: t.Callable[[], None]) -> None:
    """Also where all three are put back as they once were."""
    bind(lab, "0.0.9", b"an older program")
    assert found(lab) == {}
    back_up()
    assert is_mine(lab)


def test_a_stolen_write_only_key_is_found_out(lab: Lab, back_up: t.Callable[[], None]) -> None:
    """It can make the document; but this very version makes another program."""
    key_files = lab.open().key_files
    key_files.add_writer(b"write only", cost=lab.secret.cost)
    secret, lab.secret = lab.secret, Secret(b"write only")
    assert lab.open().write_only
    bind(lab, VERSION, thief())
    problem = f"it vouches for a program other than the one that version {VERSION} makes"
    assert found(lab) == {DOCUMENT: problem}
    lab.secret = secret
    assert found(lab) == {DOCUMENT: problem}
    back_up()
    assert is_mine(lab)


def test_a_write_only_server_brings_it_up_to_date(lab: Lab, back_up: t.Callable[[], None]) -> None:
    lab.open().key_files.add_writer(b"write only", cost=lab.secret.cost)
    bind(lab, "0.0.9", b"an older program")
    lab.secret = Secret(b"write only")
    back_up()
    assert is_mine(lab)


class _FullFor(LocalStore):
    """A store that has room for everything but one object."""

    without = ""

    def create(self, name: str) -> Upload:
        if name == self.without:
            raise errors.StoreFull(name, "the store has no disk space left", "Free or add disk space")
        return super().create(name)


@pytest.mark.parametrize("without", [TEXT, PROGRAM, DOCUMENT])
def test_a_replacement_that_is_cut_short_raises_no_alarm(
    lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    """Nor does a backup fail for it."""
    bind(lab, "0.0.9", b"an older program")
    store = _FullFor(str(lab.path))
    store.without = without
    with pytest.raises(errors.StoreFull):
        tool.refresh(store, ring_of(lab))
    assert found(lab) == {}
    with monkeypatch.context() as patch:
        patch.setattr(lab, "store", lambda: store)
        saveset = lab.backup(mixed)
    assert lab.restore(saveset).read_bytes() == mixed.read_bytes() and found(lab) == {}
    assert tool.refresh(lab.store(), ring_of(lab)) and not tool.refresh(lab.store(), ring_of(lab))
    assert is_mine(lab)


# -- the program's own word


def test_the_program_tells_its_digest_and_what_it_needs(empty_python: Path, lab: Lab, tmp_path: Path) -> None:
    """Before anything is installed."""
    program = lab.path / PROGRAM

    def run(*arguments: str) -> str:
        command = [str(empty_python), "-I", str(program), *arguments]
        return subprocess.run(command, check=True, env={}, cwd="/", capture_output=True, text=True).stdout

    summed = subprocess.run(["sha256sum", str(program)], check=True, capture_output=True, text=True).stdout
    assert run("version") == f"isb-saveset {VERSION}\n{summed}"
    assert json.loads(run("version", "--json")) == {"version": VERSION, "sha256": summed.split()[0]}
    root = Path(__file__).resolve().parents[3]
    assert run("readme") == README
    assert run("requirements") == (root / "requirements-engine.txt").read_text()


def test_what_the_sources_make_has_the_same_digest(cli: Cli, tmp_path: Path) -> None:
    assert cli("version").out == f"isb-saveset {VERSION}\n{tool.sha256(tool.build())}  {PROGRAM}\n"
    path = tmp_path / "made.pyz"
    command = [sys.executable, "-m", "saveset.program.tool", str(path)]
    utils = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"
    told = subprocess.run(command, cwd=utils, check=True, capture_output=True, text=True).stdout
    assert told == f"{tool.sha256(tool.build())}  {path}\n"

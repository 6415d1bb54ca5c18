# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A repository without encryption is never taken silently: somebody may have put it in the place of an encrypted one.

Commands and modules are found by walking, so that a new one cannot do without.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.lookup import repository as repository_lookup
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import main
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve import server
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import registry

from .conftest import Lab, Result

ROOT = Path(__file__).resolve().parents[3]
SAYS = "is not encrypted: nothing proves who wrote it, or that it was not changed on purpose\n"
#: Commands that open no repository.
WITHOUT = {("version",), ("requirements",), ("readme",)}

Command = tuple[str, ...]


def leaves(parser: argparse.ArgumentParser, name: Command = ()) -> t.Iterator[tuple[Command, argparse.ArgumentParser]]:
    """Every command that can be called, with its parser."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield name, parser
    for action in inner:
        for word, sub in action.choices.items():
            yield from leaves(sub, (*name, word))


COMMANDS = dict(leaves(main.make_parser()))


def test_the_walk_finds_commands() -> None:
    assert {("list",), ("restore",), ("serve",), ("key", "list"), ("key", "sheet"), ("unpin",)} <= set(COMMANDS)
    opening = {name for name, parser in COMMANDS.items() if "--unencrypted" in parser._option_string_actions}
    assert set(COMMANDS) - opening == WITHOUT
    assert opening == {name for name, parser in COMMANDS.items() if "--repository" in parser._option_string_actions}


def call_of(parser: argparse.ArgumentParser, name: Command, folder: Path) -> list[str]:
    """The shortest right call of a command; a new argument that it needs has to be added here."""
    key = folder / "key.pem"
    key.write_text("a key\n")
    values = {
        "saveset": "fs1/m",
        "target": str(folder / "target"),
        "ids": "0" * 32,
        "key": "0" * 32,
        "file": str(folder / "exported"),
        "who": "ada",
        "why": "a test",
    }
    words = list(name)
    for action in parser._actions:
        if action.option_strings and action.required:
            words += [action.option_strings[-1], values[action.dest]]
        elif not action.option_strings and (action.required or action.dest == "saveset"):
            words.append(values[action.dest])
    return [*words, "--keep-last", "1"] if name == ("prune",) else words


@pytest.fixture
def swapped(lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    """In the place of an encrypted repository there is one without encryption, with a saveset of the same name."""
    lab.backup(mixed)
    shutil.rmtree(lab.path)
    plain = Lab(tmp_path, encryption="none")
    assert plain.path == lab.path
    plain.backup(mixed)
    monkeypatch.chdir(plain.path)
    for name in ("OPENISB_PASSPHRASE", "OPENISB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENISB_NEW_PASSPHRASE", "a new one")

    def start(*_arguments: t.Any) -> t.NoReturn:
        raise errors.InvalidValue("nbdkit", "it is not started here", "See test_serve.py")

    monkeypatch.setattr(server, "find_nbdkit", lambda: "/usr/sbin/nbdkit")
    monkeypatch.setattr(server, "start", start)
    return plain


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> t.Callable[..., Result]:
    """Calls isb-saveset."""

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        status = main.main(arguments)
        return Result(status, *capfd.readouterr())

    return run


def content(lab: Lab) -> dict[str, bytes]:
    """All objects of a repository."""
    return {str(path): path.read_bytes() for path in lab.files(".")}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT), ids=" ".join)
def test_every_command_refuses_it(
    swapped: Lab, call: t.Callable[..., Result], tmp_path: Path, name: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = call_of(COMMANDS[name], name, tmp_path)
    before = content(swapped)
    for more in ([], ["--without-key"]) if name == ("verify",) else ([],):
        refused = call(*words, *more)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err.startswith(
            f"isb-saveset: {swapped.path}: it is not encrypted, so nothing proves who wrote it"
        )
        assert refused.err.endswith(". Add --unencrypted if that is what you expect\n")
    monkeypatch.setenv("OPENISB_PASSPHRASE", "correct horse")
    refused = call(*words)
    assert refused.status == 1 and "a secret was given, but the repository is not encrypted" in refused.err
    both = call(*words, "--unencrypted")
    assert both.status == 2 and "a secret was given, too" in both.err
    assert content(swapped) == before
    assert not [path for path in (tmp_path / "target", tmp_path / "exported") if path.exists()]


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT), ids=" ".join)
def test_whoever_asks_for_it_is_told(
    swapped: Lab, call: t.Callable[..., Result], tmp_path: Path, mixed: Path, name: Command
) -> None:
    words = [*call_of(COMMANDS[name], name, tmp_path), "--unencrypted"]
    for more in ([], ["--without-key"]) if name == ("verify",) else ([],):
        told = call(*words, *more)
        assert f"isb-saveset: {swapped.path} {SAYS}" in told.err
        # Keys are of encrypted ones, this saveset id is nobody's, and nbdkit is not started.
        fails = name in {("forget",), ("serve",)} or (name[0] == "key" and name != ("key", "list"))
        assert told.status == int(fails), told.err
    if "--json" in COMMANDS[name]._option_string_actions:
        target = tmp_path / "target"
        more = ["--overwrite", f"{target}:{target.stat().st_size}"] if name == ("restore",) else []
        answer = call(*words, *more, "--json")
        facts = json.loads(answer.out)
        for item in facts if isinstance(facts, list) else [facts]:
            assert (item["encryption"], item["authenticated"]) == ("none", False)
        assert SAYS in answer.err


def test_nothing_is_said_of_an_encrypted_one(
    lab: Lab, mixed: Path, call: t.Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.backup(mixed)
    monkeypatch.setenv("OPENISB_PASSPHRASE", "correct horse")
    listed = call("list", str(lab.path), "--json")
    assert listed.err == ""
    assert [(item["encryption"], item["authenticated"]) for item in json.loads(listed.out)] == [("aes-256-gcm", True)]
    assert call("verify", "--without-key", str(lab.path)).err == ""
    monkeypatch.delenv("OPENISB_PASSPHRASE")
    refused = call("list", str(lab.path), "--unencrypted")
    assert refused.status == 1 and "the repository is encrypted" in refused.err


def test_the_engine_opens_it_for_nobody_else(plain_lab: Lab) -> None:
    for secret in (Secret(), Secret(b"")):
        with pytest.raises(errors.NotEncrypted, match="somebody may have put it in place of yours"):
            repository.Repository.open(plain_lab.store(), secret)
    for secret in (Secret(b"x"), Secret(b"x", unencrypted=True), Secret(master=bytes(32), unencrypted=True)):
        with pytest.raises(errors.WrongSecret, match="a secret was given"):
            repository.Repository.open(plain_lab.store(), secret)
    opened = repository.Repository.open(plain_lab.store(), Secret(unencrypted=True))
    again = repository.Repository.open(plain_lab.store(), opened.reading_secret())
    assert again.id == opened.id


# -- Ansible


def module_names() -> list[str]:
    """The modules that open a repository."""
    return sorted(
        path.stem
        for path in (ROOT / "plugins" / "modules").glob("*.py")
        if re.search(r"\b(REPOSITORY_ARGUMENTS|Repository)\b", path.read_text())
    )


OPTIONS: dict[str, t.Any] = {
    "volume": "fs1/m",
    "run_id": "run-1",
    "job": "job",
    "verdict": "application-consistent",
    "consistency_point": "2026-03-01T12:00:00+00:00",
    "method": "scrypt",
    "new_passphrase": "a new one",
    "keep_last": 1,
    "name": "export",
    "drill": "drill",
    "address": "127.0.0.1",
    "who": "ada",
    "why": "a test",
    "depth": "full",
}


def options_of(name: str, folder: Path, source: Path) -> dict[str, t.Any]:
    """A right call of a module, without a passphrase."""
    module = importlib.import_module(f"ansible_collections.openisb.backup.plugins.modules.{name}")
    documented = {*yaml.safe_load(module.DOCUMENTATION).get("options", {}), *getattr(module, "ARGUMENTS", {})}
    if hasattr(module, "running_job"):
        documented |= {"job", "run_dir"}
    volumes = [{"volume": OPTIONS["volume"], "source": str(source)}]
    paths = {"run_dir": str(folder / "run"), "volumes": volumes, "target": str(folder / "target")}
    if name == "saveset_export":
        paths["savesets"] = [{"name": "export", "volume": OPTIONS["volume"]}]
    return {key: value for key, value in {**OPTIONS, **paths}.items() if key in documented}


@pytest.mark.parametrize("name", module_names())
def test_every_module_refuses_it(
    swapped: Lab,
    mixed: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tmp_path: Path,
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warnings.append(text))
    module = importlib.import_module(f"ansible_collections.openisb.backup.plugins.modules.{name}")

    def run(**more: t.Any) -> dict[str, t.Any]:
        arguments = {"repository": str(swapped.path), **options_of(name, tmp_path, mixed), **more}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: dict[str, t.Any] = json.loads(capsys.readouterr().out)
        return result

    before = content(swapped)
    refused = run()
    assert refused.get("failed") and "it is not encrypted, so nothing proves who wrote it" in refused["msg"], refused
    assert "Set repository_encryption (of modules: encryption) to 'none'" in refused["msg"]
    assert content(swapped) == before and not (tmp_path / "target").exists()
    if name in {"saveset_export", "saveset_key"}:
        return  # one would start nbdkit, the other has no keys to add
    taken = run(encryption="none")
    assert not taken.get("failed"), taken
    assert [text for text in warnings if "is not encrypted: nothing proves who wrote it" in text]


def test_a_module_does_not_make_it_by_leaving_something_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.openisb.backup.plugins.modules import saveset_repository

    monkeypatch.delenv("OPENISB_PASSPHRASE", raising=False)
    folder = tmp_path / "repository"
    with patch_module_args({"repository": str(folder)}), pytest.raises(SystemExit):
        saveset_repository.main()
    assert "none was given" in json.loads(capsys.readouterr().out)["msg"]
    assert not (folder / "repo.json").exists()
    with pytest.raises(errors.NotARepository):
        repository.Repository.open(registry.open_store(str(folder)), Secret(unencrypted=True))


def tasks(node: t.Any) -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    """Every call of one of our modules in a file of tasks or plays."""
    if isinstance(node, list):
        for item in node:
            yield from tasks(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key.startswith("openisb.backup.") and isinstance(value, dict | None):
                yield key.rpartition(".")[2], value or {}
            else:
                yield from tasks(value)


def test_playbooks_and_roles_open_what_repository_encryption_says() -> None:
    """And nothing else decides: where the variable is missing, the module's default is encryption."""
    assert repository_lookup.ENCRYPTION == {"encryption": ("repository_encryption",)}
    opening = set(module_names())
    seen = set()
    for path in [*ROOT.glob("roles/**/*.yml"), *ROOT.glob("playbooks/*.yml")]:
        for name, arguments in tasks(yaml.safe_load(path.read_text())):
            if name in opening:
                seen.add(name)
                assert "encryption" not in arguments, f"{name} in {path}: only the lookup decides"
    assert {"block_backup", "block_restore", "saveset_info", "saveset_verify", "saveset_repository"} <= seen

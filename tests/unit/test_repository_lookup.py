# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What opens a repository is decided in one place, and comes to the same wherever it was set."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).parents[2]
SECRETS = ("repository_passphrase", "repository_writer_passphrase", "repository_private_key")
#: Options of the modules that open a repository.
OPTIONS = {"passphrase", "private_key", "private_key_password"}
#: The role whose options they are, where they are written into the repository for the first time.
ROLE = ROOT / "roles/repository"

Keys = Callable[..., Any]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """What the lookup finds for a purpose, with variables of host `backup` and a passphrase in the environment."""

    def find(purpose: str, variables: dict[str, Any], environment: str = "", host: str | None = "backup") -> Any:
        monkeypatch.setenv("OPENISB_PASSPHRASE", environment)
        told = {
            name: trust_as_template(value) if isinstance(value, str) else value for name, value in variables.items()
        }
        known = {"hostvars": {"backup": told}, **({} if host else told)}
        of = f", host={host!r}" if host else ""
        template = f"{{{{ lookup('openisb.backup.repository', {purpose!r}{of}) }}}}"
        return Templar(loader=DataLoader(), variables=known).template(trust_as_template(template))

    return find


def passphrase(of: str) -> dict[str, str]:
    """What is found where only a passphrase is."""
    return {"passphrase": of} if of else {}


READER, WRITER = {"repository_passphrase": "reader"}, {"repository_writer_passphrase": "writer"}


@pytest.mark.parametrize(
    ("variables", "environment", "write", "read", "manage"),
    [
        ({}, "", "", "", ""),
        ({}, "env", "env", "env", "env"),
        (READER, "env", "reader", "reader", "reader"),
        ({"repository_passphrase": ""}, "env", "env", "env", "env"),
        (WRITER, "", "writer", "", "writer"),
        (WRITER, "env", "writer", "env", "env"),
        ({**READER, **WRITER}, "env", "writer", "reader", "reader"),
        ({"repository_passphrase": 1234}, "", "1234", "1234", "1234"),
    ],
)
def test_who_opens_a_repository(
    keys: Keys, variables: dict[str, Any], environment: str, write: str, read: str, manage: str
) -> None:
    """The server's own variables come before the environment, and what a purpose needs least comes first."""
    found = [keys(purpose, variables, environment) for purpose in ("write", "read", "manage")]
    assert found == [passphrase(write), passphrase(read), passphrase(manage)]


def test_a_private_key_reads_and_does_not_write(keys: Keys) -> None:
    private = {"repository_private_key": "/run/key.pem", "repository_private_key_password": "of the key"}
    both = {"private_key": "/run/key.pem", "private_key_password": "of the key"}
    assert [keys(purpose, private) for purpose in ("write", "read", "manage")] == [{}, both, both]


def test_what_is_not_needed_is_not_looked_at(keys: Keys) -> None:
    """A vault that only opens for restores keeps no run from writing."""
    vault = {"repository_passphrase": "{{ lookup('ansible.builtin.file', '/nowhere') }}", **WRITER}
    assert keys("write", vault) == passphrase("writer")
    with pytest.raises(AnsibleError, match="/nowhere"):
        keys("read", vault)


def test_the_task_s_own_variables_count_where_no_host_is_named(keys: Keys) -> None:
    """So does what is given to a role, or with -e."""
    assert keys("read", READER, "env", host=None) == passphrase("reader")
    assert keys("read", {}, "env", host=None) == passphrase("env")


@pytest.mark.parametrize(
    ("purpose", "host", "message"),
    [
        ("write", "other", "has no backup server other: name one of the group backup_servers"),
        ("look", "backup", "is opened to write, read, manage, create; not to look"),
    ],
)
def test_what_cannot_be_looked_up_is_named(keys: Keys, purpose: str, host: str, message: str) -> None:
    with pytest.raises(AnsibleError, match=message):
        keys(purpose, {}, host=host)


def test_what_looks_like_a_template_in_the_environment_is_a_passphrase(keys: Keys) -> None:
    assert keys("read", {}, "{{ 1 + 1 }}{% if") == passphrase("{{ 1 + 1 }}{% if")


def test_where_it_is_and_how_it_is_protected_comes_with_the_secrets(keys: Keys) -> None:
    host = {"openisb_host": {"repository": "/srv/r"}, "repository_encryption": "none"}
    assert keys("write", host) == {"repository": "/srv/r", "encryption": "none"}


def test_what_creates_a_repository_uses_no_private_key(keys: Keys) -> None:
    assert keys("create", {**WRITER, "repository_private_key": "/run/key.pem"}) == passphrase("writer")


# One place

GROUP = "group/openisb.backup.repository"


def action_group() -> list[str]:
    """The modules that the lookup's options are set for."""
    found: list[str] = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["repository"]
    return found


def openings(node: Any, defaults: str = "") -> list[tuple[dict[str, Any], str]]:
    """The tasks in a parsed file that open a repository, each with the group's defaults that hold there."""
    if isinstance(node, list):
        return [task for each in node for task in openings(each, defaults)]
    if not isinstance(node, dict):
        return []
    defaults = (node.get("module_defaults") or {}).get(GROUP, defaults)
    found = [task for each in node.values() for task in openings(each, defaults)]
    ours = {f"openisb.backup.{module}" for module in action_group()} & set(node)
    return [*found, (node, defaults)] if ours else found


def task_files() -> list[Path]:
    """Every file that tasks are in."""
    return [*ROOT.glob("playbooks/*.yml"), *ROOT.glob("roles/**/*.yml")]


def test_only_the_lookup_decides() -> None:
    """Elsewhere no variable with a secret is looked at, and no environment of the controller."""
    texts = {path: path.read_text() for path in task_files() if ROLE not in path.parents}
    assert len(texts) > 80
    words = re.compile("|".join((*SECRETS, r"env'\s*,\s*'OPENISB_")))
    assert [path for path, text in texts.items() if words.search(text)] == []
    role = {path.name for path in ROLE.rglob("*.yml") if words.search(path.read_text())}
    assert role == {"argument_specs.yml", "main.yml", "create.yml"}


def test_the_action_group_is_every_module_that_opens_a_repository() -> None:
    modules = {path.stem for path in ROOT.glob("plugins/modules/*.py") if "REPOSITORY_ARGUMENTS" in path.read_text()}
    assert set(action_group()) == modules


def test_every_task_that_opens_a_repository_asks_it() -> None:
    """And sets none of its options in another way."""
    tasks = [(path, *found) for path in task_files() for found in openings(yaml.safe_load(path.read_text()))]
    assert len(tasks) > 13
    for path, task, defaults in tasks:
        ((_name, arguments),) = [(key, value or {}) for key, value in task.items() if key.startswith("openisb.backup.")]
        assert not {*OPTIONS, "repository", "encryption"} & set(arguments), f"{path}: {task['name']}"
        if arguments.get("state") == "absent":  # opens nothing
            continue
        asked = re.fullmatch(
            r"\{\{ lookup\('openisb\.backup\.repository', '(write|read|manage|create)'(, host=[\w.]+)?\) \}\}", defaults
        )
        assert asked, f"{path}: {task['name']}"
        assert (asked[1] == "create") == (ROLE in path.parents), f"{path}: {task['name']}"
        delegated = (task.get("delegate_to") or "").strip("{} ")
        assert (asked[2] or "").removeprefix(", host=") == delegated, f"{path}: {task['name']}"


@pytest.mark.slow
def test_a_play_finds_them_and_who_has_none_learns_where_to_put_one(
    play: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module reads no environment but its own host's, so what the controller's has must come with the task."""
    repository = {"repository": str(tmp_path / "r")}
    keys = {GROUP: "{{ lookup('openisb.backup.repository', 'write', host='backup') }}"}
    opened = {"openisb.backup.saveset_info": repository}
    away = {"OPENISB_PASSPHRASE": ""}
    host = {"backup": {"repository_passphrase": "{{ own }}", "own": "correct horse"}}
    made, found, refused = play(
        [
            {"openisb.backup.saveset_repository": {**repository, "passphrase": "correct horse"}},
            {**opened, "module_defaults": keys, "environment": away},
            {**opened, "environment": away},
        ],
        hosts=host,
    )
    assert made["changed"] and found["savesets"] == []
    assert "encrypted, and no secret was given. Set OPENISB_PASSPHRASE in the environment" in refused["msg"]
